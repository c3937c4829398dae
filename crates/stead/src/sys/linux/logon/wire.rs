//! The wire between the server and a session worker: frames of bytes with descriptors on a stream socket.
//!
//! A frame is a header of twelve bytes (length of the body, version, kind, number of descriptors; little
//! endian) and a body. Neither side believes the other's numbers: every read is bounded, and what does not
//! decode whole is refused. Bodies may carry a password, so their buffers are wiped.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use zeroize::Zeroizing;

/// The version of everything that is said over the wire; the two sides must be of the same one. A process to be
/// created travels as what its trampoline is told, so that the trampoline's version is part of it.
pub(super) const VERSION: u16 = 4 << 8 | (stead_trampoline::wire::VERSION & 0xff) as u16;
/// The kernel takes 6 MiB of arguments and environment at most (`bprm_set_stack_limits`, fs/exec.c).
const LARGEST_BODY: usize = 16 << 20;
const HEADER: usize = 12;
/// SCM_MAX_FD of the kernel, for one message.
const DESCRIPTORS_AT_ONCE: usize = 253;
/// Each byte of the header can carry a full message of descriptors.
const MOST_DESCRIPTORS: usize = DESCRIPTORS_AT_ONCE * HEADER;

/// The other side is of another version.
#[derive(Debug)]
pub(super) struct OtherVersion(u16);

impl OtherVersion {
    /// Whether this error is one.
    pub(super) fn is(error: &io::Error) -> bool {
        error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()).is_some()
    }
}

impl fmt::Display for OtherVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [[theirs, their_trampoline], [ours, our_trampoline]] = [self.0, VERSION].map(u16::to_be_bytes);
        write!(
            f,
            "it speaks version {theirs}.{their_trampoline} of the worker's protocol, this is version \
             {ours}.{our_trampoline}"
        )
    }
}

impl std::error::Error for OtherVersion {}

/// One frame, as it came.
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) body: Zeroizing<Vec<u8>>,
    pub(super) descriptors: Vec<OwnedFd>,
    /// The kernel dropped descriptors that did not fit under RLIMIT_NOFILE.
    pub(super) truncated: bool,
}

/// Sends one frame; blocks until the kernel has taken it all.
pub(super) fn send(
    socket: impl AsFd,
    kind: u8,
    body: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if body.len() > LARGEST_BODY {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a request of more than 16 MiB"));
    }
    if descriptors.len() > MOST_DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a request with more than 3036 descriptors"));
    }
    let mut header = [0; HEADER];
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let count = u16::try_from(descriptors.len()).map_err(io::Error::other)?;
    header[0..4].copy_from_slice(&length.to_le_bytes());
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header[6] = kind;
    header[8..10].copy_from_slice(&count.to_le_bytes());
    let (mut header, mut body) = (&header[..], body);
    let mut chunks = descriptors.chunks(DESCRIPTORS_AT_ONCE).peekable();
    while !(header.is_empty() && body.is_empty()) {
        let chunk = chunks.next().unwrap_or_default();
        // All the rest at once where that is possible: whoever waits for it is woken once.
        let pieces = if chunks.peek().is_some() { [&header[..1], &[]] } else { [header, body] };
        let sent = send_some(socket.as_fd(), pieces.map(IoSlice::new), chunk)?;
        let of_header = sent.min(header.len());
        header = &header[of_header..];
        body = &body[sent - of_header..];
    }
    Ok(())
}

fn send_some(
    socket: BorrowedFd<'_>,
    pieces: [IoSlice<'_>; 2],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = Vec::new();
    let mut ancillary = if descriptors.is_empty() {
        SendAncillaryBuffer::default()
    } else {
        space.resize(rustix::cmsg_space!(ScmRights(DESCRIPTORS_AT_ONCE)), MaybeUninit::uninit());
        SendAncillaryBuffer::new(&mut space)
    };
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    loop {
        match rustix::net::sendmsg(socket, &pieces, &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => return Ok(sent),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The same for a worker: who is of another version is answered in this one, and sees it by that.
pub(super) fn receive_or_tell(socket: impl AsFd) -> io::Result<Option<Frame>> {
    receive(&socket).inspect_err(|error| {
        if OtherVersion::is(error) {
            let _ = send(&socket, 0, &[], &[]);
        }
    })
}

/// Receives one frame; `None` at the end of the stream between two frames.
pub(super) fn receive(socket: impl AsFd) -> io::Result<Option<Frame>> {
    let mut received = Received::default();
    let mut header = [0; HEADER];
    if !fill(socket.as_fd(), &mut header, &mut received)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let version = u16::from_le_bytes([header[4], header[5]]);
    let count = usize::from(u16::from_le_bytes([header[8], header[9]]));
    if version != VERSION {
        return Err(io::Error::new(io::ErrorKind::InvalidData, OtherVersion(version)));
    }
    if length > LARGEST_BODY {
        return Err(invalid("a frame of more than 16 MiB"));
    }
    // Grown as the bytes arrive, not as the header promises.
    let mut body = Zeroizing::new(Vec::new());
    while body.len() < length {
        let step = (length - body.len()).min(1 << 16).max(body.len().min(length - body.len()));
        // A Vec that grows leaves its old bytes behind: copy by hand, and let the old one be wiped.
        let mut larger = Zeroizing::new(vec![0; body.len() + step]);
        larger[..body.len()].copy_from_slice(&body);
        if !fill(socket.as_fd(), &mut larger[body.len()..], &mut received)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        body = larger;
    }
    let Received { descriptors, truncated } = received;
    if descriptors.len() != count && !truncated {
        return Err(invalid("a frame with other descriptors than it names"));
    }
    Ok(Some(Frame { kind: header[6], body, descriptors, truncated }))
}

/// What came beside the bytes.
#[derive(Default)]
struct Received {
    descriptors: Vec<OwnedFd>,
    truncated: bool,
}

/// Fills `buffer`; false at the end of the stream before its first byte.
fn fill(socket: BorrowedFd<'_>, buffer: &mut [u8], beside: &mut Received) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_AT_ONCE))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(&mut buffer[filled..])];
        let received = match rustix::net::recvmsg(socket, slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received,
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                beside.descriptors.extend(rights);
            }
        }
        // The kernel drops what does not fit under RLIMIT_NOFILE, and says so.
        beside.truncated |= received.flags.contains(rustix::net::ReturnFlags::CTRUNC);
        match received.bytes {
            0 if filled == 0 => return Ok(false),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => filled += bytes,
        }
        if beside.descriptors.len() > MOST_DESCRIPTORS {
            return Err(invalid("more descriptors than a frame can have"));
        }
    }
    Ok(true)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes a body.
#[derive(Default)]
pub(super) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    pub(super) fn finish(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    /// Appends without leaving an unwiped copy behind when the buffer grows.
    fn raw(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * self.0.capacity()).max(256)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.raw(&[u8::from(value)]);
    }

    pub(super) fn byte(&mut self, value: u8) {
        self.raw(&[value]);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        // `send` refuses a body of more than 16 MiB, long before a length is cut.
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.raw(value);
    }

    pub(super) fn string(&mut self, value: &CStr) {
        self.bytes(value.to_bytes());
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn list<T>(
        &mut self,
        values: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
        for value in values {
            write(self, value);
        }
    }
}

/// Reads a body; `None` as soon as anything is not as it must be.
pub(super) struct Reader<'body>(&'body [u8]);

impl<'body> Reader<'body> {
    pub(super) fn new(body: &'body [u8]) -> Self {
        Self(body)
    }

    /// Whether everything was read: bytes left over are an error as well.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    fn raw(&mut self, length: usize) -> Option<&'body [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.raw(1)?.first().copied()
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.raw(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.raw(4)?.try_into().ok().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.raw(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    pub(super) fn bytes(&mut self) -> Option<&'body [u8]> {
        let length = self.u32()?;
        self.raw(usize::try_from(length).ok()?)
    }

    pub(super) fn string(&mut self) -> Option<CString> {
        CString::new(self.bytes()?).ok()
    }

    #[expect(clippy::option_option, reason = "not readable, or readable and absent")]
    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Some(None) }
    }

    pub(super) fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.u32()?).ok()?;
        // No more than the bytes could hold, whatever the count says.
        let mut values = Vec::with_capacity(count.min(self.0.len()).min(1024));
        for _ in 0..count {
            values.push(read(self)?);
        }
        Some(values)
    }
}
