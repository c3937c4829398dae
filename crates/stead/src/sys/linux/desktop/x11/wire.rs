//! The little of the X protocol that granting takes: the set-up, the host list, and the SECURITY extension.
//!
//! Spoken by ourselves: x11rb has no SECURITY extension, and here everything is bounded, in size and in time, for the
//! X server may be a user's own.
//!
//! References: [X Window System Protocol](https://www.x.org/releases/X11R7.7/doc/xproto/x11protocol.html),
//! [Security Extension Specification](https://www.x.org/releases/X11R7.7/doc/xextproto/security.html).
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, UCred, connect, recv, send,
    socket_with,
};

/// How long the X server may take for what is asked in one go: another client may have grabbed it.
const PATIENCE: Duration = Duration::from_secs(5);
/// No reply is longer: a host list of thousands fits.
const LONGEST: usize = 1 << 20;
/// What a client shows that has been let in by a cookie.
pub(super) const COOKIE: &str = "MIT-MAGIC-COOKIE-1";

/// What the X server, or the way to it, says no with.
#[derive(Debug)]
pub(super) enum Fault {
    /// No server listens there.
    Nobody,
    /// What listens there belongs to this uid, which is not let near the server's own cookie.
    Stranger(u32),
    /// What listens there is not the X server of the session that it was found by.
    Elsewhere,
    /// The set-up was refused, for this reason.
    Refused(String),
    /// It has no SECURITY extension.
    NoSecurity,
    /// A request was answered by this error.
    Error(u8),
    /// The system's error.
    System(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

/// BadAccess: the client may not change the host list, or may not use the extension.
pub(super) const BAD_ACCESS: u8 = 10;

/// How far a client that shows the new cookie is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Trusted = 0,
    Untrusted = 1,
}

/// A new authorization.
pub(super) struct Authorization {
    pub(super) id: u32,
    pub(super) cookie: Vec<u8>,
}

/// One entry of the host list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) family: u8,
    pub(super) address: Vec<u8>,
}

/// `FamilyServerInterpreted`: the address is a type, a NUL and a value.
pub(super) const INTERPRETED: u8 = 5;

impl Host {
    /// `SI:localuser:..` or `SI:localgroup:..`.
    pub(super) fn interpreted(kind: &str, value: &str) -> Self {
        Self { family: INTERPRETED, address: [kind.as_bytes(), &[0], value.as_bytes()].concat() }
    }
}

/// A connection to an X server.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Arc<OwnedFd>,
    until: Instant,
    sequence: u16,
}

impl Connection {
    /// Connects, and is let in by this cookie; without one by the host list.
    ///
    /// Nothing is said to the other end before `check` has seen whose it is.
    pub(super) fn open(
        number: u16,
        check: impl FnOnce(UCred) -> Result<(), Fault>,
        cookie: Option<&[u8]>,
    ) -> Result<Self, Fault> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Never the abstract name, which whoever comes first can take.
        let address = SocketAddrUnix::new(format!("/tmp/.X11-unix/X{number}"))?;
        match connect(&socket, &address) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(Fault::Nobody),
            // A full backlog: a Unix socket that does not block cannot be waited for.
            Err(Errno::AGAIN) => return Err(Fault::System(io::ErrorKind::TimedOut.into())),
            Err(errno) => return Err(errno.into()),
        }
        check(rustix::net::sockopt::socket_peercred(&socket)?)?;
        let mut connection = Self { socket: Arc::new(socket), until: Instant::now() + PATIENCE, sequence: 0 };
        connection.set_up(cookie)?;
        Ok(connection)
    }

    fn set_up(&mut self, cookie: Option<&[u8]>) -> Result<(), Fault> {
        let order = if cfg!(target_endian = "big") { b'B' } else { b'l' };
        let (name, data) = cookie.map_or((&b""[..], &b""[..]), |cookie| (COOKIE.as_bytes(), cookie));
        let mut request = vec![order, 0];
        for number in [11, 0, length(name)?, length(data)?, 0] {
            request.extend(number.to_ne_bytes());
        }
        padded(&mut request, name);
        padded(&mut request, data);
        self.write(&request)?;
        let head: [u8; 8] = self.read()?;
        let more = usize::from(u16::from_ne_bytes([head[6], head[7]])) * 4;
        let rest = self.read_long(more)?;
        match head[0] {
            1 => Ok(()),
            0 => {
                let reason = rest.get(..usize::from(head[1])).unwrap_or(&rest);
                Err(Fault::Refused(String::from_utf8_lossy(reason).trim_end().to_owned()))
            }
            _ => Err(Fault::Refused("it wants to be convinced by other means than a cookie".into())),
        }
    }

    /// The connection itself, to be kept open.
    pub(super) fn into_socket(self) -> Arc<OwnedFd> {
        self.socket
    }

    /// Makes an authorization that ends by itself `seconds` after its last client has left.
    pub(super) fn generate(&mut self, trust: Trust, seconds: u32) -> Result<Authorization, Fault> {
        const TIMEOUT: u32 = 1;
        const TRUST_LEVEL: u32 = 2;
        let security = self.security()?;
        let mut request = vec![security, 1, 0, 0];
        request.extend(length(COOKIE.as_bytes())?.to_ne_bytes());
        request.extend(0_u16.to_ne_bytes());
        request.extend((TIMEOUT | TRUST_LEVEL).to_ne_bytes());
        padded(&mut request, COOKIE.as_bytes());
        request.extend(seconds.to_ne_bytes());
        request.extend((trust as u32).to_ne_bytes());
        let reply = self.ask(request)?;
        let id = u32::from_ne_bytes([reply[8], reply[9], reply[10], reply[11]]);
        let length = usize::from(u16::from_ne_bytes([reply[12], reply[13]]));
        let cookie = reply.get(32..32 + length).filter(|cookie| !cookie.is_empty()).ok_or_else(malformed)?;
        Ok(Authorization { id, cookie: cookie.to_vec() })
    }

    /// Ends an authorization, and every client that was let in by it.
    pub(super) fn revoke(&mut self, id: u32) -> Result<(), Fault> {
        let security = self.security()?;
        let mut request = vec![security, 2, 0, 0];
        request.extend(id.to_ne_bytes());
        self.tell(request)
    }

    /// The number of the SECURITY extension.
    fn security(&mut self) -> Result<u8, Fault> {
        const NAME: &[u8] = b"SECURITY";
        let mut request = vec![98, 0, 0, 0];
        request.extend(length(NAME)?.to_ne_bytes());
        request.extend([0, 0]);
        padded(&mut request, NAME);
        let reply = self.ask(request)?;
        let (present, number) = (reply[8], reply[9]);
        if present == 0 {
            return Err(Fault::NoSecurity);
        }
        // The version, which is 1.0 and nothing else.
        let mut request = vec![number, 0, 0, 0];
        request.extend(1_u16.to_ne_bytes());
        request.extend(0_u16.to_ne_bytes());
        self.ask(request)?;
        Ok(number)
    }

    /// Whether access control is on, and the host list.
    pub(super) fn hosts(&mut self) -> Result<(bool, Vec<Host>), Fault> {
        let reply = self.ask(vec![110, 0, 0, 0])?;
        let number = usize::from(u16::from_ne_bytes([reply[8], reply[9]]));
        let mut rest = &reply[32..];
        let mut hosts = Vec::new();
        for _ in 0..number {
            let [family, _, low, high, after @ ..] = rest else { return Err(malformed().into()) };
            let length = usize::from(u16::from_ne_bytes([*low, *high]));
            let address = after.get(..length).ok_or_else(malformed)?;
            hosts.push(Host { family: *family, address: address.to_vec() });
            rest = after.get(length.next_multiple_of(4)..).ok_or_else(malformed)?;
        }
        Ok((reply[1] != 0, hosts))
    }

    /// Adds an entry to the host list, or takes it away.
    pub(super) fn change_host(&mut self, host: &Host, add: bool) -> Result<(), Fault> {
        let mut request = vec![109, u8::from(!add), 0, 0, host.family, 0];
        request.extend(length(&host.address)?.to_ne_bytes());
        padded(&mut request, &host.address);
        self.tell(request)
    }

    /// A request without a reply; whether it went well is learned by one that has a reply (GetInputFocus).
    fn tell(&mut self, request: Vec<u8>) -> Result<(), Fault> {
        self.send(request)?;
        self.ask(vec![43, 0, 0, 0]).map(drop)
    }

    fn ask(&mut self, request: Vec<u8>) -> Result<Vec<u8>, Fault> {
        self.send(request)?;
        loop {
            // Also where something always comes: events without end are no answer.
            if Instant::now() > self.until {
                return Err(Fault::System(io::ErrorKind::TimedOut.into()));
            }
            let head: [u8; 32] = self.read()?;
            let more = usize::try_from(u32::from_ne_bytes([head[4], head[5], head[6], head[7]]))
                .unwrap_or(usize::MAX);
            match head[0] {
                // Of this request, or of the one before that has no reply.
                0 => return Err(Fault::Error(head[1])),
                1 => {
                    let mut reply = head.to_vec();
                    reply.extend(self.read_long(more.saturating_mul(4))?);
                    let of = u16::from_ne_bytes([head[2], head[3]]);
                    return if of == self.sequence { Ok(reply) } else { Err(malformed().into()) };
                }
                // Generic events are the only long ones; nobody asked for any event, but some come to everyone.
                35 => drop(self.read_long(more.saturating_mul(4))?),
                _ => {}
            }
        }
    }

    fn send(&mut self, mut request: Vec<u8>) -> Result<(), Fault> {
        let units = u16::try_from(request.len() / 4).map_err(|_| malformed())?;
        request[2..4].copy_from_slice(&units.to_ne_bytes());
        self.sequence = self.sequence.wrapping_add(1);
        self.until = Instant::now() + PATIENCE;
        self.write(&request)
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(length) => bytes = &bytes[length..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    fn read_long(&mut self, length: usize) -> Result<Vec<u8>, Fault> {
        if length > LONGEST {
            return Err(malformed().into());
        }
        let mut bytes = vec![0; length];
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    fn read_into(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        let mut unread = bytes;
        while !unread.is_empty() {
            match recv(&self.socket, &mut *unread, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Fault::System(io::ErrorKind::UnexpectedEof.into())),
                Ok((length, _)) => unread = &mut unread[length..],
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn wait(&self, what: PollFlags) -> Result<(), Fault> {
        let left = self.until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        let mut polled = [PollFd::from_borrowed_fd(self.socket.as_fd(), what)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => Err(Fault::System(io::ErrorKind::TimedOut.into())),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the X server says is not the X protocol")
}

fn length(bytes: &[u8]) -> io::Result<u16> {
    u16::try_from(bytes.len()).map_err(io::Error::other)
}

fn padded(request: &mut Vec<u8>, bytes: &[u8]) {
    request.extend(bytes);
    request.resize(request.len().next_multiple_of(4), 0);
}

/// What an X server that says this, and then nothing more, makes of a client.
#[cfg(any(test, feature = "fuzzing"))]
fn told(bytes: &[u8]) -> (Connection, OwnedFd) {
    use rustix::net::{Shutdown, shutdown, socketpair};
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .expect("there is room for two descriptors");
    // What does not fit into the socket is not said.
    let _ = send(&theirs, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    shutdown(&theirs, Shutdown::Write).expect("a connected socket");
    (Connection { socket: Arc::new(ours), until: Instant::now() + PATIENCE, sequence: 0 }, theirs)
}

/// Whatever an X server says.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(data: &[u8]) {
    let _ = told(data).0.set_up(Some(b"a cookie"));
    if let Ok((_, hosts)) = told(data).0.hosts() {
        assert!(hosts.iter().map(|host| host.address.len() + 4).sum::<usize>() <= data.len());
    }
    if let Ok(authorization) = told(data).0.generate(Trust::Untrusted, 1) {
        assert!(!authorization.cookie.is_empty() && authorization.cookie.len() <= data.len());
    }
    let _ = told(data).0.revoke(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reply to the first request, with this after its first byte's details.
    fn reply(detail: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1, detail, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&1_u16.to_ne_bytes());
        bytes.extend(rest);
        bytes.resize(bytes.len().max(32).next_multiple_of(4), 0);
        let more = u32::try_from((bytes.len() - 32) / 4).unwrap();
        bytes[4..8].copy_from_slice(&more.to_ne_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn nothing_that_an_x_server_says_makes_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            first in prop_oneof![Just(0_u8), Just(1), Just(35), any::<u8>()],
        ) {
            let bytes = [&[first], bytes.as_slice()].concat();
            let _ = told(&bytes).0.set_up(Some(b"a cookie"));
            let _ = told(&bytes).0.hosts();
            let _ = told(&bytes).0.generate(Trust::Untrusted, 1);
            let _ = told(&reply(1, &bytes)).0.hosts();
        }

        #[test]
        fn a_host_list_reads_back(
            hosts in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..30)), 0..8),
            on in any::<bool>(),
        ) {
            let mut rest = u16::try_from(hosts.len()).unwrap().to_ne_bytes().to_vec();
            rest.resize(24, 0);
            for (family, address) in &hosts {
                rest.extend([*family, 0]);
                rest.extend(u16::try_from(address.len()).unwrap().to_ne_bytes());
                padded(&mut rest, address);
            }
            let (mut connection, _server) = told(&reply(u8::from(on), &rest));
            let read = connection.hosts().unwrap();
            let expected: Vec<Host> =
                hosts.into_iter().map(|(family, address)| Host { family, address }).collect();
            prop_assert_eq!(read, (on, expected));
        }
    }

    #[test]
    fn a_server_that_sends_events_without_end_is_not_listened_to_without_end() {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        let flood = std::thread::spawn(move || {
            let events = [2; 32 * 64];
            let mut polled = [PollFd::new(&theirs, PollFlags::OUT)];
            while poll(&mut polled, None).is_ok() {
                match send(&theirs, &events, SendFlags::NOSIGNAL) {
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(_) => break,
                }
            }
        });
        let mut connection = Connection { socket: Arc::new(ours), until: Instant::now(), sequence: 0 };
        let fault = connection.hosts().unwrap_err();
        assert!(matches!(fault, Fault::System(error) if error.kind() == io::ErrorKind::TimedOut));
        drop(connection);
        flood.join().unwrap();
    }

    #[test]
    fn a_reply_longer_than_any_is_refused_before_there_is_memory_for_it() {
        let mut bytes = reply(0, &[]);
        bytes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        let (mut connection, _server) = told(&bytes);
        let fault = connection.hosts().unwrap_err();
        assert!(matches!(fault, Fault::System(error) if error.kind() == io::ErrorKind::InvalidData));
    }
}
