//! A process of which nothing is left but what a tracer has not let go of.
//!
//! A thread that is traced stays when it has ended, until its tracer has waited for it; and while one of its threads
//! stays, a process is not over for the kernel: its pidfd is silent and its parent can collect nothing, whatever signal it
//! was sent (`thread_group_exited`, `delay_group_leader`; kernel/exit.c). Who the tracer is, the client chooses: another
//! process of its own, or, by PTRACE_TRACEME on a second thread, the very process that waits here. So who waits looks
//! behind a pidfd that has been silent for a while, in `/proc`.
#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::status;
use crate::sys::proc::{self, Status};

/// How long a pidfd has been silent when it is looked behind for the first time.
const FIRST: Duration = Duration::from_millis(100);
/// How long at most until it is looked again: each time twice as long as the time before.
const LAST: Duration = Duration::from_secs(10);

/// When it is looked behind a pidfd: reading `/proc` costs ten times what asking the pidfd does.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    next: Option<Instant>,
    pause: Duration,
}

impl Looks {
    fn next(&mut self) -> Instant {
        *self.next.get_or_insert_with(|| Instant::now() + FIRST)
    }

    fn looked(&mut self, now: Instant) {
        self.pause = (2 * self.pause).clamp(FIRST, LAST);
        self.next = Some(now + self.pause);
    }

    /// When the next look is, once there has been something to wait for.
    #[cfg(feature = "tokio")]
    pub(crate) fn planned(&self) -> Option<Instant> {
        self.next
    }

    /// Whether it is time to look, for who comes by now and then.
    pub(crate) fn are_due(&mut self) -> bool {
        let (next, now) = (self.next(), Instant::now());
        if now >= next {
            self.looked(now);
        }
        now >= next
    }
}

/// Waits until the process has ended, also where its pidfd does not say so; false when the deadline came first.
pub(crate) fn ended_by(
    pid: Pid,
    pidfd: BorrowedFd<'_>,
    looks: &mut Looks,
    deadline: Option<Instant>,
) -> Result<bool, Errno> {
    loop {
        let look = looks.next();
        let until = deadline.map_or(look, |deadline| deadline.min(look));
        if status::ended_by(pidfd, Some(until))? {
            return Ok(true);
        }
        let now = Instant::now();
        if now >= look {
            if has_ended(pid, pidfd) {
                return Ok(true);
            }
            looks.looked(now);
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            return Ok(false);
        }
    }
}

/// Whether no thread of the process lives. Those that this process traces are reaped, upon which the pidfd says it, too.
///
/// `pid` is the number of the process that `pidfd` is of, for as long as that has not been reaped.
pub(crate) fn has_ended(pid: Pid, pidfd: BorrowedFd<'_>) -> bool {
    let whole = format!("/proc/{pid}");
    if !status_of(&whole).is_some_and(|first| first.is_dead()) {
        return false;
    }
    // The first thread alone proves nothing: a program can end it and go on.
    let Ok(threads) = fs::read_dir(format!("{whole}/task")) else { return false };
    let mut dead = Vec::new();
    for thread in threads {
        let Ok(thread) = thread else { return false };
        let Some(number) = thread.file_name().to_str().and_then(|name| name.parse().ok()) else {
            return false;
        };
        let Some(number) = Pid::from_raw(number).filter(|number| *number != pid) else { continue };
        if !reap_traced(number) {
            let folder = format!("{whole}/task/{number}");
            match status_of(&folder) {
                Some(one) if one.is_dead() => dead.push(folder),
                Some(_) => return false,
                // Gone by now.
                None => {}
            }
        }
    }
    // A list of threads ends early where one of them goes, and one that was seen dead may be gone by now, and another in its
    // place: the kernel has to count as many, and all of those have to be there still.
    let all = status_of(&whole).is_some_and(|first| first.is_dead() && first.threads == 1 + dead.len())
        && dead.iter().all(|folder| status_of(folder).is_some_and(|one| one.is_dead()));
    // What was read is of that process if it has not been reaped; and if it has, it has ended.
    all || status::ended_by(pidfd, Some(Instant::now())) == Ok(true)
}

/// Reaps a thread that this process traces, if it has ended.
///
/// Nothing else has the number while the thread has. Should the thread be reaped by other code in this very moment, and
/// the number be given away, then `__WCLONE` leaves alone who has it: of what is not traced it only takes children whose
/// end raises another signal than SIGCHLD.
fn reap_traced(thread: Pid) -> bool {
    const WCLONE: u32 = libc::__WCLONE.cast_unsigned();
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::from_bits_retain(WCLONE);
    loop {
        return match waitid(WaitId::Pid(thread), options) {
            Ok(Some(found)) => status::is_end(&found),
            Err(Errno::INTR) => continue,
            Ok(None) | Err(_) => false,
        };
    }
}

fn status_of(folder: &str) -> Option<Status> {
    proc::parse_status(&fs::read(format!("{folder}/status")).ok()?)
}
