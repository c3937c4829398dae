//! Desktops: what a process must be let onto to be interactive, who may use one, and leases of that access.
//!
//! A process is non-interactive unless its [`Command`](crate::Command) names a desktop. Before it starts, its logon
//! session is then granted access, for as long as any process of its tree lives: the *access lease*.
//!
//! | | Windows | Linux |
//! |---|---|---|
//! | desktop | `winsta0\default` of a session | an X display, a Wayland compositor's socket, a terminal |
//! | access list | the DACLs of window station and desktop | host list and authorizations; POSIX ACL |
//! | who is named | user, group or logon SID | user, group, or logon session by its logon gid |
//!
//! What is written down before a grant is made lets the next start sweep what a crash left ([`sweep`]).
//!
//! Reference: [Window Stations and Desktops](https://learn.microsoft.com/windows/win32/winstation/window-stations-and-desktops),
//! [Processes in the Client Security Context](https://learn.microsoft.com/windows/win32/secauthz/processes-in-the-client-security-context).
#![forbid(unsafe_code)]

mod access;
mod lease;

pub use access::{AccessEntry, AccessList, Trustee};
pub use lease::AccessLease;

use std::ffi::OsStr;
use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::sys;
use crate::token::{Primary, Token, TokenKind};

/// Which of the sessions in which people sit before a screen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[doc(alias = "WTSGetActiveConsoleSessionId")]
#[doc(alias = "WTSEnumerateSessions")]
#[doc(alias = "sd_seat_get_active")]
#[non_exhaustive]
pub enum InteractiveSession {
    /// The one at the machine's own screen and keyboard (Linux: the active one of seat0, as logind tells).
    Console,
    /// The one that is active, where there is exactly one.
    Active,
    /// The one of this user, where there is exactly one; it may be disconnected.
    OfUser(sys::desktop::User),
    /// The one with this number (Windows) or name (logind's, on Linux).
    Id(sys::desktop::InteractiveId),
}

/// To whom a [`Desktop`] is granted when a process starts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum GrantTo {
    /// The logon session of the token, and no other of the same user.
    #[default]
    LogonSession,
    /// The user, in all logon sessions.
    User,
}

/// Where a process may show windows: a window station and desktop, a display, a terminal; or nowhere.
///
/// Naming one touches nothing: access is granted when a process starts on it, or by [`grant`](Self::grant).
///
/// ```no_run
/// # fn example(token: stead::Token<stead::Primary>) -> stead::Result<()> {
/// use stead::{Command, Desktop, desktop::InteractiveSession};
/// let desktop = Desktop::interactive(InteractiveSession::Console)?;
/// println!("{}", desktop.access()?);
/// let child = Command::new("editor").desktop(desktop).spawn_as(&token)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[doc(alias = "STARTUPINFO")]
#[doc(alias = "lpDesktop")]
#[doc(alias = "winsta0")]
pub struct Desktop {
    /// None for non-interactive.
    pub(crate) place: Option<sys::desktop::Place>,
    pub(crate) to: GrantTo,
    /// How it was found; a service finds it anew.
    pub(crate) session: Option<InteractiveSession>,
}

impl Desktop {
    /// No desktop: the process is non-interactive, as every process is unless its command says otherwise.
    pub fn none() -> Self {
        Self::default()
    }

    /// The desktop of an interactive session: `winsta0\default` there; on Linux its X or Wayland display, or its
    /// terminal.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) when there is no such session or it has no desktop;
    /// [`InvalidInput`](ErrorKind::InvalidInput) when more than one fits;
    /// [`PrivilegeMissing`](ErrorKind::PrivilegeMissing) where the system tells only privileged servers.
    #[doc(alias = "WTSQueryUserToken")]
    pub fn interactive(session: InteractiveSession) -> Result<Self> {
        let place = sys::desktop::Place::interactive(session.clone())?;
        Ok(Self { session: Some(session), ..Self::at(place) })
    }

    /// The desktop of this name: `station\desktop` on Windows; on Linux an X display (`:1`), the path of a Wayland
    /// compositor's socket, or a terminal (`/dev/tty3`).
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a name of none of these forms.
    #[doc(alias = "OpenWindowStation")]
    #[doc(alias = "OpenDesktop")]
    pub fn by_name(name: impl AsRef<OsStr>) -> Result<Self> {
        Ok(Self::at(sys::desktop::Place::by_name(name.as_ref())?))
    }

    pub(crate) fn at(place: sys::desktop::Place) -> Self {
        Self { place: Some(place), ..Self::default() }
    }

    /// To whom it is granted: [`GrantTo::LogonSession`] unless something else is said.
    #[must_use]
    pub fn grant_to(mut self, to: GrantTo) -> Self {
        self.to = to;
        self
    }

    /// Whether a process on it would be non-interactive.
    pub fn is_none(&self) -> bool {
        self.place.is_none()
    }

    /// Who may use it now: what its own access lists say, and what this machine's servers have leased.
    ///
    /// # Errors
    ///
    /// [`DesktopAccess`](ErrorKind::DesktopAccess) when the server itself may not read it;
    /// [`InvalidInput`](ErrorKind::InvalidInput) for [`none`](Self::none).
    #[doc(alias = "GetSecurityInfo")]
    #[doc(alias = "GetUserObjectSecurity")]
    #[doc(alias = "xhost")]
    #[doc(alias = "getfacl")]
    pub fn access(&self) -> Result<AccessList> {
        let place = self.place("reading who may use a desktop")?;
        sys::impersonate::as_server(|| place.access())
    }

    /// Grants access to the token's logon session (or user, see [`grant_to`](Self::grant_to)) until the lease is
    /// dropped.
    ///
    /// [`Command::desktop`](crate::Command::desktop) does this by itself; by hand it is for processes that are there
    /// already, or are started by other means.
    ///
    /// # Errors
    ///
    /// [`NoLogonSid`](ErrorKind::NoLogonSid) when the token has no logon session that could be named;
    /// [`DesktopAccess`](ErrorKind::DesktopAccess) when the desktop's access list cannot be changed;
    /// [`InvalidInput`](ErrorKind::InvalidInput) for [`none`](Self::none).
    #[doc(alias = "SetSecurityInfo")]
    #[doc(alias = "SetUserObjectSecurity")]
    #[doc(alias = "AddAccessAllowedAce")]
    #[doc(alias = "xauth")]
    pub fn grant(&self, token: &Token<Primary>) -> Result<AccessLease> {
        let trustee = self.trustee(token)?;
        self.grant_trustee(&trustee)
    }

    /// Grants access to a trustee until the lease is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`grant`](Self::grant).
    pub fn grant_trustee(&self, trustee: &Trustee) -> Result<AccessLease> {
        let place = self.place(GRANTING)?;
        sys::impersonate::as_server(|| lease::take(self, place, trustee))
    }

    /// Whom [`grant`](Self::grant) would name for this token.
    ///
    /// # Errors
    ///
    /// [`NoLogonSid`](ErrorKind::NoLogonSid).
    #[doc(alias = "SE_GROUP_LOGON_ID")]
    pub fn trustee<K: TokenKind>(&self, token: &Token<K>) -> Result<Trustee> {
        match self.to {
            GrantTo::LogonSession => sys::desktop::logon_session(token.data())
                .map(Trustee::LogonSession)
                .ok_or_else(|| Error::new(GRANTING, ErrorKind::NoLogonSid)),
            GrantTo::User => Ok(Trustee::User(sys::desktop::user(token.data()))),
        }
    }

    /// The lease for a process of this token, where the desktop is one, and the process is not created elsewhere.
    pub(crate) fn lease_for(&self, token: &Token<Primary>) -> Result<Option<AccessLease>> {
        #[cfg(unix)]
        if token.data().elsewhere.is_some() {
            return Ok(None);
        }
        if self.is_none() { Ok(None) } else { self.grant(token).map(Some) }
    }

    fn place(&self, doing: &'static str) -> Result<&sys::desktop::Place> {
        self.place.as_ref().ok_or_else(|| {
            let what = "there is no desktop: name one with Desktop::interactive or Desktop::by_name".into();
            Error::new(doing, ErrorKind::InvalidInput { what })
        })
    }
}

const GRANTING: &str = "granting access to a desktop";

impl fmt::Display for Desktop {
    /// Its name, as [`by_name`](Self::by_name) takes it; "none" for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => place.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// Takes back what servers of this uid that are gone had granted and could not take back themselves.
///
/// It is done by itself before a server's first grant. Only what their own records say is undone: entries of others,
/// and leases of servers that run, are left alone.
///
/// # Errors
///
/// [`DesktopAccess`](ErrorKind::DesktopAccess) or [`System`](ErrorKind::System) for what could not be undone; it is
/// tried again the next time.
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// stead::desktop::sweep()?;
/// # Ok(()) }
/// ```
pub fn sweep() -> Result<()> {
    sys::impersonate::as_server(sys::desktop::sweep)
}
