//! Children of this process that neither it nor anybody else in it has made: a client's program creates them, by
//! CLONE_PARENT (clone(2)).
//!
//! They are its siblings, and when they end their parent, which is this process, has to reap them; until then each keeps
//! its number, and a place in what its user and the unit may have, whatever is done to the tree.
//!
//! Other code's children are not touched. A child is taken for a stray only where its POSIX session proves it: a session
//! that a process of the library began, and whose number has not been given away since. It has not while the process that
//! began it is not reaped; nor for any member that is older than that, as the number of a session is taken as long as it has a
//! member. Which others are older than a stray is known when it is reaped in its turn.
//!
//! A stray that began a session of its own proves nothing any more, and stays. Where orphans become this process's children
//! (PR_SET_CHILD_SUBREAPER; the first process of a container) none can be told from those, which other code waits for: it is
//! left everything.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, child_subreaper, getpid, pidfd_open, waitid};

use super::posix_session::{session_of, start_time, ticks_since_boot};
use super::status::{Collected, collect, is_collectable};
use super::traced::has_ended;
use crate::sys::proc::children_of;

/// How often it is looked for strays.
const PERIOD: Duration = Duration::from_secs(1);
/// How many are reaped in one go; where there are more, the next look is due at once.
const AT_ONCE: usize = 256;
/// So many sessions are remembered whose first process was reaped until it is looked which of them have strays.
const MOST_ENDED: usize = 512;

/// What proves that the number of a session is still that of the one which a process of the library began.
#[derive(Debug, Clone)]
enum Proof {
    /// That process, if it is not reaped.
    First(Weak<OwnedFd>),
    /// That the member started before this moment, in clock ticks since boot, at which the number was not free.
    StartedBefore(u64),
}

#[derive(Debug, Default)]
struct Sessions {
    known: HashMap<Pid, Proof>,
    ended: usize,
    next: Option<Instant>,
}

static SESSIONS: Mutex<Option<Sessions>> = Mutex::new(None);

/// A process was created that begins a session.
pub(super) fn began(session: Pid, pidfd: &Arc<OwnedFd>) {
    let first = Proof::First(Arc::downgrade(pidfd));
    lock().get_or_insert_default().known.insert(session, first);
}

/// It was reaped just now, by this process; until `before` it surely was not.
pub(super) fn ended(session: Pid, before: u64) {
    if let Some(sessions) = lock().as_mut()
        && let Some(proof) = sessions.known.get_mut(&session)
    {
        *proof = Proof::StartedBefore(before);
        sessions.ended += 1;
    }
}

/// It was reaped by others, nobody knows when.
pub(super) fn lost(session: Pid) {
    if let Some(sessions) = lock().as_mut() {
        sessions.known.remove(&session);
    }
}

/// Reaps strays that have ended, now and then.
pub(super) fn sweep() {
    let (known, many) = {
        let mut sessions = lock();
        let Some(sessions) = sessions.as_mut() else { return };
        let now = Instant::now();
        if sessions.known.is_empty() || sessions.next.is_some_and(|next| now < next) {
            return;
        }
        sessions.next = Some(now + PERIOD);
        if inherits_orphans() {
            (sessions.known, sessions.ended) = Default::default();
            return;
        }
        let many = sessions.ended >= MOST_ENDED;
        if !many && !has_ended_child() {
            return;
        }
        (sessions.known.clone(), many)
    };
    let Ok(children) = children_of(getpid()) else { return };
    let mut seen = HashMap::new();
    let mut reaped = 0;
    for child in children.into_iter().filter_map(Pid::from_raw) {
        // Those that began sessions are waited for by whoever has them.
        let Some(session) = session_of(child).filter(|session| *session != child) else { continue };
        let Some(proof) = seen.get(&session).or_else(|| known.get(&session)).cloned() else { continue };
        if reaped == AT_ONCE {
            seen.entry(session).or_insert(proof);
            continue;
        }
        let before = ticks_since_boot();
        let of_tree = reap(child, session, &proof);
        reaped += usize::from(of_tree == Some(true));
        let proof = match proof {
            // While it was there the number was not free.
            Proof::StartedBefore(when) if of_tree.is_some() => Proof::StartedBefore(when.max(before)),
            proof => proof,
        };
        seen.insert(session, proof);
    }
    let mut sessions = lock();
    let Some(sessions) = sessions.as_mut() else { return };
    if reaped == AT_ONCE {
        sessions.next = None;
    }
    for (session, proof) in known {
        let Proof::StartedBefore(old) = proof else { continue };
        // Unless it has begun or ended anew meanwhile.
        let Some(Proof::StartedBefore(now)) = sessions.known.get(&session) else { continue };
        if *now != old {
            continue;
        }
        match seen.remove(&session) {
            Some(proof) => drop(sessions.known.insert(session, proof)),
            None => drop(sessions.known.remove(&session)),
        }
    }
    sessions.known.retain(|_, proof| !matches!(proof, Proof::First(first) if first.strong_count() == 0));
    let ended = |proof: &&Proof| matches!(proof, Proof::StartedBefore(_));
    sessions.ended = if many { 0 } else { sessions.known.values().filter(ended).count().min(MOST_ENDED - 1) };
}

/// Reaps a child that is proven to be of the session, if it has ended; whether it had, where it is.
fn reap(child: Pid, session: Pid, proof: &Proof) -> Option<bool> {
    // Opened first and asked then: what is read is of the process that is reaped, or nothing is.
    let pidfd = pidfd_open(child, PidfdFlags::empty()).ok()?;
    if session_of(child) != Some(session) {
        return None;
    }
    // One that has this process trace a thread of it has not ended for the kernel.
    let has_ended = has_ended(child, pidfd.as_fd());
    match proof {
        Proof::First(first) => is_collectable(first.upgrade()?.as_fd()).then_some(())?,
        // Of one that lives it is not asked: while it executes a program, its file system may keep who asks waiting for
        // ever (`exec_update_lock`).
        Proof::StartedBefore(when) => (has_ended && start_time(child)? <= *when).then_some(())?,
    }
    match collect(pidfd.as_fd()) {
        Ok(Collected::Ended(_)) => Some(true),
        Ok(Collected::Running) => Some(false),
        Ok(Collected::Told(_) | Collected::Lost) | Err(_) => None,
    }
}

/// Whether orphans become children of this process; the library itself never sees to that.
fn inherits_orphans() -> bool {
    getpid().is_init() || child_subreaper().is_ok_and(|reaper| reaper.is_some())
}

/// Whether any child, whosever, has ended and was not reaped.
fn has_ended_child() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::All, options), Ok(Some(_)))
}

fn lock() -> MutexGuard<'static, Option<Sessions>> {
    SESSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}
