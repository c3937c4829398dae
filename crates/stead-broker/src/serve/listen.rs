//! Where the service listens.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, SocketType};

use super::folder::Folder;
use super::options::ServeError;

/// How long a service that was killed may seem to run.
const LINGERING: Duration = Duration::from_secs(2);

/// Removes the socket that the service bound, when it ends.
#[derive(Debug)]
pub(super) struct BoundAt(Option<PathBuf>);

impl Drop for BoundAt {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The listener: the service manager's, or one of our own.
pub(super) fn listener(path: &Path) -> Result<(UnixListener, BoundAt), ServeError> {
    let failed = |error| ServeError::Listen { path: path.to_owned(), error };
    let (listener, bound) = match passed().map_err(failed)? {
        Some(listener) => (listener, BoundAt(None)),
        None => bind(path)?,
    };
    listener.set_nonblocking(true).map_err(failed)?;
    Ok((listener, bound))
}

/// The one that the service manager passed, looked at before it is believed.
fn passed() -> io::Result<Option<UnixListener>> {
    let mut numbers = sd_notify::listen_fds()?;
    let Some(number) = numbers.next() else { return Ok(None) };
    if numbers.next().is_some() {
        return Err(io::Error::other("the service manager passed more than one socket"));
    }
    let passed = stead::descriptor::inherited(number)?;
    let of_unix = rustix::net::sockopt::socket_domain(&passed)? == AddressFamily::UNIX;
    let stream = rustix::net::sockopt::socket_type(&passed)? == SocketType::STREAM;
    if !of_unix || !stream || !rustix::net::sockopt::socket_acceptconn(&passed)? {
        return Err(io::Error::other("what the service manager passed is no listening Unix stream socket"));
    }
    Ok(Some(passed.into()))
}

fn bind(path: &Path) -> Result<(UnixListener, BoundAt), ServeError> {
    let failed = |error| ServeError::Listen { path: path.to_owned(), error };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // One that a run left which could not remove it; nobody answers at it.
            if !passes(|| UnixStream::connect(path).is_err()) {
                return Err(ServeError::AnotherRuns { path: path.to_owned() });
            }
            std::fs::remove_file(path).map_err(failed)?;
            UnixListener::bind(path).map_err(failed)?
        }
        bound => bound.map_err(failed)?,
    };
    // Everybody may connect: who does is told by the kernel, and what it may do by the policy.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok((listener, BoundAt(Some(path.to_owned()))))
}

/// Held as long as the service runs: two of them would not know of each other's processes.
pub(super) fn only_one(state: &Path) -> Result<File, ServeError> {
    let failed = |error| ServeError::State { path: state.to_owned(), error };
    Folder::at(state).map_err(failed)?;
    let path = state.join("lock");
    let lock = File::create(&path).map_err(failed)?;
    let mut locked = Ok(());
    let tried = || {
        locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        locked != Err(rustix::io::Errno::AGAIN)
    };
    if !passes(tried) {
        return Err(ServeError::AnotherRuns { path });
    }
    locked.map(|()| lock).map_err(|errno| failed(errno.into()))
}

/// Whether something comes to be so within a moment. What a run that was killed was just creating has that run's
/// descriptors, its lock and its listener, until it executes its program.
fn passes(mut is_so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + LINGERING;
    while !is_so() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
