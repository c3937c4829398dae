//! One connection.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::{Address, ConnectOptions};
#[cfg(doc)]
use crate::ImpersonationLevel;
use crate::client::{Client, Confinement};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::sys::local;

/// One end of a local connection.
///
/// Reading and writing are those of a stream of bytes, through a shared reference too; nothing but the program's
/// own bytes travels in it. At the server's end of a named pipe the client's token is captured when the first bytes
/// have been read: it is that of whoever sent them, and what is sent later as somebody else changes nothing.
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
pub struct Stream(pub(crate) local::Stream);

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
    /// * [`ErrorKind::InvalidInput`]: the address is no socket's, or no pipe's of this machine.
    /// * [`ErrorKind::System`]: there is no listener.
    ///
    /// Reference: [Impersonation levels of CreateFileW](https://learn.microsoft.com/windows/win32/api/fileapi/nf-fileapi-createfilew).
    #[doc(alias = "CreateFile")]
    pub fn connect_with(address: &Address, options: &ConnectOptions) -> Result<Self> {
        local::Stream::connect(address, options).map(Self)
    }

    /// Who is at the other end, at the level that it granted.
    ///
    /// On Windows a client can be known only after something was read from it; source that is to run there
    /// too reads first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoIdentity`] before anything was read (Windows); otherwise as [`Client::of`].
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
        self.0.client_with(confinement)
    }

    /// One more handle of the same connection.
    ///
    /// # Errors
    ///
    /// When there are no more descriptors or handles.
    #[doc(alias = "DuplicateHandle")]
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Ends reading, writing or both, for all handles of the connection; calls that wait end too.
    ///
    /// On Windows the other end is not told that nobody reads any more. That nobody writes any more is told by an
    /// empty message, as others do it (go-winio): a pipe of this library carries that, one of another's only if it
    /// was created with `PIPE_TYPE_MESSAGE`.
    ///
    /// # Errors
    ///
    /// When it is not connected any more; [`Unsupported`](io::ErrorKind::Unsupported) where a pipe cannot tell.
    #[doc(alias = "DisconnectNamedPipe")]
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    /// How long a read waits; `None` for ever.
    ///
    /// # Errors
    ///
    /// For a duration of zero.
    #[doc(alias = "SetCommTimeouts")]
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(timeout)
    }

    /// How long a write waits; `None` for ever.
    ///
    /// A write that was given up may have been taken in part: the connection is then of no more use.
    ///
    /// # Errors
    ///
    /// For a duration of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_write_timeout(timeout)
    }

    /// Whether reads and writes that would wait fail instead, of all handles of this end.
    ///
    /// # Errors
    ///
    /// Those of the system.
    #[doc(alias = "SetNamedPipeHandleState")]
    #[doc(alias = "PIPE_NOWAIT")]
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
