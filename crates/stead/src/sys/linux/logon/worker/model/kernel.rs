//! The kernel and the account database, as far as a logon speaks to them.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use super::{ACCOUNTS, Fault, LOGON_GID, System, with};
use crate::error::{Error, Result};
use crate::sys::account::AccountEntry;
use crate::sys::limit::Limit;
use crate::sys::logon::message::LogonGidRequest;
use crate::sys::token::{
    CapabilitySet, CapabilitySets, Gid, GroupSet, LoginUid, SecureBits, SecurityContext, Uid,
};

/// What a server of root's may.
pub(super) fn all() -> CapabilitySet {
    CapabilitySet::from_bits((1 << 41) - 1)
}

fn fails() -> io::Error {
    io::Error::from_raw_os_error(libc::EPERM)
}

/// A call that changes something; one that lies changes nothing.
fn change(act: impl FnOnce(&mut System)) -> io::Result<()> {
    with(|system| match system.turn() {
        Some(Fault::Fails) => Err(fails()),
        Some(Fault::Lies) => Ok(()),
        _ => {
            act(system);
            Ok(())
        }
    })
}

/// A call that reads.
fn read<R>(act: impl FnOnce(&System) -> R) -> io::Result<R> {
    with(|system| match system.turn() {
        Some(Fault::Fails) => Err(fails()),
        _ => Ok(act(system)),
    })
}

fn set(groups: impl IntoIterator<Item = u32>) -> GroupSet {
    groups.into_iter().filter_map(Gid::new).collect()
}

/// `getpwnam_r`, which folds the case; a database that lies has no such account.
pub(super) fn account(name: &CStr, exact: bool) -> io::Result<Option<AccountEntry>> {
    let found = ACCOUNTS.into_iter().find(|(known, ..)| {
        known.to_bytes().eq_ignore_ascii_case(name.to_bytes()) && (!exact || *known == name)
    });
    let entry = found.map(|(name, uid, gid, _)| AccountEntry {
        name: name.to_owned(),
        uid: Uid::new(uid).unwrap(),
        gid: Gid::new(gid).unwrap(),
        home: c"/".to_owned(),
        shell: c"/bin/sh".to_owned(),
    });
    with(|system| match system.turn() {
        Some(Fault::Fails) => Err(fails()),
        Some(Fault::Lies) => Ok(None),
        _ => Ok(entry),
    })
}

pub(super) fn groups_of(account: &AccountEntry) -> io::Result<GroupSet> {
    read(|_| {
        let found = ACCOUNTS.into_iter().find(|(name, ..)| account.name.as_c_str() == *name);
        set(found.into_iter().flat_map(|(.., groups)| groups.iter().copied()))
    })
}

pub(super) fn overflow_ids() -> (u32, u32) {
    (65534, 65534)
}

pub(super) fn set_gid(gid: Gid) -> io::Result<()> {
    change(|system| system.gid = gid.as_raw())
}

pub(super) fn set_groups(groups: &GroupSet) -> io::Result<()> {
    change(|system| system.groups = groups.as_slice().iter().map(|gid| gid.as_raw()).collect())
}

pub(super) fn groups() -> io::Result<GroupSet> {
    read(|system| set(system.groups.iter().copied()))
}

pub(super) fn context() -> Result<SecurityContext> {
    let context = read(|system| SecurityContext {
        uid: Uid::ROOT,
        gid: Gid::new(system.gid).unwrap(),
        groups: set(system.groups.iter().copied()),
        capabilities: CapabilitySets {
            permitted: all(),
            effective: all(),
            bounding: all(),
            ..CapabilitySets::default()
        },
        securebits: SecureBits::default(),
        no_new_privs: false,
        label: None,
        login_uid: LoginUid::Unset,
    });
    context.map_err(|error| Error::system("reading the model", "read", error))
}

pub(super) fn umask() -> u32 {
    0o022
}

pub(super) fn take_exec_label() -> io::Result<Option<Vec<u8>>> {
    read(|_| None)
}

/// What a module sets: a minute of processor time.
pub(super) const OF_PAM: (u32, u64, u64) = (libc::RLIMIT_CPU, 60, 60);

pub(super) fn limits() -> Vec<(Limit, u64, u64)> {
    vec![(Limit::CpuTime, Limit::UNLIMITED, Limit::UNLIMITED)]
}

pub(super) fn take_limits(before: &[(Limit, u64, u64)]) -> Vec<(u32, u64, u64)> {
    assert_eq!(before, limits());
    vec![OF_PAM]
}

pub(super) fn audit_session() -> Option<u32> {
    None
}

pub(super) fn new_logon_gid(_request: &LogonGidRequest) -> std::result::Result<u32, String> {
    read(|_| LOGON_GID).map_err(|error| error.to_string())
}

pub(super) fn server_is_gone(_socket: &OwnedFd) -> bool {
    with(|system| !system.server)
}
