//! What all handles of one connection share: whose the first bytes were, time limits, what was shut down.
#![forbid(unsafe_code)]

use std::io;
use std::os::windows::io::BorrowedHandle;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::pipe::{self, Stop, Wait};
use crate::client::{Client, Confinement};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::client::{Captured, Connected, capture, require_server_end};

/// No limit of time.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Shared {
    /// Whether this is the end that accepted.
    server: bool,
    /// Whether each read takes from one message only.
    by_message: bool,
    first: First,
    reads: Stop,
    writes: Stop,
    /// Whether the other end has said that nothing more will come.
    ended: AtomicBool,
    nonblocking: AtomicBool,
    read_limit: AtomicU64,
    write_limit: AtomicU64,
}

/// The first bytes, and whose they were. Whoever reads them has the turn until that is known: the system tells who
/// sent the *last* that was read, which another reader would change.
#[derive(Debug, Default)]
struct First {
    /// Whether anything was read, and whose it was captured.
    known: AtomicBool,
    client: OnceLock<std::result::Result<Arc<Captured>, Unknown>>,
    taken: Mutex<bool>,
    free: Condvar,
}

/// Whose the last bytes were that were read.
#[derive(Debug)]
pub(super) struct Sender(std::result::Result<Arc<Captured>, Unknown>);

impl Sender {
    pub(super) fn last_read(pipe: BorrowedHandle<'_>) -> Self {
        Self(capture(pipe).map(Arc::new).map_err(|error| Unknown {
            kind: error.kind().clone(),
            code: error.os_error().and_then(io::Error::raw_os_error),
        }))
    }
}

/// Why it could not be captured whose the first bytes were. It stays so: later ones may be another's.
#[derive(Debug)]
struct Unknown {
    kind: ErrorKind,
    code: Option<i32>,
}

/// The turn to read the first bytes.
struct Turn<'a>(&'a First);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_all();
    }
}

/// The same, for as long as its reader lives or until it has read.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub(super) struct Claim(Arc<Shared>);

#[cfg(feature = "tokio")]
impl Claim {
    /// The first bytes were read, and were `sender`'s.
    pub(super) fn received(self, sender: Sender) {
        self.0.first.received(sender);
    }
}

#[cfg(feature = "tokio")]
impl Drop for Claim {
    fn drop(&mut self) {
        drop(Turn(&self.0.first));
    }
}

impl First {
    /// Waits for the turn; `None` where nobody needs one any more.
    fn turn(&self, wait: Wait) -> io::Result<Option<Turn<'_>>> {
        let since = Instant::now();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.known.load(Ordering::Acquire) {
                return Ok(None);
            }
            if !*taken {
                *taken = true;
                return Ok(Some(Turn(self)));
            }
            taken = match wait {
                Wait::Forever => self.free.wait(taken).unwrap_or_else(PoisonError::into_inner),
                Wait::No => return Err(io::ErrorKind::WouldBlock.into()),
                Wait::For(limit) => {
                    let left = limit.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    self.free.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Notes whose the bytes were that were read in this turn.
    fn received(&self, sender: Sender) {
        let _ = self.client.set(sender.0);
        self.known.store(true, Ordering::Release);
    }
}

impl Shared {
    pub(super) fn new(server: bool, by_message: bool) -> Arc<Self> {
        Arc::new(Self {
            server,
            by_message,
            first: First::default(),
            reads: Stop::default(),
            writes: Stop::default(),
            ended: AtomicBool::new(false),
            nonblocking: AtomicBool::new(false),
            read_limit: AtomicU64::new(NEVER),
            write_limit: AtomicU64::new(NEVER),
        })
    }

    #[cfg(feature = "tokio")]
    /// Whether anything was read, and whose it was captured.
    pub(super) fn is_known(&self) -> bool {
        self.first.known.load(Ordering::Acquire)
    }

    pub(super) fn is_server(&self) -> bool {
        self.server
    }

    /// Reads, the first bytes by one reader at a time.
    pub(super) fn read(&self, pipe: BorrowedHandle<'_>, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.ended.load(Ordering::Acquire) {
            return Ok(0);
        }
        let wait = self.wait(&self.read_limit);
        let turn = if self.server { self.first.turn(wait)? } else { None };
        // A read that goes on to what was written next would be by whoever wrote that: a pipe of bytes is asked for
        // one, which was written once.
        let buffer = if turn.is_some() && !self.by_message { &mut buffer[..1] } else { buffer };
        let bytes = pipe::read(pipe, buffer, wait, &self.reads)?;
        if bytes == 0 {
            self.ended.store(true, Ordering::Release);
        } else if turn.is_some() {
            self.first.received(Sender::last_read(pipe));
        }
        Ok(bytes)
    }

    pub(super) fn write(&self, pipe: BorrowedHandle<'_>, bytes: &[u8]) -> io::Result<usize> {
        pipe::write(pipe, bytes, self.wait(&self.write_limit), &self.writes)
    }

    /// The turn of a reader that has the system read ahead of it, and so takes it before it is asked to read; `None`
    /// where nobody needs one.
    #[cfg(feature = "tokio")]
    pub(super) fn claim(self: &Arc<Self>) -> io::Result<Option<Claim>> {
        if !self.server {
            return Ok(None);
        }
        let Ok(turn) = self.first.turn(Wait::No) else {
            let what = "another handle of the connection waits for the first bytes";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        };
        let Some(turn) = turn else { return Ok(None) };
        if !self.by_message {
            let what = "a pipe of bytes is read ahead of its first ones, so that nobody could say whose they were: \
                        read one before";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        std::mem::forget(turn);
        Ok(Some(Claim(Arc::clone(self))))
    }

    /// Whether the other end has said that nothing more will come.
    #[cfg(feature = "tokio")]
    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    #[cfg(feature = "tokio")]
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn stop_reading(&self, pipe: BorrowedHandle<'_>) {
        self.reads.stop(pipe);
    }

    pub(super) fn stop_writing(&self, pipe: BorrowedHandle<'_>) -> io::Result<()> {
        if self.writes.is_stopped() {
            return Ok(());
        }
        // Where it cannot be told, nothing is stopped.
        if !pipe::has_messages(pipe)? {
            return pipe::write_end(pipe);
        }
        self.writes.stop(pipe);
        pipe::write_end(pipe)
    }

    fn wait(&self, limit: &AtomicU64) -> Wait {
        if self.nonblocking.load(Ordering::Relaxed) {
            return Wait::No;
        }
        match limit.load(Ordering::Relaxed) {
            NEVER => Wait::Forever,
            nanoseconds => Wait::For(Duration::from_nanos(nanoseconds)),
        }
    }

    pub(super) fn set_nonblocking(&self, pipe: BorrowedHandle<'_>, nonblocking: bool) -> io::Result<()> {
        pipe::set_waiting(pipe, !nonblocking, self.by_message)?;
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn set_read_limit(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.read_limit.store(limit(timeout)?, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn set_write_limit(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.write_limit.store(limit(timeout)?, Ordering::Relaxed);
        Ok(())
    }

    /// Whose the first bytes were.
    fn client(&self, pipe: BorrowedHandle<'_>) -> Result<Arc<Captured>> {
        const DOING: &str = "identifying a client";
        if !self.server {
            require_server_end(pipe)?;
        }
        match self.first.client.get() {
            Some(Ok(known)) => Ok(Arc::clone(known)),
            Some(Err(Unknown { kind, code })) => {
                let error = Error::new(DOING, kind.clone());
                Err(match code {
                    Some(code) => error.with_source(io::Error::from_raw_os_error(*code)),
                    None => error,
                })
            }
            None => {
                let what = "nothing was read from the client yet: read first".into();
                Err(Error::new(DOING, ErrorKind::NoIdentity { what }))
            }
        }
    }

    pub(super) fn client_with(&self, pipe: BorrowedHandle<'_>, confinement: Confinement) -> Result<Client> {
        Client::with(confinement).of(Connected(self.client(pipe)?))
    }
}

fn limit(timeout: Option<Duration>) -> io::Result<u64> {
    match timeout {
        None => Ok(NEVER),
        Some(Duration::ZERO) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a time limit of zero")),
        Some(timeout) => Ok(u64::try_from(timeout.as_nanos()).unwrap_or(NEVER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_reader_at_a_time_waits_for_the_first_bytes() {
        let first = First::default();
        let turn = first.turn(Wait::Forever).unwrap().expect("nobody has it");
        assert_eq!(first.turn(Wait::No).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        let limit = Wait::For(Duration::from_millis(20));
        assert_eq!(first.turn(limit).err().unwrap().kind(), io::ErrorKind::TimedOut);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| first.turn(Wait::Forever).unwrap().is_none());
            std::thread::sleep(Duration::from_millis(20));
            first.known.store(true, Ordering::Release);
            drop(turn);
            assert!(other.join().unwrap(), "whose the first bytes were is known: no turn is needed");
        });
    }
}
