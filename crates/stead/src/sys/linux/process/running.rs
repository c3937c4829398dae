//! A process that runs: its pidfd, who is its parent, and what else was made for it.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::abandoned::{self, Remains};
use super::cgroup::ProcessCgroup;
use super::parent::{Parent, reaping};
use super::posix_session::{self, Outcome, PosixSession};
use super::report::{Awaited, LaunchFault, ReportOutcome, await_report, report_of_ended};
use super::status::{self, Collected};
use super::strays;
use super::traced::{self, Looks};
use crate::error::{Error, ErrorKind, Result};
use crate::privilege::Privilege;
use crate::process::{Containment, Stage};
use crate::sys::elsewhere::Spawned;
use crate::sys::impersonate::as_server;
use crate::sys::logon::SessionHandle;

/// A process and what belongs to it.
#[derive(Debug)]
pub(crate) struct Running {
    pid: Pid,
    pidfd: Option<Arc<OwnedFd>>,
    parent: Parent,
    cgroup: Option<ProcessCgroup>,
    suspended: Option<Suspended>,
    status: Option<ExitStatus>,
    reaped_at: Option<u64>,
    looks: Looks,
    /// It has ended, and who traces it is given until then to let go of it.
    let_go_by: Option<Instant>,
    names: Names,
}

/// What holds a suspended process, and what it will report.
#[derive(Debug)]
pub(crate) enum Suspended {
    Here {
        gate: OwnedFd,
        report: OwnedFd,
        patience: Duration,
    },
    /// Who created it has both.
    Elsewhere,
}

/// What errors call things.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) doing: String,
    pub(crate) program: String,
    pub(crate) directory: String,
}

impl Names {
    pub(crate) fn error(&self, fault: LaunchFault) -> Error {
        fault.into_error(self.doing.clone(), &self.program, &self.directory)
    }
}

const ENDING: &str = "ending a process";
const ENDING_TREE: &str =
    "ending the rest of a tree whose first process was reaped by somebody else, long ago";
/// For "some time before now, nobody knows when".
const LONG_AGO: u64 = 0;
const WAITING: &str = "waiting for a process";
const HELD: &str =
    "whoever traces the process, which has ended, to let go of it (ending its tree ends a tracer in it)";
const RESUMING: &str = "resuming a process";

impl Running {
    pub(crate) fn new(
        pid: Pid,
        pidfd: OwnedFd,
        parent: Parent,
        cgroup: Option<ProcessCgroup>,
        names: Names,
    ) -> Self {
        let pidfd = Arc::new(pidfd);
        if matches!(parent, Parent::Server) {
            strays::began(pid, &pidfd);
        }
        Self {
            pid,
            pidfd: Some(pidfd),
            parent,
            cgroup,
            suspended: None,
            status: None,
            reaped_at: None,
            looks: Looks::default(),
            let_go_by: None,
            names,
        }
    }

    /// A process that another created, and waited for.
    pub(crate) fn elsewhere(
        spawned: Spawned,
        held: Option<Arc<SessionHandle>>,
        suspended: bool,
        names: Names,
    ) -> Self {
        let parent = Parent::Elsewhere { process: spawned.process, held };
        let mut running = Self::new(spawned.pid, spawned.pidfd, parent, None, names);
        running.suspended = suspended.then_some(Suspended::Elsewhere);
        running
    }

    /// A process that an earlier run of the server created.
    pub(crate) fn adopt(pidfd: OwnedFd) -> Result<Self> {
        const DOING: &str = "adopting a process";
        let ids = as_server(|| crate::sys::client::ids(pidfd.as_fd()))
            .map_err(|source| Error::system(DOING, "ioctl(PIDFD_GET_INFO)", source))?;
        let pid = ids.and_then(|ids| Pid::from_raw(ids.pid.cast_signed())).ok_or_else(|| {
            let what = "the process has ended, or is not to be seen from here".into();
            Error::new(DOING, ErrorKind::ClientChanged { what })
        })?;
        let names = Names { doing: DOING.to_owned(), program: String::new(), directory: String::new() };
        Ok(Self::new(pid, pidfd, Parent::Server, None, names))
    }

    /// Waits for the first word of the trampoline, or for "executed".
    pub(crate) fn await_start(
        &mut self,
        report: OwnedFd,
        gate: Option<OwnedFd>,
        patience: Duration,
    ) -> Result<()> {
        let awaited = if gate.is_some() { Awaited::Gate } else { Awaited::Execution };
        match await_report(report, self.pidfd(), deadline_after(patience), awaited) {
            Ok(ReportOutcome::Executed) => Ok(()),
            Ok(ReportOutcome::Ready(report)) => {
                self.suspended = gate.map(|gate| Suspended::Here { gate, report, patience });
                Ok(())
            }
            Err(fault) => Err(self.failed(fault)),
        }
    }

    /// Waits for the end of a process that was created just now, and whose start nobody else waits for: the end
    /// alone wakes this thread. One that has not executed its program in time is ended.
    pub(crate) fn run_to_end(mut self, report: OwnedFd, patience: Duration) -> Result<ExitStatus> {
        let until = deadline_after(patience);
        let ended = self.reaped_by(until) || self.ended_by(Some(until))?;
        let started = if ended {
            report_of_ended(&report)
        } else {
            await_report(report, self.pidfd(), Instant::now(), Awaited::Execution).map(drop)
        };
        started.map_err(|fault| self.failed(fault))?;
        let status = if ended { self.collect(None) } else { self.wait(None) };
        let status = status.inspect_err(|_| {
            // The caller has nothing to end it by: a tracer in its own tree may be what holds it.
            let _ = self.kill_tree_by(reaping());
        })?;
        status.ok_or_else(|| Error::new(WAITING, ErrorKind::StatusLost))
    }

    /// Whether the session worker has reaped the process by then: one waking in place of two, where its end and its
    /// status are waited for. False at once where the kernel does not tell, or somebody else would have to reap it.
    fn reaped_by(&self, until: Instant) -> bool {
        let Parent::Worker(_) = self.parent else { return false };
        loop {
            match status::told_once_reaped(self.pidfd(), until.min(reaping())) {
                Ok(Some(_)) => return true,
                Ok(None) => {}
                Err(_) => return false,
            }
            // It may have ended, its worker be gone, and who has it now reap nobody.
            let now = Instant::now();
            if now >= until || status::ended_by(self.pidfd(), Some(now)) != Ok(false) {
                return false;
            }
        }
    }

    /// Lets a suspended process execute its program.
    pub(crate) fn resume(&mut self) -> Result<()> {
        let (gate, report, patience) = match (self.suspended.take(), &self.parent) {
            (Some(Suspended::Here { gate, report, patience }), _) => (gate, report, patience),
            (Some(Suspended::Elsewhere), Parent::Elsewhere { process, .. }) => return process.resume(),
            _ => return Ok(()),
        };
        as_server(|| {
            // A socket and not a pipe: writing to a pipe without readers would raise SIGPIPE in the server.
            match send(&gate, b"!", SendFlags::NOSIGNAL) {
                // It has ended: what it reported says why.
                Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {}
                Err(errno) => return Err(Error::system(RESUMING, "send", errno)),
            }
            drop(gate);
            match await_report(report, self.pidfd(), deadline_after(patience), Awaited::Execution) {
                Ok(_) => Ok(()),
                Err(fault) => Err(self.failed(fault)),
            }
        })
    }

    /// Makes sure that a process that did not start is gone, and says why it did not.
    fn failed(&mut self, fault: LaunchFault) -> Error {
        // Whatever it waits for; most often it has ended by itself.
        let _ = pidfd_send_signal(self.pidfd(), Signal::KILL);
        let until = reaping();
        // With job control its program is its child, and may run while the client has the process itself stopped, or has
        // killed it, before it could close its end of the report.
        if matches!(fault.stage, Stage::Deadline | Stage::Ended) {
            let _ = self.kill_tree_by(until);
        }
        let _ = self.wait(Some(until));
        self.names.error(fault)
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_ref().expect("only drop takes the pidfd away").as_fd()
    }

    /// When it is to be looked behind the pidfd, for who waits for that alone.
    #[cfg(feature = "tokio")]
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.looks.planned()
    }

    /// Whether it was seen to have ended while who traces it had not let go of it.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_held(&self) -> bool {
        self.let_go_by.is_some()
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.is_some()
    }

    /// Whether it has ended, also where its pidfd does not say so.
    pub(crate) fn has_ended(&self) -> bool {
        let over = || status::ended_by(self.pidfd(), Some(Instant::now())) == Ok(true);
        self.status.is_some() || over() || traced::has_ended(self.pid, self.pidfd())
    }

    /// Waits for the end, at most until `deadline`.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        abandoned::sweep();
        if self.status.is_some() {
            return Ok(self.status);
        }
        if self.ended_by(deadline)? { self.collect(deadline) } else { Ok(None) }
    }

    fn ended_by(&mut self, deadline: Option<Instant>) -> Result<bool> {
        let pidfd = self.pidfd.as_ref().expect("only drop takes the pidfd away").as_fd();
        traced::ended_by(self.pid, pidfd, &mut self.looks, deadline)
            .map_err(|errno| Error::system(WAITING, "poll", errno))
    }

    /// The exit status of a process that has ended; it is reaped then, and its cgroup removed. `None` where who traces it
    /// has not let go of it by the deadline.
    fn collect(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        // A debugger lets go of it at once, and a worker reaps it at once; one that does not must not hold the server.
        let give_up = *self.let_go_by.get_or_insert_with(reaping);
        // Before the status is taken: from then on the kernel may give the number away.
        let mut before = posix_session::ticks_since_boot();
        let collected = match &self.parent {
            Parent::Server => loop {
                let now = Instant::now();
                match status::collect(self.pidfd()) {
                    Ok(Collected::Running) if now < give_up => {}
                    collected => break collected,
                }
                if deadline.is_some_and(|deadline| now >= deadline) {
                    return Ok(None);
                }
                std::thread::sleep(Duration::from_millis(1));
                before = posix_session::ticks_since_boot();
            },
            Parent::Worker(child) => match child.status(self.pidfd(), give_up) {
                Some(raw) => Ok(Collected::Ended(ExitStatus::from_raw(raw))),
                // The worker is gone or never learned it; the kernel may know.
                None => status::collect_from_kernel(self.pidfd(), give_up),
            },
            // The kernel needs nobody's help to tell it, not even that of a service that lives.
            Parent::Elsewhere { process, .. } => match status::told_once_reaped(self.pidfd(), give_up) {
                Ok(Some(raw)) => Ok(Collected::Told(ExitStatus::from_raw(raw))),
                Ok(None) | Err(_) => match process.status() {
                    Ok(Some(raw)) => Ok(Collected::Ended(ExitStatus::from_raw(raw))),
                    Ok(None) | Err(_) => status::collect_from_kernel(self.pidfd(), give_up),
                },
            },
        }
        .map_err(|errno| Error::system(WAITING, "waitid", errno))?;
        match &mut self.parent {
            Parent::Worker(child) => child.let_go(),
            Parent::Elsewhere { held, .. } => *held = None,
            Parent::Server => {}
        }
        let status = match collected {
            Collected::Ended(status) => {
                self.reaped_at = Some(before);
                strays::ended(self.pid, before);
                status
            }
            Collected::Told(status) => {
                self.reaped_at = Some(LONG_AGO);
                strays::lost(self.pid);
                status
            }
            Collected::Running => {
                let waiting_for = HELD.into();
                return Err(Error::new(WAITING, ErrorKind::DeadlinePassed { waiting_for }));
            }
            // Somebody else has the status.
            Collected::Lost => {
                self.reaped_at = Some(LONG_AGO);
                strays::lost(self.pid);
                return Err(Error::new(WAITING, ErrorKind::StatusLost));
            }
        };
        self.status = Some(status);
        self.cgroup = self.cgroup.take().and_then(ProcessCgroup::remove);
        Ok(Some(status))
    }

    /// Sends a signal to the process itself.
    fn signal(&self, signal: i32, doing: &'static str) -> Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        if let Parent::Elsewhere { process, .. } = &self.parent {
            return process.signal(signal, false);
        }
        as_server(|| match status::send(self.pidfd(), signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(cannot_signal(doing, "pidfd_send_signal", errno)),
        })
    }

    /// Sends a signal to the process and its process group, which it leads.
    fn signal_group(&self, signal: i32, doing: &'static str) -> Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        if let Parent::Elsewhere { process, .. } = &self.parent {
            return process.signal(signal, true);
        }
        as_server(|| match status::send_to_group(self.pidfd(), signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            // Older than Linux 6.9: its members are found by their session, each pinned by a pidfd. The number of one that
            // others have reaped may be a stranger's.
            Err(Errno::INVAL) if self.leader_reaped_at().is_some() => Ok(()),
            Err(Errno::INVAL) => posix_session::signal_members(self.pid, signal)
                .map_err(|errno| cannot_signal(doing, "pidfd_send_signal", errno)),
            Err(errno) => Err(cannot_signal(doing, "pidfd_send_signal", errno)),
        })
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        // Its end is to be expected soon.
        self.looks = Looks::default();
        self.signal(Signal::KILL.as_raw(), ENDING)
    }

    pub(crate) fn kill_tree(&mut self) -> Result<()> {
        self.kill_tree_by(Instant::now() + posix_session::PATIENCE)
    }

    fn kill_tree_by(&mut self, until: Instant) -> Result<()> {
        as_server(|| {
            if let Some(cgroup) = &self.cgroup {
                let killed = cgroup.kill().map_err(|errno| match errno {
                    Errno::NOENT => Error::new(
                        ENDING,
                        ErrorKind::KernelTooOld { needs: "cgroup.kill (Linux 5.14)".into() },
                    ),
                    errno => cannot_signal(ENDING, "cgroup.kill", errno),
                });
                if let Parent::Worker(child) = &self.parent {
                    // What somebody has moved out of it, its worker may still know by descent.
                    let _ = child.kill_tree();
                }
                return killed;
            }
            match &self.parent {
                Parent::Worker(child) => child.kill_tree(),
                Parent::Elsewhere { process, .. } => process.kill_tree(),
                Parent::Server => {
                    let session = PosixSession { id: self.pid, leader_reaped_at: self.leader_reaped_at() };
                    match posix_session::kill_all(session, until) {
                        Ok(Outcome::NobodyLeft) => Ok(()),
                        // Strangers, or what is left of the tree: nobody can tell them apart any more.
                        Ok(Outcome::Unproven) => Err(Error::new(ENDING_TREE, ErrorKind::StatusLost)),
                        Ok(Outcome::StillSome) => {
                            let waiting_for = "the tree to stop creating processes".into();
                            Err(Error::new(ENDING, ErrorKind::DeadlinePassed { waiting_for }))
                        }
                        Err(errno) => Err(cannot_signal(ENDING, "pidfd_send_signal", errno)),
                    }
                }
            }
        })
    }

    /// The moment up to which the process's number was surely its own; `None` while it still is.
    fn leader_reaped_at(&self) -> Option<u64> {
        if self.reaped_at.is_some() {
            return self.reaped_at;
        }
        // The kernel hangs a pidfd up when the process has been reaped, by whomever (Linux 6.9).
        let mut fds = [PollFd::from_borrowed_fd(self.pidfd(), PollFlags::IN)];
        let ready = poll(&mut fds, Some(&status::timespec(Duration::ZERO))) != Ok(0);
        let hung_up = ready && fds[0].revents().contains(PollFlags::HUP);
        let silent = ready && !status::hangs_up(self.pidfd()) && !status::is_collectable(self.pidfd());
        // Reaped by others, nobody knows when: no member is proven to be the tree's.
        (hung_up || silent).then_some(LONG_AGO)
    }

    pub(crate) fn containment(&self) -> Containment {
        match (&self.cgroup, &self.parent) {
            (Some(_), _) => Containment::Cgroup,
            (None, Parent::Worker(_)) => Containment::SessionWorker,
            (None, Parent::Elsewhere { process, .. }) => process.containment(),
            (None, Parent::Server) => Containment::PosixSession,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(suspended) = self.suspended.take() {
            // At end of file the trampoline ends by itself; the signal is for one that the client has
            // stopped.
            drop(suspended);
            let _ = self.kill();
        }
        let mut pidfd = self.pidfd.take();
        // The worker reaps its own; ours is left to be reaped unless it was.
        if !matches!(self.parent, Parent::Server) || self.status.is_some() {
            pidfd = None;
        }
        abandoned::leave(Remains::of_client(self.pid, pidfd, self.cgroup.take()));
    }
}

/// Sends a signal to the process itself.
pub(crate) fn send_signal(running: &Running, signal: i32) -> Result<()> {
    running.signal(signal, "signalling a process")
}

/// Sends a signal to the process and its process group.
pub(crate) fn send_signal_to_group(running: &Running, signal: i32) -> Result<()> {
    running.signal_group(signal, "signalling a group of processes")
}

fn deadline_after(patience: Duration) -> Instant {
    let now = Instant::now();
    // A duration that the clock cannot count is as good as a century.
    now.checked_add(patience).unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 24 * 3600))
}

fn cannot_signal(doing: &'static str, call: &'static str, errno: Errno) -> Error {
    if errno != Errno::PERM {
        return Error::system(doing, call, errno);
    }
    let held = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.permitted.contains(rustix::thread::CapabilitySet::KILL));
    let kind = ErrorKind::PrivilegeMissing {
        privilege: Privilege::AssignPrimaryToken,
        missing: "CAP_KILL".into(),
        held,
        enabled: false,
    };
    Error::new(doing, kind).with_source(errno)
}

#[cfg(test)]
mod tests;
