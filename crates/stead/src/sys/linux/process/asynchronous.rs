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

/// What comes out of a pipe until its end.
pub(crate) async fn read_to_end(pipe: OwnedFd) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let pipe = Receiver::from_owned_fd(pipe)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        pipe.readable().await?;
        match pipe.try_read(&mut buffer) {
            Ok(0) => return Ok(all),
            Ok(length) => all.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
