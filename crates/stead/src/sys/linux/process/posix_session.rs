//! Ending every process of a POSIX session: what `kill_tree` reaches where there is neither cgroup nor
//! worker.
//!
//! A process that called setsid(2) itself has left the session and is not reached.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::status::ended_by;
use super::traced::has_ended;
use crate::sys::proc;

/// How often the process table is read again for processes that were created meanwhile.
const ROUNDS: usize = 100;
/// How long a round waits for those it has killed.
const ROUND: Duration = Duration::from_millis(100);

/// The session that one of our children began: its id is that child's pid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PosixSession {
    /// The session's id.
    pub(crate) id: Pid,
    /// When its leader was known to be unreaped for the last time, in clock ticks since boot; `None` as
    /// long as it is.
    ///
    /// A session's id stays taken while any member of it lives, so members that are older than the
    /// leader's end prove that the id still means the same session. Without such a member the
    /// number may have gone to strangers, and nobody is touched.
    pub(crate) leader_reaped_at: Option<u64>,
}

/// What came of ending a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The session has no living member.
    NobodyLeft,
    /// There are processes under its number that may be strangers; they were left alone.
    Unproven,
    /// It still has members after many rounds.
    StillSome,
}

/// Sends SIGKILL to all members of the session until there are none.
///
/// Only by pidfd: the descriptor is opened, then the session id is read. If the signal still reaches
/// the process, the id was read from that very process; had it gone and its number been given
/// away, the signal would fail.
pub(crate) fn kill_all(session: PosixSession) -> Result<Outcome, Errno> {
    let mut proven = session.leader_reaped_at.is_none();
    for round in 0..ROUNDS {
        let mut members: Vec<Pid> = members(session.id)?;
        // The leader first: it must not see its children end, and end well.
        members.sort_unstable_by_key(|pid| *pid != session.id);
        proven = proven
            || members.iter().any(|pid| {
                start_time(*pid).zip(session.leader_reaped_at).is_some_and(|(start, end)| start <= end)
            });
        if !proven && !members.is_empty() {
            return Ok(Outcome::Unproven);
        }
        let mut signalled = Vec::new();
        for pid in members {
            signalled.extend(kill_member(session.id, pid, round > 0)?);
        }
        if signalled.is_empty() {
            return Ok(Outcome::NobodyLeft);
        }
        // They end when they are next scheduled; one inside a file system that hangs, not before that lets
        // go of it.
        let patience = Instant::now() + ROUND;
        for pidfd in signalled {
            ended_by(pidfd.as_fd(), Some(patience))?;
        }
    }
    Ok(Outcome::StillSome)
}

/// Sends a signal to the members of the group that the session's leader `id` leads, on kernels where a pidfd
/// cannot stand for its group.
///
/// While the leader has not been reaped, its number is no other group's.
pub(crate) fn signal_members(id: Pid, signal: i32) -> Result<(), Errno> {
    for pid in members(id)? {
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH | Errno::INVAL) => continue,
            Err(errno) => return Err(errno),
        };
        if session_of(pid) == Some(id) && rustix::process::getpgid(Some(pid)) == Ok(id) {
            match super::status::send(pidfd.as_fd(), signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// Kills one process if it (still) is a living member; its pidfd if it was. One that was killed before may have ended
/// without its pidfd saying so.
fn kill_member(session: Pid, pid: Pid, again: bool) -> Result<Option<OwnedFd>, Errno> {
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // EINVAL: not a thread group's leader any more.
        Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let is_member = session_of(pid) == Some(session);
    if !is_member
        || ended_by(pidfd.as_fd(), Some(Instant::now()))?
        || (again && has_ended(pid, pidfd.as_fd()))
    {
        return Ok(None);
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) => Ok(Some(pidfd)),
        Err(Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The processes that say they belong to the session now.
fn members(session: Pid) -> Result<Vec<Pid>, Errno> {
    let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut found = HashSet::new();
    for entry in fs::read_dir("/proc").map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|pid| session_of(*pid) == Some(session)) {
            found.insert(pid);
        }
    }
    Ok(found.into_iter().collect())
}

/// The session's members that live.
pub(crate) fn session_members(session: Pid) -> Result<Vec<(Pid, OwnedFd)>, Errno> {
    let mut found = Vec::new();
    for pid in members(session)? {
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Opened first and asked then: an answer is that very process's.
            Ok(pidfd)
                if session_of(pid) == Some(session)
                    && !ended_by(pidfd.as_fd(), Some(Instant::now()))?
                    && !has_ended(pid, pidfd.as_fd()) =>
            {
                found.push((pid, pidfd));
            }
            Ok(_) | Err(Errno::SRCH | Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

/// The session of a process; `None` for one that is gone, and for one whose session has no number here:
/// kernel threads, and processes that came in from an outer PID namespace.
pub(crate) fn session_of(pid: Pid) -> Option<Pid> {
    // SAFETY: getsid takes a number and touches no memory. (rustix's takes the answer 0 for impossible.)
    Pid::from_raw(unsafe { libc::getsid(pid.as_raw_nonzero().get()) }.max(0))
}

/// When a process started, in clock ticks since boot.
pub(crate) fn start_time(pid: Pid) -> Option<u64> {
    proc::parse_start_time(&fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

/// As libc has it from the program's start. Before Linux 6.4 rustix opens a file of `/proc` for it, which a thread that
/// impersonates may not, and panics.
fn ticks_per_second() -> u64 {
    // SAFETY: sysconf takes a number and touches no memory of ours.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100)
}

/// Now, in the unit of [`start_time`].
pub(crate) fn ticks_since_boot() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let per_second = ticks_per_second();
    let nanoseconds_per_tick = 1_000_000_000 / per_second.max(1);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * per_second + nanoseconds / nanoseconds_per_tick.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_cannot_have_started_after_now() {
        let own = start_time(rustix::process::getpid()).unwrap();
        let now = ticks_since_boot();
        assert!(own <= now, "{own} {now}");
        assert!(now - own < 3600 * ticks_per_second(), "{own} {now}");
    }

    #[test]
    fn a_session_whose_number_may_have_been_given_away_is_left_alone() {
        // Our own session, declared long gone: had anything been killed, it would have been us.
        let Some(id) = session_of(rustix::process::getpid()) else { return };
        let gone = PosixSession { id, leader_reaped_at: Some(0) };
        assert_eq!(kill_all(gone), Ok(Outcome::Unproven));
    }
}
