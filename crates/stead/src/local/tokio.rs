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

use std::future::poll_fn;
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
        self.0.accept().await.map(|stream| Stream(stream, Kept::default()))
    }
}

/// One end of a local connection, for tokio.
#[derive(Debug)]
pub struct Stream(pub(crate) native::Stream, Kept);

/// What was read to know the client, for the next read.
#[derive(Debug, Default)]
struct Kept(Vec<u8>);

impl Stream {
    /// Makes a connection tokio's. Within a runtime only.
    ///
    /// # Errors
    ///
    /// When its descriptor cannot be watched.
    pub fn new(stream: super::Stream) -> io::Result<Self> {
        native::Stream::new(stream.0).map(|stream| Self(stream, Kept::default()))
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

    /// The same, as soon as it is known: on Windows when the client has written something. What was read for it comes
    /// with the next read.
    ///
    /// For servers that give the stream away to what reads it, such as an HTTP server.
    ///
    /// # Errors
    ///
    /// As [`client`](Self::client); the connection's own where it ends before anything was written.
    ///
    /// ```no_run
    /// # async fn serve(mut stream: stead::local::tokio::Stream) -> stead::Result<()> {
    /// let token = stream.identify().await?.token()?.to_primary()?;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "ImpersonateNamedPipeClient")]
    pub async fn identify(&mut self) -> Result<Client> {
        if self.1.0.is_empty() && !self.0.is_known() {
            let mut buffer = vec![0; 4096];
            let mut into = ReadBuf::new(&mut buffer);
            let read = poll_fn(|task| self.0.poll_read(task, &mut into)).await;
            read.map_err(|source| Error::system("reading a client's first words", "read", source))?;
            self.1.0.extend_from_slice(into.filled());
        }
        self.client()
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
        let this = self.get_mut();
        if this.1.0.is_empty() {
            return this.0.poll_read(task, into);
        }
        let length = this.1.0.len().min(into.remaining());
        into.put_slice(&this.1.0[..length]);
        this.1.0.drain(..length);
        Poll::Ready(Ok(()))
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
