//! What is left to collect when a `Child` was dropped: the exit status of a process that still runs, and
//! its cgroup; and what nobody has made but a client's program ([`strays`]).
//!
//! The kernel keeps a zombie until its parent asks. A handler of SIGCHLD or a `waitpid(-1)` would ask for
//! other code's children too, and a thread of our own would be global state of the server; so what is left
//! is looked through whenever the library creates or waits for a process, a bounded number at a time.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::cgroup::ProcessCgroup;
use super::posix_session::ticks_since_boot;
use super::status::{Collected, collect, ended_by};
use super::strays;
use super::traced::{Looks, has_ended};

/// How many are looked at in one go, so that many long-lived processes do not make every spawn slow.
const AT_ONCE: usize = 32;

/// How long the kernel may take to end a process that was killed.
const DYING: Duration = Duration::from_secs(2);

/// The rest of one child.
#[derive(Debug)]
pub(crate) struct Remains {
    /// Its pidfd, as long as its status has not been collected.
    pidfd: Option<Arc<OwnedFd>>,
    /// Its number, where its program is a client's: whether it has ended its pidfd alone need not say.
    client: Option<(Pid, Looks)>,
    /// Its cgroup, as long as it exists.
    cgroup: Option<ProcessCgroup>,
}

static REMAINS: Mutex<VecDeque<Remains>> = Mutex::new(VecDeque::new());

/// Collects what can be collected now, and keeps the rest for later.
pub(crate) fn leave(remains: Remains) {
    if let Some(remains) = remains.collect() {
        lock().push_back(remains);
    }
}

/// Reaps a process of ours that has nothing more to do, and ends it if it has not done so by then.
pub(crate) fn reap_within(pidfd: OwnedFd, patience: Duration) {
    if ended_by(pidfd.as_fd(), Some(Instant::now() + patience)) != Ok(true) {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        let _ = ended_by(pidfd.as_fd(), Some(Instant::now() + DYING));
    }
    leave(Remains::of_server(pidfd));
}

/// Looks through some of what is left.
pub(crate) fn sweep() {
    // Taken out one by one: nothing is done while the lock is held that could wait for anything.
    let number = lock().len().min(AT_ONCE);
    for _ in 0..number {
        let Some(remains) = lock().pop_front() else { break };
        leave(remains);
    }
    strays::sweep();
}

impl Remains {
    /// Of a process that runs a client's program.
    pub(crate) fn of_client(pid: Pid, pidfd: Option<Arc<OwnedFd>>, cgroup: Option<ProcessCgroup>) -> Self {
        Self { pidfd, client: Some((pid, Looks::default())), cgroup }
    }

    /// Of a process that runs the server's own program.
    pub(crate) fn of_server(pidfd: OwnedFd) -> Self {
        Self { pidfd: Some(Arc::new(pidfd)), client: None, cgroup: None }
    }

    fn collect(mut self) -> Option<Self> {
        if let Some(pidfd) = &self.pidfd {
            let mut over = is_over(pidfd.as_fd(), self.client.as_ref());
            if !over
                && let Some((pid, looks)) = &mut self.client
                && looks.are_due()
            {
                over = has_ended(*pid, pidfd.as_fd()) && is_over(pidfd.as_fd(), self.client.as_ref());
            }
            if over {
                self.pidfd = None;
            }
        }
        self.cgroup = self.cgroup.take().and_then(ProcessCgroup::abandon);
        (self.pidfd.is_some() || self.cgroup.is_some()).then_some(self)
    }
}

/// Whether there is nothing more to be collected of the process.
fn is_over(pidfd: BorrowedFd<'_>, client: Option<&(Pid, Looks)>) -> bool {
    let before = ticks_since_boot();
    let collected = collect(pidfd);
    if let Some((pid, _)) = client {
        match collected {
            Ok(Collected::Running) => {}
            Ok(Collected::Ended(_)) => strays::ended(*pid, before),
            Ok(Collected::Told(_) | Collected::Lost) | Err(_) => strays::lost(*pid),
        }
    }
    !matches!(collected, Ok(Collected::Running))
}

fn lock() -> std::sync::MutexGuard<'static, VecDeque<Remains>> {
    REMAINS.lock().unwrap_or_else(PoisonError::into_inner)
}
