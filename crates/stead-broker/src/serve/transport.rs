//! The socket beneath a connection: its limits, and its descriptors.
//!
//! zlink takes messages apart; how long one may be, how long it may take to arrive and how many descriptors may
//! come with it is decided here, before anything is kept. Descriptors are not zlink's: closing a descriptor of a
//! caller's file system can wait for that file system (`flush` in FUSE), so they are only ever closed on a
//! thread that may wait.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde_json::Value;
use stead_protocol::{LARGEST_MESSAGE, MOST_DESCRIPTORS};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};
use zlink::connection::PassedCredentials;
use zlink::connection::socket::{ReadHalf, ReadResult, Socket, WriteHalf};

/// How long a message may take from its first byte to its last.
const HALF_SENT: Duration = Duration::from_secs(10);
/// How long a caller may leave a reply unread.
const UNREAD: Duration = Duration::from_secs(30);

/// A connection of Varlink's.
pub(super) type Connection = zlink::Connection<Transport>;

/// A connected socket with limits.
#[derive(Debug)]
pub(super) struct Transport {
    stream: Arc<UnixStream>,
    arrived: Arc<Arrived>,
}

/// Descriptors that arrived, each with the number of the message that it belongs to.
#[derive(Debug, Default)]
pub(super) struct Arrived(Mutex<VecDeque<(u64, Vec<OwnedFd>)>>);

impl Arrived {
    /// Those of message `number` and of any before it.
    pub(super) fn take(&self, number: u64) -> Vec<OwnedFd> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        while queue.front().is_some_and(|(of, _)| *of <= number) {
            taken.extend(queue.pop_front().map(|(_, descriptors)| descriptors).unwrap_or_default());
        }
        taken
    }

    /// Adds some; false when that is more than a connection may have waiting.
    fn add(&self, number: u64, descriptors: Vec<OwnedFd>) -> bool {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back((number, descriptors));
        queue.iter().map(|(_, descriptors)| descriptors.len()).sum::<usize>() <= 2 * MOST_DESCRIPTORS
    }
}

impl Transport {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream: Arc::new(stream), arrived: Arc::default() }
    }

    /// Where the descriptors of what is read wait to be taken.
    pub(super) fn arrived(&self) -> Arc<Arrived> {
        Arc::clone(&self.arrived)
    }

    /// The socket, to see whether the caller is still there.
    pub(super) fn stream(&self) -> Arc<UnixStream> {
        Arc::clone(&self.stream)
    }
}

impl Socket for Transport {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    const CAN_TRANSFER_FDS: bool = true;

    fn split(self) -> (Reader, Writer) {
        let reader = Reader {
            stream: Arc::clone(&self.stream),
            arrived: self.arrived,
            number: 0,
            unfinished: 0,
            until: None,
        };
        (reader, Writer(self.stream))
    }
}

/// The reading half.
#[derive(Debug)]
pub(super) struct Reader {
    stream: Arc<UnixStream>,
    arrived: Arc<Arrived>,
    /// The number of the message that the next byte belongs to.
    number: u64,
    /// How many bytes of it there are.
    unfinished: usize,
    /// When it must be whole.
    until: Option<Instant>,
}

impl Reader {
    /// Counts what was read; the number of the message that its last byte belongs to.
    fn count(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let mut of_last = self.number;
        for byte in bytes {
            of_last = self.number;
            self.unfinished += 1;
            if self.unfinished > LARGEST_MESSAGE {
                return Err(refused("a message is too long"));
            }
            if *byte == 0 {
                self.number += 1;
                self.unfinished = 0;
                self.until = None;
            }
        }
        if self.unfinished > 0 && self.until.is_none() {
            self.until = Some(Instant::now() + HALF_SENT);
        }
        Ok(of_last)
    }
}

impl ReadHalf for Reader {
    async fn read(&mut self, buffer: &mut [u8]) -> zlink::Result<ReadResult> {
        loop {
            match self.until {
                None => self.stream.readable().await?,
                Some(until) => timeout_at(until, self.stream.readable())
                    .await
                    .map_err(|_| refused("a message was not sent to its end"))??,
            }
            // What is read here is all accounted for before the next point of waiting: dropping the future
            // loses nothing.
            let read = self.stream.try_io(Interest::READABLE, || receive(self.stream.as_fd(), buffer));
            let Received { length, descriptors, truncated } = match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                other => other?,
            };
            let number = self.count(&buffer[..length]);
            let of = *number.as_ref().unwrap_or(&u64::MAX);
            // Where some are lost, whoever names one by its index would be given another.
            if !descriptors.is_empty() && (!self.arrived.add(of, descriptors) || truncated) {
                return Err(refused("more descriptors than the service takes").into());
            }
            number?;
            return Ok(ReadResult::new(length));
        }
    }
}

/// The writing half.
#[derive(Debug)]
pub(super) struct Writer(Arc<UnixStream>);

/// Sends a whole message, and descriptors with its first bytes.
async fn send_whole(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        timeout(UNREAD, stream.writable()).await.map_err(|_| refused("the caller reads no replies"))??;
        let beside = if sent == 0 { descriptors } else { &[] };
        match stream.try_io(Interest::WRITABLE, || send(stream.as_fd(), &bytes[sent..], beside)) {
            Ok(length) => sent += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends a reply whose descriptors stay the caller's to close: zlink closes those that it sends where it is.
pub(super) async fn send_reply(
    stream: &UnixStream,
    parameters: Value,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut message = serde_json::to_vec(&zlink::Reply::new(Some(parameters)))?;
    message.push(0);
    send_whole(stream, &message, descriptors).await
}

impl WriteHalf for Writer {
    async fn write(
        &mut self,
        buffer: &[u8],
        descriptors: &[impl AsFd],
        _credentials: Option<&PassedCredentials>,
    ) -> zlink::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        Ok(send_whole(&self.0, buffer, &descriptors).await?)
    }
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

struct Received {
    length: usize,
    descriptors: Vec<OwnedFd>,
    truncated: bool,
}

fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received =
        rustix::io::retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    let truncated = received.flags.contains(ReturnFlags::CTRUNC);
    Ok(Received { length: received.bytes, descriptors, truncated })
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(refused("a reply with too many descriptors"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags))?)
}
