//! The same API for a server that has no privileges: through stead's service.
//!
//! The service holds the privileges, decides by policy whom a server may act for, and creates the processes. What
//! changes in a server's source is the line where the identity is obtained:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let listener = std::os::unix::net::UnixListener::bind("/run/portal.sock")?;
//! # let (stream, _) = listener.accept()?;
//! use stead::{Command, Service};
//!
//! let service = Service::connect()?;                   // once
//! let client = service.client_of(&stream, &listener)?; // in place of Client::of(&stream)?
//! let token = client.token()?.to_primary()?;
//! let output = Command::new("report").output_as(&token)?;
//! # Ok(()) }
//! ```
//!
//! and for a logon [`Logon::open_through`] in place of [`Logon::open`](crate::Logon::open). Tokens, commands,
//! children and sessions are of the same types and do the same; policy adds [`ErrorKind::PolicyDenied`].
//!
//! # What is not the same
//!
//! * An impersonation opens files as the client; everything else in it (connecting, `metadata`, `read_dir`)
//!   is refused with [`ErrorKind::NotThroughService`]. The thread stays the server's: nothing but the closure's
//!   handle acts as the client, `std::fs` in it least of all.
//! * A control group, ambient capabilities, a security label, a PAM service by name and a session worker
//!   of the server's own are refused with the same kind: they are the service's to give.
//! * A restart of the service ends no logon session: [`Service::sessions`] finds them again, detached ones also after the
//!   server's own restart. A tied one ends with the server, as it does without the service, also when the service was
//!   restarted meanwhile.
//! * A [`Client`] holds its socket open until it is dropped; the token does not.
//! * Nothing reconnects by itself: after [`ErrorKind::ServiceUnavailable`] a token is of no use any more, and a
//!   new one is to be obtained. Processes and sessions go on, and can be waited for and ended.
//!
//! A [`Service`] is shared by any number of threads, and a slow call of one holds up no other: each token has a
//! connection of its own, and waiting for a process is done here, by its pidfd.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::client::Client;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logon::{Logon, LogonSession, SessionId};
use crate::sys;
use crate::sys::client::AsConnection;
use crate::token::{Primary, Token};

/// Where the service listens.
const SOCKET: &str = "/run/stead/service.sock";

/// The variable that names another socket.
const VARIABLE: &str = "STEAD_SERVICE";

/// Stead's service, which holds the privileges for this server. A clone is the same one.
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::{Account, Command, Logon, Service};
/// let service = Service::connect()?;
/// let session = Logon::password(Account::local("alice"), "her password").open_through(&service)?;
/// let output = Command::new("report").output_as(session.token())?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Service(pub(crate) Arc<sys::service::Service>);

impl Service {
    /// The service of this machine: at `/run/stead/service.sock`, or where the variable `STEAD_SERVICE` says.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ServiceUnavailable`] when nothing listens there, or when it is not root's: nobody else's service is
    /// trusted with passwords. Whether it answers shows with the first call.
    pub fn connect() -> Result<Self> {
        match std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
            Some(path) => Self::connect_to(path),
            None => Self::connect_to(SOCKET),
        }
    }

    /// The service that listens at `path`, which must be root's;
    /// [`ServiceExt`](crate::os::linux::ServiceExt) names another user.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_to(path: impl AsRef<Path>) -> Result<Self> {
        sys::service::Service::connect(path.as_ref(), sys::token::Uid::ROOT).map(Self)
    }

    /// The client at the other end of `stream`, a connection that `listener` accepted.
    ///
    /// The service looks at both itself: a connecting end, one of a pair, and a listener that is not this server's
    /// give nothing. What the client's token is allowed for is decided when it is asked for.
    ///
    /// # Errors
    ///
    /// As [`Client::of`].
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = std::os::unix::net::UnixListener::bind("/run/portal.sock")?;
    /// let service = stead::Service::connect()?;
    /// let (stream, _) = listener.accept()?;
    /// let notes = service.client_of(&stream, &listener)?.impersonate(|me| me.open("notes.txt"))??;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "ImpersonateNamedPipeClient")]
    pub fn client_of(&self, stream: impl AsConnection, listener: impl AsConnection) -> Result<Client> {
        let (peer, level) = sys::service::client_of(&self.0, stream.as_fd(), listener.as_fd())?;
        Ok(Client::from_peer(peer, level))
    }

    /// This server's own token, as the service knows it: for processes of its own user that are free of what its
    /// unit was given.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ClientConfined`] for a server that is confined more than the service;
    /// [`ErrorKind::ServiceUnavailable`].
    ///
    /// ```no_run
    /// # fn main() -> stead::Result<()> {
    /// let own = stead::Service::connect()?.own_token()?;
    /// let mut child = stead::Command::new("nightly-report").spawn_as(&own)?;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "OpenProcessToken")]
    pub fn own_token(&self) -> Result<Token<Primary>> {
        sys::service::own_token(&self.0)
    }

    /// The logon sessions that this server, or one of its user before it, opened through the service.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ServiceUnavailable`].
    ///
    /// ```no_run
    /// # fn main() -> stead::Result<()> {
    /// let service = stead::Service::connect()?;
    /// for session in service.sessions()? {
    ///     println!("{} has {} processes", session.account().display(), session.processes().len());
    ///     service.reattach(session.id())?.terminate()?;
    /// }
    /// # Ok(()) }
    /// ```
    #[doc(alias = "LsaEnumerateLogonSessions")]
    pub fn sessions(&self) -> Result<Vec<ServiceSession>> {
        Ok(sys::service::sessions(&self.0)?.into_iter().map(ServiceSession).collect())
    }

    /// Takes a session over: the same token, the same processes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SessionEnded`] when there is no such session of this server's (any more);
    /// [`ErrorKind::PolicyDenied`]; [`ErrorKind::ServiceUnavailable`].
    #[doc(alias = "WTSQueryUserToken")]
    pub fn reattach(&self, id: SessionId) -> Result<LogonSession> {
        let (token, handle) = sys::service::open_session(&self.0, id.to_string())?;
        Ok(LogonSession::from_parts(token, handle))
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("path", &self.0.path()).finish_non_exhaustive()
    }
}

/// A logon session that the service keeps, as it was when it was listed.
pub struct ServiceSession(sys::service::Known);

impl ServiceSession {
    /// Its number, by which [`Service::reattach`] takes it over.
    pub fn id(&self) -> SessionId {
        SessionId(self.0.id)
    }

    /// The name of the account that logged on.
    pub fn account(&self) -> &OsStr {
        &self.0.user
    }

    /// The ids of its processes.
    pub fn processes(&self) -> &[u32] {
        &self.0.pids
    }
}

impl fmt::Debug for ServiceSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceSession")
            .field("id", &self.id())
            .field("account", &self.account())
            .field("processes", &self.processes())
            .finish_non_exhaustive()
    }
}

impl Logon {
    /// Logs on through the service: the same as [`open`](Self::open), by a server without privileges.
    ///
    /// The secret travels through a pipe, and stands in no message; questions come over a socket of their own.
    /// The logon type's PAM service is the service's. Of [`env`](Self::env) it takes variables of language, time
    /// zone and terminal type; of a [logon gid](crate::os::linux::LogonExt::logon_gid) the default range.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open); [`ErrorKind::PolicyDenied`], for a user that exists and one that does
    /// not alike; [`ErrorKind::TryLater`] soon after failed logons; [`ErrorKind::NotThroughService`] for a PAM
    /// service or a worker that this logon names; [`ErrorKind::ServiceUnavailable`].
    #[doc(alias = "LogonUser")]
    pub fn open_through(self, service: &Service) -> Result<LogonSession> {
        let (token, handle) = sys::service::log_on(self, &service.0)?;
        Ok(LogonSession::from_parts(token, handle))
    }
}
