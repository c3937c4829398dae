//! The privileges that creating processes as others takes, in the reference page's own terms.
//!
//! A privilege is *held* when the thread may enable it, and *enabled* when it counts. On Linux each is a set of
//! capabilities: permitted is held, effective is enabled. Root holds and enables all of them, unless a container
//! or a unit took some away; [`Privilege::report`] says what is there.
//!
//! Privileges are the calling thread's: one thread's are not changed by another's. During an impersonation a
//! thread has none enabled.

use std::borrow::Cow;
use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::sys;

/// A right of the server itself, apart from what its clients may do.
///
/// References: [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html),
/// [Privilege Constants](https://learn.microsoft.com/windows/win32/secauthz/privilege-constants).
///
/// ```
/// use stead::Privilege;
///
/// # fn main() -> stead::Result<()> {
/// for status in Privilege::report()? {
///     println!("{status}");
/// }
/// # Ok(()) }
/// ```
#[doc(alias = "SE_ASSIGNPRIMARYTOKEN_NAME")]
#[doc(alias = "SE_INCREASE_QUOTA_NAME")]
#[doc(alias = "SE_IMPERSONATE_NAME")]
#[doc(alias = "SE_TCB_NAME")]
#[doc(alias = "LookupPrivilegeValue")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Privilege {
    /// Give a process another primary token: `CAP_SETUID`, `CAP_SETGID`, `CAP_SETPCAP` and `CAP_KILL`.
    AssignPrimaryToken,
    /// Give a process limits above the server's own: `CAP_SYS_RESOURCE`.
    IncreaseQuota,
    /// Put a client's identity on a thread: `CAP_SETUID` and `CAP_SETGID`.
    Impersonate,
    /// Read how a client of another user is confined: `CAP_SYS_PTRACE`.
    InspectClient,
    /// Log accounts on: `CAP_DAC_READ_SEARCH` for PAM and `CAP_AUDIT_CONTROL` for the login uid.
    Logon,
}

/// What the calling thread has of one privilege.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrivilegeStatus {
    /// The privilege.
    pub privilege: Privilege,
    /// Whether the thread may enable it.
    pub held: bool,
    /// Whether it counts now.
    pub enabled: bool,
    /// What is missing, in the platform's words: what is not held, else what is not enabled.
    pub missing: Vec<Cow<'static, str>>,
}

impl Privilege {
    /// All of them.
    pub const ALL: &[Self] =
        &[Self::AssignPrimaryToken, Self::IncreaseQuota, Self::Impersonate, Self::InspectClient, Self::Logon];

    /// What the calling thread has of each privilege.
    ///
    /// # Errors
    ///
    /// As [`Privilege::status`].
    pub fn report() -> Result<Vec<PrivilegeStatus>> {
        Self::ALL.iter().map(|privilege| privilege.status()).collect()
    }

    /// What the calling thread has of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] where the kernel does not tell.
    ///
    /// ```
    /// # fn main() -> stead::Result<()> {
    /// let status = stead::Privilege::Impersonate.status()?;
    /// assert_eq!(status.enabled, status.missing.is_empty());
    /// # Ok(()) }
    /// ```
    #[doc(alias = "PrivilegeCheck")]
    #[doc(alias = "capget")]
    pub fn status(self) -> Result<PrivilegeStatus> {
        sys::privilege::status(self)
    }

    /// Nothing where it is enabled on the calling thread, an error that names what is missing elsewhere.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PrivilegeMissing`].
    pub fn require(self) -> Result<()> {
        self.require_for("checking privileges")
    }

    /// The same, where the check is a step of `doing` something else.
    pub(crate) fn require_for(self, doing: impl Into<Cow<'static, str>>) -> Result<()> {
        let status = self.status()?;
        if status.enabled { Ok(()) } else { Err(status.into_error(doing)) }
    }

    /// Runs `act` with the privilege enabled on the calling thread, and only there and then.
    ///
    /// What was enabled before stays enabled after; what was not is disabled again, also when `act` panics.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PrivilegeMissing`] where it is not held. [`ErrorKind::InvalidInput`] while the thread
    /// impersonates: a client has no privileges of the server's.
    ///
    /// ```no_run
    /// # fn example(token: stead::Token<stead::Impersonation>) -> stead::Result<()> {
    /// use stead::Privilege;
    ///
    /// // A server that keeps its capabilities permitted and enables them only where it needs them.
    /// let notes = Privilege::Impersonate.enabled(|| token.impersonate(|me| me.open("notes.txt")))???;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "AdjustTokenPrivileges")]
    #[doc(alias = "capset")]
    pub fn enabled<R>(self, act: impl FnOnce() -> R) -> Result<R> {
        if sys::impersonate::current().is_some() {
            let what = "privileges cannot be enabled while the thread impersonates";
            return Err(Error::new("enabling privileges", ErrorKind::InvalidInput { what: what.into() }));
        }
        let status = self.status()?;
        if !status.held {
            return Err(status.into_error("enabling privileges"));
        }
        let _enabled = sys::privilege::enable(self)?;
        Ok(act())
    }
}

impl PrivilegeStatus {
    fn into_error(self, doing: impl Into<Cow<'static, str>>) -> Error {
        let kind = ErrorKind::PrivilegeMissing {
            privilege: self.privilege,
            missing: self.missing.join(", ").into(),
            held: self.held,
            enabled: self.enabled,
        };
        Error::new(doing, kind)
    }
}

impl fmt::Display for PrivilegeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.held, self.enabled) {
            (_, true) => "enabled",
            (true, false) => "held, not enabled",
            (false, false) => "not held",
        };
        write!(f, "{}: {state}", self.privilege)?;
        if !self.missing.is_empty() {
            write!(f, " ({} missing)", self.missing.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AssignPrimaryToken => "assign-primary-token",
            Self::IncreaseQuota => "increase-quota",
            Self::Impersonate => "impersonate",
            Self::InspectClient => "inspect-client",
            Self::Logon => "logon",
        })
    }
}
