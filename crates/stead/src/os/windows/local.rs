//! What only Windows has of local connections.
#![forbid(unsafe_code)]

use std::os::windows::io::{AsHandle, BorrowedHandle, OwnedHandle};

use crate::error::{Error, Result};
use crate::local::{ConnectOptions, Stream};
use crate::sys::local;
use crate::sys::sid::Sid;

/// Whose a server must be before a client grants it anything, in Windows' terms.
///
/// ```
/// use stead::local::ConnectOptions;
/// use stead::os::windows::{ConnectOptionsExt, Sid};
/// let options = ConnectOptions::new().server_sid(Sid::LOCAL_SYSTEM);
/// ```
pub trait ConnectOptionsExt {
    /// The pipe must be owned by `sid`, as the pipe of a [`Listener`](crate::local::Listener) is by its server's
    /// user.
    ///
    /// The client's identity then travels with what it writes (`SECURITY_CONTEXT_TRACKING`), not with the
    /// connection: a server that is refused has got nothing to impersonate.
    #[doc(alias = "GetNamedPipeServerProcessId")]
    #[doc(alias = "SECURITY_CONTEXT_TRACKING")]
    #[must_use]
    fn server_sid(self, sid: Sid) -> Self;
}

impl ConnectOptionsExt for ConnectOptions {
    fn server_sid(mut self, sid: Sid) -> Self {
        self.server = Some(sid);
        self
    }
}

impl AsHandle for Stream {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.as_handle()
    }
}

/// A server's end of a named pipe that was accepted elsewhere. Time limits are kept where it is overlapped.
impl TryFrom<OwnedHandle> for Stream {
    type Error = Error;

    fn try_from(pipe: OwnedHandle) -> Result<Self> {
        local::Stream::of(pipe).map(Self)
    }
}

impl From<Stream> for OwnedHandle {
    fn from(stream: Stream) -> Self {
        stream.0.into_handle()
    }
}

#[cfg(feature = "tokio")]
impl AsHandle for crate::local::tokio::Stream {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.as_handle()
    }
}
