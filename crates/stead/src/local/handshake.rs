//! The client's first record: the level that it grants.

use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv};

use crate::ImpersonationLevel;
use crate::error::{Error, ErrorKind, Result};

const LENGTH: usize = 8;
const MAGIC: &[u8; 6] = b"stead\0";
const VERSION: u8 = 1;

/// How long a server waits for the record, unless it chose otherwise.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// The record that grants `level`.
pub(super) fn encode(level: ImpersonationLevel) -> [u8; LENGTH] {
    let mut record = [0; LENGTH];
    record[..MAGIC.len()].copy_from_slice(MAGIC);
    record[6] = VERSION;
    record[7] = match level {
        ImpersonationLevel::Anonymous => 0,
        ImpersonationLevel::Identification => 1,
        ImpersonationLevel::Impersonation => 2,
        ImpersonationLevel::Delegation => 3,
    };
    record
}

/// The level of a record that may have come in part; `Ok(None)` when more is to come.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<ImpersonationLevel>, Fault> {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Err(Fault::Foreign);
    }
    match bytes.get(6) {
        Some(&VERSION) | None => {}
        Some(other) => return Err(Fault::Version(*other)),
    }
    Ok(match bytes.get(7) {
        None => None,
        Some(0) => Some(ImpersonationLevel::Anonymous),
        Some(1) => Some(ImpersonationLevel::Identification),
        Some(2) => Some(ImpersonationLevel::Impersonation),
        Some(3) => Some(ImpersonationLevel::Delegation),
        Some(_) => return Err(Fault::Foreign),
    })
}

/// Why there is no level.
#[derive(Debug)]
pub(super) enum Fault {
    /// The client speaks something else.
    Foreign,
    /// The client speaks another version.
    Version(u8),
    /// The connection ended first.
    Ended,
    /// The deadline passed first.
    Late,
    System(io::Error),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

impl Fault {
    /// As this library's error.
    pub(super) fn into_error(self) -> Error {
        const DOING: &str = "learning what a client grants";
        let kind = match &self {
            Self::Late => ErrorKind::DeadlinePassed { waiting_for: "the client's first record".into() },
            Self::Ended => ErrorKind::ClientChanged { what: self.what().into() },
            Self::Foreign | Self::Version(_) => ErrorKind::InvalidInput { what: self.what().into() },
            Self::System(_) => ErrorKind::System { call: "recv" },
        };
        let error = Error::new(DOING, kind);
        match self {
            Self::System(source) => error.with_source(source),
            _ => error,
        }
    }

    /// As what reading gives.
    pub(super) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Late => io::ErrorKind::TimedOut,
            Self::Ended => io::ErrorKind::UnexpectedEof,
            Self::Foreign | Self::Version(_) => io::ErrorKind::InvalidData,
            Self::System(_) => io::ErrorKind::Other,
        };
        match self {
            Self::System(source) => source,
            other => io::Error::new(kind, other.what()),
        }
    }

    fn what(&self) -> String {
        match self {
            Self::Version(version) => format!("the client speaks version {version} of the local protocol"),
            Self::Ended => "it closed the connection before it said what it grants".into(),
            Self::Late => "the client did not say in time what it grants".into(),
            _ => "the client does not speak the local protocol (local::Stream::connect)".into(),
        }
    }
}

/// The record as far as it has come. All handles of a connection share one.
#[derive(Debug)]
pub(super) struct Incoming(Mutex<State>);

#[derive(Debug)]
enum State {
    Partial { bytes: [u8; LENGTH], len: usize },
    Known(ImpersonationLevel),
}

impl Incoming {
    /// The record is still to come.
    pub(super) fn expected() -> Self {
        Self(Mutex::new(State::Partial { bytes: [0; LENGTH], len: 0 }))
    }

    /// This end sent it.
    pub(super) fn granted(level: ImpersonationLevel) -> Self {
        Self(Mutex::new(State::Known(level)))
    }

    /// The level, if it has come; never waits. `WouldBlock` when more is to come.
    pub(super) fn receive(&self, socket: impl AsFd) -> Result<Option<ImpersonationLevel>, Fault> {
        let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        loop {
            let (bytes, len) = match &mut *state {
                State::Known(level) => return Ok(Some(*level)),
                State::Partial { bytes, len } => (bytes, len),
            };
            if let Some(level) = decode(&bytes[..*len])? {
                *state = State::Known(level);
                continue;
            }
            // No more than the record: what follows is the program's.
            let received = retry_on_intr(|| recv(&socket, &mut bytes[*len..], RecvFlags::DONTWAIT));
            *len += match received {
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::CONNRESET) | Ok((_, 0)) => return Err(Fault::Ended),
                Err(errno) => return Err(errno.into()),
                Ok((_, count)) => count,
            };
        }
    }

    /// The level, waiting for it until the deadline.
    pub(super) fn wait(&self, socket: impl AsFd, timeout: Duration) -> Result<ImpersonationLevel, Fault> {
        let begun = Instant::now();
        loop {
            if let Some(level) = self.receive(&socket)? {
                return Ok(level);
            }
            let left = timeout.checked_sub(begun.elapsed()).ok_or(Fault::Late)?;
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
            let mut watched = [PollFd::new(&socket, PollFlags::IN)];
            match poll(&mut watched, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
