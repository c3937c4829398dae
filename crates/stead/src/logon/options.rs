//! The choices of a logon.

/// How an account logs on.
///
/// On Linux each type is a PAM service, in which the administrator says who may log on so and what such a
/// session gets. A service without a file is an error; PAM's `other` is never used in its place, and no type is
/// ever substituted for another.
///
/// Reference: [LogonUserW](https://learn.microsoft.com/windows/win32/api/winbase/nf-winbase-logonuserw),
/// parameter `dwLogonType`.
#[doc(alias = "SECURITY_LOGON_TYPE")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogonType {
    /// At this machine's screen and keyboard, or a terminal: `stead-interactive`.
    #[doc(alias = "LOGON32_LOGON_INTERACTIVE")]
    Interactive,
    /// From the network: `stead-network`.
    #[doc(alias = "LOGON32_LOGON_NETWORK")]
    Network,
    /// From the network, with credentials that are kept for further machines: `stead-network` too, whose
    /// stack keeps them or not (pam_krb5, pam_sss).
    #[doc(alias = "LOGON32_LOGON_NETWORK_CLEARTEXT")]
    NetworkCleartext,
    /// A job without its user: `stead-batch`.
    #[doc(alias = "LOGON32_LOGON_BATCH")]
    Batch,
    /// A service that runs as the account: `stead-service`.
    #[doc(alias = "LOGON32_LOGON_SERVICE")]
    Service,
}

/// When a logon session ends.
///
/// A server that is started anew finds its users' processes again:
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::{Account, Command, Lifetime, Logon, LogonSession};
/// let session = Logon::s4u(Account::local("alice")).lifetime(Lifetime::Detached).open()?;
/// Command::new("notebook").spawn_as(session.token())?;
/// // The server ends. The next one:
/// for id in LogonSession::detached_sessions()? {
///     let session = LogonSession::reattach(id)?;
///     println!("{} runs {:?}", session.account().display(), session.processes()?);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Lifetime {
    /// With its last token, child and process, and with the server at the latest: then its processes are told
    /// (SIGHUP, on Linux), killed, and the session is closed in order.
    #[doc(alias = "JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE")]
    #[default]
    TiedToServer,
    /// With its last process, when nobody is attached to it: a new server finds it again by
    /// [`LogonSession::detached_sessions`](super::LogonSession::detached_sessions).
    ///
    /// On Windows nothing keeps a session for a later server: [`Logon::open`](super::Logon::open) refuses with
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput).
    Detached,
}
