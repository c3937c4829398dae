//! An open logon session, and the jobs that hold its processes together.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::account::AccountEntry;
use crate::sys::process::environment::Environment;
use crate::sys::process::{Job, JobLimits};
use crate::sys::token::SecurityContext;

/// Processes that were told to end do so at once, but for one that waits inside the system.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);

/// A logon session: its token, and the jobs of the processes that were created in it. Whoever starts a process from
/// its token is in it, and so is whatever that process starts.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    context: SecurityContext,
    account: AccountEntry,
    additions: Vec<(OsString, OsString)>,
    /// As it was when the session was opened: what is said where the system does not tell it any more.
    environment: Environment,
    jobs: Arc<Jobs>,
    released: Arc<Released>,
}

/// A job for each terminal session that processes of the logon session were created in, by its number: a job is of
/// the terminal session of its first process, and takes none of another
/// ([AssignProcessToJobObject](https://learn.microsoft.com/windows/win32/api/jobapi2/nf-jobapi2-assignprocesstojobobject)).
#[derive(Debug, Default)]
struct Jobs(Mutex<BTreeMap<u32, Arc<Job>>>);

impl Jobs {
    fn of(&self, terminal: u32) -> io::Result<Arc<Job>> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(job) = jobs.get(&terminal) {
            return Ok(Arc::clone(job));
        }
        let job = Arc::new(Job::new(JobLimits::default(), true)?);
        jobs.insert(terminal, Arc::clone(&job));
        Ok(job)
    }

    fn all(&self) -> Vec<Arc<Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    /// How many processes there are now.
    fn processes(&self) -> io::Result<u32> {
        self.all().iter().map(|job| job.processes()).sum()
    }
}

/// Told when the last token and child of the session are dropped.
#[derive(Debug, Default)]
struct Released {
    done: Mutex<bool>,
    when: Condvar,
}

/// Jobs of sessions that nobody holds any more, while there are processes in them. Their handles are closed by the
/// end of the server, and that ends the processes.
static LEFT: Mutex<Vec<Arc<Job>>> = Mutex::new(Vec::new());

fn left() -> std::sync::MutexGuard<'static, Vec<Arc<Job>>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SessionHandle {
    pub(super) fn new(
        context: SecurityContext,
        account: AccountEntry,
        additions: Vec<(OsString, OsString)>,
    ) -> io::Result<Self> {
        left().retain(|job| job.processes().map_or(true, |count| count > 0));
        let environment = Environment::of(context.handle())?;
        let jobs = Arc::new(Jobs::default());
        jobs.of(context.session_id)?;
        Ok(Self { context, account, additions, environment, jobs, released: Arc::default() })
    }

    /// The context of its primary token.
    pub(crate) fn context(&self) -> &SecurityContext {
        &self.context
    }

    /// Who logged on.
    pub(crate) fn account(&self) -> &AccountEntry {
        &self.account
    }

    /// The logon session's LUID.
    pub(crate) fn id(&self) -> u64 {
        self.context.logon_id
    }

    /// What the server added to the environment.
    pub(crate) fn additions(&self) -> &[(OsString, OsString)] {
        &self.additions
    }

    /// The job that each process of the session is created in that is in this terminal session.
    pub(crate) fn job(&self, terminal: u32) -> io::Result<Arc<Job>> {
        self.jobs.of(terminal)
    }

    /// The environment of the session's processes.
    pub(crate) fn variables(&self) -> Vec<(OsString, OsString)> {
        let now = Environment::of(self.context.handle());
        let mut environment = now.unwrap_or_else(|_| self.environment.clone());
        environment.add(&self.additions);
        environment.variables()
    }

    /// Every process of the session.
    pub(crate) fn processes(&self) -> Result<Vec<u32>> {
        const DOING: &str = "listing the processes of the logon session";
        let ids = self.jobs.all().iter().map(|job| job.process_ids()).collect::<io::Result<Vec<_>>>();
        let ids = ids.map_err(|source| Error::system(DOING, "QueryInformationJobObject", source))?;
        Ok(ids.concat())
    }

    /// Kills every process of the session, and waits until they have ended.
    pub(crate) fn terminate(&self) -> Result<()> {
        const DOING: &str = "ending the processes of the logon session";
        for job in self.jobs.all() {
            job.terminate().map_err(|source| Error::system(DOING, "TerminateJobObject", source))?;
        }
        until_empty(&self.jobs, DOING, Some(PATIENCE))
    }

    /// Kills every process of the session, which nobody else holds, gives it back, and waits until it is closed.
    pub(crate) fn log_off(self) -> Result<()> {
        self.terminate()?;
        let ending = self.ending();
        drop(self);
        ending.wait(Some(PATIENCE))
    }

    /// What is waited for when it is closed.
    pub(crate) fn ending(&self) -> Ending {
        Ending { jobs: Arc::clone(&self.jobs), released: Arc::clone(&self.released) }
    }

    /// Nothing of an earlier server's: no session outlives its server.
    #[expect(clippy::unused_self, reason = "elsewhere there are such")]
    pub(crate) fn earlier_processes(&self) -> &[(u32, i32)] {
        &[]
    }

    #[expect(clippy::unused_self, reason = "elsewhere there are such")]
    pub(crate) fn earlier_status(&self, _number: u32) -> Result<Option<ExitStatus>> {
        Err(Error::new("asking for an exit status", ErrorKind::StatusLost))
    }

    #[expect(clippy::unused_self, reason = "elsewhere there are such")]
    pub(crate) fn kill_tree(&self, _number: u32) -> Result<()> {
        Err(Error::new("killing a tree of processes", ErrorKind::SessionEnded))
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        // To close a job here would end what still runs in it.
        let running = |job: &Arc<Job>| job.processes().map_or(true, |count| count > 0);
        left().extend(self.jobs.all().into_iter().filter(running));
        *self.released.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.released.when.notify_all();
    }
}

/// The end of a logon session, as far as this library sees it: its last token and child dropped, its last process
/// ended. The system then closes it by itself.
pub(crate) struct Ending {
    jobs: Arc<Jobs>,
    released: Arc<Released>,
}

impl Ending {
    pub(crate) fn wait(self, patience: Option<Duration>) -> Result<()> {
        let done = self.released.done.lock().unwrap_or_else(PoisonError::into_inner);
        let _done =
            self.released.when.wait_while(done, |done| !*done).unwrap_or_else(PoisonError::into_inner);
        until_empty(&self.jobs, "closing the logon session", patience)
    }
}

/// Counted, for the message that a job has no processes left is not guaranteed to come.
fn until_empty(jobs: &Jobs, doing: &'static str, limit: Option<Duration>) -> Result<()> {
    let since = Instant::now();
    loop {
        let count =
            jobs.processes().map_err(|source| Error::system(doing, "QueryInformationJobObject", source))?;
        if count == 0 {
            return Ok(());
        }
        if limit.is_some_and(|limit| since.elapsed() > limit) {
            let waiting_for = format!("{count} processes to end").into();
            return Err(Error::new(doing, ErrorKind::DeadlinePassed { waiting_for }));
        }
        std::thread::sleep(PAUSE);
    }
}

/// No session outlives its server.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
pub(crate) fn detached_sessions() -> Result<Vec<u64>> {
    Ok(Vec::new())
}

pub(crate) fn reattach(_id: u64) -> Result<SessionHandle> {
    Err(Error::new("reattaching to a logon session", ErrorKind::SessionEnded))
}
