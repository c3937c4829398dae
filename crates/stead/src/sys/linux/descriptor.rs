//! Descriptors that whoever started this process left open for it.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A copy of the descriptor of this number: the number alone proves to nobody that it may be owned. (`pidfd_getfd` of one's
/// own process does the same without unsafe code; a container's seccomp filter denies it.)
///
/// # Errors
///
/// Where there is no such descriptor, or no room for one more.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: three numbers; F_DUPFD_CLOEXEC touches no memory, and no descriptor but the new one.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and told its number to this call alone, so that nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
