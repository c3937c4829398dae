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

/// What the kernel asks for in the initial user namespace, wherever the process is: raising a hard limit and
/// lowering oom_score_adj (`kernel/sys.c`, `fs/proc/base.c`), lowering the nice value and real-time policies
/// (`kernel/sched/syscalls.c`), changing a login uid (`kernel/audit.c`). Root of another user namespace sees
/// them in its sets, and they count for nothing there (user_namespaces(7)).
const INITIAL_ONLY: &[Capability] = &[Capability::SysResource, Capability::SysNice, Capability::AuditControl];

/// How an error says so; its remedy is another.
pub(crate) const IN_THE_INITIAL: &str = " in the initial user namespace";

/// Of `set`, what counts in this process's user namespace.
pub(crate) fn counting(set: CapabilitySet) -> CapabilitySet {
    if INITIAL_ONLY.iter().any(|capability| set.contains(*capability)) && !in_the_initial_user_namespace() {
        return INITIAL_ONLY.iter().fold(set, |set, capability| set.without(*capability));
    }
    set
}

/// A capability's name, as an error names what is missing.
pub(crate) fn missing_name(capability: Capability) -> Cow<'static, str> {
    if INITIAL_ONLY.contains(&capability) && !in_the_initial_user_namespace() {
        return format!("{}{IN_THE_INITIAL}", capability.name()).into();
    }
    capability.name().into()
}

/// A process may leave it and never comes back, so it is looked up each time; without /proc nothing is known, and
/// the kernel's sets are taken at their word.
fn in_the_initial_user_namespace() -> bool {
    // `PROC_USER_INIT_INO`, the same since Linux 3.8 (include/linux/proc_ns.h).
    const INITIAL: &[u8] = b"user:[4026531837]";
    rustix::fs::readlink("/proc/thread-self/ns/user", Vec::new())
        .map_or(true, |link| link.as_bytes() == INITIAL)
}

/// What the calling thread has of a privilege.
pub(crate) fn status(privilege: Privilege) -> Result<PrivilegeStatus> {
    let needed = capabilities(privilege).bits();
    let thread = read()?;
    let lacking = |set: u64| needed & !counting(CapabilitySet::from_bits(needed & set)).bits();
    let (not_held, not_enabled) = (lacking(thread.permitted), lacking(thread.effective));
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
    known.map(|capability| missing_name(*capability)).collect()
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
