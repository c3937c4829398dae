//! The privileges that creating processes as others takes, in the reference page's own terms.

use std::fmt;

/// A right of the server itself, apart from what its clients may do.
#[doc(alias = "SE_ASSIGNPRIMARYTOKEN_NAME")]
#[doc(alias = "SE_INCREASE_QUOTA_NAME")]
#[doc(alias = "SE_IMPERSONATE_NAME")]
#[doc(alias = "SE_TCB_NAME")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Privilege {
    /// Give a process another primary token: CAP_SETUID, CAP_SETGID, CAP_SETPCAP and CAP_KILL.
    AssignPrimaryToken,
    /// Give a process limits above the server's own: CAP_SYS_RESOURCE.
    IncreaseQuota,
    /// Put a client's identity on a thread: CAP_SETUID and CAP_SETGID.
    Impersonate,
    /// Read how a client of another user is confined: CAP_SYS_PTRACE.
    InspectClient,
    /// Log accounts on: CAP_DAC_READ_SEARCH for PAM and CAP_AUDIT_CONTROL for the login uid.
    Logon,
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
