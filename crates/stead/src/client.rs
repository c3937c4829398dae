//! A client: who is at the other end of a connection, and what may be done as it.
//!
//! On Linux the kernel records at connect who connects (`SO_PEERCRED`, `SO_PEERGROUPS`, `SO_PEERSEC`), and a
//! pidfd (`SO_PEERPIDFD`) pins the process, so that nothing rests on a process id that may be another's by
//! now. What is read later can only tighten: ids that are not any more those of connect, and a process that
//! has ended, are refused (CVE-2011-1485, CVE-2013-4288, CVE-2021-3560).
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::client::{AsConnection, Peer, Policy};
use crate::token::{Impersonation, ImpersonationLevel, Token};

/// The process at the other end of a connection, as the kernel knows it.
///
/// Made from any connected Unix stream or seqpacket socket that the server accepted: of std, of tokio, of an
/// HTTP server. That takes a few system calls; how the client is confined is read when rights are asked for,
/// each time anew, by [`token`](Self::token).
///
/// The socket must be the *accepted* one. At the connecting end "the peer" is the listener: a server that
/// lets others choose where it connects to, and then asks who that is, serves whoever listens there. An
/// unnamed connecting end and a socketpair are told apart, and refused; a connecting end that was bound
/// first cannot be.
///
/// Reference: [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html),
/// [ImpersonateNamedPipeClient](https://learn.microsoft.com/windows/win32/api/namedpipeapi/nf-namedpipeapi-impersonatenamedpipeclient).
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use stead::Client;
/// use stead::local::{Address, Listener};
///
/// let listener = Listener::bind(&Address::name("example")?)?;
/// let mut stream = listener.accept()?;
/// std::io::Read::read(&mut stream, &mut [0; 64])?; // on Windows a client is known when something was read
/// let token = Client::of(&stream)?.token()?;
/// println!("{token}");
/// # Ok(()) }
/// ```
#[doc(alias = "ImpersonateNamedPipeClient")]
#[doc(alias = "GetNamedPipeClientProcessId")]
pub struct Client {
    /// Shared with a thread that impersonates the client.
    pub(crate) peer: Arc<Peer>,
    level: ImpersonationLevel,
    confinement: Confinement,
}

/// What to do about a client that is confined more than the server, or may be.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let stream = stead::local::Listener::bind(&stead::local::Address::name("example")?)?.accept()?;
/// use stead::{Client, Confinement};
/// let client = Client::with(Confinement::Refuse.carry_no_new_privs()).of(&stream)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[doc(alias = "TokenIsRestricted")]
#[doc(alias = "TokenIsAppContainer")]
pub struct Confinement {
    unknown: bool,
    no_new_privs: bool,
    label: bool,
}

// Named as the variants that they would be if nothing could be carried.
#[allow(non_upper_case_globals)]
impl Confinement {
    /// Refuse the client, also when it cannot be known. The default.
    pub const Refuse: Self = Self { unknown: false, no_new_privs: false, label: false };

    /// Accept what cannot be known; refuse what is known.
    ///
    /// On Linux: a kernel without `SO_PEERPIDFD` (before 6.5), and a server without CAP_SYS_PTRACE (as in an
    /// ordinary container) or with a `/proc` that hides the client. The token then says what is not known
    /// ([`Token::confinement`]). A sandboxed client of such a server can get out of its sandbox by it.
    pub const Unknown: Self = Self { unknown: true, ..Self::Refuse };
}

impl Confinement {
    /// Serve a client under no_new_privs, with a token that has no_new_privs too.
    ///
    /// That is less than it looks like: Landlock rules show as nothing but no_new_privs, and are not carried
    /// over, so that a process made from the token reaches what they kept the client from. Rules that a privileged
    /// launcher set without no_new_privs show as nothing at all.
    #[must_use]
    pub const fn carry_no_new_privs(self) -> Self {
        Self { no_new_privs: true, ..self }
    }

    /// Serve a client whose security label (SELinux, AppArmor, Smack) is unlike the server's, with a token
    /// that has the client's.
    #[must_use]
    pub const fn carry_label(self) -> Self {
        Self { label: true, ..self }
    }

    pub(crate) fn policy(self) -> Policy {
        Policy { unknown: self.unknown, no_new_privs: self.no_new_privs, label: self.label, bounding: false }
    }
}

/// How a server takes its clients; made by [`Client::with`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct ClientOptions {
    level: ImpersonationLevel,
    confinement: Confinement,
}

impl ClientOptions {
    /// At most this level, where the server's own protocol tells of a lower one than the connection does.
    pub const fn level(self, level: ImpersonationLevel) -> Self {
        Self { level, ..self }
    }

    /// The client at the other end of `socket`.
    ///
    /// # Errors
    ///
    /// As [`Client::of`].
    pub fn of(self, socket: impl AsConnection) -> Result<Client> {
        let (peer, stated) = Peer::of(socket, self.confinement.unknown)?;
        let level = stated.min(self.level);
        Ok(Client { peer: Arc::new(peer), level, confinement: self.confinement })
    }
}

impl Client {
    /// The client at the other end of `socket`, an accepted Unix stream or seqpacket socket.
    ///
    /// The socket may be closed afterwards: the client is pinned by itself.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NoIdentity`]: the kernel tells none (not a Unix socket, one of a pair, a connecting
    ///   end, the server itself), or -1, or the overflow id (65534), which stands for users without an id
    ///   in the server's user namespace. As a gid the overflow id counts where every group has an id.
    /// * [`ErrorKind::InvalidInput`]: the listener itself, a datagram socket, or no socket at all.
    /// * [`ErrorKind::ClientChanged`]: the client has ended, or has other ids now.
    /// * [`ErrorKind::KernelTooOld`]: without `SO_PEERPIDFD` (Linux 6.5) it cannot be known how the client is
    ///   confined; see [`Confinement::Unknown`].
    pub fn of(socket: impl AsConnection) -> Result<Self> {
        Self::with(Confinement::Refuse).of(socket)
    }

    #[cfg(all(feature = "service", unix))]
    pub(crate) fn from_peer(peer: Peer, level: ImpersonationLevel) -> Self {
        Self { peer: Arc::new(peer), level, confinement: Confinement::Refuse }
    }

    /// Options for taking a client, beginning with what to do about its confinement.
    pub const fn with(confinement: Confinement) -> ClientOptions {
        ClientOptions { level: ImpersonationLevel::Delegation, confinement }
    }

    /// How far the client lets the server act for it: [`ImpersonationLevel::Impersonation`], unless it
    /// connected by [`local::ConnectOptions::level`](crate::local::ConnectOptions::level).
    #[doc(alias = "TokenImpersonationLevel")]
    pub fn level(&self) -> ImpersonationLevel {
        self.level
    }

    /// The client's impersonation token.
    ///
    /// Looks at the client's process now, every thread of it: what confines it more than the server is
    /// refused, or carried over where the server chose so. The token has the ids and groups of connect, and
    /// no capabilities whatever the client's process has; its bounding set is the server's own.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::LevelTooLow`] for a client that stays anonymous.
    /// * [`ErrorKind::ClientConfined`], which names the part.
    /// * [`ErrorKind::ConfinementUnknown`]: it cannot be read, for want of CAP_SYS_PTRACE or because `/proc`
    ///   hides the client.
    /// * [`ErrorKind::ClientChanged`]: the client has ended, or has other ids or groups now.
    #[doc(alias = "OpenThreadToken")]
    #[doc(alias = "ImpersonateNamedPipeClient")]
    pub fn token(&self) -> Result<Token<Impersonation>> {
        const DOING: &str = "making a client's token";
        let peer = self.peer_at(ImpersonationLevel::Identification, DOING)?;
        peer.token(self.level, self.confinement.policy(), DOING)
    }

    /// The same client, for a thread of its own.
    #[cfg(feature = "tokio")]
    pub(crate) fn shared(&self) -> Self {
        Self { peer: Arc::clone(&self.peer), level: self.level, confinement: self.confinement }
    }

    /// The peer, if the client granted `needed`.
    pub(crate) fn peer_at(&self, needed: ImpersonationLevel, doing: &'static str) -> Result<&Peer> {
        if self.level < needed {
            return Err(Error::new(doing, ErrorKind::LevelTooLow { granted: self.level, needed }));
        }
        Ok(&self.peer)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Client");
        shown.field("level", &self.level);
        if self.level > ImpersonationLevel::Anonymous {
            self.peer.show(&mut shown);
        }
        shown.finish_non_exhaustive()
    }
}
