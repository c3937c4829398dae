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
    CreateNamedPipeW, PIPE_READMODE_MESSAGE, PIPE_REJECT_REMOTE_CLIENTS, PIPE_TYPE_MESSAGE,
    PIPE_UNLIMITED_INSTANCES, PIPE_WAIT,
};

use super::pipe::{self, Wait, is};
use super::{Address, Stream, wide};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::dacl::{Ace, Attributes, Dacl, Descriptor, PIPE_SERVER};
use crate::sys::impersonate::thread::as_process;
use crate::sys::sid::Sid;
use crate::sys::token::{SecurityContext, own_context};

/// What the pipe keeps for a reader that is slow.
const BUFFER: u32 = 64 * 1024;

/// The instance that the next client gets, and what every next one is made from.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) instances: Instances,
    /// The one that the next client gets.
    pub(super) next: Mutex<Option<OwnedHandle>>,
    nonblocking: AtomicBool,
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
        // Of messages: an empty one tells that nothing more will come (Stream::shutdown). Read by messages too,
        // for a read that goes on to the next one would make its sender the client, and swallow the empty one.
        // SAFETY: the name ends with a NUL, the attributes point into `self`, and both are only read during the
        // call; no handle of a child process inherits the new one.
        let raw = unsafe {
            CreateNamedPipeW(
                self.name.as_ptr(),
                PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED | first,
                PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE | PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS,
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
    pub(crate) fn bind(address: &Address, everyone: bool) -> Result<Self> {
        let doing = || format!("listening at {address}");
        let system = |call| move |source: io::Error| Error::system(doing(), call, source);
        let name = wide(address, "listening at")?;
        // As the server: in an impersonation the pipe would be the client's.
        let bound = as_process(|| {
            let server = Server::of(&own_context()?).map_err(system("GetTokenInformation"))?;
            let dacl = Some(server.dacl(everyone).ok_or_else(|| {
                let why = "the server's token has restricting SIDs, by which it could not add an instance";
                Error::new(doing(), ErrorKind::AccessDenied { object: format!("{address}: {why}") })
            })?);
            let descriptor = Descriptor { owner: Some(server.user), dacl };
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
            Ok(Self { instances, next, nonblocking: AtomicBool::new(false) })
        });
        bound
            .map_err(|fault| Error::system(doing(), "SetThreadToken", io::Error::other(fault.to_string())))?
    }

    /// Threads that accept at the same time take turns.
    pub(crate) fn accept(&self) -> io::Result<Stream> {
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

    #[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }
}

/// What of the server's own token decides whether it may add instances to its own pipe.
#[derive(Debug)]
struct Server {
    user: Sid,
    logon: Option<Sid>,
    /// Whether it came over the network itself.
    network: bool,
    /// What it is granted must be granted to one of these too; none where it is not restricted.
    restricting: Vec<Sid>,
}

impl Server {
    fn of(context: &SecurityContext) -> io::Result<Self> {
        let network = context.groups.iter().any(|group| group.sid == Sid::NETWORK);
        let restricting = if context.restricted { context.restricting()? } else { Vec::new() };
        Ok(Self { user: context.user, logon: context.logon_sid(), network, restricting })
    }

    /// The pipe's list; `None` where the server itself would be refused its second instance.
    fn dacl(&self, everyone: bool) -> Option<Dacl> {
        let mut dacl = Dacl::of_pipe(&self.user, everyone);
        if self.network {
            // What comes first decides: the server before its kind. Machines elsewhere are refused by the pipe.
            let own = dacl.entries.iter().position(|ace| ace.sid == Some(self.user))?;
            let own = dacl.entries.remove(own);
            dacl.entries.insert(0, own);
        }
        if self.restricting.is_empty() || self.restricting.contains(&self.user) {
            return Some(dacl);
        }
        // Its own logon session is nobody else's; what else restricts it may be everybody's.
        let logon = self.logon.filter(|logon| self.restricting.contains(logon))?;
        dacl.entries.insert(1, Ace::allow(logon, PIPE_SERVER));
        Some(dacl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::dacl::AceKind;

    fn server(network: bool, restricting: &[Sid]) -> Server {
        let logon: Sid = "S-1-5-5-0-7".parse().unwrap();
        Server { user: Sid::LOCAL_SERVICE, logon: Some(logon), network, restricting: restricting.to_vec() }
    }

    #[test]
    fn a_server_that_came_over_the_network_is_not_denied_its_own_pipe() {
        let usual = server(false, &[]).dacl(true).unwrap();
        assert_eq!((usual.entries[0].kind, usual.entries[0].sid), (AceKind::Deny, Some(Sid::NETWORK)));
        let own = server(true, &[]).dacl(true).unwrap();
        assert_eq!((own.entries[0].kind, own.entries[0].sid), (AceKind::Allow, Some(Sid::LOCAL_SERVICE)));
        assert_eq!((own.entries[1].kind, own.entries[1].sid), (AceKind::Deny, Some(Sid::NETWORK)));
        assert_eq!(own.entries.len(), usual.entries.len());
    }

    #[test]
    fn a_restricted_server_is_let_by_what_is_its_own_or_refused() {
        let logon = "S-1-5-5-0-7".parse().unwrap();
        let by_user = server(false, &[Sid::EVERYONE, Sid::LOCAL_SERVICE]).dacl(false).unwrap();
        assert_eq!(by_user, server(false, &[]).dacl(false).unwrap());
        let by_logon = server(false, &[Sid::EVERYONE, logon]).dacl(false).unwrap();
        assert_eq!(by_logon.entries[1], Ace::allow(logon, PIPE_SERVER));
        assert_eq!(server(false, &[Sid::EVERYONE]).dacl(false), None, "that would be everybody's server");
    }
}
