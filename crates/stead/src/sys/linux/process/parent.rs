//! Whose child a process is, and who tells how it ended.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::status;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::elsewhere::ProcessElsewhere;
use crate::sys::logon::SessionHandle;

/// Whose child it is.
pub(crate) enum Parent {
    /// The server's own.
    Server,
    /// The session worker's.
    Worker(WorkerChild),
    /// Of another process that created it for this one, and answers for it.
    Elsewhere {
        process: Box<dyn ProcessElsewhere>,
        /// Kept open until its exit status is known.
        held: Option<Arc<SessionHandle>>,
    },
}

impl std::fmt::Debug for Parent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server => f.write_str("Server"),
            Self::Worker(child) => child.fmt(f),
            Self::Elsewhere { .. } => f.write_str("Elsewhere"),
        }
    }
}

/// A child of the session worker, which keeps the logon session open until its exit status is known.
pub(crate) struct WorkerChild {
    held: Option<Arc<SessionHandle>>,
    /// For what is done later, if the session still lives then.
    session: Weak<SessionHandle>,
    /// The worker's number for it.
    id: u32,
}

impl WorkerChild {
    pub(crate) fn new(session: Arc<SessionHandle>, id: u32) -> Self {
        Self { session: Arc::downgrade(&session), held: Some(session), id }
    }

    /// The wait status of a child that has ended, if the kernel or the worker knows it by then.
    pub(super) fn status(&self, pidfd: BorrowedFd<'_>, give_up: Instant) -> Option<i32> {
        // The worker reaps without being asked, and is left alone where the kernel tells.
        if let Ok(Some(raw)) = status::told_once_reaped(pidfd, give_up) {
            return Some(raw);
        }
        let session = self.session.upgrade()?;
        loop {
            match session.exit_status(self.id) {
                Ok(Some(raw)) => return Some(raw),
                Ok(None) if Instant::now() < give_up => std::thread::sleep(Duration::from_micros(200)),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Keeps the session open no longer: somebody may be waiting for its end while a `Child` that was waited
    /// for is still at hand.
    pub(super) fn let_go(&mut self) {
        self.held = None;
    }

    pub(super) fn kill_tree(&self) -> Result<()> {
        let session = self.session.upgrade();
        session.ok_or_else(|| Error::new("ending a process", ErrorKind::SessionEnded))?.kill_tree(self.id)
    }
}

impl Drop for WorkerChild {
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            session.forget(self.id);
        }
    }
}

impl std::fmt::Debug for WorkerChild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WorkerChild").field(&self.id).finish()
    }
}

/// How long the worker may take from the end of a process to having collected its status.
const REAPING: Duration = Duration::from_secs(1);

pub(super) fn reaping() -> Instant {
    Instant::now() + REAPING
}
