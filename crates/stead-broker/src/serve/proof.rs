//! What a process is known again by: its inode among the pidfds, or the moment it was started. A pid alone is never
//! believed (CVE-2017-2616).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

/// What a process is known again by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Proof {
    /// The inode of its pidfds, which no other process ever gets (Linux 6.9).
    inode: Option<u64>,
    /// When it was started, in ticks since the machine was; read where the inode says nothing.
    started: Option<u64>,
}

impl Proof {
    /// What the process that `pidfd` pins will be known again by; `pid` is what it is called now.
    pub(super) fn of(pidfd: BorrowedFd<'_>, pid: u32) -> Self {
        /// `PID_FS_MAGIC`: before there was that file system all pidfds had one inode.
        const PIDFS: i64 = 0x5049_4446;
        let is_pidfs = rustix::fs::fstatfs(pidfd).is_ok_and(|found| found.f_type == PIDFS);
        let inode = rustix::fs::fstat(pidfd).ok().filter(|_| is_pidfs).map(|found| found.st_ino);
        // Opening a file of /proc is dear, and on every process's way.
        let started = if inode.is_none() { started(pid).filter(|_| is_there(pidfd)) } else { None };
        Self { inode, started }
    }

    /// What the process that is called `pid` now will be known again by.
    pub(super) fn of_number(pid: u32) -> Option<Self> {
        opened(pid).map(|pidfd| Self::of(pidfd.as_fd(), pid))
    }

    /// The process that is called `pid`, if it is the one that this was made of.
    pub(super) fn find(self, pid: u32) -> Option<OwnedFd> {
        let pidfd = opened(pid)?;
        let found = Self::of(pidfd.as_fd(), pid);
        let same = match (self.inode, found.inode) {
            (Some(ours), Some(found)) => ours == found,
            _ => self.started.is_some() && self.started == found.started,
        };
        same.then_some(pidfd)
    }
}

fn opened(pid: u32) -> Option<OwnedFd> {
    let number = rustix::process::Pid::from_raw(pid.cast_signed())?;
    rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()).ok()
}

/// Whether the process has not ended: then what was read of its number was read of it.
pub(super) fn is_there(pidfd: BorrowedFd<'_>) -> bool {
    let mut watched = [rustix::event::PollFd::from_borrowed_fd(pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut watched, Some(&rustix::event::Timespec::default())) == Ok(0)
}

/// When a process was started: the 22nd field of its `stat`, counted from behind its name, which may hold anything.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    std::str::from_utf8(stat.get(end + 1..)?).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_and_another_is_not_taken_for_it() {
        let mut one = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&one);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let proof = Proof::of(pidfd.as_fd(), one.id());
        assert!(proof.find(one.id()).is_some());
        if proof.inode.is_some() {
            assert!(proof.find(other.id()).is_none());
        }
        one.kill().unwrap();
        one.wait().unwrap();
        assert!(proof.find(one.id()).is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
