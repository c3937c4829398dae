//! Wayland: the compositor's socket alone, where the client can reach it.
//!
//! The socket lies in the `XDG_RUNTIME_DIR` of whoever sits before the screen, beside many others that are protected
//! by that directory's mode alone. No right on it is given to anybody. Instead:
//!
//! * the socket's inode gets an access list entry by which the trustee may write it, which is what connecting takes;
//! * the inode is bound (mounted) into a directory of ours that the trustee alone may search.
//!
//! The entry is what is taken back: a mount can live on in a namespace that a client made for itself, a descriptor
//! can be kept, and both lead to an inode that refuses. A hard link would do instead of a mount only within one file
//! system, which a runtime directory always is by itself; a proxy would be who the compositor sees.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;

use super::door::Door;
use super::entry::{self, Held};
use super::inode::{Inode, named, refusal};
use super::posix_acl::Rights;
use super::record::Record;
use crate::desktop::{AccessList, Trustee};
use crate::error::{Error, ErrorKind, Result};

const GRANTING: &str = "granting access to a Wayland compositor";
/// What its records are called.
pub(super) const KIND: &str = "wayland";
const READING: &str = "reading who may use a Wayland compositor";
const TAKING_BACK: &str = "taking back access to a Wayland compositor";

/// A compositor's socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Socket(PathBuf);

impl Socket {
    /// An absolute path without `.` and `..`, outside /dev.
    pub(crate) fn parse(name: &OsStr) -> Option<Self> {
        let path = Path::new(name);
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let named = path.is_absolute() && path.file_name().is_some() && plain;
        (named && !path.starts_with("/dev")).then(|| Self(path.components().collect()))
    }

    fn open(&self, doing: &'static str) -> Result<Inode> {
        let inode = Inode::open(&self.0, doing)?;
        if inode.kind() != FileType::Socket {
            return Err(refusal(doing, &self.to_string(), "it is no socket", None));
        }
        Ok(inode)
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Who may write the socket. Who of them can reach it is another matter: the owner of its directory can.
pub(crate) fn access(socket: &Socket) -> Result<AccessList> {
    Ok(AccessList::new(socket.open(READING)?.entries(READING)?))
}

/// A socket that was granted.
#[derive(Debug)]
pub(crate) struct Grant {
    socket: Socket,
    held: Held,
    door: Door,
}

/// Lets the trustee connect.
pub(crate) fn grant(socket: &Socket, trustee: &Trustee) -> Result<Grant> {
    let who = named(trustee, GRANTING)?;
    let inode = socket.open(GRANTING)?;
    let held = Held::grant(KIND, &socket.0, inode, who, Rights::WRITE, GRANTING)?;
    let door = Door::at(held.folder());
    let grant = Grant { socket: socket.clone(), held, door };
    let opened = grant.admits(trustee).and_then(|()| grant.door.open(grant.held.inode(), who, GRANTING));
    match opened {
        Ok(()) => Ok(grant),
        Err(error) => {
            if let Err(error) = grant.revoke() {
                tracing::warn!(%error, "access to a compositor could not be taken back");
            }
            Err(error)
        }
    }
}

impl Grant {
    /// A user's own entry comes before those of his groups, and may shut him out.
    fn admits(&self, trustee: &Trustee) -> Result<()> {
        let Trustee::LogonSession(session) = trustee else { return Ok(()) };
        let (uid, gid) = (session.uid().as_raw(), session.gid().as_raw());
        let list = self.held.inode().list(GRANTING)?;
        if list.admits(self.held.inode().owners(), uid, &[gid], Rights::WRITE) {
            return Ok(());
        }
        let why = format!("an entry for the user {uid} himself comes before his logon session's").into();
        let mend = Some("take that entry out with setfacl -x".into());
        let object = self.socket.to_string();
        Err(Error::new(GRANTING, ErrorKind::DesktopAccess { object, why, mend }))
    }

    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![
            ("WAYLAND_DISPLAY".into(), self.door.socket().into()),
            ("XDG_SESSION_TYPE".into(), "wayland".into()),
        ]
    }

    /// Whether the compositor's socket is still the one that was granted: one that was started anew has another.
    pub(crate) fn is_alive(&self) -> bool {
        self.held.is_alive()
    }

    pub(crate) fn revoke(self) -> Result<()> {
        let Self { held, door, .. } = self;
        held.take_back(TAKING_BACK, || door.close(TAKING_BACK))
    }
}

/// Takes back what a server that is gone had granted. The inode is found where it was bound, also when the compositor
/// has gone or another has taken its name.
pub(super) fn undo(record: Record) -> Result<()> {
    let door = Door::at(record.path());
    entry::undo(record, |id| door.bound(id), TAKING_BACK, || door.close(TAKING_BACK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_by_an_absolute_plain_path() {
        for good in ["/run/user/1000/wayland-0", "/tmp/w"] {
            assert_eq!(Socket::parse(good.as_ref()).unwrap().to_string(), good);
        }
        for bad in ["wayland-0", ":1", "/", "/run/../etc/w", "/dev/tty1", "", "winsta0\\default"] {
            assert_eq!(Socket::parse(bad.as_ref()), None, "{bad}");
        }
    }
}
