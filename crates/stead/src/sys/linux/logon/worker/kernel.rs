//! What a logon asks of the system and changes in its own process, one call at a time.
//!
//! Apart from the order of the steps (`log_on`), which the tests run against a system that fails and lies (`model`).

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;

use crate::error::Result;
use crate::sys::account::AccountEntry;
use crate::sys::group;
use crate::sys::limit::{self, Limit};
use crate::sys::logon::logon_gid;
use crate::sys::logon::message::LogonGidRequest;
use crate::sys::token::{Gid, GroupSet, SecurityContext, none_as_written};

/// The account of this name; where not `exact`, under whatever spelling.
pub(super) fn account(name: &CStr, exact: bool) -> io::Result<Option<AccountEntry>> {
    if exact { AccountEntry::by_name(name) } else { AccountEntry::by_any_name(name) }
}

/// All groups that the databases have the account in, its own among them.
pub(super) fn groups_of(account: &AccountEntry) -> io::Result<GroupSet> {
    group::groups_of(&account.name, account.gid)
}

/// The uid and the gid that stand for "not mapped".
pub(super) fn overflow_ids() -> (u32, u32) {
    let read =
        |file: &str| fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65534);
    (read("/proc/sys/kernel/overflowuid"), read("/proc/sys/kernel/overflowgid"))
}

/// Changes all gids of this process.
pub(super) fn set_gid(gid: Gid) -> io::Result<()> {
    let gid = gid.as_raw();
    // SAFETY: the worker has one thread; all that the call does is to change its gids.
    if unsafe { libc::setresgid(gid, gid, gid) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Changes the supplementary groups of this process, which has one thread.
pub(super) fn set_groups(groups: &GroupSet) -> io::Result<()> {
    let raw = |gid: &Gid| rustix::process::Gid::from_raw(gid.as_raw());
    Ok(rustix::thread::set_thread_groups(&groups.as_slice().iter().map(raw).collect::<Vec<_>>())?)
}

/// The supplementary groups as they are.
pub(super) fn groups() -> io::Result<GroupSet> {
    Ok(rustix::process::getgroups()?.into_iter().filter_map(|gid| Gid::new(gid.as_raw())).collect())
}

/// What this process is.
pub(super) fn context() -> Result<SecurityContext> {
    crate::sys::token::own_context()
}

/// The umask, which a module may have set.
pub(super) fn umask() -> u32 {
    let umask = rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::umask(umask);
    umask.as_raw_mode()
}

/// The label that a module (pam_selinux) chose for the next program: taken out of the worker, because the
/// trampoline is not that program.
pub(super) fn take_exec_label() -> io::Result<Option<Vec<u8>>> {
    let Some(label) = label_in("/proc/thread-self/attr/exec")? else { return Ok(None) };
    let own = label_in("/proc/thread-self/attr/current")?.unwrap_or_default();
    fs::write("/proc/thread-self/attr/exec", none_as_written(&own)?).map_err(|error| {
        let [label, own] = [&label, &own].map(|label| String::from_utf8_lossy(label).into_owned());
        io::Error::other(format!(
            "a PAM module chose the security label {label:?} for the next program, and the session worker, which is not \
             that program, may not go on with its own, {own:?}: {error}; let the policy allow that (in an AppArmor profile: \
             `change_profile -> {own},`), or remove the module from the PAM service"
        ))
    })?;
    Ok(Some(label))
}

fn label_in(file: &str) -> io::Result<Option<Vec<u8>>> {
    let mut label = match fs::read(file) {
        // No module keeps labels, the kernel has none at all, or none was chosen (AppArmor).
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT)) =>
        {
            return Ok(None);
        }
        found => found?,
    };
    while label.last().is_some_and(|byte| matches!(byte, 0 | b'\n')) {
        label.pop();
    }
    Ok((!label.is_empty()).then_some(label))
}

/// The number of the audit session, where there is one.
pub(super) fn audit_session() -> Option<u32> {
    let text = fs::read_to_string("/proc/self/sessionid").ok()?;
    text.trim().parse().ok().filter(|session| *session != u32::MAX)
}

/// The limits of this process but the number of its descriptors: what it may receive for a process is what that may have.
pub(super) fn limits() -> Vec<(Limit, u64, u64)> {
    let mut limits = limit::own_limits();
    limits.retain(|(limit, ..)| *limit != Limit::OpenFiles);
    limits
}

/// The limits that modules (pam_limits) set for the session's processes: taken out of the worker, whose own processor
/// time is as long as the session, and which writes, when it closes it, what is none of the user's files.
pub(super) fn take_limits(before: &[(Limit, u64, u64)]) -> Vec<(u32, u64, u64)> {
    limit::take_back(before)
}

/// A gid that no other session ever had or will have.
pub(super) fn new_logon_gid(request: &LogonGidRequest) -> std::result::Result<u32, String> {
    logon_gid::allocate(&request.directory, request.first..=request.last)
}

/// Whether the server's end of the socket is closed or shut.
pub(super) fn server_is_gone(socket: &OwnedFd) -> bool {
    let mut one = [PollFd::new(socket, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut one, Some(&now)).is_ok()
        && one[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_label_that_cannot_be_read_is_not_taken_for_none() {
        let thread = std::thread::spawn(|| {
            assert_eq!(super::take_exec_label().unwrap(), None);
            rustix::thread::set_no_new_privs(true).unwrap();
            testbed::confine::Filter::new()
                .deny(libc::SYS_openat, libc::EMFILE)
                .install_on_this_thread()
                .unwrap();
            let failed = super::take_exec_label().unwrap_err();
            assert_eq!(failed.raw_os_error(), Some(libc::EMFILE));
        });
        thread.join().unwrap();
    }
}
