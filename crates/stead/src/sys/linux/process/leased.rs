//! A lease that the new process's tree has, until its end.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::cgroup::ProcessCgroup;
use super::running::Names;
use crate::desktop::AccessLease;
use crate::error::{Error, Result};
use crate::sys::desktop::keeper::{Place, Tree};

/// The lease, a place with the keeper, and by what the end of the tree will be noticed. Everything that can fail is
/// done before there is a process; dropping it gives the lease back.
pub(super) struct Leased {
    lease: AccessLease,
    place: Place,
    sign: Sign,
}

enum Sign {
    Cgroup(OwnedFd),
    Worker { ours: OwnedFd, theirs: OwnedFd },
    PosixSession,
}

impl Leased {
    pub(super) fn prepare(
        lease: AccessLease,
        cgroup: Option<&ProcessCgroup>,
        in_session: bool,
        names: &Names,
    ) -> Result<Self> {
        let system = |call| move |errno: rustix::io::Errno| Error::system(names.doing.clone(), call, errno);
        let sign = match cgroup {
            Some(cgroup) => Sign::Cgroup(cgroup.events().map_err(system("open cgroup.events"))?),
            None if in_session => {
                let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(system("pipe"))?;
                Sign::Worker { ours, theirs }
            }
            None => Sign::PosixSession,
        };
        Ok(Self { lease, place: Place::take()?, sign })
    }

    /// What the session worker closes at the end of the tree.
    pub(super) fn worker_end(&self) -> Option<&OwnedFd> {
        match &self.sign {
            Sign::Worker { theirs, .. } => Some(theirs),
            _ => None,
        }
    }

    /// The process is there: from now on its tree has the lease.
    pub(super) fn hold(self, pid: Pid, pidfd: &OwnedFd) {
        let Self { lease, place, sign } = self;
        let tree = match sign {
            Sign::Cgroup(events) => Tree::Cgroup(events),
            Sign::Worker { ours, theirs: _ } => Tree::Worker(ours),
            Sign::PosixSession => match pidfd.as_fd().try_clone_to_owned() {
                Ok(pidfd) => Tree::PosixSession(pidfd, pid),
                Err(error) => {
                    tracing::warn!(%error, "a process cannot be watched: it loses its desktop at once");
                    return;
                }
            },
        };
        place.hold(tree, lease);
    }
}
