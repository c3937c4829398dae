//! The same pair for tokio.

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, IntoRawHandle, OwnedHandle};
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ::tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer};
use ::tokio::sync::Mutex;

use super::pipe;
use super::shared::{Claim, Sender, Shared};
use crate::client::{Client, Confinement};
use crate::error::Result;

/// The call that watches a handle.
pub(crate) const WATCHING: &str = "CreateIoCompletionPort";

#[derive(Debug)]
pub(crate) struct Listener {
    next: Mutex<Option<NamedPipeServer>>,
    whole: super::Listener,
}

impl Listener {
    pub(crate) fn new(listener: super::Listener) -> io::Result<Self> {
        let first = listener.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let first = first.map(server).transpose()?;
        Ok(Self { next: Mutex::new(first), whole: listener })
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        let mut next = self.next.lock().await;
        if next.is_none() {
            *next = Some(server(self.whole.instances.one_more()?)?);
        }
        if let Some(instance) = &*next {
            instance.connect().await?;
        }
        let another = server(self.whole.instances.one_more()?)?;
        let instance = next.replace(another).ok_or(io::ErrorKind::NotConnected)?;
        let shared = Shared::new(true, true);
        let claim = shared.claim()?;
        Ok(Stream { end: End::Server(instance), shared, claim })
    }
}

fn server(instance: OwnedHandle) -> io::Result<NamedPipeServer> {
    // SAFETY: the handle is a pipe's server end, overlapped, and given away here.
    unsafe { NamedPipeServer::from_raw_handle(instance.into_raw_handle()) }
}

#[derive(Debug)]
pub(crate) struct Stream {
    end: End,
    shared: Arc<Shared>,
    /// Until it is known whose the first message was: tokio reads one ahead from the beginning.
    claim: Option<Claim>,
}

#[derive(Debug)]
enum End {
    Server(NamedPipeServer),
    Client(NamedPipeClient),
}

impl Stream {
    pub(crate) fn new(stream: super::Stream) -> io::Result<Self> {
        let super::Stream { pipe, shared } = stream;
        let claim = shared.claim()?;
        shared.set_nonblocking(pipe.as_handle(), false)?;
        let end = if shared.is_server() {
            End::Server(server(pipe)?)
        } else {
            // SAFETY: the handle is a pipe's client end, overlapped, and given away here.
            End::Client(unsafe { NamedPipeClient::from_raw_handle(pipe.into_raw_handle()) }?)
        };
        Ok(Self { end, shared, claim })
    }

    /// Whether anything was read yet, without which nobody knows whose it is.
    pub(crate) fn is_known(&self) -> bool {
        self.shared.is_known()
    }

    pub(crate) fn client_with(&self, confinement: Confinement) -> Result<Client> {
        self.shared.client_with(self.as_handle(), confinement)
    }

    pub(crate) fn poll_read(
        &mut self,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if into.remaining() == 0 || self.shared.is_ended() {
            return Poll::Ready(Ok(()));
        }
        let sender = match (&self.claim, &self.end) {
            (Some(_), End::Server(pipe)) => {
                if !ready!(poll_first(pipe, task))? {
                    self.shared.end();
                    return Poll::Ready(Ok(()));
                }
                // Before it is taken, for then tokio reads the next one.
                Some(Sender::last_read(self.as_handle()))
            }
            _ => None,
        };
        let before = into.filled().len();
        let polled = match &mut self.end {
            End::Server(pipe) => Pin::new(pipe).poll_read(task, into),
            End::Client(pipe) => Pin::new(pipe).poll_read(task, into),
        };
        match (into.filled().len() - before, &polled) {
            (0, Poll::Ready(Ok(()))) => self.shared.end(),
            (0, _) => {}
            _ => {
                if let (Some(sender), Some(claim)) = (sender, self.claim.take()) {
                    claim.received(sender);
                }
            }
        }
        polled
    }

    pub(crate) fn poll_write(&mut self, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // An empty message would be the end.
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.write(task, bytes)
    }

    fn write(&mut self, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.end {
            End::Server(pipe) => Pin::new(pipe).poll_write(task, bytes),
            End::Client(pipe) => Pin::new(pipe).poll_write(task, bytes),
        }
    }

    /// The end is told by an empty message, after what was written before it; where the pipe knows none, by the
    /// stream's drop.
    pub(crate) fn poll_shutdown(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !pipe::has_messages(self.as_handle())? {
            return Poll::Ready(Ok(()));
        }
        self.write(task, &[]).map_ok(drop)
    }
}

/// Waits until the first message was read ahead, and leaves it there; false where it is an empty one, the end.
///
/// mio reads by a buffer of its own, one message at a time here, and the next one when that was taken out whole
/// (`schedule_read`): a read of nothing finds something, takes nothing, and keeps the system from reading on. An
/// empty message is taken by it, so that the next read of nothing would have to wait.
pub(super) fn poll_first(pipe: &NamedPipeServer, task: &mut Context<'_>) -> Poll<io::Result<bool>> {
    let nothing = || pipe.try_read(&mut []).map(drop);
    let waits = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    loop {
        ready!(pipe.poll_read_ready(task))?;
        match nothing() {
            Ok(()) => {}
            Err(error) if waits(&error) => continue,
            Err(error) => return Poll::Ready(Err(error)),
        }
        return Poll::Ready(match nothing() {
            Ok(()) => Ok(true),
            Err(error) if waits(&error) => Ok(false),
            Err(error) => Err(error),
        });
    }
}

impl End {
    fn raw(&self) -> std::os::windows::io::RawHandle {
        match self {
            Self::Server(pipe) => pipe.as_raw_handle(),
            Self::Client(pipe) => pipe.as_raw_handle(),
        }
    }
}

impl AsHandle for Stream {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        // SAFETY: the pipe is open for as long as `self`, which the result borrows.
        unsafe { BorrowedHandle::borrow_raw(self.end.raw()) }
    }
}
