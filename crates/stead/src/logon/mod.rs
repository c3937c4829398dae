//! Logging accounts on.
#![forbid(unsafe_code)]

mod conversation;
mod options;
mod secret;
mod session;

pub use conversation::{Conversation, Prompt};
pub use options::{Lifetime, LogonType};
pub use secret::Secret;
pub use session::{LogonSession, SessionId, StartedProcess};

pub(crate) use options::Native;

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::account::Account;
use crate::error::{Error, ErrorKind, Result};
use crate::privilege::Privilege;
use crate::sys;

/// What a logon may take, without the time that a conversation takes.
const DEADLINE: Duration = Duration::from_secs(120);

/// Logs an account on: one attempt for one [`open`](Self::open).
///
/// On Linux the logon goes through PAM, in a process of its own for each session: authentication, account
/// management, supplementary groups, credentials, session. What PAM modules set there (limits, environment,
/// umask, groups, keyring, login uid, label) reaches the session's processes, and only them. The session stays
/// open until its last [`Token`](crate::Token), [`Child`](crate::Child) and [`LogonSession`] are dropped
/// *and* its last process has ended.
///
/// References: [LogonUserW](https://learn.microsoft.com/windows/win32/api/winbase/nf-winbase-logonuserw),
/// [pam(3)](https://man7.org/linux/man-pages/man3/pam.3.html).
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::{Account, Command, Logon, LogonType, Secret};
/// # let secret = Secret::from("");
/// let session = Logon::password(Account::local("alice"), secret).kind(LogonType::Network).open()?;
/// let status = Command::new("report").arg("--today").status_as(session.token())?;
/// # Ok(()) }
/// ```
#[doc(alias = "LogonUser")]
#[doc(alias = "LogonUserW")]
#[doc(alias = "LogonUserExW")]
#[doc(alias = "LsaLogonUser")]
#[must_use = "nothing happens before open"]
pub struct Logon {
    account: Account,
    secret: Option<Secret>,
    conversation: Option<Box<dyn Conversation>>,
    authenticate: bool,
    kind: LogonType,
    lifetime: Lifetime,
    deadline: Duration,
    environment: Vec<(OsString, OsString)>,
    worker: Option<PathBuf>,
    pub(crate) native: Native,
}

impl Logon {
    fn new(account: Account, secret: Option<Secret>, authenticate: bool) -> Self {
        Self {
            account,
            secret,
            conversation: None,
            authenticate,
            kind: LogonType::Network,
            lifetime: Lifetime::TiedToServer,
            deadline: DEADLINE,
            environment: Vec::new(),
            worker: None,
            native: Native::default(),
        }
    }

    /// By a password: it answers the first question that is asked without echo.
    #[doc(alias = "LOGON32_PROVIDER_DEFAULT")]
    pub fn password(account: Account, secret: impl Into<Secret>) -> Self {
        Self::new(account, Some(secret.into()), true)
    }

    /// Without a password, for a server that has authenticated the account by other means (service for user).
    ///
    /// Everything but authentication takes place: whether the account may log on, its groups, its
    /// credentials, its session. The server vouches for the rest.
    #[doc(alias = "LsaLogonUser")]
    #[doc(alias = "S4U")]
    #[doc(alias = "MSV1_0_S4U_LOGON")]
    #[doc(alias = "KERB_S4U_LOGON")]
    pub fn s4u(account: Account) -> Self {
        Self::new(account, None, false)
    }

    /// By a conversation that answers every question, the password among them.
    pub fn with_conversation(account: Account, conversation: impl Conversation + 'static) -> Self {
        Self::new(account, None, true).conversation(conversation)
    }

    /// Answers what is asked beyond the password: one-time codes, and the change of an expired password.
    pub fn conversation(mut self, conversation: impl Conversation + 'static) -> Self {
        self.conversation = Some(Box::new(conversation));
        self
    }

    /// How the account logs on; [`LogonType::Network`] if nothing is said.
    #[doc(alias = "dwLogonType")]
    pub fn kind(mut self, kind: LogonType) -> Self {
        self.kind = kind;
        self
    }

    /// Whether the session ends with the server; [`Lifetime::TiedToServer`] if nothing is said.
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// A variable of the session: PAM modules see it, and the session's processes get it.
    ///
    /// `XDG_SEAT`, `XDG_VTNR` and `XDG_SESSION_*` decide what the session may do (CVE-2025-6018): they are for
    /// the server to choose, and never to be taken from a client.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// How long the logon may take; the time that the conversation takes does not count.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Where the session worker's program is, instead of looking for it.
    pub fn worker(mut self, program: impl AsRef<Path>) -> Self {
        self.worker = Some(program.as_ref().to_owned());
        self
    }

    /// Logs on: one attempt, never repeated and never in another way.
    ///
    /// # Errors
    ///
    /// [`LogonFailed`](ErrorKind::LogonFailed) for a wrong password and an unknown account alike,
    /// [`AccountRestriction`](ErrorKind::AccountRestriction) and
    /// [`LogonTypeDenied`](ErrorKind::LogonTypeDenied) when the account may not log on,
    /// [`AccountUnknown`](ErrorKind::AccountUnknown) for [`s4u`](Self::s4u),
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a PAM service without a file or a question that nobody
    /// answers, [`PrivilegeMissing`](ErrorKind::PrivilegeMissing),
    /// [`WorkerUnavailable`](ErrorKind::WorkerUnavailable), [`DeadlinePassed`](ErrorKind::DeadlinePassed).
    pub fn open(self) -> Result<LogonSession> {
        let doing = || format!("logging on {}", self.account);
        let invalid = |what: String| Error::new(doing(), ErrorKind::InvalidInput { what: what.into() });
        let string = |what: &str, value: &OsStr| {
            CString::new(value.as_bytes()).map_err(|_| invalid(format!("{what} contains a NUL byte")))
        };
        let optional = |what: &str, value: &Option<OsString>| {
            value.as_deref().map(|value| string(what, value)).transpose()
        };
        if self.account.name().is_empty() {
            return Err(invalid("the account has no name".to_owned()));
        }
        if self.secret.as_ref().is_some_and(|secret| secret.as_bytes().contains(&0)) {
            return Err(invalid("the secret contains a NUL byte".to_owned()));
        }
        let mut environment = Vec::with_capacity(self.environment.len());
        for (name, value) in &self.environment {
            if name.is_empty() || name.as_bytes().contains(&b'=') {
                return Err(invalid(format!("{:?} is no name of a variable", name.display().to_string())));
            }
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            environment.push(string("a variable", &variable)?);
        }
        let native = &self.native;
        let service = native.service.clone().unwrap_or_else(|| self.kind.service().into());
        let logon_gid = match &native.logon_gid {
            None => None,
            Some(wanted) => {
                let directory =
                    wanted.directory.as_deref().map(|path| string("the directory", path.as_os_str()));
                Some((directory.transpose()?, *wanted.range.start(), *wanted.range.end()))
            }
        };
        let request = sys::logon::Request {
            user: string("the account's name", self.account.name())?,
            exact_name: self.account.is_local(),
            service: string("the PAM service", &service)?,
            authenticate: self.authenticate,
            tty: optional("the terminal's name", &native.tty)?,
            remote_host: optional("the remote host", &native.remote_host)?,
            remote_user: optional("the remote user", &native.remote_user)?,
            environment,
            logon_gid,
            detached: self.lifetime == Lifetime::Detached,
            deadline: self.deadline,
            worker: self.worker.as_deref(),
            secret: None,
        };
        sys::impersonate::as_server(|| Privilege::AssignPrimaryToken.require())?;
        let request = sys::logon::Request { secret: self.secret.map(Secret::into_bytes), ..request };
        let mut conversation = self.conversation;
        let mut answers;
        let answer: Option<sys::logon::Answer<'_>> = match &mut conversation {
            None => None,
            Some(conversation) => {
                answers = |question: sys::logon::Question<'_>| match question {
                    sys::logon::Question::Prompt { text, echo } => {
                        conversation.answer(&Prompt { text, echo }).map(Secret::into_bytes)
                    }
                    sys::logon::Question::Inform { text, error } => {
                        conversation.inform(text, error);
                        None
                    }
                };
                Some(&mut answers)
            }
        };
        sys::logon::log_on(request, answer).map(LogonSession::new)
    }
}

impl fmt::Debug for Logon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the secret nor the variables' values.
        f.debug_struct("Logon")
            .field("account", &self.account)
            .field("kind", &self.kind)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}
