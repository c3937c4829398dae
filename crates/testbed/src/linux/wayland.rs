//! A real Wayland compositor for tests: Weston, without a screen.

use crate::linux::accounts::User;
use crate::linux::bed::Bed;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a compositor may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A compositor that runs as a user, with its socket in that user's own runtime directory; ended when dropped.
#[derive(Debug)]
pub struct Compositor {
    child: Child,
    directory: PathBuf,
}

/// Whether Weston is installed; the reason for a skipped test where it is not.
pub fn missing() -> Option<&'static str> {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("weston").is_file()));
    (!there).then_some("needs weston (apt-get install weston)")
}

impl Compositor {
    /// Starts it, and waits until its socket is there.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or ends before it has a socket.
    pub fn start(bed: &Bed, user: &User) -> io::Result<Self> {
        let directory = bed.scratch("wayland").join("runtime");
        fs::create_dir(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        chown(&directory, Some(user.uid), Some(user.gid))?;
        Self::start_in(user, &directory)
    }

    /// The same with a runtime directory that is there already, and is the user's.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_in(user: &User, directory: &Path) -> io::Result<Self> {
        let log = fs::File::create(directory.with_extension("log"))?;
        let child = Command::new("setpriv")
            .args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)])
            .args(["--init-groups", "--inh-caps=-all", "--pdeathsig=KILL", "--", "weston"])
            .args(["--backend=headless-backend.so", "--no-config", "--idle-time=0", "--socket=wayland-0"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &user.home)
            .env("XDG_RUNTIME_DIR", directory)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut compositor = Self { child, directory: directory.to_owned() };
        let end = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(compositor.socket()).is_err() {
            if compositor.child.try_wait()?.is_some() || Instant::now() > end {
                let said = fs::read_to_string(directory.with_extension("log")).unwrap_or_default();
                return Err(io::Error::other(format!("weston did not start: {said}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(compositor)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("wayland-0")
    }

    /// The runtime directory in which the socket lies, its user's own.
    pub fn runtime_directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Compositor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
