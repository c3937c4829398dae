//! Session workers that are started before anybody logs on.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::find::{self, NewWorker};
use super::message::{Reply, Request};
use super::session::{send, within};
use super::wire;
use crate::error::{Error, ErrorKind, Result};
use crate::privilege::Privilege;
use crate::sys::impersonate::as_server;
use crate::sys::process::reap_within;

/// How long one may take to be executed.
const START: Duration = Duration::from_secs(10);
/// How long one that is not needed any more may take to end.
const END: Duration = Duration::from_secs(1);
/// The same for one that is of no use, while a logon waits.
const STALE: Duration = Duration::from_millis(100);

/// One worker for each PAM service that was asked for. A clone has the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadyWorkers(Arc<Mutex<Vec<Waiting>>>);

/// A worker that waits for its logon.
struct Waiting {
    service: CString,
    /// Its program, where it was configured.
    configured: Option<PathBuf>,
    worker: Option<NewWorker>,
    since: Instant,
    /// A forked copy of the server has none of them.
    owner: Pid,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("service", &self.service).finish_non_exhaustive()
    }
}

impl ReadyWorkers {
    /// Starts a worker for the next logon by this service, unless one waits for it already.
    pub(crate) fn keep(&self, service: &OsStr, configured: Option<&Path>) -> Result<()> {
        const DOING: &str = "preparing a session worker";
        let service = &CString::new(service.as_bytes()).map_err(|_| {
            Error::new(DOING, ErrorKind::InvalidInput { what: "the PAM service contains a NUL byte".into() })
        })?;
        as_server(|| Privilege::AssignPrimaryToken.require_for(DOING))?;
        if self.has(service, configured) {
            return Ok(());
        }
        let worker = as_server(|| find::start(configured, Instant::now() + START))?;
        let waiting = Waiting {
            service: service.to_owned(),
            configured: configured.map(Path::to_owned),
            since: Instant::now(),
            owner: rustix::process::getpid(),
            worker: Some(worker),
        };
        if let Some(worker) = &waiting.worker {
            // It fails where the worker has ended, which is seen when it is taken.
            send(&worker.socket, &Request::Prepare(service.to_owned()), &[])
                .map_err(|error| Error::system(DOING, "sendmsg", error))?;
        }
        let mut all = self.lock();
        // Another thread may have been first.
        let surplus = if all.iter().any(|one| one.suits(service, configured)) {
            Some(waiting)
        } else {
            all.push(waiting);
            None
        };
        drop(all);
        drop(surplus);
        Ok(())
    }

    fn has(&self, service: &CStr, configured: Option<&Path>) -> bool {
        self.lock().iter().any(|waiting| waiting.suits(service, configured))
    }

    /// The one that waits for this service. It is asked whether what it has prepared is what it would prepare now, and has
    /// [yet to say](is_fresh).
    pub(super) fn take(&self, service: &CStr, configured: Option<&Path>) -> Option<NewWorker> {
        let mut waiting = self.lock();
        let at = waiting.iter().position(|one| one.suits(service, configured))?;
        let mut one = waiting.swap_remove(at);
        drop(waiting);
        let worker = one.worker.take()?;
        if send(&worker.socket, &Request::Check, &[]).is_ok() {
            return Some(worker);
        }
        give_up(worker.process);
        None
    }

    /// Lets those end that have waited for longer.
    pub(crate) fn let_go_after(&self, longest: Duration) {
        let gone: Vec<Waiting> = self.lock().extract_if(.., |one| one.since.elapsed() >= longest).collect();
        // Each is waited for, by nobody who wants one.
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a worker that was taken answers first: it does not begin with the logon before.
pub(super) fn is_fresh(socket: &OwnedFd, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    if within(socket, left.min(START)).is_err() {
        return false;
    }
    let reply = wire::receive(socket).ok().flatten();
    reply.is_some_and(|frame| Reply::decode(frame.kind, &frame.body) == Some(Reply::Done))
}

/// Ends one that is of no use. Nothing has begun in it; or it hangs in a module, or answers too late, and would begin.
pub(super) fn give_up(worker: OwnedFd) {
    // Whoever logs on may act as a client meanwhile.
    let _ = as_server(|| pidfd_send_signal(&worker, Signal::KILL));
    reap_within(worker, STALE);
}

impl Waiting {
    fn suits(&self, service: &CStr, configured: Option<&Path>) -> bool {
        *self.service == *service
            && self.configured.as_deref() == configured
            && self.owner == rustix::process::getpid()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(NewWorker { socket, process, .. }) = self.worker.take() else { return };
        // It ends when nobody can say anything to it any more. In a forked copy of the server that is for the server.
        drop(socket);
        if self.owner == rustix::process::getpid() {
            reap_within(process, END);
        }
    }
}
