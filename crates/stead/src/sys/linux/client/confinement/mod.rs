//! Whether a process is confined more than the server itself.
//!
//! Acting for a confined process with the server's means would set it free (Flatpak, bubblewrap, browser
//! sandboxes). One that is confined on one thread only counts as confined: that thread may be the one that
//! asks.
#![forbid(unsafe_code)]

mod own;
mod threads;

use std::io;
use std::os::fd::BorrowedFd;

use own::{Own, Shared};

use super::identity::gone;
use super::pidfd;
use crate::error::{ConfinedPart, Error, ErrorKind, Result};
use crate::sys::limit::Limits;
use crate::sys::proc::{self, Status};
use crate::sys::token::{Label, LoginUid, login_uid, open_directory};
use crate::token::ConfinementKnowledge;

/// Which part an error names when there are several: the one that confines most. Last the two that a server
/// may choose to carry over.
pub(crate) const BY_WEIGHT: [ConfinedPart; 13] = [
    ConfinedPart::UserNamespace,
    ConfinedPart::MountNamespace,
    ConfinedPart::PidNamespace,
    ConfinedPart::NetworkNamespace,
    ConfinedPart::IpcNamespace,
    ConfinedPart::UtsNamespace,
    ConfinedPart::CgroupNamespace,
    ConfinedPart::TimeNamespace,
    ConfinedPart::RootDirectory,
    ConfinedPart::Seccomp,
    ConfinedPart::BoundingSet,
    ConfinedPart::NoNewPrivileges,
    ConfinedPart::Label,
];

/// What the server accepts, or carries over itself.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent choices")]
pub(crate) struct Policy {
    /// What cannot be read.
    pub(crate) unknown: bool,
    /// no_new_privs, which the token then has.
    pub(crate) no_new_privs: bool,
    /// Another label, which the token then has.
    pub(crate) label: bool,
    /// A smaller bounding set, which the token then has.
    pub(crate) bounding: bool,
}

impl Policy {
    /// Whether the token has it, too, so that the client is not refused for it.
    fn carries(self, part: ConfinedPart) -> bool {
        match part {
            ConfinedPart::NoNewPrivileges => self.no_new_privs,
            ConfinedPart::Label => self.label,
            ConfinedPart::BoundingSet => self.bounding,
            _ => false,
        }
    }
}

/// What was read of a process.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) knowledge: ConfinementKnowledge,
    /// Its first thread's status; `None` where it could not be read, and that is accepted.
    pub(crate) status: Option<Status>,
    /// Whether any thread has no_new_privs.
    pub(crate) no_new_privs: bool,
    pub(crate) label: Option<Label>,
    pub(crate) login_uid: LoginUid,
    pub(crate) limits: Limits,
    /// The server's own bounding set.
    pub(crate) own_bounding: u64,
}

/// What the passes over the threads found.
#[derive(Default)]
struct Findings {
    policy: Policy,
    shared: Shared,
    /// For what it is refused.
    confined: Vec<ConfinedPart>,
    unknown: Vec<ConfinedPart>,
    no_new_privs: bool,
}

impl Findings {
    fn confined(&mut self, part: ConfinedPart) {
        if !self.policy.carries(part) {
            note(&mut self.confined, part);
        }
    }

    fn unknown(&mut self, part: ConfinedPart) {
        note(&mut self.unknown, part);
    }

    /// What an error about it says; none where nothing speaks against it so far.
    fn refused(&self, doing: &'static str) -> Option<Error> {
        let part = first(&self.confined)?;
        Some(Error::new(doing, ErrorKind::ClientConfined { part }))
    }
}

/// The one of these parts that confines most.
pub(super) fn first(of: &[ConfinedPart]) -> Option<ConfinedPart> {
    BY_WEIGHT.into_iter().find(|part| of.contains(part))
}

fn note(parts: &mut Vec<ConfinedPart>, part: ConfinedPart) {
    if !parts.contains(&part) {
        parts.push(part);
    }
}

/// What confines the process `pid`, which `pidfd` pins (the caller compares its ids afterwards).
///
/// `connected` is the label that the kernel recorded at connect.
pub(crate) fn examine(
    pidfd: Option<BorrowedFd<'_>>,
    pid: u32,
    connected: Option<&Label>,
    policy: Policy,
    doing: &'static str,
) -> Result<Reading> {
    let own = Own::read().map_err(|source| Error::system(doing, "reading /proc/thread-self", source))?;
    let mut reading = Reading {
        knowledge: ConfinementKnowledge::Unknown,
        status: None,
        no_new_privs: false,
        label: connected.cloned(),
        login_uid: LoginUid::Unsupported,
        limits: Limits::default(),
        own_bounding: own.status.bounding,
    };
    // Without a pidfd the number may already be another process's: nothing that it leads to counts.
    let Some(pidfd) = pidfd else { return Ok(reading) };

    let mut findings = Findings { policy, ..Findings::default() };
    match look_at(pidfd, pid, &own, connected, doing, &mut findings, &mut reading) {
        Ok(()) => {}
        Err(Fault::Final(error)) => return Err(error),
        // Its directory in /proc is hidden (hidepid=, another procfs). Another reason, which the client may be (the
        // server's descriptors are used up, it has too many threads), is accepted by nobody.
        Err(Fault::Unreadable(source)) if !policy.unknown || !is_hidden(&source) => {
            let part = ConfinedPart::NoNewPrivileges;
            return Err(Error::new(doing, ErrorKind::ConfinementUnknown { part }).with_source(source));
        }
        Err(Fault::Unreadable(_)) => return Ok(reading),
    }
    if let Some(error) = findings.refused(doing) {
        return Err(error);
    }
    if policy.no_new_privs {
        findings.unknown.retain(|part| *part != ConfinedPart::NoNewPrivileges);
    }
    reading.no_new_privs = findings.no_new_privs;
    reading.knowledge = match first(&findings.unknown) {
        None => ConfinementKnowledge::Verified,
        Some(part) if !policy.unknown => {
            return Err(Error::new(doing, ErrorKind::ConfinementUnknown { part }));
        }
        Some(_) => {
            let parts = BY_WEIGHT.into_iter().filter(|part| findings.unknown.contains(part));
            ConfinementKnowledge::Partial(parts.collect())
        }
    };
    Ok(reading)
}

fn is_hidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::ENOENT | libc::ESRCH))
}

enum Fault {
    Final(Error),
    Unreadable(io::Error),
}

fn look_at(
    pidfd: BorrowedFd<'_>,
    pid: u32,
    own: &Own,
    connected: Option<&Label>,
    doing: &'static str,
    findings: &mut Findings,
    reading: &mut Reading,
) -> Result<(), Fault> {
    // While the pidfd's process has not ended, its number is no other's.
    let fault = |source: io::Error| match pidfd::has_ended(pidfd) {
        Ok(false) => Fault::Unreadable(source),
        Ok(true) => Fault::Final(gone(doing)),
        Err(source) => Fault::Final(Error::system(doing, "poll of a pidfd", source)),
    };
    let process = open_directory(&format!("/proc/{pid}")).map_err(fault)?;
    reading.login_uid = login_uid(&process).map_err(fault)?;
    reading.limits = proc::read_at(&process, "limits")
        .and_then(|text| Limits::parse(&text).ok_or_else(|| proc::malformed("limits")))
        .map_err(fault)?;
    findings.shared = Shared::of(&own.status, pid);
    let first = threads::look_at(&process, pid, own, findings, &fault, doing)?;
    if connected.is_some() && connected != own.label.as_ref() {
        findings.confined(ConfinedPart::Label);
    }
    reading.label = connected.cloned().or(first.label);
    reading.status = Some(first.status);
    Ok(())
}
