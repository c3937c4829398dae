//! Where clients connect.

use std::io;
use std::os::windows::io::{AsHandle, FromRawHandle, OwnedHandle};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use windows_sys::Win32::Foundation::{ERROR_ACCESS_DENIED, ERROR_PIPE_BUSY, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, PIPE_ACCESS_DUPLEX,
};
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, PIPE_READMODE_BYTE, PIPE_REJECT_REMOTE_CLIENTS, PIPE_TYPE_BYTE,
    PIPE_UNLIMITED_INSTANCES, PIPE_WAIT,
};

use super::pipe::{self, Wait, is};
use super::{Address, Stream, wide};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::dacl::{Attributes, Dacl, Descriptor};
use crate::sys::impersonate::thread::as_process;
use crate::sys::thread_token::process_user;

/// What the pipe keeps for a reader that is slow.
const BUFFER: u32 = 64 * 1024;

/// Where clients connect.
///
/// The first instance of its pipe, and always one more than there are connections: between two clients the name
/// is not free for anybody else.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use stead::local::{Address, Listener};
/// let listener = Listener::bind(&Address::name("report")?)?;
/// for stream in listener.incoming() {
///     println!("{:?}", stream?);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[doc(alias = "CreateNamedPipe")]
pub struct Listener {
    pub(super) instances: Instances,
    /// The one that the next client gets.
    pub(super) next: Mutex<Option<OwnedHandle>>,
    nonblocking: AtomicBool,
}

/// How to listen: who may connect.
///
/// The system and the administrators may always; a token from the network (`S-1-5-2`) never, nor may a client of
/// another machine. No client can add an instance of its own to the pipe.
#[derive(Debug, Clone, Default)]
#[doc(alias = "SECURITY_ATTRIBUTES")]
pub struct ListenOptions {
    everyone: bool,
}

impl ListenOptions {
    /// Only the server's own user (and the administrators) may connect.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every user who is logged on may connect (Authenticated Users).
    #[must_use]
    pub fn open_to_all(self) -> Self {
        Self { everyone: true }
    }

    /// Listens at `address`.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`]: another server listens there, or the address is no local pipe's.
    /// * [`ErrorKind::System`]: the pipe cannot be created.
    ///
    /// Reference: [CreateNamedPipeW](https://learn.microsoft.com/windows/win32/api/namedpipeapi/nf-namedpipeapi-createnamedpipew).
    #[doc(alias = "CreateNamedPipe")]
    #[doc(alias = "FILE_FLAG_FIRST_PIPE_INSTANCE")]
    #[doc(alias = "PIPE_REJECT_REMOTE_CLIENTS")]
    pub fn bind(&self, address: &Address) -> Result<Listener> {
        let doing = || format!("listening at {address}");
        let system = |call| move |source: io::Error| Error::system(doing(), call, source);
        let name = wide(address, "listening at")?;
        // As the server: in an impersonation the pipe would be the client's.
        let bound = as_process(|| {
            let own = process_user().map_err(system("OpenProcessToken"))?;
            let dacl = Some(Dacl::of_pipe(&own, self.everyone));
            let descriptor = Descriptor { owner: Some(own), dacl };
            let attributes = descriptor.to_attributes().map_err(system("InitializeAcl"))?;
            let instances = Instances { name, attributes };
            let first = instances.create(FILE_FLAG_FIRST_PIPE_INSTANCE).map_err(|source| {
                if is(&source, ERROR_ACCESS_DENIED) || is(&source, ERROR_PIPE_BUSY) {
                    let what = "another server listens there".into();
                    return Error::new(doing(), ErrorKind::InvalidInput { what }).with_source(source);
                }
                Error::system(doing(), "CreateNamedPipeW", source)
            })?;
            let next = Mutex::new(Some(first));
            Ok(Listener { instances, next, nonblocking: AtomicBool::new(false) })
        });
        bound
            .map_err(|fault| Error::system(doing(), "SetThreadToken", io::Error::other(fault.to_string())))?
    }
}

/// What every instance of one pipe is made from.
#[derive(Debug)]
pub(super) struct Instances {
    name: Vec<u16>,
    attributes: Attributes,
}

impl Instances {
    /// One more instance.
    pub(super) fn one_more(&self) -> io::Result<OwnedHandle> {
        as_process(|| self.create(0)).map_err(|fault| io::Error::other(fault.to_string()))?
    }

    fn create(&self, first: u32) -> io::Result<OwnedHandle> {
        let attributes = self.attributes.raw();
        // SAFETY: the name ends with a NUL, the attributes point into `self`, and both are only read during the
        // call; no handle of a child process inherits the new one.
        let raw = unsafe {
            CreateNamedPipeW(
                self.name.as_ptr(),
                PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED | first,
                PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS,
                PIPE_UNLIMITED_INSTANCES,
                BUFFER,
                BUFFER,
                0,
                &raw const attributes,
            )
        };
        if raw == INVALID_HANDLE_VALUE {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so the handle is new and nobody else's.
        Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
    }
}

impl Listener {
    /// Listens at `address` for the server's own user.
    ///
    /// # Errors
    ///
    /// As [`ListenOptions::bind`].
    #[doc(alias = "CreateNamedPipe")]
    pub fn bind(address: &Address) -> Result<Self> {
        ListenOptions::default().bind(address)
    }

    /// Waits for the next client to connect.
    ///
    /// Threads that accept at the same time take turns.
    ///
    /// # Errors
    ///
    /// Those of ConnectNamedPipe, and of CreateNamedPipeW for the next client's instance; the client that came
    /// is then kept for the next call.
    #[doc(alias = "ConnectNamedPipe")]
    pub fn accept(&self) -> io::Result<Stream> {
        let nonblocking = self.nonblocking.load(Ordering::Relaxed);
        let mut next = if nonblocking {
            match self.next.try_lock() {
                Ok(next) => next,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            }
        } else {
            self.next.lock().unwrap_or_else(PoisonError::into_inner)
        };
        let instance = match next.take() {
            Some(instance) => instance,
            None => self.instances.one_more()?,
        };
        let wait = if nonblocking { Wait::No } else { Wait::Forever };
        let connected = pipe::connect(instance.as_handle(), wait);
        let another = connected.and_then(|()| self.instances.one_more());
        match another {
            Ok(another) => {
                *next = Some(another);
                Ok(Stream::accepted(instance))
            }
            Err(error) => {
                *next = Some(instance);
                Err(error)
            }
        }
    }

    /// Every next client, for ever.
    pub fn incoming(&self) -> impl Iterator<Item = io::Result<Stream>> + '_ {
        std::iter::repeat_with(|| self.accept())
    }

    /// Whether [`accept`](Self::accept) fails instead of waiting.
    ///
    /// # Errors
    ///
    /// None on Windows.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }
}
