//! An open logon session.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::process::ExitStatus;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::logon::SessionHandle;
use crate::token::{ImpersonationLevel, Primary, Token};

/// A logon session's number, unique on this machine.
///
/// Displayed and parsed as sixteen hexadecimal digits.
///
/// Reference: [AuthenticationId of TOKEN_STATISTICS](https://learn.microsoft.com/windows/win32/api/winnt/ns-winnt-token_statistics).
#[doc(alias = "LUID")]
#[doc(alias = "AuthenticationId")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(crate) u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        u64::from_str_radix(text, 16).ok().map(Self).filter(|id| id.to_string() == text).ok_or_else(|| {
            let what = format!("{text:?} is no session id of sixteen hexadecimal digits").into();
            Error::new("reading a session id", ErrorKind::InvalidInput { what })
        })
    }
}

/// An account that is logged on.
///
/// The session stays open as long as this, any token of it, any child of it, or any of its processes lives;
/// then it is closed in order.
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::{Account, Logon};
/// let session = Logon::s4u(Account::local("alice")).open()?;
/// println!("{} is logged on as session {}", session.account().display(), session.id());
/// session.close()
/// # }
/// ```
pub struct LogonSession {
    token: Token<Primary>,
    handle: Arc<SessionHandle>,
}

impl LogonSession {
    pub(crate) fn new(handle: SessionHandle) -> Self {
        let handle = Arc::new(handle);
        let token = Token::from_context(
            handle.context().clone(),
            ImpersonationLevel::Impersonation,
            Some(Arc::clone(&handle)),
        );
        Self { token, handle }
    }

    #[cfg(all(feature = "service", unix))]
    pub(crate) fn from_parts(token: Token<Primary>, handle: Arc<SessionHandle>) -> Self {
        Self { token, handle }
    }

    /// The primary token of the session.
    pub fn token(&self) -> &Token<Primary> {
        &self.token
    }

    /// The session's number.
    #[doc(alias = "TokenLogonSid")]
    pub fn id(&self) -> SessionId {
        SessionId(self.handle.id())
    }

    /// The name of the account that logged on, as the account database has it.
    pub fn account(&self) -> &OsStr {
        self.handle.account().name()
    }

    /// The session's environment: the account's variables (`HOME`, `USER`, `SHELL`, `PATH`, ...), then those
    /// of PAM; on Windows the machine's and the user's. Then those of [`Logon::env`](super::Logon::env). The
    /// server's own are never in it.
    #[doc(alias = "CreateEnvironmentBlock")]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        self.handle.variables()
    }

    /// The ids of the session's processes now, those of other parents than the server among them.
    ///
    /// # Errors
    ///
    /// [`SessionEnded`](ErrorKind::SessionEnded) when the worker is gone.
    #[doc(alias = "JobObjectBasicProcessIdList")]
    pub fn processes(&self) -> Result<Vec<u32>> {
        self.handle.processes()
    }

    /// Kills every process of the session and waits until they have ended; the session stays open.
    ///
    /// # Errors
    ///
    /// [`SessionEnded`](ErrorKind::SessionEnded) when the worker is gone.
    #[doc(alias = "LogoffUser")]
    pub fn terminate(&self) -> Result<()> {
        self.handle.terminate()
    }

    /// Gives the session back, and waits until it has been closed: after its last process has ended, and its
    /// last token, and child that was not waited for, are dropped elsewhere.
    ///
    /// A token, or child that was not waited for, that the calling thread itself still has would keep it
    /// waiting for ever: drop them first. Dropping the `LogonSession` does the same without waiting.
    ///
    /// # Errors
    ///
    /// What closing the PAM session and deleting its credentials returned;
    /// [`SessionEnded`](ErrorKind::SessionEnded) when the worker was lost before.
    #[doc(alias = "CloseHandle")]
    pub fn close(self) -> Result<()> {
        let ending = self.handle.ending();
        drop(self);
        ending.wait(None)
    }

    /// Ends the session with all that runs in it, and waits until it has been closed: [`terminate`](Self::terminate), then
    /// [`close`](Self::close).
    ///
    /// Where nobody else holds the session that is asked for at once, and takes half the time of the two.
    ///
    /// ```no_run
    /// # fn main() -> stead::Result<()> {
    /// use stead::{Account, Command, Logon};
    /// let session = Logon::s4u(Account::local("alice")).open()?;
    /// let status = Command::new("nightly-report").status_as(session.token())?;
    /// session.log_off()?; // what the report left in the background ends with it
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of both; where nobody else holds the session, [`DeadlinePassed`](ErrorKind::DeadlinePassed) when it has not
    /// ended within half a minute: it does when its last process has.
    #[doc(alias = "ExitWindowsEx")]
    #[doc(alias = "WTSLogoffSession")]
    pub fn log_off(self) -> Result<()> {
        let Self { token, handle } = self;
        drop(token);
        match Arc::try_unwrap(handle) {
            Ok(handle) => handle.log_off(),
            Err(shared) => {
                shared.terminate()?;
                let ending = shared.ending();
                drop(shared);
                ending.wait(None)
            }
        }
    }

    /// Detached sessions of this machine that live, started by servers with the same uid; none on Windows.
    ///
    /// # Errors
    ///
    /// [`System`](ErrorKind::System) when `/run/stead/sessions` cannot be read, or is not the server's own.
    pub fn detached_sessions() -> Result<Vec<SessionId>> {
        Ok(crate::sys::logon::detached_sessions()?.into_iter().map(SessionId).collect())
    }

    /// Takes over a detached session whose server is gone: the same token, the same processes.
    ///
    /// # Errors
    ///
    /// [`SessionEnded`](ErrorKind::SessionEnded) when there is no such session (any more),
    /// [`WorkerUnavailable`](ErrorKind::WorkerUnavailable) when another server is attached to it.
    #[doc(alias = "WTSQueryUserToken")]
    pub fn reattach(id: SessionId) -> Result<Self> {
        crate::sys::logon::reattach(id.0).map(Self::new)
    }

    /// The processes that earlier servers started in the session, as far as nobody has asked for their end; none
    /// on Windows.
    pub fn started(&self) -> Vec<StartedProcess> {
        let process = |(number, pid): &(u32, i32)| StartedProcess {
            handle: Arc::clone(&self.handle),
            number: *number,
            pid: pid.unsigned_abs(),
        };
        self.handle.earlier_processes().iter().map(process).collect()
    }

    #[cfg(unix)]
    pub(crate) fn handle(&self) -> &SessionHandle {
        &self.handle
    }
}

impl fmt::Debug for LogonSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogonSession")
            .field("id", &self.id())
            .field("account", &self.account())
            .finish_non_exhaustive()
    }
}

/// A process of a detached session that an earlier server started.
pub struct StartedProcess {
    handle: Arc<SessionHandle>,
    /// The worker's name for it.
    number: u32,
    pid: u32,
}

impl StartedProcess {
    /// Its process id; it may belong to another process once the exit status is there.
    #[doc(alias = "GetProcessId")]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// [`SessionEnded`](ErrorKind::SessionEnded) when the worker is gone.
    pub fn exit_status(&self) -> Result<Option<ExitStatus>> {
        self.handle.earlier_status(self.number)
    }

    /// Kills it and everything that descends from it.
    ///
    /// # Errors
    ///
    /// [`SessionEnded`](ErrorKind::SessionEnded) when the worker is gone.
    pub fn kill_tree(&self) -> Result<()> {
        self.handle.kill_tree(self.number)
    }
}

impl fmt::Debug for StartedProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartedProcess").field("pid", &self.pid).finish_non_exhaustive()
    }
}
