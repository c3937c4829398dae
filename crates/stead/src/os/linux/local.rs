//! What only Linux has of local connections: their descriptors.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};
use crate::local::{Listener, Stream};
use crate::sys::local;

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

/// A listening Unix stream socket from elsewhere (systemd's socket activation); it is left in the file system.
impl TryFrom<OwnedFd> for Listener {
    type Error = Error;

    fn try_from(descriptor: OwnedFd) -> Result<Self> {
        local::Listener::of(descriptor).map(Self)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

/// A server's end that was accepted elsewhere.
impl TryFrom<OwnedFd> for Stream {
    type Error = Error;

    fn try_from(descriptor: OwnedFd) -> Result<Self> {
        local::Stream::of(descriptor).map(Self)
    }
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> Self {
        stream.0.socket.into()
    }
}

#[cfg(feature = "tokio")]
impl AsFd for crate::local::tokio::Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

#[cfg(feature = "tokio")]
impl AsFd for crate::local::tokio::Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}
