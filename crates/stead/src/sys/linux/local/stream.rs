//! One connection.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::Address;
use crate::client::{Client, Confinement};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::token::Uid;
use crate::{ImpersonationLevel, sys};

/// How long a client waits for a server that takes no more connections, unless it chose otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// One end of a local connection.
///
/// Reading and writing are those of a stream of bytes, through a shared reference too, as with
/// [`UnixStream`]; nothing but the program's own bytes travels in it.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::io::Write;
/// use stead::local::{Address, Stream};
///
/// let mut stream = Stream::connect(&Address::name("report")?)?;
/// stream.write_all(b"today\n")?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[doc(alias = "CreateFile")]
pub struct Stream {
    pub(super) socket: UnixStream,
}

/// How to connect: what the client grants, and whose the server must be.
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::ImpersonationLevel;
/// use stead::local::{Address, ConnectOptions, Stream};
/// use stead::os::linux::{ConnectOptionsExt, Uid};
///
/// let options = ConnectOptions::new().level(ImpersonationLevel::Identification).server_uid(Uid::ROOT);
/// let stream = Stream::connect_with(&Address::name("report")?, &options)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[doc(alias = "SECURITY_SQOS_PRESENT")]
#[doc(alias = "SECURITY_QUALITY_OF_SERVICE")]
pub struct ConnectOptions {
    level: ImpersonationLevel,
    pub(crate) server: Option<Uid>,
    timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        let level = ImpersonationLevel::Impersonation;
        Self { level, server: None, timeout: PATIENCE }
    }
}

impl ConnectOptions {
    /// Grants [`ImpersonationLevel::Impersonation`], to whoever the server is.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How far the server may act for this client.
    ///
    /// On Linux this is advice to an honest server: the kernel tells it who its peer is whatever that chose.
    #[doc(alias = "SECURITY_ANONYMOUS")]
    #[doc(alias = "SECURITY_IDENTIFICATION")]
    #[doc(alias = "SECURITY_IMPERSONATION")]
    #[doc(alias = "SECURITY_DELEGATION")]
    #[must_use]
    pub fn level(self, level: ImpersonationLevel) -> Self {
        Self { level, ..self }
    }

    /// How long to wait for a server that has no room for one more connection; 10 seconds otherwise.
    #[doc(alias = "WaitNamedPipe")]
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(super) fn connect(&self, address: &Address) -> Result<Stream> {
        let doing = || format!("connecting to {address}");
        let system = |call| move |errno: rustix::io::Errno| Error::system(doing(), call, errno);
        let target = SocketAddrUnix::new(address.as_path()).map_err(|errno| {
            let what = format!("{address} is no path for a socket").into();
            Error::new(doing(), ErrorKind::InvalidInput { what }).with_source(errno)
        })?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(system("socket"))?;
        // What is granted is a property of the connection from its first moment.
        sys::client::level::state(&socket, self.level).map_err(system("bind"))?;
        set_socket_timeout(&socket, Timeout::Send, Some(self.timeout))
            .map_err(system("setsockopt(SO_SNDTIMEO)"))?;
        rustix::net::connect(&socket, &target).map_err(|errno| match errno {
            rustix::io::Errno::AGAIN => {
                let waiting_for = "room for one more connection to the server".into();
                Error::new(doing(), ErrorKind::DeadlinePassed { waiting_for }).with_source(errno)
            }
            rustix::io::Errno::ACCESS => {
                let object = address.to_string();
                Error::new(doing(), ErrorKind::AccessDenied { object }).with_source(errno)
            }
            _ => Error::system(doing(), "connect", errno),
        })?;
        // By the kernel's word: whoever called listen(2).
        if let Some(wanted) = self.server {
            let [_, uid, _] = sys::client::peer_ids(socket.as_fd())
                .map_err(|source| Error::system(doing(), "getsockopt(SO_PEERCRED)", source))?;
            if Uid::new(uid) != Some(wanted) {
                let object = address.to_string();
                let why = io::Error::other(format!("its server has uid {uid}, not {wanted}"));
                return Err(Error::new(doing(), ErrorKind::AccessDenied { object }).with_source(why));
            }
        }
        set_socket_timeout(&socket, Timeout::Send, None).map_err(system("setsockopt(SO_SNDTIMEO)"))?;
        Ok(Stream { socket: socket.into() })
    }
}

impl Stream {
    /// Connects, granting [`ImpersonationLevel::Impersonation`].
    ///
    /// # Errors
    ///
    /// As [`connect_with`](Self::connect_with).
    #[doc(alias = "CallNamedPipe")]
    pub fn connect(address: &Address) -> Result<Self> {
        Self::connect_with(address, &ConnectOptions::default())
    }

    /// Connects as the options say.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::AccessDenied`]: the listener is not open to this user, or its server is not the one
    ///   that the options demand; nothing was sent to it then.
    /// * [`ErrorKind::DeadlinePassed`]: the server takes no more connections.
    /// * [`ErrorKind::System`]: there is no listener.
    #[doc(alias = "CreateFile")]
    pub fn connect_with(address: &Address, options: &ConnectOptions) -> Result<Self> {
        options.connect(address)
    }

    /// Who is at the other end, at the level that it granted.
    ///
    /// On Windows a client can be known only after something was read from it; source that is to run there
    /// too reads first.
    ///
    /// # Errors
    ///
    /// As [`Client::of`].
    #[doc(alias = "ImpersonateNamedPipeClient")]
    pub fn client(&self) -> Result<Client> {
        self.client_with(Confinement::Refuse)
    }

    /// The same, choosing what to do about the client's confinement.
    ///
    /// # Errors
    ///
    /// As [`client`](Self::client).
    pub fn client_with(&self, confinement: Confinement) -> Result<Client> {
        Client::with(confinement).of(&self.socket)
    }

    /// One more handle of the same connection.
    ///
    /// # Errors
    ///
    /// When there are no more descriptors.
    #[doc(alias = "DuplicateHandle")]
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }

    /// Ends reading, writing or both, for all handles of the connection.
    ///
    /// # Errors
    ///
    /// When it is not connected any more.
    #[doc(alias = "DisconnectNamedPipe")]
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }

    /// How long a read waits; `None` for ever.
    ///
    /// # Errors
    ///
    /// For a duration of zero.
    #[doc(alias = "SetCommTimeouts")]
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(timeout)
    }

    /// How long a write waits; `None` for ever.
    ///
    /// # Errors
    ///
    /// For a duration of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_write_timeout(timeout)
    }

    /// Whether reads and writes that would wait fail instead.
    ///
    /// # Errors
    ///
    /// Those of the system.
    #[doc(alias = "SetNamedPipeHandleState")]
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.socket).read(buffer)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.socket).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.socket).flush()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A server's end that was accepted elsewhere.
impl TryFrom<OwnedFd> for Stream {
    type Error = Error;

    fn try_from(descriptor: OwnedFd) -> Result<Self> {
        sys::client::require_accepted(descriptor.as_fd())?;
        Ok(Self { socket: descriptor.into() })
    }
}
