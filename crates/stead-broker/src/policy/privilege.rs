//! What a caller may be allowed to do.

use std::fmt;

/// A right that a caller of the service may have over clients, in the reference page's own terms.
///
/// Reference: [Processes in the Client Security Context][page] and
/// [Privilege Constants](https://learn.microsoft.com/windows/win32/secauthz/privilege-constants).
///
/// [page]: https://learn.microsoft.com/windows/win32/secauthz/processes-in-the-client-security-context
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Privilege {
    /// Create processes as the client: `SE_ASSIGNPRIMARYTOKEN_NAME`.
    AssignPrimaryToken,
    /// Give them limits above the service's own: `SE_INCREASE_QUOTA_NAME`.
    IncreaseQuota,
    /// Act as the client of a socket of the caller's: `SE_IMPERSONATE_NAME`.
    Impersonate,
    /// Log the client on with the client's own credentials (`LogonUser`).
    Logon,
    /// Log the client on without any, by the caller's word alone (S4U): `SE_TCB_NAME`.
    Tcb,
}

impl Privilege {
    /// All of them.
    pub const ALL: &[Self] =
        &[Self::AssignPrimaryToken, Self::IncreaseQuota, Self::Impersonate, Self::Logon, Self::Tcb];

    /// What a policy file calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AssignPrimaryToken => "assign-primary-token",
            Self::IncreaseQuota => "increase-quota",
            Self::Impersonate => "impersonate",
            Self::Logon => "logon",
            Self::Tcb => "tcb",
        }
    }

    /// The one that a policy file calls so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|privilege| privilege.name() == name)
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
