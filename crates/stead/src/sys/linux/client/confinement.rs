//! Whether a process is confined more than the server itself.
//!
//! Acting for a confined process with the server's means would set it free (Flatpak, bubblewrap, browser
//! sandboxes). One that is confined on one thread only counts as confined: that thread may be the one that
//! asks.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, StatxFlags, openat, readlinkat_raw, statx};
use rustix::io::Errno;

use super::identity::{changed, gone};
use super::pidfd;
use crate::error::{ConfinedPart, Error, ErrorKind, Result};
use crate::sys::proc::{self, Status};
use crate::sys::token::{Label, LoginUid, label, login_uid, open_directory};
use crate::token::ConfinementKnowledge;

/// Each namespace of a thread, by its link in `/proc/PID/task/TID/ns`, which reads `user:[4026531837]`: the
/// number is the inode's in the one file system of all namespaces, and reading the link costs half of what
/// stat does. Those "for children" are what a process that the thread creates would be in. The PID namespace that
/// it is in itself shows in its status.
const NAMESPACES: [(&str, ConfinedPart); 9] = [
    ("user", ConfinedPart::UserNamespace),
    ("mnt", ConfinedPart::MountNamespace),
    ("pid_for_children", ConfinedPart::PidNamespace),
    ("net", ConfinedPart::NetworkNamespace),
    ("ipc", ConfinedPart::IpcNamespace),
    ("uts", ConfinedPart::UtsNamespace),
    ("cgroup", ConfinedPart::CgroupNamespace),
    ("time", ConfinedPart::TimeNamespace),
    ("time_for_children", ConfinedPart::TimeNamespace),
];

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

/// Threads that come and go are looked at again, this often at most.
const PASSES: usize = 16;

/// How long passes go on; the first one is always made whole.
const PATIENCE: Duration = Duration::from_secs(1);

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

/// What a namespace's link reads, padded with zeros: which kind, and which one.
type Namespace = [u8; 40];

/// What makes a directory this one and no other: device, inode, mount.
type Root = (u32, u32, u64, u64);

/// What the server's own calling thread is in: what a process that it creates would be in.
struct Own {
    status: Status,
    namespaces: [Option<Namespace>; NAMESPACES.len()],
    root: Root,
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
        let links = open_links(&thread)?;
        let mut namespaces = [None; NAMESPACES.len()];
        for (namespace, (name, _)) in namespaces.iter_mut().zip(NAMESPACES) {
            *namespace = match namespace_of(&links, name) {
                // The kernel was built without this kind.
                Err(Errno::NOENT) => None,
                found => Some(found?),
            };
        }
        let root = root_of(&thread)?;
        Ok(Self { status, namespaces, root, label: label(&thread)? })
    }
}

/// What confines the server and the client alike, because both have it from a process that both descend from
/// (a container's first one).
///
/// What the server has beyond that, from its own unit, says nothing of the client: of seccomp filters only the
/// number shows, so that a sandbox's would pass for the unit's, and behind a no_new_privs taken for the
/// unit's there may be a sandbox by Landlock.
#[derive(Debug, Clone, Copy, Default)]
struct Shared {
    no_new_privs: bool,
    seccomp: u32,
    filters: Option<u32>,
}

impl Shared {
    fn of(own: &Status, pid: u32) -> Self {
        let none = Self { filters: own.seccomp_filters.map(|_| 0), ..Self::default() };
        if !own.no_new_privs && own.seccomp == 0 {
            return none;
        }
        // Read twice, so that a parent whose number has gone to another process does not count.
        let (Some(server), Some(client)) = (ancestors(own.tgid), ancestors(pid)) else { return none };
        let Some(common) = client.iter().find(|pid| server.contains(pid)) else { return none };
        let status = if *common == own.tgid { Some(own.clone()) } else { status_of(*common) };
        let Some(status) = status.filter(|_| ancestors(pid).as_ref() == Some(&client)) else { return none };
        Self {
            no_new_privs: own.no_new_privs && status.no_new_privs,
            seccomp: own.seccomp.min(status.seccomp),
            filters: own.seccomp_filters.min(status.seccomp_filters),
        }
    }
}

/// The process, its parent, and so on to the first of the PID namespace, which also stands for parents outside.
fn ancestors(pid: u32) -> Option<Vec<u32>> {
    let mut line = vec![pid];
    let mut pid = pid;
    while pid != 1 {
        let text = proc::read_at(rustix::fs::CWD, &format!("/proc/{pid}/status")).ok()?;
        let parent = u32::try_from(proc::parse_fdinfo(&text, b"PPid")?).ok()?;
        pid = parent.max(1);
        if line.contains(&pid) {
            return None;
        }
        line.push(pid);
    }
    Some(line)
}

fn status_of(pid: u32) -> Option<Status> {
    proc::parse_status(&proc::read_at(rustix::fs::CWD, &format!("/proc/{pid}/status")).ok()?)
}

/// What the passes over the threads found.
#[derive(Default)]
struct Findings {
    shared: Shared,
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
    reading.login_uid = login_uid(&process);
    findings.shared = Shared::of(&own.status, pid);
    let first = look_at_threads(&process, pid, own, findings, &fault, doing)?;
    if connected.is_some() && connected != own.label.as_ref() {
        note(&mut findings.confined, ConfinedPart::Label);
    }
    reading.label = connected.cloned().or(first.label);
    reading.status = Some(first.status);
    Ok(())
}

/// What is read of one thread besides its places.
struct Thread {
    status: Status,
    label: Option<Label>,
}

/// Compares the label of one thread.
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

/// Looks at every thread, and gives what was read of the first, whose id is the process's.
fn look_at_threads(
    process: &OwnedFd,
    pid: u32,
    own: &Own,
    findings: &mut Findings,
    fault: &impl Fn(io::Error) -> Fault,
    doing: &'static str,
) -> Result<Thread, Fault> {
    let first_name = pid.to_string();
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let mut tasks = openat(process, "task", flags, Mode::empty())
        .and_then(Dir::new)
        .map_err(|errno| fault(errno.into()))?;
    let until = Instant::now() + PATIENCE;
    for pass in 0..PASSES {
        // Thousands of threads that come and go would cost the server seconds for each time it is asked.
        if pass > 0 && Instant::now() >= until {
            break;
        }
        let threads = thread_names(&mut tasks).map_err(fault)?;
        if threads.len() > MOST_THREADS {
            let what = format!("more than {MOST_THREADS} threads");
            return Err(fault(io::Error::other(what)));
        }
        let mut steady = true;
        let mut living = false;
        let mut first = None;
        for thread in &threads {
            match look_at_thread(&tasks, thread, own, findings) {
                Ok(read) => {
                    // A listing ends early where the thread that it has come to ends (`next_tid` of fs/proc/base.c).
                    steady &= read.status.threads == threads.len();
                    living |= !read.status.is_dead();
                    if *thread == first_name {
                        first = Some(read);
                    }
                }
                Err(error) if is_gone(&error) => steady = false,
                Err(error) => return Err(fault(error)),
            }
        }
        // What confines a process shows in those of its threads that live; and only two equal listings count.
        if let Some(first) = first
            && steady
            && living
            && thread_names(&mut tasks).map_err(fault)? == threads
        {
            return Ok(first);
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

fn look_at_thread(tasks: &Dir, thread: &str, own: &Own, findings: &mut Findings) -> io::Result<Thread> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let thread = openat(tasks.fd()?, thread, flags, Mode::empty())?;
    match look_at_living(&thread, own, findings) {
        // A first thread that has ended stays until the others have: it is nowhere, and asks for nothing.
        Err(error) if is_gone(&error) => {
            let status = read_status(&thread)?;
            if status.is_dead() { Ok(Thread { status, label: None }) } else { Err(error) }
        }
        read => read,
    }
}

fn look_at_living(thread: &OwnedFd, own: &Own, findings: &mut Findings) -> io::Result<Thread> {
    let label = look_at_label(thread, own, findings)?;
    let status = read_status(thread)?;
    if status.no_new_privs {
        findings.no_new_privs = true;
        if findings.shared.no_new_privs {
            // Whether there is Landlock behind it cannot be seen.
            note(&mut findings.unknown, ConfinedPart::NoNewPrivileges);
        } else {
            note(&mut findings.confined, ConfinedPart::NoNewPrivileges);
        }
    }
    if is_filtered_more(&status, findings.shared) {
        note(&mut findings.confined, ConfinedPart::Seccomp);
    }
    if status.bounding & own.status.bounding != own.status.bounding {
        note(&mut findings.confined, ConfinedPart::BoundingSet);
    }
    // The server's is procfs's own (`Own::read`), and this thread is in one below.
    if status.pid_namespaces != 1 {
        note(&mut findings.confined, ConfinedPart::PidNamespace);
    }
    // After the status: in a new user namespace the bounding set is a full one, and nothing leads back out of it.
    // A thread that is in the server's now was in it when its status was read.
    look_at_places(thread, own, findings)?;
    Ok(Thread { status, label })
}

/// More filters than both have from the same process, or strict mode.
fn is_filtered_more(client: &Status, shared: Shared) -> bool {
    let strict = client.seccomp == 1 && shared.seccomp != 1;
    let more = match (client.seccomp_filters, shared.filters) {
        (Some(client), Some(shared)) => client > shared,
        // Before Linux 5.9 only the mode shows.
        _ => client.seccomp > shared.seccomp,
    };
    strict || more
}

fn look_at_places(thread: &OwnedFd, own: &Own, findings: &mut Findings) -> io::Result<()> {
    let links = open_links(thread)?;
    for ((name, part), wanted) in NAMESPACES.into_iter().zip(own.namespaces) {
        if let Some(wanted) = wanted {
            compare(namespace_of(&links, name), &wanted, part, findings)?;
        }
    }
    compare(root_of(thread), &own.root, ConfinedPart::RootDirectory, findings)
}

fn compare<P: PartialEq>(
    found: rustix::io::Result<P>,
    wanted: &P,
    part: ConfinedPart,
    findings: &mut Findings,
) -> io::Result<()> {
    match found {
        // PTRACE_MODE_READ was refused: another user's process, and no CAP_SYS_PTRACE.
        Err(Errno::ACCESS | Errno::PERM) => note(&mut findings.unknown, part),
        Ok(found) if found == *wanted => {}
        Ok(_) => note(&mut findings.confined, part),
        Err(errno) => return Err(errno.into()),
    }
    Ok(())
}

fn open_links(thread: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    openat(thread, "ns", OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn namespace_of(links: &OwnedFd, name: &str) -> rustix::io::Result<Namespace> {
    let mut namespace = [0; 40];
    match readlinkat_raw(links, name, &mut namespace)? {
        // "cgroup:[18446744073709551615]" has 29 letters.
        length if length < namespace.len() => Ok(namespace),
        _ => Err(Errno::NAMETOOLONG),
    }
}

/// Which directory is the thread's root.
///
/// That may be on a FUSE mount, whose server is the client and need never answer. Device, inode and mount
/// are known to the kernel without asking it: nothing else is wanted (an empty mask, see `fuse_getattr` in
/// fs/fuse/dir.c; the mount id comes whatever the mask, `vfs_statx` in fs/stat.c), and nothing synchronised.
fn root_of(thread: &OwnedFd) -> rustix::io::Result<Root> {
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let found = statx(thread, "root", flags, StatxFlags::empty())?;
    if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(Errno::NOSYS);
    }
    Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino, found.stx_mnt_id))
}

fn read_status(directory: &OwnedFd) -> io::Result<Status> {
    let text = proc::read_at(directory, "status")?;
    proc::parse_status(&text).ok_or_else(|| proc::malformed("status"))
}

/// The thread ids below `/proc/PID/task`, in order.
fn thread_names(tasks: &mut Dir) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    tasks.rewind();
    while let Some(entry) = tasks.read() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_which_nothing_is_seen_but_a_first_thread_that_has_ended_was_not_looked_at() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let process = open_directory(&format!("/proc/{}", child.id())).unwrap();
        while !read_status(&process).unwrap().is_dead() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let own = Own::read().unwrap();
        let seen = look_at_threads(
            &process,
            child.id(),
            &own,
            &mut Findings::default(),
            &Fault::Unreadable,
            "looking at a client",
        );
        assert!(matches!(seen, Err(Fault::Final(_))));
        child.wait().unwrap();
    }
}
