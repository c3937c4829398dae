//! The same pair for tokio.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ::tokio::net::{UnixListener, UnixStream};

use crate::client::{Client, Confinement};
use crate::error::Result;

/// The call that watches a descriptor.
pub(crate) const WATCHING: &str = "epoll_ctl";

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: UnixListener,
    /// Keeps the socket in the file system.
    _whole: super::Listener,
}

impl Listener {
    pub(crate) fn new(listener: super::Listener) -> io::Result<Self> {
        let socket = listener.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixListener::from_std(socket)?, _whole: listener })
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        let (socket, _) = self.socket.accept().await?;
        Ok(Stream { socket })
    }
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: UnixStream,
}

impl Stream {
    pub(crate) fn new(stream: super::Stream) -> io::Result<Self> {
        stream.socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixStream::from_std(stream.socket)? })
    }

    /// The kernel knows it since the connection was made.
    #[expect(clippy::unused_self, reason = "elsewhere it is the stream's")]
    pub(crate) fn is_known(&self) -> bool {
        true
    }

    pub(crate) fn client_with(&self, confinement: Confinement) -> Result<Client> {
        Client::with(confinement).of(&self.socket)
    }

    pub(crate) fn poll_read(
        &mut self,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(task, into)
    }

    pub(crate) fn poll_write(&mut self, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(task, bytes)
    }

    pub(crate) fn poll_shutdown(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(task)
    }
}
