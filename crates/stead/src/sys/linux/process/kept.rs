//! Files of `/proc` that the server keeps open, since opening one costs ten times as much as reading it.
#![cfg_attr(not(test), forbid(unsafe_code))]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// One of them. A program may close descriptors that it did not open, or fork; the number is then another file's.
pub(super) struct KeptFile {
    /// The process that opened it, of which it speaks.
    owner: u32,
    inode: (u64, u64),
    file: Option<File>,
}

impl KeptFile {
    pub(super) fn open(path: &str) -> io::Result<Self> {
        let file = File::open(path)?;
        let found = rustix::fs::fstat(&file)?;
        Ok(Self { owner: std::process::id(), inode: (found.st_dev, found.st_ino), file: Some(file) })
    }

    /// The file, in the process that opened it, as long as its number is its own.
    pub(super) fn get(&self) -> Option<&File> {
        self.get_in(std::process::id())
    }

    /// The same, where the calling process's number has been asked for already.
    pub(super) fn get_in(&self, process: u32) -> Option<&File> {
        let same = |file: &&File| self.owner == process && inode_of(*file) == Some(self.inode);
        self.file.as_ref().filter(same)
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        if self.get().is_none() {
            // What has the number now is not this one's to close.
            std::mem::forget(self.file.take());
        }
    }
}

fn inode_of(file: impl AsFd) -> Option<(u64, u64)> {
    rustix::fs::fstat(file).ok().map(|found| (found.st_dev, found.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    #[test]
    fn a_number_that_is_another_files_by_now_is_neither_read_nor_closed() {
        let kept = KeptFile::open("/proc/self/oom_score_adj").unwrap();
        let number = kept.get().unwrap().as_raw_fd();
        let other = File::open("/dev/null").unwrap();
        // As a server does that closes everything and opens its listener.
        // SAFETY: the descriptor is open; that its owner is not told is what is tested.
        let mut target = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
        rustix::io::dup2(&other, &mut target).unwrap();
        assert!(kept.get().is_none());
        drop(kept);
        assert!(rustix::io::fcntl_getfd(&*target).is_ok(), "it is still open");
        drop(std::mem::ManuallyDrop::into_inner(target));
    }
}
