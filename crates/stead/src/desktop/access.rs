//! Who may use a desktop.
#![forbid(unsafe_code)]

use std::fmt;

use crate::sys::desktop::{Group, LogonSession, User};

/// Whom an entry of an access list names.
///
/// What these hold is the platform's own: SIDs on Windows, uid, gid and logon session on Linux.
///
/// Reference: [Trustees](https://learn.microsoft.com/windows/win32/secauthz/trustees).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(alias = "TRUSTEE")]
#[doc(alias = "SID")]
#[non_exhaustive]
pub enum Trustee {
    /// A user.
    User(User),
    /// A group.
    Group(Group),
    /// One logon session.
    LogonSession(LogonSession),
    /// Everybody who can reach the desktop.
    Everyone,
    /// Somebody in words of the desktop's own (a host of an X server's list).
    Other(String),
}

impl fmt::Display for Trustee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::LogonSession(session) => write!(f, "logon session {session}"),
            Self::Everyone => f.write_str("everyone"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// One entry: which object lets whom do (or keeps whom from) what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(alias = "ACE")]
#[doc(alias = "ACCESS_ALLOWED_ACE")]
pub struct AccessEntry {
    object: String,
    trustee: Trustee,
    denies: bool,
    rights: String,
}

impl AccessEntry {
    pub(crate) fn new(object: impl Into<String>, trustee: Trustee, rights: impl Into<String>) -> Self {
        Self { object: object.into(), trustee, denies: false, rights: rights.into() }
    }

    /// An entry that denies, which only Windows has.
    #[cfg(windows)]
    pub(crate) fn denying(mut self) -> Self {
        self.denies = true;
        self
    }

    /// The object whose list it is in: the window station or the desktop, the display, the socket, the terminal.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Whom it names.
    pub fn trustee(&self) -> &Trustee {
        &self.trustee
    }

    /// Whether it denies rather than allows.
    pub fn denies(&self) -> bool {
        self.denies
    }

    /// What it allows or denies, in the platform's words.
    pub fn rights(&self) -> &str {
        &self.rights
    }
}

impl fmt::Display for AccessEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.denies { "denies" } else { "allows" };
        write!(f, "{} {kind} {}: {}", self.object, self.trustee, self.rights)
    }
}

/// Who may use a desktop: readable, printable, comparable.
///
/// Two are equal when they have the same entries, in whatever order. Order and inheritance, which only Windows'
/// DACLs have, are in `os::windows`.
///
/// ```no_run
/// # fn example(desktop: &stead::Desktop) -> stead::Result<()> {
/// let before = desktop.access()?;
/// // ... an interactive process comes and goes ...
/// assert_eq!(desktop.access()?, before);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[doc(alias = "DACL")]
#[doc(alias = "ACL")]
pub struct AccessList {
    entries: Vec<AccessEntry>,
}

impl AccessList {
    pub(crate) fn new(mut entries: Vec<AccessEntry>) -> Self {
        entries.sort_unstable();
        Self { entries }
    }

    /// The entries, in a fixed order.
    pub fn entries(&self) -> &[AccessEntry] {
        &self.entries
    }

    /// Whether an entry names this trustee and allows something.
    pub fn names(&self, trustee: &Trustee) -> bool {
        self.entries.iter().any(|entry| !entry.denies && entry.trustee == *trustee)
    }
}

impl fmt::Display for AccessList {
    /// One line for each entry.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, entry) in self.entries.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            entry.fmt(f)?;
        }
        Ok(())
    }
}
