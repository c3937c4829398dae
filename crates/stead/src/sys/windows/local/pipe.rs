//! One end of a named pipe, read and written by overlapped calls that this module waits for.
//!
//! Overlapped, because a synchronous pipe handle does one thing at a time: a thread that waits in a read would
//! keep every other from writing, and no time limit could be kept
//! ([Synchronous and Overlapped Input and Output](https://learn.microsoft.com/windows/win32/sync/synchronous-and-overlapped-input-and-output)).

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{
    ERROR_BROKEN_PIPE, ERROR_IO_PENDING, ERROR_MORE_DATA, ERROR_NO_DATA, ERROR_OPERATION_ABORTED,
    ERROR_PIPE_CONNECTED, ERROR_PIPE_NOT_CONNECTED, WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::Storage::FileSystem::{ReadFile, WriteFile};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Pipes::{ConnectNamedPipe, PeekNamedPipe};
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
    begin: impl FnOnce(*mut OVERLAPPED) -> i32,
) -> io::Result<u32> {
    with_event(|event| {
        let mut overlapped = OVERLAPPED { hEvent: event.as_raw_handle(), ..OVERLAPPED::default() };
        let overlapped = &raw mut overlapped;
        if begin(overlapped) == 0 {
            let error = io::Error::last_os_error();
            if !is(&error, ERROR_IO_PENDING) {
                return Err(error);
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

/// Reads; 0 at the end of the stream.
pub(super) fn read(pipe: BorrowedHandle<'_>, buffer: &mut [u8], wait: Wait) -> io::Result<usize> {
    if buffer.is_empty() {
        return Ok(0);
    }
    let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
    let ended = |error: &io::Error| is(error, ERROR_BROKEN_PIPE) || is(error, ERROR_PIPE_NOT_CONNECTED);
    if matches!(wait, Wait::No) {
        // To begin a read and take it back could lose what arrives in between.
        match available(pipe) {
            Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => {}
            Err(error) if ended(&error) => return Ok(0),
            Err(error) => return Err(error),
        }
    }
    let into = buffer.as_mut_ptr();
    // SAFETY: the buffer is writable for `length` bytes and outlives the call, which `overlapped` waits for.
    let begin = |call| unsafe { ReadFile(pipe.as_raw_handle(), into, length, null_mut(), call) };
    let wait = if matches!(wait, Wait::No) { Wait::Forever } else { wait };
    match overlapped(pipe, wait, begin) {
        Ok(bytes) => Ok(bytes as usize),
        Err(error) if ended(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Writes all of `bytes`, as one message where the pipe knows messages.
pub(super) fn write(pipe: BorrowedHandle<'_>, bytes: &[u8], wait: Wait) -> io::Result<usize> {
    // A write of nothing would look like the end of the stream to whoever reads it.
    if bytes.is_empty() {
        return Ok(0);
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    // SAFETY: the bytes are readable for `length` and outlive the call, which `overlapped` waits for.
    let begin = |call| unsafe { WriteFile(pipe.as_raw_handle(), bytes.as_ptr(), length, null_mut(), call) };
    match overlapped(pipe, wait, begin) {
        Ok(bytes) => Ok(bytes as usize),
        // ERROR_NO_DATA is "the pipe is being closed": what std calls a broken pipe.
        Err(error) if is(&error, ERROR_NO_DATA) || is(&error, ERROR_PIPE_NOT_CONNECTED) => {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        Err(error) => Err(error),
    }
}

/// Waits for a client at one instance of a pipe.
pub(super) fn connect(pipe: BorrowedHandle<'_>, wait: Wait) -> io::Result<()> {
    // SAFETY: `call` is the OVERLAPPED that `overlapped` keeps until the call has ended.
    let begin = |call| unsafe { ConnectNamedPipe(pipe.as_raw_handle(), call) };
    match overlapped(pipe, wait, begin) {
        // A client that came before the call; ERROR_NO_DATA: and that is gone again, which a read will tell.
        Err(error) if is(&error, ERROR_PIPE_CONNECTED) || is(&error, ERROR_NO_DATA) => Ok(()),
        done => done.map(|_| ()),
    }
}

/// How many bytes can be read at once.
fn available(pipe: BorrowedHandle<'_>) -> io::Result<u32> {
    let mut bytes = 0;
    // SAFETY: no buffer is given; `bytes` is written only by this call; the handle is borrowed and so open.
    let done =
        unsafe { PeekNamedPipe(pipe.as_raw_handle(), null_mut(), 0, null_mut(), &raw mut bytes, null_mut()) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
}
