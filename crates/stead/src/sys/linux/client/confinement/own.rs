//! What the server itself is in, and what it shares with a client: what a client is compared with.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat, readlinkat_raw, statx};
use rustix::io::Errno;

use crate::error::ConfinedPart;
use crate::sys::proc::{self, Status};
use crate::sys::token::{Label, label, open_directory};

/// Each namespace of a thread, by its link in `/proc/PID/task/TID/ns`, which reads `user:[4026531837]`: the
/// number is the inode's in the one file system of all namespaces, and reading the link costs half of what
/// stat does. Those "for children" are what a process that the thread creates would be in. The PID namespace that
/// it is in itself shows in its status.
pub(super) const NAMESPACES: [(&str, ConfinedPart); 9] = [
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

/// What a namespace's link reads, padded with zeros: which kind, and which one.
pub(super) type Namespace = [u8; 40];

/// What makes a directory this one and no other: device, inode, mount.
pub(super) type Root = (u32, u32, u64, u64);

/// What the server's own calling thread is in: what a process that it creates would be in.
pub(super) struct Own {
    pub(super) status: Status,
    pub(super) namespaces: [Option<Namespace>; NAMESPACES.len()],
    pub(super) root: Root,
    pub(super) label: Option<Label>,
}

impl Own {
    pub(super) fn read() -> io::Result<Self> {
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
pub(super) struct Shared {
    pub(super) no_new_privs: bool,
    pub(super) seccomp: u32,
    pub(super) filters: Option<u32>,
}

impl Shared {
    pub(super) fn of(own: &Status, pid: u32) -> Self {
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

pub(super) fn open_links(thread: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    openat(thread, "ns", OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn namespace_of(links: &OwnedFd, name: &str) -> rustix::io::Result<Namespace> {
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
pub(super) fn root_of(thread: &OwnedFd) -> rustix::io::Result<Root> {
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let found = statx(thread, "root", flags, StatxFlags::empty())?;
    if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(Errno::NOSYS);
    }
    Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino, found.stx_mnt_id))
}

pub(super) fn read_status(directory: &OwnedFd) -> io::Result<Status> {
    let text = proc::read_at(directory, "status")?;
    proc::parse_status(&text).ok_or_else(|| proc::malformed("status"))
}
