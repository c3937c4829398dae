//! The demo's clients: real processes of real users, started by the usual tools.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use testbed::{Bed, Probe, User};

/// The first argument that makes this program a client.
pub const ROLE: &str = "--client";

/// Connects, and stays until told to go by the end of standard input.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    let path = arguments.first().ok_or_else(|| io::Error::other("no socket to connect to"))?;
    let _stream = UnixStream::connect(path)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(0)
}

/// A process of a user that is connected to the server's socket.
pub struct ConnectedClient(Child);

impl ConnectedClient {
    /// Starts it by `setpriv`, with more of its options where the client is to be confined.
    pub fn start(bed: &Bed, user: &User, socket: &Path, confinement: &[&str]) -> io::Result<Self> {
        Command::new("setpriv")
            .args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)])
            .args(["--init-groups", "--inh-caps=-all"])
            .args(confinement)
            .arg("--")
            .arg(bed.this_program())
            .args(["demo", ROLE])
            .arg(socket)
            .current_dir("/")
            .stdin(Stdio::piped())
            .spawn()
            .map(Self)
    }

    /// What the kernel says of it.
    pub fn seen(&self) -> io::Result<Probe> {
        Probe::of(pid(&self.0))
    }
}

impl Drop for ConnectedClient {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            eprintln!("a client could not be waited for: {error}");
        }
    }
}

/// A process of a user as `setpriv` makes it: the measure for one that was logged on.
pub struct LoggedOnControl(Child);

impl LoggedOnControl {
    /// Starts it, and waits until it runs as the user.
    pub fn start(user: &User) -> io::Result<Self> {
        let mut child = Command::new("setpriv")
            .args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)])
            .args(["--init-groups", "--inh-caps=-all", "--", "sh", "-c", "echo ready; read -r until_told"])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(stdout) = &mut child.stdout {
            stdout.read_exact(&mut [0; 6])?;
        }
        Ok(Self(child))
    }

    /// What the kernel says of it.
    pub fn seen(&self) -> io::Result<Probe> {
        Probe::of(pid(&self.0))
    }
}

impl Drop for LoggedOnControl {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            eprintln!("the control could not be waited for: {error}");
        }
    }
}

fn pid(child: &Child) -> i32 {
    child.id().cast_signed()
}
