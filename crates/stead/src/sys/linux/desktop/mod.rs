//! Desktops on Linux: X displays, Wayland sockets, terminals.
//!
//! Each kind has a module of its own; here is only which of them a name means.

mod door;
mod entry;
mod inode;
pub(crate) mod keeper;
mod posix_acl;
mod record;
mod seat;
pub(crate) mod terminal;
mod trustee;
mod wayland;
pub(crate) mod x11;

use std::ffi::{OsStr, OsString};
use std::fmt;

pub(crate) use super::token::{Gid as Group, Uid as User};
#[cfg(feature = "fuzzing")]
pub(crate) use posix_acl::fuzz as fuzz_access_list;
#[cfg(feature = "fuzzing")]
pub(crate) use record::fuzz as fuzz_record;
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
    /// A Wayland compositor's socket.
    Wayland(wayland::Socket),
    /// A terminal that is there already.
    Terminal(terminal::Terminal),
}

impl Place {
    /// The desktop of a session at a seat.
    #[expect(clippy::needless_pass_by_value, reason = "it is the last that is done with it")]
    pub(crate) fn interactive(session: InteractiveSession) -> Result<Self> {
        seat::interactive(&session)
    }

    /// `:1`, a path of a Wayland socket, or a terminal.
    pub(crate) fn by_name(name: &OsStr) -> Result<Self> {
        if let Some(display) = x11::Display::parse(name) {
            return Ok(Self::X11(display));
        }
        if let Some(terminal) = terminal::Terminal::parse(name) {
            return Ok(Self::Terminal(terminal));
        }
        if let Some(socket) = wayland::Socket::parse(name) {
            return Ok(Self::Wayland(socket));
        }
        let what = format!(
            "{} is no desktop: give an X display of this machine (\":1\"), the absolute path of a Wayland \
             socket, or a terminal below /dev",
            name.display()
        );
        Err(Error::new("naming a desktop", ErrorKind::InvalidInput { what: what.into() }))
    }

    /// The terminal that it is, if it is one: a process on it has it as its own.
    pub(crate) fn terminal(&self) -> Option<&terminal::Terminal> {
        match self {
            Self::Terminal(terminal) => Some(terminal),
            _ => None,
        }
    }

    /// Whether the server chose how it, or its clients, are let in; for one that was found by its session, whose the
    /// display may be is known from that.
    #[cfg(feature = "service")]
    pub(crate) fn is_chosen(&self, found: bool) -> bool {
        let Self::X11(display) = self else { return false };
        let owned = !found && display.owner.is_some();
        display.trusted || display.host_list || display.authority.is_some() || owned
    }

    /// Who may use it.
    pub(crate) fn access(&self) -> Result<AccessList> {
        match self {
            Self::X11(display) => x11::access(display),
            Self::Wayland(socket) => wayland::access(socket),
            Self::Terminal(terminal) => terminal::access(terminal),
        }
    }

    /// Lets the trustee use it.
    pub(crate) fn grant(&self, trustee: &Trustee) -> Result<Grant> {
        match self {
            Self::X11(display) => x11::grant(display, trustee).map(Grant::X11),
            Self::Wayland(socket) => wayland::grant(socket, trustee).map(Grant::Wayland),
            Self::Terminal(terminal) => terminal::grant(terminal, trustee).map(Grant::Terminal),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X11(display) => display.fmt(f),
            Self::Wayland(socket) => socket.fmt(f),
            Self::Terminal(terminal) => terminal.fmt(f),
        }
    }
}

/// Access that was granted; dropping it takes it back as far as that goes.
#[derive(Debug)]
pub(crate) enum Grant {
    X11(x11::Grant),
    Wayland(wayland::Grant),
    Terminal(terminal::Grant),
}

impl Grant {
    /// What a process needs in its environment to use it.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        match self {
            Self::X11(grant) => grant.environment(),
            Self::Wayland(grant) => grant.environment(),
            Self::Terminal(grant) => grant.environment(),
        }
    }

    /// Whether the desktop still knows it.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::X11(grant) => grant.is_alive(),
            Self::Wayland(grant) => grant.is_alive(),
            Self::Terminal(grant) => grant.is_alive(),
        }
    }

    /// Takes it back.
    pub(crate) fn revoke(self) -> Result<()> {
        match self {
            Self::X11(grant) => grant.revoke(),
            Self::Wayland(grant) => grant.revoke(),
            Self::Terminal(grant) => grant.revoke(),
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
        Some(wayland::KIND) => wayland::undo(record),
        Some(terminal::KIND) => terminal::undo(record),
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
