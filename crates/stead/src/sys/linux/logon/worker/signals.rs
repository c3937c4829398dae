//! The signals that the worker's loop hears.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

fn set() -> libc::sigset_t {
    // SAFETY: a signal set is plain bits, which sigemptyset then sets.
    let mut set = unsafe { std::mem::zeroed() };
    // SAFETY: the set is valid, the signals exist.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
            libc::sigaddset(&raw mut set, signal);
        }
    }
    set
}

/// Takes the signals by descriptor from now on.
pub(super) fn descriptor() -> io::Result<OwnedFd> {
    let set = set();
    // SAFETY: a valid set; the worker has one thread, so its mask is the process's.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a valid set; the result is checked.
    let raw = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Which are ignored, the first in the lowest bit; a PAM module may have seen to that.
pub(super) fn ignored() -> u64 {
    (1..=libc::SIGRTMAX()).fold(0, |ignored, signal| {
        // SAFETY: a sigaction is plain data, for which zero is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: nothing is changed; the old action is valid for the call.
        let read = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } == 0;
        // The C library tells nothing of its own two: they may be anything.
        let perhaps = !read || action.sa_sigaction == libc::SIG_IGN;
        if perhaps { ignored | 1 << (signal - 1) } else { ignored }
    })
}

/// Takes them as before.
pub(super) fn unblock() {
    let set = set();
    // SAFETY: as in `descriptor`.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_ignored_is_found() {
        let bit = 1 << (libc::SIGUSR2 - 1);
        assert_eq!(ignored() & bit, 0);
        // SAFETY: no handler runs; no other test minds this signal.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        assert_ne!(ignored() & bit, 0);
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_DFL) };
        assert_eq!(ignored() & bit, 0);
    }
}
