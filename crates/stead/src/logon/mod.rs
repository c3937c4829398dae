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

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::time::Duration;

use crate::account::Account;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
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
/// On Windows it is LogonUserW, and without a password LsaLogonUser. Whatever the system answers, the token is
/// read: its user must be the account's. The session's processes are held together by a job object, and the system
/// closes the session with its last token. There is no logon by other network credentials
/// (`LOGON32_LOGON_NEW_CREDENTIALS`): its token is the server's own.
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
    pub(crate) account: Account,
    pub(crate) secret: Option<Secret>,
    pub(crate) conversation: Option<Box<dyn Conversation>>,
    pub(crate) authenticate: bool,
    pub(crate) kind: LogonType,
    pub(crate) lifetime: Lifetime,
    pub(crate) deadline: Duration,
    pub(crate) environment: Vec<(OsString, OsString)>,
    #[cfg(unix)]
    pub(crate) native: sys::logon::Native,
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
            #[cfg(unix)]
            native: sys::logon::Native::default(),
        }
    }

    /// By a password: on Linux it answers the first question that is asked without echo.
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
    ///
    /// On Windows the password is the one question, and a new one where it has expired.
    pub fn with_conversation(account: Account, conversation: impl Conversation + 'static) -> Self {
        Self::new(account, None, true).conversation(conversation)
    }

    /// Answers what is asked beyond the password: one-time codes (Linux), and the change of an expired password.
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

    /// Asks for a SID of the session's own, by which access lists can name this one logon session.
    ///
    /// Windows gives every interactive logon one; on Linux it is a [logon gid](crate::os), which is only made where it
    /// is asked for. An interactive process needs it.
    #[doc(alias = "TokenLogonSid")]
    #[doc(alias = "SE_GROUP_LOGON_ID")]
    pub fn logon_sid(self) -> Self {
        sys::logon::with_logon_sid(self)
    }

    /// Whether the session ends with the server; [`Lifetime::TiedToServer`] if nothing is said.
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// A variable of the session: the session's processes get it, and on Linux PAM modules see it.
    ///
    /// `XDG_SEAT`, `XDG_VTNR` and `XDG_SESSION_*` decide what the session may do (CVE-2025-6018): they are for
    /// the server to choose, and never to be taken from a client. What leads to a desktop (`DISPLAY`, `XDG_SEAT`, ..)
    /// reaches modules only: a process finds the desktop that it was granted, or none.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// How long the logon may take, two minutes if nothing is said; the time that the conversation takes does not
    /// count.
    ///
    /// On Windows a call that the system does not end by then goes on, on a thread of its own, and what it gives
    /// is closed.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
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
        sys::logon::open(self).map(LogonSession::new)
    }
}

impl fmt::Debug for Logon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the secret nor the variables' values.
        let mut shown = f.debug_struct("Logon");
        shown.field("account", &self.account).field("kind", &self.kind).field("lifetime", &self.lifetime);
        shown.finish_non_exhaustive()
    }
}
