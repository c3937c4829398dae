//! Waiting for a process by its pidfd.

use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits until the process has ended.
// tokio's sound successor of this call is an unsafe one: an `OwnedFd` fulfils its contract by its type.
#[allow(deprecated)]
pub(super) async fn readable(pidfd: OwnedFd) -> std::io::Result<OwnedFd> {
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    pidfd.readable().await.map(drop)?;
    Ok(pidfd.into_inner())
}
