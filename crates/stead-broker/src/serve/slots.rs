//! How much of the service one user may occupy: connections, and threads that wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stead::os::linux::Uid;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, oneshot};

/// Calls of one user that are handled at a time; further ones wait for their turn, and for nobody else's.
const CALLS: usize = 24;
/// Logons of one user that are under way at a time: they may wait for people.
const LOGONS: usize = 32;
/// Calls of one user, and of all together, that come with more than a message holds: each takes some megabytes for itself.
const LARGE: usize = 1;
const LARGE_IN_ALL: usize = 8;
/// How long one of them counts against those of other users. It takes milliseconds, unless it waits for its client's directory
/// or program: a few users could keep all others out so.
const LARGE_FOR: Duration = Duration::from_secs(1);
/// Connections of all users together.
const CONNECTIONS: usize = 4096;
/// Calls of all users together that are handled by threads which take calls, while another thread takes that thread's
/// place.
const IN_PLACE: usize = 256;
/// Other threads that wait on behalf of callers, of all users together. What is left of all threads is the service's own: to
/// take the places of those above, and to look after what ends.
const WAITING: usize = super::WAITING_THREADS - IN_PLACE - 64;

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The system.
    Call,
    /// The system, and it comes with more than a message holds.
    Large,
    /// A caller's file systems, as they close its descriptors.
    Files,
    /// Perhaps a person who types.
    Logon,
    /// A logon in which nobody is asked anything.
    UnattendedLogon,
}

#[derive(Debug)]
struct OfUser {
    calls: Arc<Semaphore>,
    large: Arc<Semaphore>,
    logons: Arc<Semaphore>,
    connections: usize,
}

impl Default for OfUser {
    fn default() -> Self {
        let semaphore = |most| Arc::new(Semaphore::new(most));
        let (calls, large, logons) = (semaphore(CALLS), semaphore(LARGE), semaphore(LOGONS));
        Self { calls, large, logons, connections: 0 }
    }
}

/// What each user occupies.
#[derive(Debug)]
pub(super) struct Slots {
    users: Mutex<HashMap<Uid, OfUser>>,
    in_place: Semaphore,
    large: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Slots {
    fn default() -> Self {
        let [large, waiting] = [LARGE_IN_ALL, WAITING].map(|most| Arc::new(Semaphore::new(most)));
        Self { users: Mutex::default(), in_place: Semaphore::new(IN_PLACE), large, waiting }
    }
}

/// A turn, which is over when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _thread: Option<OwnedSemaphorePermit>,
    _large: Option<OwnedSemaphorePermit>,
    /// What gives back the place among all users', once it is dropped.
    _of_all: Option<oneshot::Sender<()>>,
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    slots: Arc<Slots>,
    uid: Uid,
}

impl Slots {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uid, OfUser>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread to wait on, of those that callers may occupy together.
    pub(super) async fn thread(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).acquire_owned().await.ok()
    }

    /// A place for work that a thread which takes calls does itself. What may wait for a person gets none.
    pub(super) fn in_place(&self, kind: Kind) -> Option<SemaphorePermit<'_>> {
        let suits = matches!(kind, Kind::Call | Kind::UnattendedLogon);
        if suits { self.in_place.try_acquire().ok() } else { None }
    }

    /// A place for one more connection that counts for this user, if it has fewer than `most`.
    pub(super) fn connection(self: &Arc<Self>, uid: Uid, most: usize) -> Option<ConnectionSlot> {
        let mut users = self.lock();
        let all: usize = users.values().map(|user| user.connections).sum();
        // Root can always look at what goes on.
        if all >= CONNECTIONS && uid != Uid::ROOT {
            return None;
        }
        let user = users.entry(uid).or_default();
        if user.connections >= most {
            return None;
        }
        user.connections += 1;
        Some(ConnectionSlot { slots: Arc::clone(self), uid })
    }

    /// How many connections there are.
    pub(super) fn connections(&self) -> usize {
        self.lock().values().map(|user| user.connections).sum()
    }

    /// A thread's worth of work for this user.
    pub(super) async fn work(&self, kind: Kind, uid: Uid) -> Turn {
        let (threads, large) = {
            let mut users = self.lock();
            let user = users.entry(uid).or_default();
            let threads = Arc::clone(match kind {
                Kind::Logon | Kind::UnattendedLogon => &user.logons,
                Kind::Call | Kind::Large | Kind::Files => &user.calls,
            });
            (threads, (kind == Kind::Large).then(|| Arc::clone(&user.large)))
        };
        // Its own first: who waits for that keeps nobody else waiting.
        let large = match large {
            Some(own) => own.acquire_owned().await.ok(),
            None => None,
        };
        let of_all = match large {
            Some(_) => Arc::clone(&self.large).acquire_owned().await.ok().map(for_a_while),
            None => None,
        };
        Turn { _large: large, _of_all: of_all, _thread: threads.acquire_owned().await.ok() }
    }
}

/// Gives a place back when what is returned is dropped, and no later than in a second.
fn for_a_while(place: OwnedSemaphorePermit) -> oneshot::Sender<()> {
    let (sender, dropped) = oneshot::channel();
    tokio::spawn(async move {
        let _ = tokio::time::timeout(LARGE_FOR, dropped).await;
        drop(place);
    });
    sender
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut users = self.slots.lock();
        if let Some(user) = users.get_mut(&self.uid) {
            user.connections = user.connections.saturating_sub(1);
            let idle = user.calls.available_permits() == CALLS
                && user.large.available_permits() == LARGE
                && user.logons.available_permits() == LOGONS;
            // A user that is forgotten here begins anew with all of its slots.
            if user.connections == 0 && idle {
                users.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn users_whose_long_calls_hang_keep_nobody_elses_waiting_and_have_one_each() {
        let slots = Slots::default();
        let user = |number: usize| Uid::new(u32::try_from(1000 + number).unwrap()).unwrap();
        let mut hanging = Vec::new();
        for number in 0..3 * LARGE_IN_ALL {
            let turn = slots.work(Kind::Large, user(number));
            hanging.push(tokio::time::timeout(5 * LARGE_FOR, turn).await.expect("others hang"));
        }
        let again = slots.work(Kind::Large, user(0));
        assert!(tokio::time::timeout(2 * LARGE_FOR, again).await.is_err(), "its own hangs");
        // One that is over gives its place back at once.
        drop(hanging);
        for number in 0..3 * LARGE_IN_ALL {
            let turn = slots.work(Kind::Large, user(number));
            tokio::time::timeout(LARGE_FOR / 4, turn).await.expect("nobody hangs");
        }
    }
}
