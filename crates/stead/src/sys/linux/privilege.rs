//! Capabilities of the calling thread, as privileges.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use super::impersonate::thread::{Capabilities, Fault};
use super::token::{Capability, CapabilitySet};
use crate::error::{Error, Result};
use crate::privilege::{Privilege, PrivilegeStatus};

/// What a privilege is on Linux.
pub(crate) fn capabilities(privilege: Privilege) -> CapabilitySet {
    let needed: &[Capability] = match privilege {
        // CAP_SETPCAP for the bounding set, securebits and inheritable set; CAP_KILL because a switched
        // child is another user's process.
        Privilege::AssignPrimaryToken => {
            &[Capability::Setuid, Capability::Setgid, Capability::Setpcap, Capability::Kill]
        }
        Privilege::IncreaseQuota => &[Capability::SysResource],
        Privilege::Impersonate => &[Capability::Setuid, Capability::Setgid],
        Privilege::InspectClient => &[Capability::SysPtrace],
        Privilege::Logon => &[Capability::DacReadSearch, Capability::AuditControl],
    };
    needed.iter().copied().collect()
}

/// What the calling thread has of a privilege.
pub(crate) fn status(privilege: Privilege) -> Result<PrivilegeStatus> {
    let needed = capabilities(privilege).bits();
    let thread = read()?;
    let (not_held, not_enabled) = (needed & !thread.permitted, needed & !thread.effective);
    let missing = if not_held == 0 { not_enabled } else { not_held };
    Ok(PrivilegeStatus {
        privilege,
        held: not_held == 0,
        enabled: not_enabled == 0,
        missing: names(CapabilitySet::from_bits(missing)),
    })
}

/// The capabilities' names.
fn names(set: CapabilitySet) -> Vec<Cow<'static, str>> {
    let known = Capability::ALL.iter().filter(|capability| set.contains(**capability));
    known.map(|capability| capability.name().into()).collect()
}

/// Enables what `privilege` needs on the calling thread, until the guard is dropped.
///
/// The caller has seen that all of it is permitted.
pub(crate) fn enable(privilege: Privilege) -> Result<Enabled> {
    let before = read()?;
    let added = capabilities(privilege).bits() & !before.effective;
    if added != 0 {
        let wanted = Capabilities { effective: before.effective | added, ..before };
        wanted.set().map_err(|fault| system(&fault))?;
        if read()? != wanted {
            return Err(system(&Fault::Differs("capabilities")));
        }
    }
    Ok(Enabled { added })
}

/// What was enabled for one call.
pub(crate) struct Enabled {
    added: u64,
}

impl Drop for Enabled {
    fn drop(&mut self) {
        if self.added == 0 {
            return;
        }
        // Only what was added goes, so that what the closure changed otherwise stays as it made it.
        let disabled = Capabilities::read()
            .and_then(|now| Capabilities { effective: now.effective & !self.added, ..now }.set());
        if let Err(fault) = disabled {
            super::impersonate::abort("the capabilities of the thread", fault);
        }
    }
}

fn read() -> Result<Capabilities> {
    Capabilities::read().map_err(|fault| system(&fault))
}

fn system(fault: &Fault) -> Error {
    const DOING: &str = "reading and enabling privileges";
    match *fault {
        Fault::Call { call, errno } => Error::system(DOING, call, errno),
        Fault::Differs(_) => Error::system(DOING, "capset", rustix::io::Errno::PERM),
    }
}
