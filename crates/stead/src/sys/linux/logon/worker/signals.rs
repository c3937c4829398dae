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

/// Takes them as before.
pub(super) fn unblock() {
    let set = set();
    // SAFETY: as in `descriptor`.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
}
