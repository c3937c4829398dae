//! One connection.

use std::io::{self, Read, Write};
use std::os::windows::io::{AsHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_PIPE_BUSY, ERROR_SEM_TIMEOUT, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_FLAG_OVERLAPPED, OPEN_EXISTING, SECURITY_ANONYMOUS, SECURITY_CONTEXT_TRACKING,
    SECURITY_DELEGATION, SECURITY_IDENTIFICATION, SECURITY_IMPERSONATION, SECURITY_SQOS_PRESENT,
};
use windows_sys::Win32::System::Pipes::WaitNamedPipeW;

use super::pipe::{self, Wait, is};
use super::{Address, wide};
use crate::ImpersonationLevel;
use crate::client::{Client, Confinement};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::client::{Captured, Connected, capture, require_server_end};
use crate::sys::dacl::{Descriptor, PIPE_CLIENT};
use crate::sys::sid::Sid;

/// How long a client waits for a server that takes no more connections, unless it chose otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// No limit of time.
const NEVER: u64 = u64::MAX;

/// One end of a local connection.
///
/// Reading and writing are those of a stream of bytes, through a shared reference too; nothing but the program's
/// own bytes travels in it. At the server's end the client's token is captured when the first bytes have been
/// read: it is that of whoever sent them, and what is sent later as somebody else changes nothing.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::io::Write;
/// use stead::local::{Address, Stream};
///
/// let mut stream = Stream::connect(&Address::name("report")?)?;
/// stream.write_all(b"today\n")?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[doc(alias = "CreateFile")]
pub struct Stream {
    pub(super) pipe: OwnedHandle,
    pub(super) shared: Arc<Shared>,
}

/// What all handles of one connection share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Whether this is the end that accepted.
    server: bool,
    /// Whether anything was read.
    received: AtomicBool,
    client: OnceLock<Arc<Captured>>,
    read_limit: AtomicU64,
    write_limit: AtomicU64,
}

impl Shared {
    pub(super) fn new(server: bool) -> Arc<Self> {
        Arc::new(Self {
            server,
            received: AtomicBool::new(false),
            client: OnceLock::new(),
            read_limit: AtomicU64::new(NEVER),
            write_limit: AtomicU64::new(NEVER),
        })
    }

    #[cfg(feature = "tokio")]
    pub(super) fn is_server(&self) -> bool {
        self.server
    }

    /// Notes that bytes were read, and whose the first were.
    ///
    /// What cannot be captured now is reported when the client is asked for.
    pub(super) fn received(&self, pipe: BorrowedHandle<'_>) {
        if self.server
            && !self.received.swap(true, Ordering::AcqRel)
            && let Ok(captured) = capture(pipe)
        {
            let _ = self.client.set(Arc::new(captured));
        }
    }

    /// Whose the first bytes were.
    fn client(&self, pipe: BorrowedHandle<'_>) -> Result<Arc<Captured>> {
        const DOING: &str = "identifying a client";
        if !self.server {
            require_server_end(pipe)?;
        }
        if !self.received.load(Ordering::Acquire) {
            let what = "nothing was read from the client yet: read first".into();
            return Err(Error::new(DOING, ErrorKind::NoIdentity { what }));
        }
        if let Some(known) = self.client.get() {
            return Ok(Arc::clone(known));
        }
        let captured = Arc::new(capture(pipe)?);
        Ok(Arc::clone(self.client.get_or_init(|| captured)))
    }

    pub(super) fn client_with(&self, pipe: BorrowedHandle<'_>, confinement: Confinement) -> Result<Client> {
        Client::with(confinement).of(Connected(self.client(pipe)?))
    }
}

/// How to connect: what the client grants, and whose the server must be.
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::ImpersonationLevel;
/// use stead::local::{Address, ConnectOptions, Stream};
///
/// let options = ConnectOptions::new().level(ImpersonationLevel::Identification);
/// let stream = Stream::connect_with(&Address::name("report")?, &options)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[doc(alias = "SECURITY_SQOS_PRESENT")]
#[doc(alias = "SECURITY_QUALITY_OF_SERVICE")]
pub struct ConnectOptions {
    level: ImpersonationLevel,
    pub(crate) server: Option<Sid>,
    timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        let level = ImpersonationLevel::Impersonation;
        Self { level, server: None, timeout: PATIENCE }
    }
}

impl ConnectOptions {
    /// Grants [`ImpersonationLevel::Impersonation`], to whoever the server is.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How far the server may act for this client; the system enforces it.
    #[doc(alias = "SECURITY_ANONYMOUS")]
    #[doc(alias = "SECURITY_IDENTIFICATION")]
    #[doc(alias = "SECURITY_IMPERSONATION")]
    #[doc(alias = "SECURITY_DELEGATION")]
    #[must_use]
    pub fn level(self, level: ImpersonationLevel) -> Self {
        Self { level, ..self }
    }

    /// How long to wait for a server that has no room for one more connection; 10 seconds otherwise.
    #[doc(alias = "WaitNamedPipe")]
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(super) fn connect(&self, address: &Address) -> Result<Stream> {
        let name = wide(address, "connecting to")?;
        let pipe = self.open(&name, address)?;
        self.require_server(pipe.as_handle(), address)?;
        Ok(Stream { pipe, shared: Shared::new(false) })
    }

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
            let left = self.timeout.saturating_sub(since.elapsed()).as_millis();
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
        let level = match self.level {
            ImpersonationLevel::Anonymous => SECURITY_ANONYMOUS,
            ImpersonationLevel::Identification => SECURITY_IDENTIFICATION,
            ImpersonationLevel::Impersonation => SECURITY_IMPERSONATION,
            ImpersonationLevel::Delegation => SECURITY_DELEGATION,
        };
        // By static tracking (the default) the system captures the client's token when the pipe is opened, and
        // the server can impersonate from then on. A client that demands whose the server is must grant nothing
        // before it has seen that: by dynamic tracking the token goes with each message that it writes.
        let tracking = if self.server.is_some() { SECURITY_CONTEXT_TRACKING } else { 0 };
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
        let Some(wanted) = &self.server else { return Ok(()) };
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
        Self { pipe, shared: Shared::new(true) }
    }

    /// Connects, granting [`ImpersonationLevel::Impersonation`].
    ///
    /// # Errors
    ///
    /// As [`connect_with`](Self::connect_with).
    #[doc(alias = "CallNamedPipe")]
    pub fn connect(address: &Address) -> Result<Self> {
        Self::connect_with(address, &ConnectOptions::default())
    }

    /// Connects as the options say.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::AccessDenied`]: the listener is not open to this user, or its server is not the one
    ///   that the options demand; nothing was sent to it then.
    /// * [`ErrorKind::DeadlinePassed`]: the server takes no more connections.
    /// * [`ErrorKind::InvalidInput`]: the address is no pipe's of this machine.
    /// * [`ErrorKind::System`]: there is no listener.
    ///
    /// Reference: [Impersonation levels of CreateFileW](https://learn.microsoft.com/windows/win32/api/fileapi/nf-fileapi-createfilew).
    #[doc(alias = "CreateFile")]
    pub fn connect_with(address: &Address, options: &ConnectOptions) -> Result<Self> {
        options.connect(address)
    }

    /// Who is at the other end, at the level that it granted: whoever sent the first bytes that were read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoIdentity`] before anything was read; otherwise as [`Client::of`].
    #[doc(alias = "ImpersonateNamedPipeClient")]
    pub fn client(&self) -> Result<Client> {
        self.client_with(Confinement::Refuse)
    }

    /// The same, choosing what to do about the client's confinement.
    ///
    /// # Errors
    ///
    /// As [`client`](Self::client).
    pub fn client_with(&self, confinement: Confinement) -> Result<Client> {
        self.shared.client_with(self.pipe.as_handle(), confinement)
    }

    /// One more handle of the same connection.
    ///
    /// # Errors
    ///
    /// When there are no more handles.
    #[doc(alias = "DuplicateHandle")]
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { pipe: self.pipe.try_clone()?, shared: Arc::clone(&self.shared) })
    }

    /// How long a read waits; `None` for ever.
    ///
    /// # Errors
    ///
    /// For a duration of zero.
    #[doc(alias = "SetCommTimeouts")]
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.shared.read_limit.store(limit(timeout)?, Ordering::Relaxed);
        Ok(())
    }

    /// How long a write waits; `None` for ever.
    ///
    /// A write that was given up may have been taken in part: the connection is then of no more use.
    ///
    /// # Errors
    ///
    /// For a duration of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.shared.write_limit.store(limit(timeout)?, Ordering::Relaxed);
        Ok(())
    }
}

fn limit(timeout: Option<Duration>) -> io::Result<u64> {
    match timeout {
        None => Ok(NEVER),
        Some(Duration::ZERO) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a time limit of zero")),
        Some(timeout) => Ok(u64::try_from(timeout.as_nanos()).unwrap_or(NEVER)),
    }
}

fn wait(limit: &AtomicU64) -> Wait {
    match limit.load(Ordering::Relaxed) {
        NEVER => Wait::Forever,
        nanoseconds => Wait::For(Duration::from_nanos(nanoseconds)),
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = pipe::read(self.pipe.as_handle(), buffer, wait(&self.shared.read_limit))?;
        if bytes > 0 {
            self.shared.received(self.pipe.as_handle());
        }
        Ok(bytes)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        pipe::write(self.pipe.as_handle(), bytes, wait(&self.shared.write_limit))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl AsHandle for Stream {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.pipe.as_handle()
    }
}

/// A server's end of a named pipe that was accepted elsewhere. Time limits are kept where it is overlapped.
impl TryFrom<OwnedHandle> for Stream {
    type Error = Error;

    fn try_from(pipe: OwnedHandle) -> Result<Self> {
        require_server_end(pipe.as_handle())?;
        Ok(Self::accepted(pipe))
    }
}
