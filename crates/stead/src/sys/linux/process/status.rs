//! The end of a process, waited for and collected by its pidfd alone.
//!
//! Never `waitpid(-1)`, which takes other code's children, and never a pid, which may be another
//! process by now (CVE-2017-2616).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};

/// What is known of a direct child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collected {
    /// It runs; or it has ended, and another process that traces it has not let go of it yet.
    Running,
    /// It has ended so, and was reaped just now.
    Ended(ExitStatus),
    /// It has ended so, and was reaped by somebody else some time ago.
    Told(ExitStatus),
    /// It has ended, somebody else reaped it, and the kernel does not tell how it ended.
    Lost,
}

/// Waits until the process has ended; false when the deadline came first.
pub(crate) fn ended_by(pidfd: BorrowedFd<'_>, deadline: Option<Instant>) -> Result<bool, Errno> {
    loop {
        let timeout = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno),
        }
    }
}

/// A duration for the kernel; one too long for it is as good as for ever.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    let tv_sec = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 2);
    Timespec { tv_sec, tv_nsec: i64::from(duration.subsec_nanos()) }
}

/// Collects the status of a child of this process, if it has ended.
pub(crate) fn collect(pidfd: BorrowedFd<'_>) -> Result<Collected, Errno> {
    loop {
        return match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(None) => Ok(Collected::Running),
            Ok(Some(status)) => match status_of(&status) {
                Some(status) => Ok(Collected::Ended(status)),
                // By PTRACE_TRACEME a child makes its parent its tracer, and the kernel tells a tracer of stops, too, whatever
                // it asks for (`wait_task_stopped`, kernel/exit.c); of each once.
                None => continue,
            },
            Err(Errno::INTR) => continue,
            // Reaped by another thread's waitpid(-1), or by the kernel because SIGCHLD is ignored.
            Err(Errno::CHILD) => collect_from_kernel(pidfd, Instant::now() + RELEASE),
            Err(errno) => Err(errno),
        };
    }
}

/// Whether a process that has ended is a child of this one, and nobody has reaped it.
pub(crate) fn is_collectable(pidfd: BorrowedFd<'_>) -> bool {
    waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)
        .is_ok()
}

/// Whether the kernel hangs a pidfd up when its process is reaped: it does where pidfds have a file system.
pub(crate) fn hangs_up(pidfd: BorrowedFd<'_>) -> bool {
    /// `PID_FS_MAGIC` (linux/magic.h).
    const PIDFS: i64 = 0x5049_4446;
    rustix::fs::fstatfs(pidfd).is_ok_and(|found| found.f_type == PIDFS)
}

/// Whether this is an end, and not a stop of a process that is traced.
pub(crate) fn is_end(status: &WaitIdStatus) -> bool {
    status_of(status).is_some()
}

fn status_of(status: &WaitIdStatus) -> Option<ExitStatus> {
    // The encoding of wait(2): the exit code in the second byte, the signal in the first, 0x80 for a core
    // dump.
    let raw = if let Some(code) = status.exit_status() {
        (code & 0xff) << 8
    } else {
        status.terminating_signal()? | if status.dumped() { 0x80 } else { 0 }
    };
    Some(ExitStatus::from_raw(raw))
}

/// How long another reaper may take from taking the child to having released it.
const RELEASE: Duration = Duration::from_secs(1);

/// Asks the kernel how a process that is no longer our child ended (Linux 6.15).
pub(crate) fn collect_from_kernel(pidfd: BorrowedFd<'_>, give_up: Instant) -> Result<Collected, Errno> {
    loop {
        match exit_info(pidfd) {
            Ok(Some(raw)) => return Ok(Collected::Told(ExitStatus::from_raw(raw))),
            // Linux 6.13 to 6.14 say ESRCH for a reaped process, older ones do not know the call.
            Err(Errno::SRCH | Errno::NOTTY | Errno::INVAL) => break,
            // Nobody has reaped it: who could, does not yet.
            Ok(None) if Instant::now() >= give_up => return Ok(Collected::Running),
            Ok(None) => {}
            Err(errno) => return Err(errno),
        }
        // Not released yet: still running (then it never was our child), or in another reaper's hands.
        if !ended_by(pidfd, Some(Instant::now()))? {
            return Ok(Collected::Running);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(if ended_by(pidfd, Some(Instant::now()))? { Collected::Lost } else { Collected::Running })
}

/// How a process ended that is another's child, as the kernel tells it from the moment that it was reaped; `None` where
/// nobody has reaped it by `until`.
///
/// # Errors
///
/// Where the kernel does not tell (before Linux 6.15).
pub(crate) fn told_once_reaped(pidfd: BorrowedFd<'_>, until: Instant) -> Result<Option<i32>, Errno> {
    loop {
        if let Some(raw) = exit_info(pidfd)? {
            return Ok(Some(raw));
        }
        // Nothing asked for: the end alone wakes nobody here, only that it is reaped and hung up (Linux 6.9).
        let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::empty())];
        let left = until.saturating_duration_since(Instant::now());
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) if left.is_zero() => return Ok(None),
            Ok(0) | Err(Errno::INTR) => {}
            // What is kept of it was written before.
            Ok(_) => return exit_info(pidfd),
            Err(errno) => return Err(errno),
        }
    }
}

/// The wait status that the kernel keeps for the holders of a pidfd after the process was reaped.
fn exit_info(pidfd: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    // SAFETY: `pidfd_info` consists of integers only, for which all bits zero is a value.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: the kernel writes at most the size that is encoded in the request, which is that of
    // `pidfd_info`, into a value that we own for the duration of the call; every bit pattern is a valid
    // `pidfd_info`.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    if result < 0 {
        return Err(last_errno());
    }
    let told = info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0;
    Ok(told.then_some(info.exit_code))
}

/// Sends the signal with this number, realtime ones included.
pub(crate) fn send(pidfd: BorrowedFd<'_>, raw: i32) -> Result<(), Errno> {
    // SAFETY: the number only travels to the kernel, which checks it; no handler of this process is
    // concerned, which is what numbers reserved by libc could harm.
    let signal = unsafe { rustix::process::Signal::from_raw_unchecked(raw) };
    rustix::process::pidfd_send_signal(pidfd, signal)
}

/// Sends the signal to the process and to every process of the group that it leads or is in (Linux 6.9).
pub(crate) fn send_to_group(pidfd: BorrowedFd<'_>, raw: i32) -> Result<(), Errno> {
    /// `PIDFD_SIGNAL_PROCESS_GROUP` (include/uapi/linux/pidfd.h).
    const PROCESS_GROUP: libc::c_uint = 1 << 2;
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the kernel makes the information up itself where none is given; the rest is numbers.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), raw, none, PROCESS_GROUP) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

fn last_errno() -> Errno {
    let raw = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Errno::from_raw_os_error(raw)
}
