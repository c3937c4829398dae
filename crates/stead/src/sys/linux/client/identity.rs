//! Who connected: what the kernel recorded at connect, and a pidfd that pins the process.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::io::Errno;

use super::{level, pidfd, socket};
use crate::error::{ConfinedPart, Error, ErrorKind, Result};
use crate::sys::elsewhere::ClientElsewhere;
use crate::sys::proc;
use crate::sys::token::{Gid, GroupSet, Label, Uid};
use crate::token::ImpersonationLevel;

const DOING: &str = "identifying a client";

/// The peer of a connected Unix socket, as of connect.
pub(crate) struct Peer {
    pub(crate) pid: u32,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: GroupSet,
    pub(crate) label: Option<Label>,
    /// `None` only where the kernel has no SO_PEERPIDFD and the server accepts that.
    pub(crate) pidfd: Option<OwnedFd>,
    /// Who makes its token, if not this process.
    pub(crate) elsewhere: Option<Box<dyn ClientElsewhere>>,
}

impl Peer {
    /// The peer of an accepted Unix socket; `unpinned` accepts a kernel without SO_PEERPIDFD.
    /// With it, the level that it granted.
    pub(crate) fn of(socket: impl AsFd, unpinned: bool) -> Result<(Self, ImpersonationLevel)> {
        let socket = socket.as_fd();
        require_nature(socket)?;
        // A listener has no peer, so that whether it is one need not be asked of a socket that has.
        let stated = level::stated(socket).map_err(|errno| match errno {
            Errno::NOTCONN => unconnected(socket),
            errno => Error::system(DOING, "getpeername", errno),
        })?;
        Ok((Self::recorded(socket, unpinned)?, stated))
    }

    fn recorded(socket: BorrowedFd<'_>, unpinned: bool) -> Result<Self> {
        let [pid, uid, gid] = socket::peer_ids(socket)
            .map_err(|source| Error::system(DOING, "getsockopt(SO_PEERCRED)", source))?;
        if pid == rustix::process::getpid().as_raw_pid().cast_unsigned() {
            return Err(none("the server itself is at the other end of the socket"));
        }
        let uid = user(uid)?;
        let gid = group(gid)?;
        // Without a peer the ids are -1 (above); a process of another PID namespace has no number here.
        if pid == 0 {
            return Err(none("no process is visible at the other end of the socket"));
        }
        let groups = socket::peer_groups(socket).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOPROTOOPT) => too_old("SO_PEERGROUPS (Linux 4.13)", source),
            Some(libc::ENODATA) => none("the socket has no peer"),
            _ => Error::system(DOING, "getsockopt(SO_PEERGROUPS)", source),
        })?;
        let groups = groups.into_iter().map(group).collect::<Result<GroupSet>>()?;
        let label = socket::peer_label(socket)
            .map_err(|source| Error::system(DOING, "getsockopt(SO_PEERSEC)", source))?
            .map(|label| Label(label.into()));
        let pidfd = match socket::peer_pidfd(socket) {
            Ok(pidfd) => Some(pidfd),
            Err(source) => match source.raw_os_error() {
                Some(libc::ENOPROTOOPT) if unpinned => None,
                Some(libc::ENOPROTOOPT) => return Err(too_old("SO_PEERPIDFD (Linux 6.5)", source)),
                // Up to Linux 6.15 a process that was reaped has no pidfd any more.
                Some(libc::ESRCH | libc::EINVAL) => return Err(gone(DOING)),
                Some(libc::ENODATA) => return Err(none("the socket has no peer")),
                _ => return Err(Error::system(DOING, "getsockopt(SO_PEERPIDFD)", source)),
            },
        };
        let peer = Self { pid, uid, gid, groups, label, pidfd, elsewhere: None };
        peer.verify(DOING)?;
        Ok(peer)
    }

    /// Fails unless the process is there and its ids are, all of them, those of connect.
    ///
    /// A real or saved id unlike the effective one is a set-user-ID program: its user is whoever started
    /// it, and what it does for them is not for us to repeat.
    pub(crate) fn verify(&self, doing: &'static str) -> Result<()> {
        let now = match &self.pidfd {
            Some(pidfd) => pidfd::ids(pidfd.as_fd(), Some(self.pid))
                .map_err(|source| match source.kind() {
                    // Before Linux 6.13 they are read in /proc, where the client may be hidden (hidepid=).
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                        let part = ConfinedPart::NoNewPrivileges;
                        Error::new(doing, ErrorKind::ConfinementUnknown { part }).with_source(source)
                    }
                    _ => Error::system(doing, "ioctl(PIDFD_GET_INFO)", source),
                })?
                .ok_or_else(|| gone(doing))?,
            // Nothing pins it: what its number leads to may be another process, and is believed where it makes matters worse.
            None => match pidfd::ids_of(self.pid) {
                Ok(now) => now,
                Err(_) => return Ok(()),
            },
        };
        if now.pid != self.pid {
            return Err(changed(doing, format!("it was process {}, it is {}", self.pid, now.pid)));
        }
        if now.uids != [self.uid.as_raw(); 4] {
            return Err(changed(
                doing,
                format!("it connected with uid {}, its uids are {:?}", self.uid, now.uids),
            ));
        }
        if now.gids != [self.gid.as_raw(); 4] {
            return Err(changed(
                doing,
                format!("it connected with gid {}, its gids are {:?}", self.gid, now.gids),
            ));
        }
        Ok(())
    }
}

/// Fails unless the socket is one that a listener of ours can have accepted.
pub(crate) fn require_accepted(socket: BorrowedFd<'_>) -> Result<()> {
    require_nature(socket)?;
    if is_listener(socket)? { Err(listener()) } else { Ok(()) }
}

/// The same, of a socket that may also be the listener itself.
fn require_nature(socket: BorrowedFd<'_>) -> Result<()> {
    let nature = match socket::nature(socket) {
        Ok(nature) => nature,
        Err(source) if source.raw_os_error() == Some(libc::ENOTSOCK) => {
            return Err(invalid("the descriptor is no socket").with_source(source));
        }
        Err(source) => return Err(Error::system(DOING, "getsockname", source)),
    };
    if !nature.unix {
        return Err(none("only a Unix socket tells who its peer is"));
    }
    if !nature.connection {
        return Err(invalid("a datagram socket has no client; use a stream or seqpacket socket"));
    }
    // A listener is always bound, and an accepted socket has its name. Without a name it is one of a pair,
    // where "the peer" is whoever called socketpair(2), or the connecting end, where it is the listener.
    if !nature.named {
        return Err(none("the socket was not accepted by a listener (one of a pair, or a connecting end)"));
    }
    if nature.states_level {
        return Err(none("the socket is the connecting end, where the peer is the listener"));
    }
    Ok(())
}

/// Why a socket is not connected.
#[cold]
fn unconnected(socket: BorrowedFd<'_>) -> Error {
    match is_listener(socket) {
        Ok(true) => listener(),
        Ok(false) => none("the socket has no peer"),
        Err(error) => error,
    }
}

fn is_listener(socket: BorrowedFd<'_>) -> Result<bool> {
    socket::is_listening(socket).map_err(|source| Error::system(DOING, "getsockopt(SO_ACCEPTCONN)", source))
}

/// Its SO_PEERCRED are its own.
fn listener() -> Error {
    invalid("the socket is the listener; accept a connection first")
}

fn invalid(what: &'static str) -> Error {
    Error::new(DOING, ErrorKind::InvalidInput { what: what.into() })
}

/// Fails unless the socket is a Unix socket that listens for stream or seqpacket connections.
pub(crate) fn require_listening(socket: BorrowedFd<'_>) -> Result<()> {
    const DOING: &str = "taking a listening socket";
    let nature = socket::nature(socket).map_err(|source| Error::system(DOING, "getsockname", source))?;
    let listens = || {
        socket::is_listening(socket)
            .map_err(|source| Error::system(DOING, "getsockopt(SO_ACCEPTCONN)", source))
    };
    if nature.unix && nature.connection && listens()? {
        return Ok(());
    }
    let what = "the descriptor is no listening Unix socket".into();
    Err(Error::new(DOING, ErrorKind::InvalidInput { what }))
}

/// Refuses -1 (CVE-2019-14287) and the overflow id.
///
/// The overflow uid stands for every user that has no id in the server's user namespace. It is refused even
/// where all have one: "nobody" is by custom the user of whatever has no identity.
fn user(raw: u32) -> Result<Uid> {
    static OVERFLOW: OnceLock<u32> = OnceLock::new();
    let uid = Uid::new(raw).ok_or_else(|| none("the socket has no peer (uid -1)"))?;
    if raw == overflow(&OVERFLOW, "/proc/sys/kernel/overflowuid") {
        return Err(none(format!("uid {raw} stands for users that have no id here")));
    }
    Ok(uid)
}

/// The same for gids; but the overflow gid is a real group ("nogroup", the group of many a daemon) where the
/// server's user namespace has an id for every group.
fn group(raw: u32) -> Result<Gid> {
    static OVERFLOW: OnceLock<u32> = OnceLock::new();
    let gid = Gid::new(raw).ok_or_else(|| none("the socket has no peer (gid -1)"))?;
    if raw == overflow(&OVERFLOW, "/proc/sys/kernel/overflowgid") {
        let map = proc::read_at(rustix::fs::CWD, "/proc/thread-self/gid_map").unwrap_or_default();
        if !proc::maps_every_id(&map) {
            return Err(none(format!("gid {raw} stands for groups that have no id here")));
        }
    }
    Ok(gid)
}

fn overflow(cache: &OnceLock<u32>, path: &str) -> u32 {
    *cache.get_or_init(|| {
        let text = proc::read_at(rustix::fs::CWD, path).unwrap_or_default();
        // The kernel's default, where /proc/sys is hidden.
        proc::parse_number(&text).unwrap_or(65_534)
    })
}

fn none(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(DOING, ErrorKind::NoIdentity { what: what.into() })
}

fn too_old(needs: &'static str, source: io::Error) -> Error {
    Error::new(DOING, ErrorKind::KernelTooOld { needs: needs.into() }).with_source(source)
}

pub(super) fn changed(doing: &'static str, what: String) -> Error {
    Error::new(doing, ErrorKind::ClientChanged { what: what.into() })
}

pub(super) fn gone(doing: &'static str) -> Error {
    Error::new(doing, ErrorKind::ClientChanged { what: "its process has ended".into() })
        .with_source(Errno::SRCH)
}
