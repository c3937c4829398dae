//! How far a server may act for a client.

use std::fmt;

/// How far a server may act for a client; the client chooses it when it connects.
///
/// On Linux a client's choice is advice to an honest server: the kernel tells a privileged server
/// who the client is whatever it chose.
///
/// Reference: [SECURITY_IMPERSONATION_LEVEL](https://learn.microsoft.com/windows/win32/api/winnt/ne-winnt-security_impersonation_level).
#[doc(alias = "SECURITY_IMPERSONATION_LEVEL")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum ImpersonationLevel {
    /// The server may not even know who the client is.
    #[doc(alias = "SecurityAnonymous")]
    Anonymous,
    /// The server may know who the client is, and not act as it.
    #[doc(alias = "SecurityIdentification")]
    Identification,
    /// The server may act as the client on this machine.
    #[doc(alias = "SecurityImpersonation")]
    Impersonation,
    /// The server may act as the client on other machines too, with credentials that the client delegated.
    #[doc(alias = "SecurityDelegation")]
    Delegation,
}

impl fmt::Display for ImpersonationLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::Identification => "identification",
            Self::Impersonation => "impersonation",
            Self::Delegation => "delegation",
        })
    }
}
