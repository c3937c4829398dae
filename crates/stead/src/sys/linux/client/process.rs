//! The context of another process, by pidfd.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

use super::confinement::{Policy, examine};
use super::identity::{changed, gone};
use super::pidfd;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::token::{CapabilitySet, SecurityContext, from_status};
use crate::token::ConfinementKnowledge;

const DOING: &str = "reading the token of a process";

/// The context of the process, its capabilities included, and what is known of its confinement.
pub(crate) fn process_context(
    process: BorrowedFd<'_>,
    policy: Policy,
) -> Result<(SecurityContext, ConfinementKnowledge)> {
    let read = || {
        pidfd::ids(process, None).map_err(|source| match source.raw_os_error() {
            Some(libc::EBADF) => {
                let what = "the descriptor is no pidfd".into();
                Error::new(DOING, ErrorKind::InvalidInput { what }).with_source(source)
            }
            _ => Error::system(DOING, "ioctl(PIDFD_GET_INFO)", source),
        })
    };
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
    let mut context = from_status(status).ok_or_else(|| {
        let what = format!("real, effective and saved ids differ: {:?}, {:?}", status.uids, status.gids);
        Error::new(DOING, ErrorKind::NoIdentity { what: what.into() })
    })?;
    // Its securebits cannot be read. A user id 0 without SECBIT_NOROOT gets its whole bounding set back at
    // execve, so that set is cut down to what the process has now.
    if context.uid.as_raw() == 0 {
        let sets = &mut context.capabilities;
        sets.bounding = CapabilitySet::from_bits(sets.bounding.bits() & sets.permitted.bits());
    }
    context.no_new_privs = reading.no_new_privs;
    context.label = reading.label;
    context.login_uid = reading.login_uid;
    Ok((context, reading.knowledge))
}
