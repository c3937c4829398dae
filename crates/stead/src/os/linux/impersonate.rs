//! What only Linux has of impersonation.
#![forbid(unsafe_code)]

use crate::impersonate::OpenOptions;

/// What only Linux can be asked when a file is opened as the client.
pub trait OpenOptionsExt: sealed::Sealed {
    /// The permissions of a file that is created, before the umask; `0o666` unless set.
    fn mode(&mut self, mode: u32) -> &mut Self;

    /// Fails where the last component of the path is a symbolic link.
    fn no_follow(&mut self, no_follow: bool) -> &mut Self;

    /// Accepts FIFOs and devices too. They are opened with `O_NONBLOCK`, and keep it: a FIFO whose other end
    /// the client holds must not hold the server's thread.
    fn special_files(&mut self, special_files: bool) -> &mut Self;
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.native.mode = mode;
        self
    }

    fn no_follow(&mut self, no_follow: bool) -> &mut Self {
        self.native.no_follow = no_follow;
        self
    }

    fn special_files(&mut self, special_files: bool) -> &mut Self {
        self.native.special_files = special_files;
        self
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::impersonate::OpenOptions {}
}
