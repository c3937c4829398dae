//! Whether a process is confined more than the server itself.
//!
//! Acting for a confined process with the server's means would set it free (Flatpak, bubblewrap, browser
//! sandboxes). One that is confined on one thread only counts as confined: that thread may be the one that
//! asks.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;

use super::identity::{changed, gone};
use super::pidfd;
use crate::error::{ConfinedPart, Error, ErrorKind, Result};
use crate::sys::proc::{self, Status};
use crate::sys::token::{Label, LoginUid, label, login_uid, open_directory};
use crate::token::ConfinementKnowledge;

/// Each namespace of a thread, by its link in `/proc/PID/task/TID/ns`. Those "for children" are what a
/// process that the thread creates would be in.
const NAMESPACES: [(&str, ConfinedPart); 10] = [
    ("ns/user", ConfinedPart::UserNamespace),
    ("ns/mnt", ConfinedPart::MountNamespace),
    ("ns/pid", ConfinedPart::PidNamespace),
    ("ns/pid_for_children", ConfinedPart::PidNamespace),
    ("ns/net", ConfinedPart::NetworkNamespace),
    ("ns/ipc", ConfinedPart::IpcNamespace),
    ("ns/uts", ConfinedPart::UtsNamespace),
    ("ns/cgroup", ConfinedPart::CgroupNamespace),
    ("ns/time", ConfinedPart::TimeNamespace),
    ("ns/time_for_children", ConfinedPart::TimeNamespace),
];

/// Which part an error names when there are several: the one that confines most. Last the two that a server
/// may choose to carry over.
const BY_WEIGHT: [ConfinedPart; 13] = [
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

/// Threads that come and go are looked at again, this often at most.
const PASSES: usize = 16;

/// Looking at more threads than this would keep the server busy for too long on a client's behalf.
const MOST_THREADS: usize = 4096;

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
    /// The server's own bounding set.
    pub(crate) own_bounding: u64,
}

/// What makes a namespace or a directory this one and no other.
type Place = (u32, u32, u64, u64);

/// What the server's own calling thread is in: what a process that it creates would be in.
struct Own {
    status: Status,
    namespaces: [Option<Place>; NAMESPACES.len()],
    root: Place,
    label: Option<Label>,
}

impl Own {
    fn read() -> io::Result<Self> {
        let thread = open_directory("/proc/thread-self")?;
        let status = read_status(&thread)?;
        // In a procfs of another PID namespace every number would lead to another process.
        if status.pid_namespaces != 1 {
            return Err(io::Error::other("/proc belongs to another PID namespace"));
        }
        let mut namespaces = [None; NAMESPACES.len()];
        for (place, (path, _)) in namespaces.iter_mut().zip(NAMESPACES) {
            *place = match place_of(&thread, path, StatxFlags::INO) {
                // The kernel was built without this kind.
                Err(Errno::NOENT) => None,
                found => Some(found?),
            };
        }
        let root = place_of(&thread, "root", StatxFlags::INO | StatxFlags::MNT_ID)?;
        Ok(Self { status, namespaces, root, label: label(&thread)? })
    }
}

/// What the passes over the threads found.
#[derive(Default)]
struct Findings {
    confined: Vec<ConfinedPart>,
    unknown: Vec<ConfinedPart>,
    no_new_privs: bool,
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
        own_bounding: own.status.bounding,
    };
    // Without a pidfd the number may already be another process's: nothing that it leads to counts.
    let Some(pidfd) = pidfd else { return Ok(reading) };

    let mut findings = Findings::default();
    match look_at(pidfd, pid, &own, connected, doing, &mut findings, &mut reading) {
        Ok(()) => {}
        Err(Fault::Final(error)) => return Err(error),
        // Its directory in /proc is hidden (hidepid=, another procfs).
        Err(Fault::Unreadable(source)) if !policy.unknown => {
            let part = ConfinedPart::NoNewPrivileges;
            return Err(Error::new(doing, ErrorKind::ConfinementUnknown { part }).with_source(source));
        }
        Err(Fault::Unreadable(_)) => return Ok(reading),
    }
    findings.confined.retain(|part| match part {
        ConfinedPart::NoNewPrivileges => !policy.no_new_privs,
        ConfinedPart::Label => !policy.label,
        ConfinedPart::BoundingSet => !policy.bounding,
        _ => true,
    });
    if let Some(part) = first(&findings.confined) {
        return Err(Error::new(doing, ErrorKind::ClientConfined { part }));
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
    let status = read_status(&process).map_err(fault)?;
    reading.login_uid = login_uid(&process);
    let now = look_at_label(&process, own, findings).map_err(fault)?;
    if connected.is_some() && connected != own.label.as_ref() {
        note(&mut findings.confined, ConfinedPart::Label);
    }
    reading.label = connected.cloned().or(now);
    look_at_threads(&process, own, findings, &fault, doing)?;
    reading.status = Some(status);
    Ok(())
}

/// Compares the label of one thread, or of the first when it is the process's directory.
fn look_at_label(thread: &OwnedFd, own: &Own, findings: &mut Findings) -> io::Result<Option<Label>> {
    match label(thread) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            note(&mut findings.unknown, ConfinedPart::Label);
            Ok(None)
        }
        found => {
            let found = found?;
            if found != own.label {
                note(&mut findings.confined, ConfinedPart::Label);
            }
            Ok(found)
        }
    }
}

fn look_at_threads(
    process: &OwnedFd,
    own: &Own,
    findings: &mut Findings,
    fault: &impl Fn(io::Error) -> Fault,
    doing: &'static str,
) -> Result<(), Fault> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let tasks = openat(process, "task", flags, Mode::empty()).map_err(|errno| fault(errno.into()))?;
    for _ in 0..PASSES {
        let threads = thread_names(&tasks).map_err(fault)?;
        if threads.len() > MOST_THREADS {
            let what = format!("more than {MOST_THREADS} threads");
            return Err(fault(io::Error::other(what)));
        }
        let mut steady = true;
        for thread in &threads {
            match look_at_thread(&tasks, thread, own, findings) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => steady = false,
                Err(error) => return Err(fault(error)),
            }
        }
        // A listing can skip an entry when another thread ends meanwhile: only two equal ones count.
        if steady && thread_names(&tasks).map_err(fault)? == threads {
            return Ok(());
        }
        if !findings.confined.is_empty() {
            return Ok(());
        }
    }
    match fault(io::Error::other("its threads come and go")) {
        Fault::Unreadable(_) => Err(Fault::Final(changed(
            doing,
            "its threads come and go faster than they can be looked at".into(),
        ))),
        end @ Fault::Final(_) => Err(end),
    }
}

fn look_at_thread(tasks: &OwnedFd, thread: &str, own: &Own, findings: &mut Findings) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let thread = openat(tasks, thread, flags, Mode::empty())?;
    look_at_places(&thread, own, findings)?;
    let status = read_status(&thread)?;
    // A first thread that has ended stays until the others have; it asks for nothing any more.
    if status.is_dead() {
        return Ok(());
    }
    look_at_label(&thread, own, findings)?;
    if status.no_new_privs {
        findings.no_new_privs = true;
        if !own.status.no_new_privs {
            note(&mut findings.confined, ConfinedPart::NoNewPrivileges);
        }
    }
    if is_filtered_more(&status, &own.status) {
        note(&mut findings.confined, ConfinedPart::Seccomp);
    }
    if status.bounding & own.status.bounding != own.status.bounding {
        note(&mut findings.confined, ConfinedPart::BoundingSet);
    }
    // Again, so that what was read in between was read of a thread that was here all the while.
    look_at_places(&thread, own, findings)
}

/// More filters, or strict mode. The same number is taken for the same filters (a container's).
fn is_filtered_more(client: &Status, own: &Status) -> bool {
    let strict = client.seccomp == 1 && own.seccomp != 1;
    let more = match (client.seccomp_filters, own.seccomp_filters) {
        (Some(client), Some(own)) => client > own,
        // Before Linux 5.9 only the mode shows.
        _ => client.seccomp > own.seccomp,
    };
    strict || more
}

fn look_at_places(thread: &OwnedFd, own: &Own, findings: &mut Findings) -> io::Result<()> {
    for ((path, part), wanted) in NAMESPACES.into_iter().zip(own.namespaces) {
        if wanted.is_some() {
            compare(place_of(thread, path, StatxFlags::INO), wanted, part, findings)?;
        }
    }
    let root = place_of(thread, "root", StatxFlags::INO | StatxFlags::MNT_ID);
    compare(root, Some(own.root), ConfinedPart::RootDirectory, findings)
}

fn compare(
    found: rustix::io::Result<Place>,
    wanted: Option<Place>,
    part: ConfinedPart,
    findings: &mut Findings,
) -> io::Result<()> {
    match found {
        // PTRACE_MODE_READ was refused: another user's process, and no CAP_SYS_PTRACE.
        Err(Errno::ACCESS | Errno::PERM) => note(&mut findings.unknown, part),
        Ok(found) if Some(found) == wanted => {}
        Ok(_) => note(&mut findings.confined, part),
        Err(errno) => return Err(errno.into()),
    }
    Ok(())
}

fn place_of(directory: impl AsFd, path: &str, mask: StatxFlags) -> rustix::io::Result<Place> {
    let found = statx(directory, path, AtFlags::NO_AUTOMOUNT, mask)?;
    let mount = if mask.contains(StatxFlags::MNT_ID) { found.stx_mnt_id } else { 0 };
    Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino, mount))
}

fn read_status(directory: &OwnedFd) -> io::Result<Status> {
    let text = proc::read_at(directory, "status")?;
    proc::parse_status(&text).ok_or_else(|| proc::malformed("status"))
}

/// The thread ids below `/proc/PID/task`, in order.
fn thread_names(tasks: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(tasks)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str()
            && name.bytes().all(|byte| byte.is_ascii_digit())
        {
            names.push(name.to_owned());
        }
    }
    if names.is_empty() {
        return Err(Errno::SRCH.into());
    }
    names.sort_unstable();
    Ok(names)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}
