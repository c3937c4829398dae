//! The same pair for tokio.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ::tokio::io::AsyncReadExt;
//! use stead::local::{Address, Listener, tokio};
//!
//! let listener = tokio::Listener::new(Listener::bind(&Address::name("report")?)?)?;
//! let mut stream = listener.accept().await?;
//! let mut question = [0; 64];
//! stream.read(&mut question).await?; // on Windows a client is known when something was read
//! let client = stream.client()?;
//! # Ok(()) }
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Address, ConnectOptions};
use crate::client::{Client, Confinement};
use crate::error::{Error, Result};
use crate::sys::local::tokio as native;

/// Where clients connect, for tokio.
#[derive(Debug)]
#[doc(alias = "CreateNamedPipe")]
pub struct Listener(pub(crate) native::Listener);

impl Listener {
    /// Makes a listener tokio's. Within a runtime only.
    ///
    /// # Errors
    ///
    /// When its descriptor cannot be duplicated or watched.
    pub fn new(listener: super::Listener) -> io::Result<Self> {
        native::Listener::new(listener.0).map(Self)
    }

    /// Waits for the next client to connect.
    ///
    /// Where the future is dropped before its end, no client is lost.
    ///
    /// # Errors
    ///
    /// As [`Listener::accept`](super::Listener::accept).
    #[doc(alias = "ConnectNamedPipe")]
    pub async fn accept(&self) -> io::Result<Stream> {
        self.0.accept().await.map(Stream)
    }
}

/// One end of a local connection, for tokio.
#[derive(Debug)]
pub struct Stream(pub(crate) native::Stream);

impl Stream {
    /// Makes a connection tokio's. Within a runtime only.
    ///
    /// # Errors
    ///
    /// When its descriptor cannot be watched.
    pub fn new(stream: super::Stream) -> io::Result<Self> {
        native::Stream::new(stream.0).map(Self)
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
        let connecting = move || super::Stream::connect_with(&address, &options);
        let connected = ::tokio::task::spawn_blocking(connecting).await;
        let stream =
            connected.map_err(|error| Error::system(DOING, "spawn_blocking", io::Error::other(error)))??;
        Self::new(stream).map_err(|source| Error::system(DOING, native::WATCHING, source))
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
        self.0.client_with(confinement)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().0.poll_read(task, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().0.poll_write(task, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0.poll_shutdown(task)
    }
}
