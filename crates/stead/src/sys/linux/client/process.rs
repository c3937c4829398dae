//! The context of another process, by pidfd.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use super::confinement::{Policy, examine};
use super::identity::{changed, gone};
use super::pidfd;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::proc::{self, Status};
use crate::sys::token::{CapabilitySet, SecurityContext, from_status, label, login_uid, open_directory};
use crate::token::TokenData;

const DOING: &str = "reading the token of a process";

/// What the token of the process is: its context, its capabilities included, its limits, and what is known of its
/// confinement.
pub(crate) fn process_context(process: BorrowedFd<'_>, policy: Policy) -> Result<TokenData> {
    let read = || pidfd::ids(process, None).map_err(unreadable);
    let before = read()?.ok_or_else(|| gone(DOING))?;
    let reading = examine(Some(process), before.pid, None, policy, DOING)?;
    let after = read()?.ok_or_else(|| gone(DOING))?;
    let status = reading.status.as_ref().ok_or_else(|| {
        let what = "its status in /proc cannot be read".into();
        Error::new(DOING, ErrorKind::NoIdentity { what })
    })?;
    if before != after || status.uids != after.uids || status.gids != after.gids {
        return Err(changed(DOING, "its ids changed while they were read".into()));
    }
    let mut context = from_status(status).ok_or_else(|| differing(status))?;
    // Its securebits cannot be read. A user id 0 without SECBIT_NOROOT gets its whole bounding set back at
    // execve, so that set is cut down to what the process has now.
    if context.uid.as_raw() == 0 {
        let sets = &mut context.capabilities;
        sets.bounding = CapabilitySet::from_bits(sets.bounding.bits() & sets.permitted.bits());
    }
    context.no_new_privs = reading.no_new_privs;
    context.label = reading.label;
    context.login_uid = reading.login_uid;
    Ok(TokenData { limits: reading.limits, ..TokenData::new(context, None, reading.knowledge) })
}

/// The context of the process's first thread, to be shown; how it is confined is not looked at.
pub(crate) fn shown_context(process: BorrowedFd<'_>) -> Result<SecurityContext> {
    let ids = || pidfd::ids(process, None).map_err(unreadable);
    let before = ids()?.ok_or_else(|| gone(DOING))?;
    let read = || {
        let directory = open_directory(&format!("/proc/{}", before.pid))?;
        let text = proc::read_at(&directory, "status")?;
        let status = proc::parse_status(&text).ok_or_else(|| proc::malformed("its status in /proc"))?;
        // Its label is a secret from other users' processes on some systems; all else is not.
        let label = match label(&directory) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            found => found?,
        };
        Ok::<_, io::Error>((status, label, login_uid(&directory)?))
    };
    let (status, label, login_uid) =
        read().map_err(|source| Error::system(DOING, "read /proc/PID/status", source))?;
    // Its number is no other's while the pidfd's process has not ended.
    let after = ids()?.ok_or_else(|| gone(DOING))?;
    if before != after || status.uids != after.uids || status.gids != after.gids {
        return Err(changed(DOING, "its ids changed while they were read".into()));
    }
    let context = from_status(&status).ok_or_else(|| differing(&status))?;
    Ok(SecurityContext { label, login_uid, ..context })
}

fn unreadable(source: io::Error) -> Error {
    if source.raw_os_error() == Some(libc::EBADF) {
        let what = "the descriptor is no pidfd".into();
        return Error::new(DOING, ErrorKind::InvalidInput { what }).with_source(source);
    }
    Error::system(DOING, "ioctl(PIDFD_GET_INFO)", source)
}

fn differing(status: &Status) -> Error {
    let what = format!("real, effective and saved ids differ: {:?}, {:?}", status.uids, status.gids);
    Error::new(DOING, ErrorKind::NoIdentity { what: what.into() })
}
