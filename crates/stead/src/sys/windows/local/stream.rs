//! One connection.

use std::io;
use std::net::Shutdown;
use std::os::windows::io::{AsHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_PIPE_BUSY, ERROR_SEM_TIMEOUT, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_FLAG_OVERLAPPED, OPEN_EXISTING, SECURITY_ANONYMOUS, SECURITY_CONTEXT_TRACKING,
    SECURITY_DELEGATION, SECURITY_IDENTIFICATION, SECURITY_IMPERSONATION, SECURITY_SQOS_PRESENT,
};
use windows_sys::Win32::System::Pipes::WaitNamedPipeW;

use super::pipe::{self, is};
use super::shared::Shared;
use super::{Address, ConnectOptions, wide};
use crate::ImpersonationLevel;
use crate::client::{Client, Confinement};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::client::require_server_end;
use crate::sys::dacl::{Descriptor, PIPE_CLIENT};

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(super) pipe: OwnedHandle,
    pub(super) shared: Arc<Shared>,
}

/// How to connect.
struct Opener<'a>(&'a ConnectOptions);

impl Opener<'_> {
    /// Opens an instance of the pipe, and waits for one where all are taken.
    fn open(&self, name: &[u16], address: &Address) -> Result<OwnedHandle> {
        let doing = || format!("connecting to {address}");
        let since = Instant::now();
        loop {
            let error = match self.open_now(name) {
                Ok(pipe) => return Ok(pipe),
                Err(error) => error,
            };
            if is(&error, ERROR_ACCESS_DENIED) {
                let object = address.to_string();
                return Err(Error::new(doing(), ErrorKind::AccessDenied { object }).with_source(error));
            }
            if !is(&error, ERROR_PIPE_BUSY) {
                return Err(Error::system(doing(), "CreateFileW", error));
            }
            let late = |error| {
                let waiting_for = "room for one more connection to the server".into();
                Error::new(doing(), ErrorKind::DeadlinePassed { waiting_for }).with_source(error)
            };
            let left = self.0.timeout.saturating_sub(since.elapsed()).as_millis();
            // 0 would be the pipe's own default, and u32::MAX for ever.
            let left = u32::try_from(left).unwrap_or(u32::MAX - 1).min(u32::MAX - 1);
            if left == 0 {
                return Err(late(error));
            }
            // SAFETY: the name ends with a NUL and is only read.
            if unsafe { WaitNamedPipeW(name.as_ptr(), left) } == 0 {
                let error = io::Error::last_os_error();
                let timed_out = is(&error, ERROR_SEM_TIMEOUT);
                return Err(if timed_out {
                    late(error)
                } else {
                    Error::system(doing(), "WaitNamedPipeW", error)
                });
            }
        }
    }

    fn open_now(&self, name: &[u16]) -> io::Result<OwnedHandle> {
        let level = match self.0.level {
            ImpersonationLevel::Anonymous => SECURITY_ANONYMOUS,
            ImpersonationLevel::Identification => SECURITY_IDENTIFICATION,
            ImpersonationLevel::Impersonation => SECURITY_IMPERSONATION,
            ImpersonationLevel::Delegation => SECURITY_DELEGATION,
        };
        // By static tracking (the default) the system captures the client's token when the pipe is opened, and
        // the server can impersonate from then on. A client that demands whose the server is must grant nothing
        // before it has seen that: by dynamic tracking the token goes with each message that it writes.
        let tracking = if self.0.server.is_some() { SECURITY_CONTEXT_TRACKING } else { 0 };
        // SAFETY: the name ends with a NUL and is only read; no attributes are given, so that no child process
        // inherits the handle.
        let raw = unsafe {
            CreateFileW(
                name.as_ptr(),
                PIPE_CLIENT,
                0,
                null(),
                OPEN_EXISTING,
                FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | level | tracking,
                null_mut(),
            )
        };
        if raw == INVALID_HANDLE_VALUE {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so the handle is new and nobody else's.
        Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
    }

    /// Whose the pipe is: its owner, which nobody can set to somebody else without SeRestorePrivilege. Process ids
    /// that a pipe tells can be set by their process, and are no way to a server.
    fn require_server(&self, pipe: BorrowedHandle<'_>, address: &Address) -> Result<()> {
        let Some(wanted) = &self.0.server else { return Ok(()) };
        let doing = || format!("connecting to {address}");
        let found = Descriptor::of(pipe)
            .map_err(|source| Error::system(doing(), "GetKernelObjectSecurity", source))?;
        if found.owner.as_ref() == Some(wanted) {
            return Ok(());
        }
        let owner = found.owner.map_or_else(|| "nobody".to_owned(), |owner| owner.to_string());
        let object = format!("{address}: its server is {owner}, not {wanted}");
        Err(Error::new(doing(), ErrorKind::AccessDenied { object }))
    }
}

impl Stream {
    pub(super) fn accepted(pipe: OwnedHandle) -> Self {
        Self { pipe, shared: Shared::new(true, true) }
    }

    pub(crate) fn connect(address: &Address, options: &ConnectOptions) -> Result<Self> {
        let name = wide(address, "connecting to")?;
        let opener = Opener(options);
        let pipe = opener.open(&name, address)?;
        let by_message = pipe::read_by_message(pipe.as_handle()).map_err(|source| {
            let what = format!("{address} is no named pipe").into();
            let doing = format!("connecting to {address}");
            Error::new(doing, ErrorKind::InvalidInput { what }).with_source(source)
        })?;
        opener.require_server(pipe.as_handle(), address)?;
        Ok(Self { pipe, shared: Shared::new(false, by_message) })
    }

    /// A server's end of a named pipe that was accepted elsewhere. Time limits are kept where it is overlapped.
    pub(crate) fn of(pipe: OwnedHandle) -> Result<Self> {
        require_server_end(pipe.as_handle())?;
        let by_message = pipe::read_by_message(pipe.as_handle())
            .map_err(|source| Error::system("taking over a pipe", "GetNamedPipeInfo", source))?;
        Ok(Self { pipe, shared: Shared::new(true, by_message) })
    }

    pub(crate) fn into_handle(self) -> OwnedHandle {
        self.pipe
    }

    pub(crate) fn client_with(&self, confinement: Confinement) -> Result<Client> {
        self.shared.client_with(self.pipe.as_handle(), confinement)
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { pipe: self.pipe.try_clone()?, shared: Arc::clone(&self.shared) })
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let pipe = self.pipe.as_handle();
        if how != Shutdown::Write {
            self.shared.stop_reading(pipe);
        }
        if how != Shutdown::Read {
            self.shared.stop_writing(pipe)?;
        }
        Ok(())
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.shared.set_read_limit(timeout)
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.shared.set_write_limit(timeout)
    }

    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.shared.set_nonblocking(self.pipe.as_handle(), nonblocking)
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.shared.read(self.pipe.as_handle(), buffer)
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.shared.write(self.pipe.as_handle(), bytes)
    }
}

impl AsHandle for Stream {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.pipe.as_handle()
    }
}
