//! What tokio waits for: the process's end, told by the system's own waiting threads, and its output.

use std::ffi::c_void;
use std::io;
use std::os::windows::io::{AsRawHandle, IntoRawHandle, OwnedHandle};
use std::ptr::null_mut;

use tokio::net::windows::named_pipe::NamedPipeServer;
use tokio::sync::Notify;
use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::System::Threading::{
    INFINITE, RegisterWaitForSingleObject, UnregisterWaitEx, WT_EXECUTEINWAITTHREAD, WT_EXECUTEONLYONCE,
};

use super::Running;

/// What waiting is done by.
pub(crate) const WAITING: &str = "RegisterWaitForSingleObject";

/// A wait that the system does for us, ended when it is dropped.
struct Wait {
    /// Kept as a number: it is used only to end the wait.
    registered: usize,
    /// In memory that stays where it is, for the callback.
    ended: Box<Notify>,
    /// Open for as long as the system waits for it.
    _process: OwnedHandle,
}

impl Wait {
    fn new(process: OwnedHandle) -> io::Result<Self> {
        let ended = Box::new(Notify::new());
        let mut wait: HANDLE = null_mut();
        // SAFETY: the process's handle is open, and the callback's context stays where it is, until the wait is
        // ended, which waits for a callback that runs.
        let done = unsafe {
            RegisterWaitForSingleObject(
                &raw mut wait,
                process.as_raw_handle(),
                Some(notify),
                (&raw const *ended).cast(),
                INFINITE,
                WT_EXECUTEINWAITTHREAD | WT_EXECUTEONLYONCE,
            )
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { registered: wait.expose_provenance(), ended, _process: process })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let wait: HANDLE = std::ptr::with_exposed_provenance_mut(self.registered);
        // SAFETY: the wait was registered and is ended once; the call returns when no callback runs any more.
        if unsafe { UnregisterWaitEx(wait, INVALID_HANDLE_VALUE) } == 0 {
            // The callback may still come: what it takes must stay.
            std::mem::forget(std::mem::take(&mut self.ended));
        }
    }
}

/// Called once, by a thread of the system's.
unsafe extern "system" fn notify(context: *mut c_void, _timed_out: bool) {
    // SAFETY: the context is the `Notify` of a `Wait`, which is there until the wait is ended. The permit is kept
    // for a waiter that comes later.
    unsafe { &*context.cast_const().cast::<Notify>() }.notify_one();
}

/// Waits for the process to end; dropping the future loses nothing.
pub(crate) async fn ended(running: &Running) -> io::Result<()> {
    let wait = Wait::new(running.handle().try_clone_to_owned()?)?;
    wait.ended.notified().await;
    Ok(())
}

/// The reactor's end of a pipe.
pub(crate) fn reader(pipe: OwnedHandle) -> io::Result<NamedPipeServer> {
    // SAFETY: the handle is given away here; ours are the server's ends of pipes that overlap.
    unsafe { NamedPipeServer::from_raw_handle(pipe.into_raw_handle()) }
}
