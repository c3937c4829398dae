//! Accounts by name.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt;

/// Whom to log on, by name. A name is never parsed as a number.
///
/// On Linux all three forms are names of the account database (NSS) and of PAM: a local one, winbind's
/// `DOMAIN\user`, and sssd's `user@realm`. The account that is logged on is the one that the account database
/// knows under that name.
///
/// Reference: [LogonUserW](https://learn.microsoft.com/windows/win32/api/winbase/nf-winbase-logonuserw),
/// parameters `lpszUsername` and `lpszDomain`.
///
/// ```
/// use stead::Account;
/// assert_eq!(Account::local("alice").to_string(), "alice");
/// assert_eq!(Account::domain("EXAMPLE", "alice").to_string(), r"EXAMPLE\alice");
/// assert_eq!(Account::upn("alice@example.com").to_string(), "alice@example.com");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    name: OsString,
    local: bool,
}

impl Account {
    /// An account of this machine.
    #[doc(alias = "lpszUsername")]
    pub fn local(name: impl AsRef<OsStr>) -> Self {
        Self { name: name.as_ref().to_owned(), local: true }
    }

    /// An account of a domain: on Linux PAM is given `DOMAIN\name`.
    #[doc(alias = "lpszDomain")]
    pub fn domain(domain: impl AsRef<OsStr>, name: impl AsRef<OsStr>) -> Self {
        let mut whole = domain.as_ref().to_owned();
        whole.push("\\");
        whole.push(name);
        Self { name: whole, local: false }
    }

    /// An account by its user principal name, `user@realm`.
    #[doc(alias = "UPN")]
    pub fn upn(name: impl AsRef<OsStr>) -> Self {
        Self { name: name.as_ref().to_owned(), local: false }
    }

    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Whether the account database must know it under exactly this name.
    pub(crate) fn is_local(&self) -> bool {
        self.local
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.display().fmt(f)
    }
}
