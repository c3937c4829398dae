//! The session keyring of a logon session is its user's.

use std::ffi::c_long;
use std::io;

use rustix::process::{Gid, Uid, getgid, getuid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use crate::sys::account::AccountEntry;

const GET_KEYRING_ID: c_long = 0;
const JOIN_SESSION_KEYRING: c_long = 1;
const CHOWN: c_long = 4;
const READ: c_long = 11;
const SESSION_KEYRING: c_long = -3;

fn keyctl(operation: c_long, first: c_long, second: c_long, third: c_long) -> io::Result<c_long> {
    // SAFETY: the operations used here take integers only; a pointer among them is null and of length 0.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, operation, first, second, third, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A keyring's number.
pub(super) type Serial = c_long;

/// The present session keyring.
pub(super) fn current() -> Option<Serial> {
    keyctl(GET_KEYRING_ID, SESSION_KEYRING, 0, 0).ok()
}

/// The worker was given a session keyring of its own when it started. Where no module (pam_keyinit) put
/// another in its place, it becomes the user's.
///
/// Giving it away takes CAP_SYS_ADMIN in the initial user namespace. A server without gives the session a new
/// one, which the kernel makes for the real uid; unless a module has put keys into the first one, which then stays
/// the server's: the session's processes possess it all the same.
pub(super) fn give_to(first: Option<Serial>, entry: &AccountEntry) {
    let Some(keyring) = first.filter(|_| current() == first) else { return };
    let (uid, gid) = (entry.uid.as_raw(), entry.gid.as_raw());
    if keyctl(CHOWN, keyring, uid.into(), gid.into()).is_err()
        && keyctl(READ, keyring, 0, 0).is_ok_and(|size| size == 0)
    {
        join_as(Uid::from_raw(uid), Gid::from_raw(gid));
    }
}

/// Joins a new session keyring with the user's real ids, as pam_keyinit does. This process has one thread.
///
/// For these few calls the user may signal the worker, and so end or delay this logon of his own; tracing it
/// would take more.
fn join_as(uid: Uid, gid: Gid) {
    // A user who is root: on the way back from a real uid of 0 the kernel would take all capabilities of a server
    // that is not root (capabilities(7), "Effect of user ID changes").
    let own = (getuid(), getgid());
    if uid.is_root() || own.0 == uid {
        return;
    }
    if set_thread_res_gid(gid, None, None).is_ok() && set_thread_res_uid(uid, None, None).is_ok() {
        // Over the user's quota it fails, and the server's stays.
        let _ = keyctl(JOIN_SESSION_KEYRING, 0, 0, 0);
    }
    let back = set_thread_res_uid(own.0, None, None).and_then(|()| set_thread_res_gid(own.1, None, None));
    if back.is_err() || (getuid(), getgid()) != own {
        // Neither the server nor the user: nothing may go on from here. The server sees that its worker has ended.
        std::process::abort();
    }
}
