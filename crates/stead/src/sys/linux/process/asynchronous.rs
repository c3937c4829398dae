//! What tokio's reactor waits for: the process's end, and its output.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;

use super::Running;

/// What waiting is done by.
pub(crate) const WAITING: &str = "epoll";

/// Waits for the process to end; dropping the future loses nothing.
// tokio's sound successor of this call is an unsafe one, and new: an `OwnedFd` fulfils its contract by its type.
#[allow(deprecated)]
pub(crate) async fn ended(running: &Running) -> io::Result<()> {
    let pidfd = AsyncFd::with_interest(running.pidfd().try_clone_to_owned()?, Interest::READABLE)?;
    pidfd.readable().await.map(drop)
}

/// The reactor's end of a pipe.
pub(crate) fn reader(pipe: OwnedFd) -> io::Result<Receiver> {
    Receiver::from_owned_fd(pipe)
}
