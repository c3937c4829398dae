//! The descriptors that came with a call.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Statx, StatxFlags};
use stead_protocol::{Failure, Index};

use super::failure::{invalid, system};

/// The descriptors that came with a call. They are closed with it, on the thread that handles the call.
#[derive(Debug)]
pub(super) struct Given(Vec<OwnedFd>);

impl Given {
    pub(super) fn new(descriptors: Vec<OwnedFd>) -> Self {
        Self(descriptors)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one at `index`.
    pub(super) fn get(&self, index: Index) -> Result<BorrowedFd<'_>, Failure> {
        let found = usize::try_from(index).ok().and_then(|index| self.0.get(index));
        found.map(AsFd::as_fd).ok_or_else(|| {
            invalid("taking a descriptor", format!("no descriptor {index} came with the call"))
        })
    }

    /// A copy of the one at `index`, which may be asked for more than once.
    pub(super) fn copy(&self, index: Index) -> Result<OwnedFd, Failure> {
        let copied = self.get(index)?.try_clone_to_owned();
        copied.map_err(|error| system("taking a descriptor", "fcntl", error))
    }
}

/// What a descriptor leads to, without asking a file system that could keep the answer to itself.
pub(super) fn look_at(descriptor: BorrowedFd<'_>, wanted: StatxFlags) -> rustix::io::Result<Statx> {
    rustix::fs::statx(descriptor, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, wanted)
}
