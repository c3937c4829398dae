//! The running process.
#![forbid(unsafe_code)]

use std::fmt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus, Output};
use std::time::{Duration, Instant};

#[cfg(unix)]
use super::stdio::Pty;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::process::{Parts, Running};

/// A process that was created in a client's security context, in the manner of [`std::process::Child`].
///
/// Dropping it leaves the process running, as std's does; only one that is still suspended is ended. Unlike
/// std's it leaves no zombie for ever: the exit status of a process whose `Child` is gone is collected (by
/// its pidfd, so that nobody else's children are touched) when this library next creates or waits for a
/// process. What was made for the process, such as its cgroup, is removed in the same way.
///
/// ```no_run
/// # fn example(token: stead::Token<stead::Primary>) -> stead::Result<()> {
/// use std::time::Duration;
/// let mut child = stead::Command::new("report").spawn_as(&token)?;
/// if child.wait_timeout(Duration::from_secs(60))?.is_none() {
///     child.kill_tree()?;
/// }
/// println!("{}", child.wait()?);
/// # Ok(()) }
/// ```
#[doc(alias = "PROCESS_INFORMATION")]
#[doc(alias = "HANDLE")]
pub struct Child {
    /// Where the process reads its standard input from, if it was piped.
    pub stdin: Option<ChildStdin>,
    /// What the process writes to its standard output, if it was piped.
    pub stdout: Option<ChildStdout>,
    /// What the process writes to its standard error, if it was piped.
    pub stderr: Option<ChildStderr>,
    /// The server's end of the process's terminal, if it was given one.
    #[cfg(unix)]
    pub pty: Option<Pty>,
    pub(crate) running: Running,
}

/// What holds the processes of a tree together, and so what [`Child::kill_tree`] reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Containment {
    /// A cgroup of its own: every descendant, without exception. A descendant that the client moves out of
    /// it needs write access to another cgroup, which a delegated one does not give.
    Cgroup,
    /// The session worker, subreaper of the logon session: every descendant of the process, but for one
    /// that has both begun a POSIX session of its own and lost its parents (a daemon) while the logon
    /// session had other processes: whose it was cannot be told any more. It ends with the logon session at
    /// the latest.
    SessionWorker,
    /// The POSIX session that the process began: every descendant that has not called setsid(2) itself.
    PosixSession,
    /// A Windows job object that the process was created in: every descendant, without exception.
    #[doc(alias = "CreateJobObject")]
    Job,
}

impl fmt::Display for Containment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cgroup => "a cgroup of its own",
            Self::SessionWorker => "the session worker as subreaper",
            Self::PosixSession => "a POSIX session",
            Self::Job => "a job object",
        })
    }
}

impl Child {
    pub(super) fn from_parts(parts: Parts) -> Self {
        Self {
            stdin: parts.stdin.map(ChildStdin::from),
            stdout: parts.stdout.map(ChildStdout::from),
            stderr: parts.stderr.map(ChildStderr::from),
            #[cfg(unix)]
            pty: parts.pty.map(|master| Pty(master.into())),
            running: parts.running,
        }
    }

    /// The process's id, for people to read; after it was waited for the number may be another's.
    #[doc(alias = "GetProcessId")]
    #[doc(alias = "dwProcessId")]
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// Waits for the process to end. Its standard input is closed first, so that it does not wait for more.
    ///
    /// # Errors
    /// `StatusLost` when it has ended and other code of the server took its status (a `waitpid(-1)`,
    /// SIGCHLD ignored) on a kernel before Linux 6.15, which does not keep it; `DeadlinePassed` when it has
    /// ended and another process traces it, which has not let go of it within a second: it can be waited for again, and
    /// [`kill_tree`](Self::kill_tree) ends a tracer in its tree; `InvalidInput` when it is still suspended.
    #[doc(alias = "WaitForSingleObject")]
    #[doc(alias = "GetExitCodeProcess")]
    pub fn wait(&mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        self.not_suspended()?;
        self.running.wait(None)?.ok_or_else(|| unreachable_status("waiting for a process"))
    }

    /// How the process ended, or `None` while it runs.
    ///
    /// # Errors
    /// `StatusLost` and `DeadlinePassed`, as for [`wait`](Self::wait).
    #[doc(alias = "GetExitCodeProcess")]
    #[doc(alias = "STILL_ACTIVE")]
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.running.wait(Some(Instant::now()))
    }

    /// Waits for the process to end, at most for `timeout`; `None` when it still runs then.
    ///
    /// # Errors
    /// `StatusLost` and `DeadlinePassed`, as for [`wait`](Self::wait).
    #[doc(alias = "WaitForSingleObject")]
    #[doc(alias = "WAIT_TIMEOUT")]
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        self.running.wait(Instant::now().checked_add(timeout))
    }

    /// Collects what the process writes, from both pipes at once, and waits for its end.
    ///
    /// Like std's it also waits for descendants that hold the pipes open.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait), and `System` when a pipe cannot be read.
    pub fn wait_with_output(mut self) -> Result<Output> {
        drop(self.stdin.take());
        self.not_suspended()?;
        let (stdout, stderr) = crate::sys::process::read_both(self.stdout.take(), self.stderr.take())
            .map_err(|source| Error::system("reading a process's output", "read", source))?;
        Ok(Output { status: self.wait()?, stdout, stderr })
    }

    /// Ends the process (SIGKILL), and only it; nothing happens when it has ended already.
    ///
    /// # Errors
    /// `PrivilegeMissing` when the server may not end a process of the client: that takes CAP_KILL.
    #[doc(alias = "TerminateProcess")]
    pub fn kill(&mut self) -> Result<()> {
        self.running.kill()
    }

    /// Ends the process and its descendants, as far as [`containment`](Self::containment) says.
    ///
    /// Also after the process itself has ended and was waited for.
    ///
    /// # Errors
    /// `StatusLost` when only a POSIX session holds the tree, its first process was reaped by other code of the
    /// server, and there are processes of which nobody can tell any more whether they are the tree's;
    /// `PrivilegeMissing` when the server may not end processes of the client; `SessionEnded` when the process was
    /// waited for and nothing else kept its logon session open.
    #[doc(alias = "TerminateJobObject")]
    pub fn kill_tree(&mut self) -> Result<()> {
        self.running.kill_tree()
    }

    /// What holds the process and its descendants together.
    pub fn containment(&self) -> Containment {
        self.running.containment()
    }

    /// Whether it was created [suspended](crate::Command::suspended) and not resumed since.
    pub fn is_suspended(&self) -> bool {
        self.running.is_suspended()
    }

    /// Waiting for a suspended process without a limit would be waiting for ever.
    pub(super) fn not_suspended(&self) -> Result<()> {
        if self.is_suspended() {
            let what = "the process is suspended and would never end; resume it first".into();
            return Err(Error::new("waiting for a process", ErrorKind::InvalidInput { what }));
        }
        Ok(())
    }

    /// Lets a process that was created [suspended](crate::Command::suspended) execute its program; nothing
    /// happens when it runs already.
    ///
    /// # Errors
    /// Those of [`Command::spawn_as`](crate::Command::spawn_as) that executing the program can meet; the
    /// process has ended then.
    #[doc(alias = "ResumeThread")]
    pub fn resume(&mut self) -> Result<()> {
        self.running.resume()
    }
}

fn unreachable_status(doing: &'static str) -> Error {
    Error::new(doing, ErrorKind::StatusLost)
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("id", &self.id())
            .field("containment", &self.containment())
            .field("suspended", &self.is_suspended())
            .finish_non_exhaustive()
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsHandle for Child {
    /// The process's handle: signalled when the process has ended.
    fn as_handle(&self) -> std::os::windows::io::BorrowedHandle<'_> {
        self.running.handle()
    }
}

#[cfg(target_os = "linux")]
impl std::os::fd::AsFd for Child {
    /// The pidfd: readable when the process has ended. A client can hold that back: who polls it also asks
    /// [`ChildExt::has_ended`](crate::os::linux::ChildExt::has_ended) now and then.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.running.pidfd()
    }
}
