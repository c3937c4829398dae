//! The same pair for tokio.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use stead::local::{Address, Listener, tokio};
//!
//! let listener = tokio::Listener::new(Listener::bind(&Address::path("/run/report/socket"))?)?;
//! let stream = listener.accept().await?;
//! let client = stream.client()?;
//! # Ok(()) }
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ::tokio::net::{UnixListener, UnixStream};

use super::{Address, ConnectOptions};
use crate::client::{Client, Confinement};
use crate::error::{Error, Result};

/// Where clients connect, for tokio.
#[derive(Debug)]
#[doc(alias = "CreateNamedPipe")]
pub struct Listener {
    socket: UnixListener,
    /// Keeps the socket in the file system.
    _whole: super::Listener,
}

impl Listener {
    /// Makes a listener tokio's. Within a runtime only.
    ///
    /// # Errors
    ///
    /// When its descriptor cannot be duplicated or watched.
    pub fn new(listener: super::Listener) -> io::Result<Self> {
        let socket = listener.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixListener::from_std(socket)?, _whole: listener })
    }

    /// Waits for the next client to connect.
    ///
    /// # Errors
    ///
    /// Those of accept(2).
    #[doc(alias = "ConnectNamedPipe")]
    pub async fn accept(&self) -> io::Result<Stream> {
        let (socket, _) = self.socket.accept().await?;
        Ok(Stream { socket })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One end of a local connection, for tokio.
#[derive(Debug)]
pub struct Stream {
    socket: UnixStream,
}

impl Stream {
    /// Makes a connection tokio's. Within a runtime only.
    ///
    /// # Errors
    ///
    /// When its descriptor cannot be watched.
    pub fn new(stream: super::Stream) -> io::Result<Self> {
        stream.socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixStream::from_std(stream.socket)? })
    }

    /// Connects as the options say, on a thread that may wait.
    ///
    /// # Errors
    ///
    /// As [`Stream::connect_with`](super::Stream::connect_with).
    #[doc(alias = "CreateFile")]
    pub async fn connect_with(address: &Address, options: &ConnectOptions) -> Result<Self> {
        const DOING: &str = "connecting";
        let (address, options) = (address.clone(), options.clone());
        let connecting = ::tokio::task::spawn_blocking(move || options.connect(&address)).await;
        let stream =
            connecting.map_err(|error| Error::system(DOING, "spawn_blocking", io::Error::other(error)))??;
        Self::new(stream).map_err(|source| Error::system(DOING, "epoll_ctl", source))
    }

    /// Who is at the other end, at the level that it granted.
    ///
    /// # Errors
    ///
    /// As [`Stream::client`](super::Stream::client).
    #[doc(alias = "ImpersonateNamedPipeClient")]
    pub fn client(&self) -> Result<Client> {
        self.client_with(Confinement::Refuse)
    }

    /// The same, choosing what to do about the client's confinement.
    ///
    /// # Errors
    ///
    /// As [`Stream::client`](super::Stream::client).
    pub fn client_with(&self, confinement: Confinement) -> Result<Client> {
        Client::with(confinement).of(&self.socket)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(task, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(task, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(task)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
