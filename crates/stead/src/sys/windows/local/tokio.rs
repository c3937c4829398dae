//! The same pair for tokio.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use stead::local::{Address, Listener, tokio};
//!
//! let listener = tokio::Listener::new(Listener::bind(&Address::name("report")?)?)?;
//! let stream = listener.accept().await?;
//! # Ok(()) }
//! ```

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, IntoRawHandle, OwnedHandle};
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ::tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer};
use ::tokio::sync::Mutex;

use super::stream::Shared;
use super::{Address, ConnectOptions};
use crate::client::{Client, Confinement};
use crate::error::{Error, Result};

/// Where clients connect, for tokio.
#[derive(Debug)]
#[doc(alias = "CreateNamedPipe")]
pub struct Listener {
    next: Mutex<Option<NamedPipeServer>>,
    whole: super::Listener,
}

impl Listener {
    /// Makes a listener tokio's. Within a runtime only.
    ///
    /// # Errors
    ///
    /// When its handle cannot be watched.
    pub fn new(listener: super::Listener) -> io::Result<Self> {
        let first = listener.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let first = first.map(server).transpose()?;
        Ok(Self { next: Mutex::new(first), whole: listener })
    }

    /// Waits for the next client to connect.
    ///
    /// Where the future is dropped before its end, no client is lost.
    ///
    /// # Errors
    ///
    /// Those of ConnectNamedPipe, and of CreateNamedPipeW for the next client's instance; the client that came
    /// is then kept for the next call.
    #[doc(alias = "ConnectNamedPipe")]
    pub async fn accept(&self) -> io::Result<Stream> {
        let mut next = self.next.lock().await;
        if next.is_none() {
            *next = Some(server(self.whole.instances.one_more()?)?);
        }
        if let Some(instance) = &*next {
            instance.connect().await?;
        }
        let another = server(self.whole.instances.one_more()?)?;
        let instance = next.replace(another).ok_or(io::ErrorKind::NotConnected)?;
        Ok(Stream { end: End::Server(instance), shared: Shared::new(true) })
    }
}

fn server(instance: OwnedHandle) -> io::Result<NamedPipeServer> {
    // SAFETY: the handle is a pipe's server end, overlapped, and given away here.
    unsafe { NamedPipeServer::from_raw_handle(instance.into_raw_handle()) }
}

/// One end of a local connection, for tokio.
#[derive(Debug)]
pub struct Stream {
    end: End,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum End {
    Server(NamedPipeServer),
    Client(NamedPipeClient),
}

impl Stream {
    /// Makes a connection tokio's. Within a runtime only.
    ///
    /// # Errors
    ///
    /// When its handle cannot be watched.
    pub fn new(stream: super::Stream) -> io::Result<Self> {
        let super::Stream { pipe, shared } = stream;
        let end = if shared.is_server() {
            End::Server(server(pipe)?)
        } else {
            // SAFETY: the handle is a pipe's client end, overlapped, and given away here.
            End::Client(unsafe { NamedPipeClient::from_raw_handle(pipe.into_raw_handle()) }?)
        };
        Ok(Self { end, shared })
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
        Self::new(stream).map_err(|source| Error::system(DOING, "CreateIoCompletionPort", source))
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
        self.shared.client_with(self.as_handle(), confinement)
    }
}

impl AsHandle for Stream {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        let raw = match &self.end {
            End::Server(pipe) => pipe.as_raw_handle(),
            End::Client(pipe) => pipe.as_raw_handle(),
        };
        // SAFETY: the pipe is open for as long as `self`, which the result borrows.
        unsafe { BorrowedHandle::borrow_raw(raw) }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        let polled = match &mut this.end {
            End::Server(pipe) => Pin::new(pipe).poll_read(task, into),
            End::Client(pipe) => Pin::new(pipe).poll_read(task, into),
        };
        if into.filled().len() > before {
            this.shared.received(this.as_handle());
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().end {
            End::Server(pipe) => Pin::new(pipe).poll_write(task, bytes),
            End::Client(pipe) => Pin::new(pipe).poll_write(task, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().end {
            End::Server(pipe) => Pin::new(pipe).poll_flush(task),
            End::Client(pipe) => Pin::new(pipe).poll_flush(task),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().end {
            End::Server(pipe) => Pin::new(pipe).poll_shutdown(task),
            End::Client(pipe) => Pin::new(pipe).poll_shutdown(task),
        }
    }
}
