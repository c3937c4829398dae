//! Desktops on Linux: X displays, Wayland sockets, terminals.
//!
//! Each kind has a module of its own; here is only which of them a name means.

pub(crate) mod keeper;
mod record;
mod trustee;
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
            Self::X11(display) => x11::access(display),
        }
    }

    /// Lets the trustee use it.
    pub(crate) fn grant(&self, trustee: &Trustee) -> Result<Grant> {
        match self {
            Self::X11(display) => x11::grant(display, trustee).map(Grant::X11),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X11(display) => display.fmt(f),
        }
    }
}

/// Access that was granted; dropping it takes it back as far as that goes.
#[derive(Debug)]
pub(crate) enum Grant {
    X11(x11::Grant),
}

impl Grant {
    /// What a process needs in its environment to use it.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        match self {
            Self::X11(grant) => grant.environment(),
        }
    }

    /// Whether the desktop still knows it.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::X11(grant) => grant.is_alive(),
        }
    }

    /// Takes it back.
    pub(crate) fn revoke(self) -> Result<()> {
        match self {
            Self::X11(grant) => grant.revoke(),
        }
    }
}

/// Undoes what servers that are gone had granted: all that can be, and then the first error.
pub(crate) fn sweep() -> Result<()> {
    const DOING: &str = "sweeping what earlier servers had granted on desktops";
    let abandoned =
        record::abandoned().map_err(|error| Error::system(DOING, "reading /run/stead/desktops", error))?;
    let undone = abandoned.into_iter().map(|record| match record.text("kind") {
        Some(x11::KIND) => x11::undo(record),
        // Cut off before it said of what kind: nothing was granted.
        None => record.remove().map_err(|error| Error::system(DOING, "removing a record", error)),
        Some(kind) => {
            let what = format!("{} is a record of the unknown kind {kind}", record.path().display()).into();
            Err(Error::new(DOING, ErrorKind::InvalidInput { what }))
        }
    });
    // All of them, whatever becomes of each.
    undone.collect::<Vec<_>>().into_iter().collect()
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
