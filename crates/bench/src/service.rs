//! The service of the bench's own, as `stead serve` runs it, and a client of the server's.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use stead::{Client, Confinement, Primary, Privilege, Service, Token};
use testbed::{Bed, User};

use crate::Outcome;

/// What lets the server do everything for everybody: what is measured is not the refusal.
const POLICY: &str = r#"
[[allow]]
callers = { users = ["root", "svc"] }
clients = "everyone"
privileges = ["assign-primary-token", "impersonate", "logon", "tcb"]
programs = "any"
logon-types = "any"
"#;

/// The argument that makes this program a client of the socket that is the next one.
pub(crate) const CONNECT: &str = "--connect";

/// A service that ends with the measuring.
pub(crate) struct TheService {
    process: Child,
    pub(crate) socket: PathBuf,
}

impl TheService {
    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    ///
    /// When it ends instead.
    pub(crate) fn start(bed: &Bed) -> Outcome<Self> {
        let folder = bed.scratch("service");
        let policy = folder.join("policy");
        fs::create_dir(&policy)?;
        fs::write(policy.join("policy.toml"), POLICY)?;
        let socket = folder.join("service.sock");
        let process = Command::new(bed.bin("stead"))
            .arg("serve")
            .args([Path::new("--socket"), &socket, Path::new("--policy"), &policy])
            .args([
                Path::new("--state"),
                &folder.join("state"),
                Path::new("--audit"),
                &folder.join("audit.jsonl"),
            ])
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("log"))?)
            .spawn()?;
        let mut service = Self { process, socket };
        while UnixStream::connect(&service.socket).is_err() {
            if let Some(status) = service.process.try_wait()? {
                let said = fs::read_to_string(folder.join("log")).unwrap_or_default();
                return Err(format!("stead serve ended: {status}: {}", said.trim()).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(service)
    }

    /// A connection to it.
    ///
    /// # Errors
    ///
    /// What the service says.
    pub(crate) fn connect(&self) -> Outcome<Service> {
        Ok(Service::connect_to(&self.socket)?)
    }
}

impl Drop for TheService {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A process of a user's that is connected to a socket of the server's.
pub(crate) struct Connected {
    process: Child,
    listener: UnixListener,
    stream: UnixStream,
}

impl Connected {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When it does not connect.
    pub(crate) fn start(bed: &Bed, user: &User) -> Outcome<Self> {
        let path = bed.scratch("client").join("socket");
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        let mut process = Command::new("setpriv")
            .args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)])
            .args(["--init-groups", "--inh-caps=-all", "--"])
            .arg(bed.this_program())
            .arg(CONNECT)
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = [0; 6];
        process.stdout.as_mut().ok_or("no standard output")?.read_exact(&mut ready)?;
        let (stream, _) = listener.accept()?;
        Ok(Self { process, listener, stream })
    }

    /// Its token, by the server's own privileges.
    ///
    /// # Errors
    ///
    /// What the library says.
    pub(crate) fn token(&self) -> Outcome<Token<Primary>> {
        // A container's root may not look into the client; what is measured is not that refusal.
        let inspects = Privilege::InspectClient.status()?.enabled;
        let confinement = if inspects { Confinement::Refuse } else { Confinement::Unknown };
        Ok(Client::with(confinement).of(&self.stream)?.token()?.to_primary()?)
    }

    /// Its token, through the service.
    ///
    /// # Errors
    ///
    /// What the service says.
    pub(crate) fn token_through(&self, service: &Service) -> Outcome<Token<Primary>> {
        Ok(service.client_of(&self.stream, &self.listener)?.token()?.to_primary()?)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Is a client: connects, says so, and stays until its standard input ends.
///
/// # Errors
///
/// When nothing listens there.
pub(crate) fn be_client(path: &Path) -> Outcome {
    let _stream = UnixStream::connect(path)?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
