//! Waiting for the trampoline's report, and what it means.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use stead_trampoline::report::{Report, Step, default, executing, why};
use stead_trampoline::syscall::capabilities;

use super::image::NOWHERE_TO_EXECUTE;
use super::known;
use crate::error::{Error, ErrorKind, ProgramFault};
use crate::privilege::Privilege;
use crate::process::Stage;
use crate::sys::token::{Capability, CapabilitySet};
use crate::sys::{privilege, proc};

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

/// A fault before there was a child.
pub(super) fn prepare(errno: Errno) -> LaunchFault {
    LaunchFault { stage: Stage::Prepare, errno, detail: 0 }
}

/// The public name of a step.
pub(super) fn stage_of(step: Step) -> Stage {
    match step {
        Step::Place => Stage::Place,
        Step::Raise => Stage::Raise,
        Step::Trampoline => Stage::Trampoline,
        Step::Arguments => Stage::Arguments,
        Step::Descriptors => Stage::Descriptors,
        Step::Session => Stage::Session,
        Step::Terminal => Stage::Terminal,
        Step::Defaults => Stage::Defaults,
        Step::Nice => Stage::Nice,
        Step::OomScore => Stage::OomScore,
        Step::Limits => Stage::Limits,
        Step::Keyring => Stage::Keyring,
        Step::LoginUid => Stage::LoginUid,
        Step::Shield => Stage::Shield,
        Step::BoundingSet => Stage::BoundingSet,
        Step::SecureBits => Stage::SecureBits,
        Step::Groups => Stage::Groups,
        Step::GroupId => Stage::GroupId,
        Step::UserId => Stage::UserId,
        Step::Capabilities => Stage::Capabilities,
        Step::Ambient => Stage::Ambient,
        Step::NoNewPrivileges => Stage::NoNewPrivileges,
        Step::ReadBack => Stage::ReadBack,
        Step::Regain => Stage::Regain,
        Step::ExecLabel => Stage::ExecLabel,
        Step::Directory => Stage::Directory,
        Step::Signals => Stage::Signals,
        Step::Ready | Step::Gate => Stage::Gate,
        Step::Supervise => Stage::Supervise,
        Step::Executing | Step::Execute => Stage::Execute,
    }
}

impl LaunchFault {
    /// The error that says so: `doing` as a phrase, the program and the directory as the server named them.
    pub(crate) fn into_error(
        self,
        doing: impl Into<Cow<'static, str>>,
        program: &str,
        directory: &str,
    ) -> Error {
        let kind = match self.stage {
            Stage::Deadline => ErrorKind::DeadlinePassed { waiting_for: "the new process to start".into() },
            Stage::Directory => ErrorKind::DirectoryUnusable { directory: directory.to_owned() },
            Stage::Execute => self.program_fault(program),
            // The kernel measures arguments and environment when the trampoline is executed with them.
            Stage::Trampoline if self.errno == Errno::TOOBIG => ErrorKind::ProgramUnusable {
                program: program.to_owned(),
                why: ProgramFault::ArgumentsTooLong,
            },
            Stage::Prepare if self.detail == NOWHERE_TO_EXECUTE => ErrorKind::TrampolineUnavailable,
            Stage::Cgroup if self.errno == Errno::NOSYS => {
                ErrorKind::KernelTooOld { needs: "clone3 with CLONE_INTO_CGROUP (Linux 5.7)".into() }
            }
            Stage::Place | Stage::Descriptors if self.errno == Errno::NOSYS => {
                ErrorKind::KernelTooOld { needs: "close_range (Linux 5.9)".into() }
            }
            _ => self
                .limit()
                .or_else(|| self.missing_privilege())
                .unwrap_or(ErrorKind::SpawnFailed { stage: self.stage }),
        };
        let mut doing = doing.into();
        if matches!(kind, ErrorKind::PrivilegeMissing { .. }) && self.is_of_scheduling() {
            doing = format!("{doing}: giving the process the nice value 0, and not the server's").into();
        }
        Error::new(doing, kind).with_source(self.errno)
    }

    fn is_of_scheduling(self) -> bool {
        self.stage == Stage::Defaults && self.detail == default::SCHEDULING
    }

    fn program_fault(self, program: &str) -> ErrorKind {
        let program = program.to_owned();
        let why = match self.detail {
            why::NOT_FOUND => return ErrorKind::ProgramNotFound { program },
            why::PROCESS_LIMIT => {
                return ErrorKind::LimitReached { limit: "processes of the user (RLIMIT_NPROC)".into() };
            }
            why::DIRECTORY => ProgramFault::IsDirectory,
            why::NOT_REGULAR => ProgramFault::NotRegular,
            why::NOT_PERMITTED => ProgramFault::NotPermitted,
            why::INTERPRETER_MISSING | why::INTERPRETER_DENIED => ProgramFault::InterpreterUnusable,
            why::BAD_FORMAT => ProgramFault::BadFormat,
            why::BUSY => ProgramFault::Busy,
            why::TOO_LONG => ProgramFault::ArgumentsTooLong,
            why::PINNED_SCRIPT => ProgramFault::PinnedScript,
            _ => return ErrorKind::SpawnFailed { stage: self.stage },
        };
        ErrorKind::ProgramUnusable { program, why }
    }

    fn limit(self) -> Option<ErrorKind> {
        let limit = match (self.stage, self.errno) {
            (Stage::Clone, Errno::AGAIN) if has_deadlines() => {
                "a thread under SCHED_DEADLINE creates no process without SCHED_FLAG_RESET_ON_FORK (sched(7))"
            }
            (Stage::Clone, Errno::AGAIN) => "processes (RLIMIT_NPROC, pids.max or kernel.pid_max)",
            (Stage::Keyring, Errno::DQUOT) => "keys of the server's user (kernel.keys)",
            // A number that is not below the limit is no descriptor for the kernel.
            (Stage::Place, Errno::BADF | Errno::INVAL) | (_, Errno::MFILE) => {
                "open files of the process (RLIMIT_NOFILE)"
            }
            (_, Errno::NFILE) => "open files of the system (fs.file-max)",
            (_, Errno::TOOMANYREFS) => "descriptors on their way (RLIMIT_NOFILE)",
            (_, Errno::NOMEM) => "memory",
            _ => return None,
        };
        Some(ErrorKind::LimitReached { limit: limit.into() })
    }

    /// The privilege that the step takes, if the system refused it and the server has it not enabled.
    fn missing_privilege(self) -> Option<ErrorKind> {
        if !matches!(self.errno, Errno::PERM | Errno::ACCESS) {
            return None;
        }
        let (capability, right) = match self.stage {
            Stage::Groups | Stage::GroupId => (Capability::Setgid, Privilege::AssignPrimaryToken),
            Stage::UserId => (Capability::Setuid, Privilege::AssignPrimaryToken),
            Stage::BoundingSet | Stage::SecureBits | Stage::Capabilities => {
                (Capability::Setpcap, Privilege::AssignPrimaryToken)
            }
            Stage::Limits | Stage::OomScore => (Capability::SysResource, Privilege::IncreaseQuota),
            Stage::Defaults if self.detail == default::OOM_SCORE => {
                (Capability::SysResource, Privilege::IncreaseQuota)
            }
            Stage::Nice => (Capability::SysNice, Privilege::IncreaseQuota),
            Stage::Defaults if self.is_of_scheduling() => (Capability::SysNice, Privilege::IncreaseQuota),
            Stage::LoginUid => (Capability::AuditControl, Privilege::Logon),
            _ => return None,
        };
        let now = capabilities().ok()?;
        let counts = |set| privilege::counting(CapabilitySet::from_bits(set)).contains(capability);
        let (held, enabled) = (counts(now.permitted), counts(now.effective));
        let missing = privilege::missing_name(capability);
        (!enabled).then_some(ErrorKind::PrivilegeMissing { privilege: right, missing, held, enabled })
    }
}

/// Whether the calling thread is scheduled by deadlines.
fn has_deadlines() -> bool {
    const SCHED_DEADLINE: u64 = 6;
    let stat = std::fs::read("/proc/thread-self/stat").unwrap_or_default();
    proc::parse_policy(&stat) == Some(SCHED_DEADLINE)
}

/// A report pipe: the server's reading end and the child's writing end.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// That the program is executed. Only the end of the report wakes the caller, once.
    Execution,
    /// That the process stands at its gate; or that it was executed, where there is none.
    Gate,
}

/// Waits for the report until the deadline; a process that has not reported by then is killed.
///
/// Never blocks on anything that the client can stop. After a fault the process has ended or is about
/// to; the caller still has to collect it.
pub(crate) fn await_report(
    report: OwnedFd,
    pidfd: BorrowedFd<'_>,
    deadline: Instant,
    awaited: Awaited,
) -> Result<ReportOutcome, LaunchFault> {
    let mut executing = false;
    loop {
        let ended = wait(&report, pidfd, deadline, awaited)?;
        match hear(&report, ended, &mut executing)? {
            Some(Heard::Executed) => return Ok(ReportOutcome::Executed),
            Some(Heard::Ready) => return Ok(ReportOutcome::Ready(report)),
            None => {}
        }
    }
}

/// What a process that has ended, and was not suspended, had reported: that its program was executed, or why not.
pub(crate) fn report_of_ended(report: &OwnedFd) -> Result<(), LaunchFault> {
    hear(report, true, &mut false).map(drop)
}

/// What the words on the pipe come to.
enum Heard {
    Executed,
    Ready,
}

/// Everything that has been said, one word after the other; `None` where that is not all yet.
fn hear(report: &OwnedFd, ended: bool, executing: &mut bool) -> Result<Option<Heard>, LaunchFault> {
    loop {
        match next(report)? {
            Word::Said(Report { step: Step::Executing, detail, .. }) => {
                *executing = true;
                if detail == executing::LEAST_SCORE_IS_ZERO {
                    known::least_score_is_zero();
                }
            }
            Word::Said(Report { step: Step::Ready, .. }) => return Ok(Some(Heard::Ready)),
            Word::Said(Report { step, errno, detail }) => {
                return Err(LaunchFault { stage: stage_of(step), errno: raw(errno), detail });
            }
            Word::EndOfFile if *executing => return Ok(Some(Heard::Executed)),
            // Somebody else of the server holds the pipe open, in a child of his own on its way to
            // execve: the process itself says nothing any more.
            Word::Nothing if ended && *executing => return Ok(Some(Heard::Executed)),
            Word::Nothing if !ended => return Ok(None),
            Word::EndOfFile | Word::Nothing => {
                return Err(LaunchFault { stage: Stage::Ended, errno: Errno::SRCH, detail: 0 });
            }
        }
    }
}

/// One thing heard.
enum Word {
    Said(Report),
    EndOfFile,
    Nothing,
}

/// Waits until there is something to be heard, or the process has ended: then `true`.
fn wait(
    report: &OwnedFd,
    pidfd: BorrowedFd<'_>,
    deadline: Instant,
    awaited: Awaited,
) -> Result<bool, LaunchFault> {
    // Nothing asked for still tells the end. A word in between would wake this thread for nothing.
    let interest = match awaited {
        Awaited::Execution => PollFlags::empty(),
        Awaited::Gate => PollFlags::IN,
    };
    let ended = |errno| LaunchFault { stage: Stage::Ended, errno, detail: 0 };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut watched =
            [PollFd::new(report, interest), PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut watched, Some(&timespec(left))) {
            Ok(0) if left.is_zero() => {
                // It may be the client's by now, whom only CAP_KILL ends; where that is missing the
                // caller still has the pidfd and the error.
                let _ = pidfd_send_signal(pidfd, Signal::KILL);
                return Err(LaunchFault { stage: Stage::Deadline, errno: Errno::TIMEDOUT, detail: 0 });
            }
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => {
                // What has been said comes first: a process that has ended may have said why.
                let heard = !watched[0].revents().is_empty();
                return Ok(!heard && !watched[1].revents().is_empty());
            }
            Err(errno) => return Err(ended(errno)),
        }
    }
}

fn next(report: &OwnedFd) -> Result<Word, LaunchFault> {
    let bad = |errno| LaunchFault { stage: Stage::Ended, errno, detail: 0 };
    let mut record = [0; Report::SIZE];
    loop {
        return match rustix::io::read(report, &mut record) {
            Ok(0) => Ok(Word::EndOfFile),
            Ok(Report::SIZE) => Report::decode(record).map(Word::Said).ok_or(bad(Errno::BADMSG)),
            Ok(_) => Err(bad(Errno::BADMSG)),
            Err(Errno::AGAIN) => Ok(Word::Nothing),
            Err(Errno::INTR) => continue,
            Err(errno) => Err(bad(errno)),
        };
    }
}

/// The error of this number, where another process names it: a faulty report must not become a panic.
pub(crate) fn raw(errno: i32) -> Errno {
    if (1..4096).contains(&errno) { Errno::from_raw_os_error(errno) } else { Errno::IO }
}

fn timespec(left: Duration) -> Timespec {
    Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}
