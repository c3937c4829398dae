//! The keeper: the one thread that knows when a tree of processes has ended, and gives its lease back then.
//!
//! It is started with the first lease that a process has, and ends with the last. It only waits on descriptors (a
//! cgroup's events, a pipe that the session worker closes, pidfds), and looks now and then behind a pidfd that is silent
//! ([`has_ended`]), so it holds up nobody; it has the server's own identity from its start to its end, and takes no signal
//! that is the server's to handle.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::desktop::AccessLease;
use crate::error::{Error, Result};
use crate::sys::process::{has_ended, is_populated, living_member};

/// How often it is looked behind the pidfds of POSIX sessions.
const LOOK: Duration = Duration::from_secs(1);

/// How the end of a tree of processes is noticed.
#[derive(Debug)]
pub(crate) enum Tree {
    /// Its cgroup's `cgroup.events`: nobody is in the group or below it any more.
    Cgroup(OwnedFd),
    /// A pipe whose other end the session worker closes then, or loses with its own life.
    Worker(OwnedFd),
    /// The POSIX session that this process leads; what has left that (setsid) is not seen.
    PosixSession(OwnedFd, Pid),
}

/// What the keeper waits for.
enum Watched {
    Tree(Tree, AccessLease),
    /// One of the members of a POSIX session whose leader has ended: of however many a client has, a descriptor for one.
    Member {
        session: Pid,
        pid: Pid,
        pidfd: OwnedFd,
        lease: AccessLease,
    },
    /// A connection on which only what nobody asked for arrives; until its other end closes it.
    Idle(Arc<OwnedFd>),
}

struct Inbox {
    /// The process whose thread it is: a forked copy has none.
    owner: u32,
    wake: Arc<OwnedFd>,
    new: VecDeque<Watched>,
    /// Entries that are promised, and not there yet.
    promised: usize,
    /// Whether the thread runs.
    runs: bool,
}

static INBOX: Mutex<Option<Inbox>> = Mutex::new(None);

/// A place with the keeper: while it is held, the keeper runs. Taken before what it is for begins, so that nothing
/// has to be undone because no thread can be started.
#[derive(Debug)]
pub(crate) struct Place(());

impl Place {
    /// Starts the keeper if it does not run.
    pub(crate) fn take() -> Result<Self> {
        const DOING: &str = "starting the thread that takes back what is granted";
        let failed = |error: io::Error| Error::system(DOING, "clone", error);
        let mut inbox = lock();
        let owner = std::process::id();
        if inbox.as_ref().is_none_or(|inbox| inbox.owner != owner) {
            let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|errno| failed(errno.into()))?;
            let new = VecDeque::new();
            *inbox = Some(Inbox { owner, wake: Arc::new(wake), new, promised: 0, runs: false });
        }
        let Some(here) = inbox.as_mut() else { return Err(failed(io::ErrorKind::Other.into())) };
        if !here.runs {
            let wake = Arc::clone(&here.wake);
            let run = move || {
                if catch_unwind(|| keep(&wake)).is_err()
                    && let Some(inbox) = lock().as_mut()
                {
                    // What it watched is given back by now; the next lease starts another.
                    inbox.runs = false;
                }
            };
            start(run).map_err(failed)?;
            here.runs = true;
        }
        here.promised += 1;
        Ok(Self(()))
    }

    /// Gives the lease back when the tree has ended.
    pub(crate) fn hold(self, tree: Tree, lease: AccessLease) {
        self.send(Watched::Tree(tree, lease));
    }

    /// Reads and throws away what arrives, until the other end closes the connection.
    pub(crate) fn drain(self, connection: Arc<OwnedFd>) {
        self.send(Watched::Idle(connection));
    }

    #[expect(clippy::unused_self, reason = "whoever sends has a place")]
    fn send(&self, what: Watched) {
        let mut inbox = lock();
        if let Some(inbox) = inbox.as_mut().filter(|inbox| inbox.owner == std::process::id()) {
            inbox.new.push_back(what);
            wake(inbox);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inbox = lock();
        if let Some(inbox) = inbox.as_mut().filter(|inbox| inbox.owner == std::process::id()) {
            inbox.promised -= 1;
            wake(inbox);
        }
    }
}

fn wake(inbox: &Inbox) {
    // Full is as good as written: the thread wakes.
    let _ = rustix::io::write(&inbox.wake, &1_u64.to_ne_bytes());
}

fn lock() -> MutexGuard<'static, Option<Inbox>> {
    INBOX.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that handles none of the server's signals.
fn start(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // SAFETY: signal sets are plain bits, which the calls below set.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
    // SAFETY: both sets are valid; only the calling thread's mask changes, and is put back below.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
    }
    let started = thread::Builder::new().name("stead-keeper".into()).stack_size(256 << 10).spawn(run);
    // SAFETY: `before` is what the first call wrote.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    started.map(drop)
}

/// The thread.
fn keep(wake: &OwnedFd) {
    let mut watched: Vec<Watched> = Vec::new();
    let mut looked = Instant::now();
    loop {
        {
            let mut inbox = lock();
            let Some(inbox) = inbox.as_mut() else { return };
            let mut number = [0; 8];
            let _ = rustix::io::read(wake, &mut number);
            watched.extend(inbox.new.drain(..));
            if watched.is_empty() && inbox.promised == 0 {
                inbox.runs = false;
                return;
            }
        }
        let ready = match wait(wake, &watched, &mut looked) {
            Ok(ready) => ready,
            Err(Errno::INTR) => continue,
            Err(errno) => {
                tracing::error!(%errno, "what is granted on desktops cannot be watched; it is taken back");
                watched.clear();
                continue;
            }
        };
        // Leases are dropped here, one after the other, while no lock is held.
        watched = watched
            .into_iter()
            .zip(ready)
            .filter_map(|(watched, ready)| if ready { look(watched) } else { Some(watched) })
            .collect();
    }
}

/// Which of them have something to say.
fn wait(wake: &OwnedFd, watched: &[Watched], looked: &mut Instant) -> Result<Vec<bool>, Errno> {
    let mut polled = vec![PollFd::new(wake, PollFlags::IN)];
    for one in watched {
        let (descriptor, events): (BorrowedFd<'_>, _) = match one {
            Watched::Tree(Tree::Cgroup(events), _) => (events.as_fd(), PollFlags::PRI),
            Watched::Tree(Tree::Worker(pipe), _) => (pipe.as_fd(), PollFlags::IN),
            Watched::Tree(Tree::PosixSession(leader, _), _) => (leader.as_fd(), PollFlags::IN),
            Watched::Member { pidfd, .. } => (pidfd.as_fd(), PollFlags::IN),
            Watched::Idle(connection) => (connection.as_fd(), PollFlags::IN),
        };
        polled.push(PollFd::from_borrowed_fd(descriptor, events));
    }
    let silent = watched.iter().any(|one| one.process().is_some());
    let left = Timespec::try_from(LOOK.saturating_sub(looked.elapsed())).ok();
    poll(&mut polled, left.as_ref().filter(|_| silent))?;
    let look = looked.elapsed() >= LOOK;
    if look {
        *looked = Instant::now();
    }
    let ready = |(polled, one): (&PollFd<'_>, &Watched)| {
        !polled.revents().is_empty()
            || (look && one.process().is_some_and(|(pid, pidfd)| has_ended(pid, pidfd)))
    };
    Ok(polled[1..].iter().zip(watched).map(ready).collect())
}

impl Watched {
    /// The process whose end is waited for, where it is one of a client's.
    fn process(&self) -> Option<(Pid, BorrowedFd<'_>)> {
        match self {
            Self::Tree(Tree::PosixSession(pidfd, pid), _) | Self::Member { pid, pidfd, .. } => {
                Some((*pid, pidfd.as_fd()))
            }
            Self::Tree(..) | Self::Idle(_) => None,
        }
    }
}

/// What goes on being watched of one that has something to say.
fn look(watched: Watched) -> Option<Watched> {
    match watched {
        Watched::Tree(Tree::Cgroup(events), lease) => {
            populated(&events).then_some(Watched::Tree(Tree::Cgroup(events), lease))
        }
        // Nobody writes: it is the end.
        Watched::Tree(Tree::Worker(_), _) => None,
        Watched::Tree(Tree::PosixSession(_, session), lease) | Watched::Member { session, lease, .. } => {
            member(session, lease)
        }
        Watched::Idle(connection) => {
            let mut buffer = [0; 4096];
            let flags = rustix::net::RecvFlags::DONTWAIT;
            match rustix::net::recv(&connection, &mut buffer, flags) {
                Ok((0, _)) => None,
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Some(Watched::Idle(connection)),
                Err(_) => None,
            }
        }
    }
}

/// A living member of the session, if there is one.
fn member(session: Pid, lease: AccessLease) -> Option<Watched> {
    match living_member(session) {
        Ok(found) => found.map(|(pid, pidfd)| Watched::Member { session, pid, pidfd, lease }),
        Err(errno) => {
            tracing::warn!(%errno, "the rest of a tree of processes cannot be looked for; its lease ends");
            None
        }
    }
}

/// Whether the group has a living process; no, when it was removed.
fn populated(events: &OwnedFd) -> bool {
    let mut text = [0; 256];
    let read = rustix::io::pread(events, &mut text, 0);
    is_populated(read.map(|length| &text[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_which_nothing_can_be_read_is_not_taken_for_an_empty_one() {
        let written = |text: &str| {
            let file = rustix::fs::memfd_create("cgroup.events", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
            rustix::io::write(&file, text.as_bytes()).unwrap();
            populated(&file)
        };
        assert!(written("populated 1\nfrozen 0\n"));
        assert!(!written("populated 0\nfrozen 0\n"));
        // A pipe is read from no offset (ESPIPE), as a group's file may fail to be for a moment.
        let (reader, _writer) = io::pipe().unwrap();
        assert!(populated(&reader.into()));
    }
}
