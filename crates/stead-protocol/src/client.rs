//! A small blocking client.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::frame::{Decoder, Malformed, Replies, Reply, decode_reply, encode_call};
use crate::{Failure, Index, MOST_DESCRIPTORS, Method};

/// Why a call has no result.
#[derive(Debug)]
pub enum CallError {
    /// The service says why.
    Failed(Failure),
    /// The connection failed, or ended before the reply.
    Connection(io::Error),
    /// What came, or what was to be sent, is no message of the protocol.
    Malformed(Malformed),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Connection(error) => write!(f, "the connection to the service failed: {error}"),
            Self::Malformed(malformed) => malformed.fmt(f),
        }
    }
}

impl std::error::Error for CallError {}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

impl From<Malformed> for CallError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// The descriptors of a reply.
#[derive(Debug, Default)]
pub struct Descriptors(Vec<Option<OwnedFd>>);

impl Descriptors {
    /// The one at `index`, which is then taken.
    ///
    /// # Errors
    /// When the reply has none there.
    pub fn take(&mut self, index: Index) -> io::Result<OwnedFd> {
        let slot = usize::try_from(index).ok().and_then(|index| self.0.get_mut(index));
        slot.and_then(Option::take)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the reply lacks a descriptor"))
    }
}

/// A connection to the service. One call after the other; what a call waits for holds up the next.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use stead_protocol::{GetStatus, SOCKET, client::Connection};
/// let mut service = Connection::connect(SOCKET)?;
/// let (status, _) = service.call(&GetStatus {}, &[])?;
/// println!("stead {}", status.version);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    decoder: Decoder,
    /// Whole messages of what was read, each with the descriptors that came with it.
    ready: VecDeque<(Vec<u8>, Descriptors)>,
    /// Descriptors of a message that is not whole yet.
    pending: Vec<Option<OwnedFd>>,
    /// Nothing more is expected of a connection on which something went wrong.
    broken: bool,
}

impl Connection {
    /// Connects to the service that listens at `path`.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        UnixStream::connect(path).map(Self::from)
    }

    /// Calls a method, with these descriptors beside the call.
    ///
    /// # Errors
    /// What the service says; or that the connection failed, which then is of no use any more.
    pub fn call<M: Method>(
        &mut self,
        call: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(M::Reply, Descriptors), CallError> {
        self.send(call, Replies::One, descriptors)?;
        let (reply, descriptors) = self.receive::<M>()?;
        reply.result.map(|reply| (reply, descriptors)).map_err(CallError::Failed)
    }

    /// Calls a method that replies more than once; [`next_reply`](Self::next_reply) gives its replies.
    ///
    /// # Errors
    /// Those of [`call`](Self::call) of the connection.
    pub fn call_more<M: Method>(&mut self, call: &M) -> Result<(), CallError> {
        self.send(call, Replies::More, &[])
    }

    /// Calls a method without waiting for what becomes of it.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn tell<M: Method>(&mut self, call: &M) -> Result<(), CallError> {
        self.send(call, Replies::None, &[])
    }

    /// The next reply to [`call_more`](Self::call_more), and whether more follow.
    ///
    /// # Errors
    /// Those of [`call`](Self::call).
    pub fn next_reply<M: Method>(&mut self) -> Result<(M::Reply, bool), CallError> {
        let (reply, _) = self.receive::<M>()?;
        reply.result.map(|result| (result, reply.continues)).map_err(CallError::Failed)
    }

    fn send<M: Method>(
        &mut self,
        call: &M,
        replies: Replies,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), CallError> {
        let message = encode_call(call, replies)?;
        if descriptors.len() > MOST_DESCRIPTORS {
            let what = format!("no more than {MOST_DESCRIPTORS} descriptors travel with a call");
            return Err(Malformed::Unsendable(what).into());
        }
        self.not_broken()?;
        let sent = send_all(&self.socket, &message, descriptors);
        self.broken |= sent.is_err();
        Ok(sent?)
    }

    fn receive<M: Method>(&mut self) -> Result<(Reply<M::Reply>, Descriptors), CallError> {
        let (message, descriptors) = self.message()?;
        let reply = decode_reply::<M>(&message);
        self.broken |= reply.is_err();
        Ok((reply?, descriptors))
    }

    fn message(&mut self) -> Result<(Vec<u8>, Descriptors), CallError> {
        self.not_broken()?;
        while self.ready.is_empty() {
            let read = self.read();
            self.broken |= read.is_err();
            read?;
        }
        let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
        Ok(self.ready.pop_front().ok_or_else(ended)?)
    }

    /// Reads once. Descriptors are those of the message that the last byte read belongs to: the kernel ends
    /// a read with the piece of the stream that they came with.
    fn read(&mut self) -> Result<(), CallError> {
        let mut bytes = [0; 16 << 10];
        let (length, received) = receive_once(&self.socket, &mut bytes)?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.decoder.push(&bytes[..length]);
        while let Some(message) = self.decoder.next_message()? {
            self.ready.push_back((message, Descriptors(std::mem::take(&mut self.pending))));
        }
        let received = received.into_iter().map(Some);
        let whole = bytes[length - 1] == 0;
        match self.ready.back_mut() {
            Some((_, last)) if whole && self.pending.is_empty() => last.0.extend(received),
            _ => self.pending.extend(received),
        }
        Ok(())
    }

    fn not_broken(&self) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "it failed before"));
        }
        Ok(())
    }
}

impl From<UnixStream> for Connection {
    fn from(socket: UnixStream) -> Self {
        Self {
            socket,
            decoder: Decoder::default(),
            ready: VecDeque::new(),
            pending: Vec::new(),
            broken: false,
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends all of `bytes`, the descriptors beside the first of them.
fn send_all(socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if sent == 0 && !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let piece = [IoSlice::new(&bytes[sent..])];
        match sendmsg(socket, &piece, &mut control, SendFlags::NOSIGNAL) {
            Ok(length) => sent += length,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn receive_once(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            match recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => received,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            let what = "descriptors of a reply were lost: there is no room for them";
            return Err(io::Error::other(what));
        }
        return Ok((received.bytes, descriptors));
    }
}
