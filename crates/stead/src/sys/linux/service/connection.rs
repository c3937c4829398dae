//! Connections to the service, each only after it was seen whose it is.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use stead_protocol::client::{CallError, Connection, Descriptors};
use stead_protocol::{CloseSession, CloseToken, Method, OpenSession};

use super::error::error;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::client::peer_ids;
use crate::sys::impersonate::as_server;
use crate::sys::token::Uid;

/// The service answers at once what waits for nothing; beside what a call may take by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// As long as that what has no result is waited for.
const BRIEFLY: Duration = Duration::from_secs(5);

/// Idle connections that are kept.
const IDLE: usize = 4;

/// The service that listens at a path.
pub(crate) struct Service {
    path: PathBuf,
    /// As whom it must run.
    owner: Uid,
    /// Connections for calls that need no particular one.
    idle: Mutex<Vec<Idle>>,
}

/// A connection that nobody uses, and who made it: the service knows by it who calls.
struct Idle {
    connection: Connection,
    by: Caller,
}

/// A process, and as whom it runs. A forked copy of the server is another caller, as is one that gave up its user or a
/// group; one of whom that cannot be told is nobody's equal.
#[derive(PartialEq)]
struct Caller(rustix::process::Pid, rustix::process::Uid, rustix::process::Gid, Vec<rustix::process::Gid>);

impl Caller {
    fn now() -> Option<Self> {
        let groups = rustix::process::getgroups().ok()?;
        Some(Self(rustix::process::getpid(), rustix::process::geteuid(), rustix::process::getegid(), groups))
    }
}

impl Service {
    /// The service at `path`, if it is there and is `owner`'s.
    pub(crate) fn connect(path: &Path, owner: Uid) -> Result<Arc<Self>> {
        let service = Self { path: path.to_owned(), owner, idle: Mutex::default() };
        // What it says is heard with the first call: a question of its own would cost more than many a call.
        as_server(|| service.dial().map(|connection| service.keep(connection)))?;
        Ok(Arc::new(service))
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A connection that nobody else uses.
    fn connection(&self) -> Result<Connection> {
        self.take_idle().map_or_else(|| self.dial(), Ok)
    }

    /// A new connection.
    fn dial(&self) -> Result<Connection> {
        let doing = || format!("connecting to the service at {}", self.path.display());
        let unavailable =
            |why: String| Error::new(doing(), ErrorKind::ServiceUnavailable { why: why.into() });
        let connection = Connection::connect(&self.path).map_err(|source| {
            let why = match source.kind() {
                io::ErrorKind::NotFound => "nothing is there",
                io::ErrorKind::ConnectionRefused => "nobody listens there",
                io::ErrorKind::PermissionDenied => "this process may not connect to it",
                _ => "it does not take connections",
            };
            unavailable(why.to_owned()).with_source(source)
        })?;
        // The ids of whoever called listen(2), as the kernel recorded them: nobody else's service is told passwords.
        let [_, uid, _] = peer_ids(connection.as_fd())
            .map_err(|source| Error::system(doing(), "getsockopt(SO_PEERCRED)", source))?;
        if uid != self.owner.as_raw() {
            return Err(unavailable(format!("it is of uid {uid} and not of uid {}", self.owner)));
        }
        Ok(connection)
    }

    /// A call that needs no particular connection.
    pub(super) fn call<M: Method>(
        &self,
        doing: &'static str,
        call: &M,
        patience: Duration,
    ) -> Result<M::Reply> {
        as_server(|| {
            let mut connection = self.connection()?;
            let result = ask(&mut connection, call, &[], Some(patience));
            if !matches!(result, Err(CallError::Connection(_) | CallError::Malformed(_))) {
                self.keep(connection);
            }
            result.map(|(reply, _)| reply).map_err(|fault| error(doing.into(), fault))
        })
    }

    /// Lets go of a session which a service that was started anew holds for this process until it ends.
    ///
    /// It is opened first, and that is waited for: were the process to end before the service has seen it let go, then
    /// that would end the session.
    fn let_go_anew(&self, call: &CloseSession) {
        let Ok(mut connection) = self.dial() else { return };
        if ask(&mut connection, &OpenSession { session: call.session.clone() }, &[], Some(BRIEFLY)).is_ok() {
            let _ = connection.tell(call);
        }
    }

    /// Keeps one for the next call.
    fn keep(&self, connection: Connection) {
        let Some(by) = Caller::now() else { return };
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE {
            idle.push(Idle { connection, by });
        }
    }

    /// One that is as good as new: a service that was started anew has closed those of before.
    fn take_idle(&self) -> Option<Connection> {
        let now = Caller::now();
        let mut idle = lock(&self.idle);
        while let Some(Idle { connection, by }) = idle.pop() {
            if now.as_ref() != Some(&by) {
                continue;
            }
            let mut fds = [PollFd::new(&connection, PollFlags::IN)];
            if matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0)) {
                return Some(connection);
            }
        }
        None
    }
}

/// The connection to which a token's number belongs.
pub(super) struct Line {
    connection: Mutex<Connection>,
    /// Tokens that are let go of with the next call: dropping one waits for nothing.
    unused: Mutex<Vec<u64>>,
    /// A session that ends with this connection, unless it is let go of.
    tied: OnceLock<String>,
    /// A forked copy of the server has no say.
    owner: u32,
    pub(super) service: Arc<Service>,
}

impl Line {
    pub(super) fn new(service: &Arc<Service>) -> Result<Self> {
        let connection = Mutex::new(as_server(|| service.connection())?);
        let (unused, tied, owner) = (Mutex::default(), OnceLock::new(), std::process::id());
        Ok(Self { connection, unused, tied, owner, service: Arc::clone(service) })
    }

    /// A call, and how an error says what was being done.
    pub(super) fn call<M: Method>(
        &self,
        doing: impl Into<Cow<'static, str>>,
        call: &M,
        descriptors: &[BorrowedFd<'_>],
        patience: Option<Duration>,
    ) -> Result<(M::Reply, Descriptors)> {
        self.ask(call, descriptors, patience).map_err(|fault| error(doing.into(), fault))
    }

    pub(super) fn ask<M: Method>(
        &self,
        call: &M,
        descriptors: &[BorrowedFd<'_>],
        patience: Option<Duration>,
    ) -> Result<(M::Reply, Descriptors), CallError> {
        as_server(|| {
            let mut connection = lock(&self.connection);
            let unused = std::mem::take(&mut *lock(&self.unused));
            for token in unused {
                // One that the service does not know any more is gone, which is what is wanted.
                let _ = ask(&mut connection, &CloseToken { token }, &[], Some(PATIENCE));
            }
            ask(&mut connection, call, descriptors, patience)
        })
    }

    /// Closes the session that this connection was opened for, and waits for its end. Its tokens are let go of with it, and
    /// not before.
    pub(super) fn close(mut self, doing: &'static str, call: &CloseSession) -> Result<()> {
        self.tied.take();
        let connection = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
        let closed = as_server(|| ask(connection, call, &[], None));
        closed.map(drop).map_err(|fault| error(doing.into(), fault))
    }

    pub(super) fn let_go(&self, token: u64) {
        lock(&self.unused).push(token);
    }

    /// A session ends with this connection. When nothing needs the connection any more, the session is let go of; only
    /// where this server ends before is it lost.
    pub(super) fn tie(&self, session: String) {
        let _ = self.tied.set(session);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(session) = self.tied.take() else { return };
        if self.owner == std::process::id() {
            let connection = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
            let call = CloseSession { session, terminate: false };
            // Nobody waits for an answer.
            if connection.tell(&call).is_err() {
                as_server(|| self.service.let_go_anew(&call));
            }
        }
    }
}

/// One call, and at most so long a wait for its reply.
fn ask<M: Method>(
    connection: &mut Connection,
    call: &M,
    descriptors: &[BorrowedFd<'_>],
    patience: Option<Duration>,
) -> Result<(M::Reply, Descriptors), CallError> {
    for direction in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&*connection, direction, patience).map_err(io::Error::from)?;
    }
    connection.call(call, descriptors)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
