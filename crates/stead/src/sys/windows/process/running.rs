//! A process that runs, and its job.

use std::io::{self, Read};
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle};
use std::os::windows::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdout, ExitStatus};
use std::sync::Arc;
use std::time::Instant;

use windows_sys::Win32::Foundation::{WAIT_OBJECT_0, WAIT_TIMEOUT};
use windows_sys::Win32::System::Threading::{
    GetExitCodeProcess, INFINITE, ResumeThread, TerminateProcess, WaitForSingleObject,
};

use super::job::Job;
use super::leased::{Keeper, Leased};
use crate::error::{Error, Result};
use crate::process::Containment;
use crate::sys::logon::SessionHandle;

/// The exit code of what was killed, as std's.
pub(super) const KILLED: u32 = 1;

const WAITING: &str = "waiting for a process";
const ENDING: &str = "ending a process";

/// A process and what belongs to it.
#[derive(Debug)]
pub(crate) struct Running {
    process: OwnedHandle,
    /// Its first thread, while that is suspended.
    suspended: Option<OwnedHandle>,
    id: u32,
    job: Job,
    status: Option<ExitStatus>,
    keeper: Keeper,
    /// Whether dropping it ends the tree.
    kill_on_close: bool,
    /// Open for as long as the child.
    _session: Option<Arc<SessionHandle>>,
}

impl Running {
    pub(super) fn new(
        process: OwnedHandle,
        thread: OwnedHandle,
        id: u32,
        job: Job,
        session: Option<Arc<SessionHandle>>,
        kill_on_close: bool,
    ) -> Self {
        let keeper = Keeper::default();
        Self {
            process,
            suspended: Some(thread),
            id,
            job,
            status: None,
            keeper,
            kill_on_close,
            _session: session,
        }
    }

    /// Keeps what was leased for the process until the last of its tree has ended.
    pub(super) fn keep(&mut self, leased: Leased) -> io::Result<()> {
        self.keeper = Keeper::new(&self.job, leased)?;
        Ok(())
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn handle(&self) -> BorrowedHandle<'_> {
        self.process.as_handle()
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.is_some()
    }

    /// Lets a suspended process run.
    pub(crate) fn resume(&mut self) -> Result<()> {
        let Some(thread) = &self.suspended else { return Ok(()) };
        // SAFETY: the handle is open, and has all rights to the thread.
        if unsafe { ResumeThread(thread.as_raw_handle()) } == u32::MAX {
            return Err(Error::system("resuming a process", "ResumeThread", io::Error::last_os_error()));
        }
        self.suspended = None;
        Ok(())
    }

    /// Waits for the end, at most until `deadline`.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        if self.status.is_some() {
            return Ok(self.status);
        }
        if !self.ended(deadline).map_err(|source| Error::system(WAITING, "WaitForSingleObject", source))? {
            return Ok(None);
        }
        let mut code = 0;
        // SAFETY: the handle is open; `code` is written only by this call.
        if unsafe { GetExitCodeProcess(self.process.as_raw_handle(), &raw mut code) } == 0 {
            return Err(Error::system(WAITING, "GetExitCodeProcess", io::Error::last_os_error()));
        }
        self.status = Some(ExitStatus::from_raw(code));
        self.keeper.ended();
        Ok(self.status)
    }

    fn ended(&self, deadline: Option<Instant>) -> io::Result<bool> {
        loop {
            let patience = match deadline {
                None => INFINITE,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    // Rounded up, so that the last wait does not end before the deadline.
                    u32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(INFINITE - 1).min(INFINITE - 1)
                }
            };
            // SAFETY: the handle is open.
            match unsafe { WaitForSingleObject(self.process.as_raw_handle(), patience) } {
                WAIT_OBJECT_0 => return Ok(true),
                WAIT_TIMEOUT if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    return Ok(false);
                }
                WAIT_TIMEOUT => {}
                _ => return Err(io::Error::last_os_error()),
            }
        }
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        // SAFETY: the handle is open, and has all rights to the process.
        if unsafe { TerminateProcess(self.process.as_raw_handle(), KILLED) } != 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // "Access denied" is what it says of a process that has ended.
        match self.ended(Some(Instant::now())) {
            Ok(true) => Ok(()),
            _ => Err(Error::system(ENDING, "TerminateProcess", error)),
        }
    }

    pub(crate) fn kill_tree(&mut self) -> Result<()> {
        self.job.terminate().map_err(|source| Error::system(ENDING, "TerminateJobObject", source))
    }

    /// How many processes of the tree there are now.
    pub(crate) fn processes(&self) -> Result<u32> {
        self.job
            .processes()
            .map_err(|source| Error::system("counting processes", "QueryInformationJobObject", source))
    }

    #[expect(clippy::unused_self, reason = "elsewhere it depends on the process")]
    pub(crate) fn containment(&self) -> Containment {
        Containment::Job
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.suspended.is_some() {
            let _ = self.kill();
        }
        // Whoever keeps what was leased has the job open too.
        if self.kill_on_close {
            let _ = self.job.terminate();
        }
    }
}

/// Why a program ended so early, where its exit code says it.
///
/// Reference: [\[MS-ERREF\] 2.3.1](https://learn.microsoft.com/openspecs/windows_protocols/ms-erref/596a1078-e883-4972-9bbc-49e60bebca55).
pub(crate) fn explain(status: ExitStatus) -> Option<&'static str> {
    Some(match status.code()?.cast_unsigned() {
        0xC000_0142 => {
            "a library could not be initialised: most often the process may not use its window station or desktop"
        }
        0xC000_0135 => "a library that the program needs was not found",
        0xC000_0139 => "a library lacks a function that the program needs",
        0xC000_007B => "a library of the program is made for another kind of machine",
        0xC000_0022 => "the process was denied something that it needs to start",
        0xC000_0005 => "the program touched memory that it does not have",
        0xC000_00FD => "the program's stack overflowed",
        0xC000_0374 => "the program's heap was damaged",
        0xC000_0409 => "the program ended itself, having found its own memory damaged",
        0xC000_013A => "the program was interrupted by its console",
        0xC000_0017 => "there was not enough memory, often that of the desktop heap",
        _ => return None,
    })
}

/// Reads both pipes until their ends, each on a thread of its own: a process that fills one must not wait for the
/// reader of the other.
pub(crate) fn read_both(
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    fn read(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut all)?;
        }
        Ok(all)
    }
    if stderr.is_none() {
        return Ok((read(stdout)?, Vec::new()));
    }
    std::thread::scope(|scope| {
        let other =
            std::thread::Builder::new().name("stead-output".into()).spawn_scoped(scope, || read(stderr))?;
        let stdout = read(stdout);
        let stderr = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((stdout?, stderr?))
    })
}
