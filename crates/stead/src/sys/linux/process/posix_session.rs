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

/// How long the tree may go on creating processes, and one that was killed not end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for one that it has killed before it looks at all of them again.
const ROUND: Duration = Duration::from_millis(100);
/// How long for descriptors, where the server has none left.
const FULL: Duration = Duration::from_millis(5);

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

/// Sends SIGKILL to all members of the session until there are none, or it is given up.
///
/// Only by pidfd: the descriptor is opened, then the session id is read. If the signal still reaches
/// the process, the id was read from that very process; had it gone and its number been given
/// away, the signal would fail.
///
/// One descriptor at a time: a tree has as many processes as its user may have, and the server needs its descriptors.
pub(crate) fn kill_all(session: PosixSession, give_up: Instant) -> Result<Outcome, Errno> {
    let mut proven = session.leader_reaped_at.is_none();
    let mut again = false;
    loop {
        let (mut killed, mut full) = (None, None);
        let mut members = members(session.id).or_else(|errno| {
            full = Some(is_full(errno)?);
            Ok(Vec::new())
        })?;
        // The leader first: it must not see its children end, and end well.
        members.sort_unstable_by_key(|pid| *pid != session.id);
        proven = proven
            || members.iter().any(|pid| {
                start_time(*pid).zip(session.leader_reaped_at).is_some_and(|(start, end)| start <= end)
            });
        if !proven && !members.is_empty() {
            return Ok(Outcome::Unproven);
        }
        for pid in members {
            match kill_member(session.id, pid, again) {
                Ok(pidfd) => killed = pidfd.or(killed),
                Err(errno) => full = Some(is_full(errno)?),
            }
        }
        let now = Instant::now();
        match (killed, full) {
            (None, None) => return Ok(Outcome::NobodyLeft),
            (_, Some(errno)) if now >= give_up => return Err(errno),
            (Some(_), None) if now >= give_up => return Ok(Outcome::StillSome),
            // They end when they are next scheduled; one inside a file system that hangs, not before that lets go of it.
            (Some(pidfd), _) => {
                ended_by(pidfd.as_fd(), Some(give_up.min(now + ROUND)))?;
            }
            (None, Some(_)) => std::thread::sleep(FULL),
        }
        again = true;
    }
}

/// What goes by: there are no descriptors at the moment.
fn is_full(errno: Errno) -> Result<Errno, Errno> {
    if matches!(errno, Errno::MFILE | Errno::NFILE) { Ok(errno) } else { Err(errno) }
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

/// One of the session's members that live, if any does.
pub(crate) fn living_member(session: Pid) -> Result<Option<(Pid, OwnedFd)>, Errno> {
    for pid in members(session)? {
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Opened first and asked then: an answer is that very process's.
            Ok(pidfd)
                if session_of(pid) == Some(session)
                    && !ended_by(pidfd.as_fd(), Some(Instant::now()))?
                    && !has_ended(pid, pidfd.as_fd()) =>
            {
                return Ok(Some((pid, pidfd)));
            }
            Ok(_) | Err(Errno::SRCH | Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
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
        assert_eq!(kill_all(gone, Instant::now()), Ok(Outcome::Unproven));
    }
}
