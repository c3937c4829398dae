//! One end of a named pipe, read and written by overlapped calls that this module waits for.
//!
//! Overlapped, because a synchronous pipe handle does one thing at a time: a thread that waits in a read would
//! keep every other from writing, and no time limit could be kept
//! ([Synchronous and Overlapped Input and Output](https://learn.microsoft.com/windows/win32/sync/synchronous-and-overlapped-input-and-output)).

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{
    ERROR_BROKEN_PIPE, ERROR_IO_PENDING, ERROR_MORE_DATA, ERROR_NO_DATA, ERROR_OPERATION_ABORTED,
    ERROR_PIPE_CONNECTED, ERROR_PIPE_NOT_CONNECTED, WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::Storage::FileSystem::{ReadFile, WriteFile};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Pipes::{
    ConnectNamedPipe, GetNamedPipeInfo, PIPE_NOWAIT, PIPE_READMODE_BYTE, PIPE_READMODE_MESSAGE,
    PIPE_TYPE_MESSAGE, PIPE_WAIT, SetNamedPipeHandleState,
};
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, WaitForSingleObject};

thread_local! {
    /// Every call of this module is over before it returns, so that one event is enough for a thread.
    static EVENT: io::Result<OwnedHandle> = event();
}

/// An event that is reset by hand, as overlapped calls need it.
fn event() -> io::Result<OwnedHandle> {
    // SAFETY: no attributes and no name are given: the handle is not inheritable and nobody else's.
    let raw = unsafe { CreateEventW(null(), 1, 0, null()) };
    if raw.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the handle is new and nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
}

fn with_event<R>(act: impl FnOnce(BorrowedHandle<'_>) -> io::Result<R>) -> io::Result<R> {
    let mut act = Some(act);
    let shared = EVENT.try_with(|event| {
        let event = event.as_ref().ok()?;
        act.take().map(|act| act(event.as_handle()))
    });
    match (shared, act) {
        (Ok(Some(result)), _) => result,
        // On a thread past its thread-locals, or where no event could be made before.
        (_, Some(act)) => act(event()?.as_handle()),
        (_, None) => Err(io::ErrorKind::Other.into()),
    }
}

/// What ends the calls of one direction that wait, on whatever thread: the connection was shut down.
#[derive(Debug, Default)]
pub(super) struct Stop {
    stopped: AtomicBool,
    /// Addresses of the OVERLAPPED of calls that wait; each is taken out before it is gone.
    waiting: Mutex<Vec<usize>>,
}

impl Stop {
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No call begins from now on, and those that wait on this pipe are cancelled.
    pub(super) fn stop(&self, pipe: BorrowedHandle<'_>) {
        // Before looking: whoever begins later sees it, and cancels itself.
        self.stopped.store(true, Ordering::SeqCst);
        for call in &*self.waiting() {
            // SAFETY: the call is in the list, which is locked: its OVERLAPPED lives. That it ended meanwhile
            // (ERROR_NOT_FOUND) is as good.
            unsafe { CancelIoEx(pipe.as_raw_handle(), std::ptr::with_exposed_provenance(*call)) };
        }
    }
}

/// One call in the list of those that wait.
struct Listed<'a>(&'a Stop, usize);

impl<'a> Listed<'a> {
    fn new(stop: &'a Stop, call: *mut OVERLAPPED) -> Self {
        let address = call.expose_provenance();
        stop.waiting().push(address);
        Self(stop, address)
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.waiting().retain(|call| *call != self.1);
    }
}

/// How long one call may wait.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    Forever,
    For(Duration),
    /// Not at all: what does not happen at once is taken back.
    No,
}

impl Wait {
    fn milliseconds(self, since: Instant) -> u32 {
        match self {
            Self::Forever => INFINITE,
            Self::No => 0,
            Self::For(limit) => {
                // Rounded up, so that a short limit is not none.
                let left = limit.saturating_sub(since.elapsed()).as_nanos().div_ceil(1_000_000);
                u32::try_from(left).unwrap_or(INFINITE - 1).min(INFINITE - 1)
            }
        }
    }
}

/// Begins an overlapped call on `handle` by `begin`, and waits until it has ended: with its number of bytes, or
/// with the reason why not. When the time is up the call is cancelled; what it had done by then counts.
fn overlapped(
    handle: BorrowedHandle<'_>,
    wait: Wait,
    stop: Option<&Stop>,
    begin: impl FnOnce(*mut OVERLAPPED) -> i32,
) -> io::Result<u32> {
    with_event(|event| {
        // By the lowest bit no packet goes to a completion port that this pipe has through another handle, as one
        // of tokio's has: whoever gets packets there would take the OVERLAPPED for its own
        // ([GetQueuedCompletionStatus](https://learn.microsoft.com/windows/win32/api/ioapiset/nf-ioapiset-getqueuedcompletionstatus#remarks)).
        let told = event.as_raw_handle().map_addr(|event| event | 1);
        let mut overlapped = OVERLAPPED { hEvent: told, ..OVERLAPPED::default() };
        let overlapped = &raw mut overlapped;
        let _listed = stop.map(|stop| Listed::new(stop, overlapped));
        let begun = if begin(overlapped) == 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        if let Err(error) = begun
            // A message that is there already, and longer than the buffer: done, with what fits.
            && !is(&error, ERROR_MORE_DATA)
        {
            if !is(&error, ERROR_IO_PENDING) {
                return Err(error);
            }
            if stop.is_some_and(Stop::is_stopped) {
                // SAFETY: `overlapped` is the call begun above on this handle.
                unsafe { CancelIoEx(handle.as_raw_handle(), overlapped) };
            }
            let mut since = Instant::now();
            loop {
                let limit = wait.milliseconds(since);
                // SAFETY: the event is borrowed and so open.
                match unsafe { WaitForSingleObject(event.as_raw_handle(), limit) } {
                    WAIT_OBJECT_0 => break,
                    // A limit of more than 49 days.
                    WAIT_TIMEOUT if limit == INFINITE - 1 => since = Instant::now(),
                    _ => {
                        // SAFETY: `overlapped` is the call begun above on this handle. That it ended meanwhile
                        // (ERROR_NOT_FOUND) is as good.
                        unsafe { CancelIoEx(handle.as_raw_handle(), overlapped) };
                        break;
                    }
                }
            }
        }
        let mut bytes = 0;
        // SAFETY: `overlapped` is the call begun above on this handle. It is waited for here whatever happened
        // before, so that neither it nor the caller's buffer is written to after this function.
        let done = unsafe { GetOverlappedResult(handle.as_raw_handle(), overlapped, &raw mut bytes, 1) };
        if done != 0 {
            return Ok(bytes);
        }
        let error = io::Error::last_os_error();
        // A message longer than the buffer: the rest comes with the next read.
        if is(&error, ERROR_MORE_DATA) {
            return Ok(bytes);
        }
        if is(&error, ERROR_OPERATION_ABORTED) {
            if stop.is_some_and(Stop::is_stopped) {
                return Err(io::ErrorKind::NotConnected.into());
            }
            return Err(match wait {
                Wait::Forever => error,
                Wait::For(_) => io::ErrorKind::TimedOut.into(),
                Wait::No => io::ErrorKind::WouldBlock.into(),
            });
        }
        Err(error)
    })
}

pub(super) fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error() == Some(code.cast_signed())
}

/// Reads; 0 at the end of the stream, and when reading was stopped.
pub(super) fn read(
    pipe: BorrowedHandle<'_>,
    buffer: &mut [u8],
    wait: Wait,
    stop: &Stop,
) -> io::Result<usize> {
    if buffer.is_empty() || stop.is_stopped() {
        return Ok(0);
    }
    let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
    let into = buffer.as_mut_ptr();
    // SAFETY: the buffer is writable for `length` bytes and outlives the call, which `overlapped` waits for.
    let begin = |call| unsafe { ReadFile(pipe.as_raw_handle(), into, length, null_mut(), call) };
    match overlapped(pipe, wait, Some(stop), begin) {
        Ok(bytes) => Ok(bytes as usize),
        Err(_) if stop.is_stopped() => Ok(0),
        Err(error) if is(&error, ERROR_BROKEN_PIPE) || is(&error, ERROR_PIPE_NOT_CONNECTED) => Ok(0),
        // What an empty pipe says under PIPE_NOWAIT.
        Err(error) if is(&error, ERROR_NO_DATA) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error),
    }
}

/// As much as always fits into a pipe that is not full: under PIPE_NOWAIT a message goes whole or not at all, and
/// one that is longer than the pipe's memory would never go.
const PIECE: usize = 4096;

/// Writes all of `bytes`, as one message where the pipe knows messages; without waiting, a piece of it or nothing.
pub(super) fn write(pipe: BorrowedHandle<'_>, bytes: &[u8], wait: Wait, stop: &Stop) -> io::Result<usize> {
    // A write of nothing would look like the end of the stream to whoever reads it.
    if bytes.is_empty() {
        return Ok(0);
    }
    if stop.is_stopped() {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let at_once = matches!(wait, Wait::No);
    let bytes = if at_once { &bytes[..bytes.len().min(PIECE)] } else { bytes };
    // What does not wait at all is decided by the pipe (PIPE_NOWAIT): a write that was begun could not be taken
    // back whole.
    let wait = if at_once { Wait::Forever } else { wait };
    match write_now(pipe, bytes, wait, Some(stop)) {
        Ok(0) if at_once => Err(io::ErrorKind::WouldBlock.into()),
        Err(_) if stop.is_stopped() => Err(io::ErrorKind::BrokenPipe.into()),
        done => done,
    }
}

fn write_now(pipe: BorrowedHandle<'_>, bytes: &[u8], wait: Wait, stop: Option<&Stop>) -> io::Result<usize> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    // SAFETY: the bytes are readable for `length` and outlive the call, which `overlapped` waits for.
    let begin = |call| unsafe { WriteFile(pipe.as_raw_handle(), bytes.as_ptr(), length, null_mut(), call) };
    match overlapped(pipe, wait, stop, begin) {
        Ok(bytes) => Ok(bytes as usize),
        // ERROR_NO_DATA is "the pipe is being closed": what std calls a broken pipe.
        Err(error) if is(&error, ERROR_NO_DATA) || is(&error, ERROR_PIPE_NOT_CONNECTED) => {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        Err(error) => Err(error),
    }
}

/// How long the end of a stream, which takes no room, may take to be told.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Tells whoever reads that nothing more will come, by an empty message.
pub(super) fn write_end(pipe: BorrowedHandle<'_>) -> io::Result<()> {
    if !has_messages(pipe)? {
        let what = "the pipe is one of bytes, which cannot tell that nothing more will come: drop the stream";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    write_now(pipe, &[], Wait::For(AT_ONCE), None).map(drop)
}

/// Whether what is written arrives as messages, so that an empty one arrives at all.
pub(super) fn has_messages(pipe: BorrowedHandle<'_>) -> io::Result<bool> {
    let mut flags = 0;
    // SAFETY: `flags` is written only by this call, nothing else is asked for; the handle is borrowed.
    let done =
        unsafe { GetNamedPipeInfo(pipe.as_raw_handle(), &raw mut flags, null_mut(), null_mut(), null_mut()) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(flags & PIPE_TYPE_MESSAGE != 0) }
}

/// Has each read of this end take from one message only, where the pipe knows messages and this handle may change
/// that: whether it is so.
pub(super) fn read_by_message(pipe: BorrowedHandle<'_>) -> io::Result<bool> {
    // Refused where the handle may only read, as the server's end of a pipe that is inbound.
    Ok(has_messages(pipe)? && set_waiting(pipe, true, true).is_ok())
}

/// Whether calls on this end wait, and whether it is read by messages; properties of the end, not of one handle to
/// it.
pub(super) fn set_waiting(pipe: BorrowedHandle<'_>, waits: bool, by_message: bool) -> io::Result<()> {
    let waiting = if waits { PIPE_WAIT } else { PIPE_NOWAIT };
    let mode = waiting | if by_message { PIPE_READMODE_MESSAGE } else { PIPE_READMODE_BYTE };
    // SAFETY: the mode is only read; the handle is borrowed and so open.
    let done = unsafe { SetNamedPipeHandleState(pipe.as_raw_handle(), &raw const mode, null(), null()) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits for a client at one instance of a pipe.
pub(super) fn connect(pipe: BorrowedHandle<'_>, wait: Wait) -> io::Result<()> {
    // SAFETY: `call` is the OVERLAPPED that `overlapped` keeps until the call has ended.
    let begin = |call| unsafe { ConnectNamedPipe(pipe.as_raw_handle(), call) };
    match overlapped(pipe, wait, None, begin) {
        // A client that came before the call; ERROR_NO_DATA: and that is gone again, which a read will tell.
        Err(error) if is(&error, ERROR_PIPE_CONNECTED) || is(&error, ERROR_NO_DATA) => Ok(()),
        done => done.map(|_| ()),
    }
}
