//! What only Linux clients have.

use std::os::fd::{AsFd, BorrowedFd};

use crate::client::{Client, Confinement};
use crate::error::Result;
use crate::local::ConnectOptions;
use crate::sys::client::{process_context, shown_context};
use crate::sys::token::{Gid, GroupSet, Label, Uid};
use crate::token::{ConfinementKnowledge, Impersonation, ImpersonationLevel, Token};

/// Who a client was when it connected.
#[derive(Debug, Clone, Copy)]
pub struct ClientIdentity<'client> {
    /// Its effective uid.
    pub uid: Uid,
    /// Its effective gid.
    pub gid: Gid,
    /// Its supplementary groups.
    pub groups: &'client GroupSet,
    /// Its security label, where a module keeps one for Unix sockets.
    pub label: Option<&'client Label>,
    /// Its process id: to be shown to people, never to be looked up again.
    pub pid: u32,
}

/// The parts of a client as Linux has them.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let stream = std::os::unix::net::UnixStream::connect("/run/example.sock")?;
/// use stead::os::linux::ClientExt;
/// let client = stead::Client::of(&stream)?;
/// println!("uid {} is calling", client.identity()?.uid);
/// # Ok(()) }
/// ```
pub trait ClientExt {
    /// Who the client was when it connected: enough to know it, not to act for it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LevelTooLow`](crate::ErrorKind::LevelTooLow) for a client that stays anonymous.
    #[doc(alias = "GetNamedPipeHandleState")]
    fn identity(&self) -> Result<ClientIdentity<'_>>;

    /// The pidfd that pins the client's process; `None` only under
    /// [`Confinement::Unknown`] on a kernel without `SO_PEERPIDFD`.
    #[doc(alias = "GetNamedPipeClientProcessId")]
    fn pidfd(&self) -> Option<BorrowedFd<'_>>;
}

impl ClientExt for Client {
    fn identity(&self) -> Result<ClientIdentity<'_>> {
        let peer = self.peer_at(ImpersonationLevel::Identification, "identifying a client")?;
        let (groups, label) = (&peer.groups, peer.label.as_ref());
        Ok(ClientIdentity { uid: peer.uid, gid: peer.gid, groups, label, pid: peer.pid })
    }

    fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.peer.pidfd.as_ref().map(AsFd::as_fd)
    }
}

impl Token<Impersonation> {
    /// The token of another process, which `pidfd` pins.
    ///
    /// Unlike a client's, it has the capabilities and the bounding set of the process: it is the server that
    /// chose the process, not the process that asked. Securebits cannot be read of another process and are
    /// left at their default; for uid 0 the bounding set is cut down to what the process holds, as execve
    /// would otherwise give all of it back.
    ///
    /// # Errors
    ///
    /// As [`Client::token`], for the process may be confined in the same ways; and
    /// [`ErrorKind::NoIdentity`](crate::ErrorKind::NoIdentity) when its real, effective and saved ids are
    /// not the same, [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the descriptor is no
    /// pidfd.
    ///
    /// Reference: [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html),
    /// [OpenProcessToken](https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-openprocesstoken).
    #[doc(alias = "OpenProcessToken")]
    pub fn of_process(pidfd: impl AsFd) -> Result<Self> {
        Self::of_process_with(pidfd, Confinement::Refuse)
    }

    /// The same, choosing what to do about the process's confinement.
    ///
    /// # Errors
    ///
    /// As [`of_process`](Self::of_process).
    #[doc(alias = "OpenProcessToken")]
    pub fn of_process_with(pidfd: impl AsFd, confinement: Confinement) -> Result<Self> {
        // The token has the process's own bounding set, so that a smaller one is carried, not lost.
        let policy = crate::sys::client::Policy { bounding: true, ..confinement.policy() };
        let data = crate::sys::impersonate::as_server(|| process_context(pidfd.as_fd(), policy))?;
        Ok(Self::from_data(data, ImpersonationLevel::Impersonation))
    }

    /// The token of another process, which `pidfd` pins, to be looked at: at the level Identification.
    ///
    /// However the process is confined, its token can be shown, for nothing can be done with it. It is that of
    /// the process's first thread.
    ///
    /// # Errors
    ///
    /// As [`of_process`](Self::of_process), without what has to do with confinement.
    #[doc(alias = "OpenProcessToken")]
    #[doc(alias = "TOKEN_QUERY")]
    pub fn identify_process(pidfd: impl AsFd) -> Result<Self> {
        let context = crate::sys::impersonate::as_server(|| shown_context(pidfd.as_fd()))?;
        let knowledge = ConfinementKnowledge::Unknown;
        Ok(Self::from_process(context, ImpersonationLevel::Identification, knowledge))
    }
}

/// Whose a server must be before a client grants it anything, in Linux's terms.
///
/// ```
/// use stead::local::ConnectOptions;
/// use stead::os::linux::{ConnectOptionsExt, Uid};
/// let options = ConnectOptions::new().server_uid(Uid::ROOT);
/// ```
pub trait ConnectOptionsExt {
    /// The server must run as `uid`: the effective uid, as of listen(2), of the process that listens.
    ///
    /// A socket that a service manager listens at for the server has the manager's.
    #[doc(alias = "GetNamedPipeServerProcessId")]
    #[must_use]
    fn server_uid(self, uid: Uid) -> Self;
}

impl ConnectOptionsExt for ConnectOptions {
    fn server_uid(mut self, uid: Uid) -> Self {
        self.server = Some(uid);
        self
    }
}
