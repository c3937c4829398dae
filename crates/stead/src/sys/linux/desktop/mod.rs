//! Desktops on Linux: X displays, Wayland sockets, terminals.
//!
//! Each kind has a module of its own; here is only which of them a name means.
#![forbid(unsafe_code)]

mod trustee;
#[cfg(feature = "x11")]
pub(crate) mod x11;

use std::ffi::{OsStr, OsString};
use std::fmt;

pub(crate) use super::token::{Gid as Group, Uid as User};
pub use trustee::LogonSid;
pub(crate) use trustee::{LogonSid as LogonSession, logon_session, user};

use crate::desktop::{AccessList, InteractiveSession, Trustee};
use crate::error::{Error, ErrorKind, Result};

/// How logind names a session.
pub(crate) type InteractiveId = String;

/// What a desktop is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// A display of an X server.
    #[cfg(feature = "x11")]
    X11(x11::Display),
}

impl Place {
    /// The desktop of a session at a seat.
    pub(crate) fn interactive(session: InteractiveSession) -> Result<Self> {
        let object = match session {
            InteractiveSession::OfUser(user) => format!("interactive session of uid {user}"),
            InteractiveSession::Id(id) => format!("interactive session {id}"),
            _ => "interactive session".to_owned(),
        };
        Err(Error::new("finding an interactive desktop", ErrorKind::NotFound { object }))
    }

    /// `:1`, a path of a Wayland socket, or a terminal.
    pub(crate) fn by_name(name: &OsStr) -> Result<Self> {
        #[cfg(feature = "x11")]
        if let Some(display) = x11::Display::parse(name) {
            return Ok(Self::X11(display));
        }
        let what = format!(
            "{} is no desktop: give an X display of this machine (\":1\"), the absolute path of a Wayland \
             socket, or a terminal below /dev",
            name.display()
        );
        Err(Error::new("naming a desktop", ErrorKind::InvalidInput { what: what.into() }))
    }

    /// Who may use it.
    pub(crate) fn access(&self) -> Result<AccessList> {
        match self {
            #[cfg(feature = "x11")]
            Self::X11(display) => x11::access(display),
        }
    }

    /// Lets the trustee use it.
    pub(crate) fn grant(&self, trustee: &Trustee) -> Result<Grant> {
        match self {
            #[cfg(feature = "x11")]
            Self::X11(display) => x11::grant(display, trustee).map(Grant::X11),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "x11")]
            Self::X11(display) => display.fmt(f),
        }
    }
}

/// Access that was granted; dropping it takes it back as far as that goes.
#[derive(Debug)]
pub(crate) enum Grant {
    #[cfg(feature = "x11")]
    X11(x11::Grant),
}

impl Grant {
    /// What a process needs in its environment to use it.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        match self {
            #[cfg(feature = "x11")]
            Self::X11(grant) => grant.environment(),
        }
    }

    /// Whether the desktop still knows it.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            #[cfg(feature = "x11")]
            Self::X11(grant) => grant.is_alive(),
        }
    }

    /// Takes it back.
    pub(crate) fn revoke(self) -> Result<()> {
        match self {
            #[cfg(feature = "x11")]
            Self::X11(grant) => grant.revoke(),
        }
    }
}

/// Undoes what servers that are gone had granted.
#[expect(clippy::unnecessary_wraps, reason = "what cannot be undone is an error")]
pub(crate) fn sweep() -> Result<()> {
    Ok(())
}

/// The same, once, before this server's first grant.
pub(crate) fn sweep_once() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if let Err(error) = sweep() {
            tracing::warn!(%error, "what an earlier server had granted could not all be taken back");
        }
    });
}
