//! What only Windows has of local connections.
#![forbid(unsafe_code)]

use crate::local::ConnectOptions;
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
