//! Who may connect, and what a client grants when it does.

use std::time::Duration;

use super::{Address, Listener};
use crate::ImpersonationLevel;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::sys::local::{self, ServerIdentity};

/// How long a client waits for a server that takes no more connections, unless it chose otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to listen: who may connect.
///
/// On Windows the system and the administrators may always; a token from the network (`S-1-5-2`) never, nor may a
/// client of another machine; and no client can add an instance of its own to the pipe.
#[derive(Debug, Clone, Default)]
#[doc(alias = "SECURITY_ATTRIBUTES")]
pub struct ListenOptions {
    everyone: bool,
}

impl ListenOptions {
    /// Only the server's own user (and root, or the administrators) may connect.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every user who reaches the socket's directory may connect; on Windows, every user who is logged on
    /// (Authenticated Users).
    #[must_use]
    pub fn open_to_all(self) -> Self {
        Self { everyone: true }
    }

    /// Listens at `address`.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`]: something else is there, another server listens there, or somebody
    ///   else's socket is left there; the directory is one where others could replace the socket; the address is no
    ///   local pipe's.
    /// * [`ErrorKind::AccessDenied`]: the server's own token could not add instances to the pipe, for it has
    ///   restricting SIDs (Windows).
    /// * [`ErrorKind::System`]: it cannot be created.
    ///
    /// References: [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html),
    /// [CreateNamedPipeW](https://learn.microsoft.com/windows/win32/api/namedpipeapi/nf-namedpipeapi-createnamedpipew).
    #[doc(alias = "CreateNamedPipe")]
    #[doc(alias = "FILE_FLAG_FIRST_PIPE_INSTANCE")]
    #[doc(alias = "PIPE_REJECT_REMOTE_CLIENTS")]
    pub fn bind(&self, address: &Address) -> Result<Listener> {
        local::Listener::bind(address, self.everyone).map(Listener)
    }
}

/// How to connect: what the client grants, and whose the server must be (`ConnectOptionsExt` of
/// [`os`](crate::os)).
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::ImpersonationLevel;
/// use stead::local::{Address, ConnectOptions, Stream};
///
/// let options = ConnectOptions::new().level(ImpersonationLevel::Identification);
/// let stream = Stream::connect_with(&Address::name("report")?, &options)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[doc(alias = "SECURITY_SQOS_PRESENT")]
#[doc(alias = "SECURITY_QUALITY_OF_SERVICE")]
pub struct ConnectOptions {
    pub(crate) level: ImpersonationLevel,
    pub(crate) server: Option<ServerIdentity>,
    pub(crate) timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        let level = ImpersonationLevel::Impersonation;
        Self { level, server: None, timeout: PATIENCE }
    }
}

impl ConnectOptions {
    /// Grants [`ImpersonationLevel::Impersonation`], to whoever the server is.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How far the server may act for this client.
    ///
    /// Windows enforces it. On Linux it is advice to an honest server: the kernel tells it who its peer is whatever
    /// that chose.
    #[doc(alias = "SECURITY_ANONYMOUS")]
    #[doc(alias = "SECURITY_IDENTIFICATION")]
    #[doc(alias = "SECURITY_IMPERSONATION")]
    #[doc(alias = "SECURITY_DELEGATION")]
    #[must_use]
    pub fn level(self, level: ImpersonationLevel) -> Self {
        Self { level, ..self }
    }

    /// How long to wait for a server that has no room for one more connection; 10 seconds otherwise.
    #[doc(alias = "WaitNamedPipe")]
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }
}
