//! Who holds a session: the processes whose connections do.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::proof::Proof;

/// A process that holds a session: it made the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    pid: u32,
    proof: Proof,
}

impl Holder {
    pub(super) fn of(caller: &Caller) -> Self {
        let proof = match caller.pidfd() {
            Some(pidfd) => Some(Proof::of(pidfd, caller.pid)),
            // Before Linux 6.5: whoever is called so now.
            None => Proof::of_number(caller.pid),
        };
        Self { pid: caller.pid, proof: proof.unwrap_or_default() }
    }

    /// The process, unless it has ended.
    pub(super) fn find(&self) -> Option<OwnedFd> {
        self.proof.find(self.pid)
    }
}

/// Who holds a session.
#[derive(Debug, Default)]
pub(super) struct Holders(Mutex<Holding>);

#[derive(Debug, Default)]
/// The same, under the lock.
pub(super) struct Holding {
    /// One for each connection.
    pub(super) connected: Vec<Holder>,
    /// Those whose connections ended with an earlier run of the service.
    pub(super) earlier: Vec<Holder>,
    /// What is written down.
    pub(super) written: Vec<Holder>,
    /// The last of them was lost, and the session could not be ended.
    to_be_ended: bool,
    /// The last of them let go of it: it is tied to nobody any more, whoever opens it afterwards.
    pub(super) is_let_go: bool,
}

impl Holding {
    pub(super) fn is_empty(&self) -> bool {
        self.connected.is_empty() && self.earlier.is_empty()
    }

    /// Each process once.
    pub(super) fn all(&self) -> Vec<Holder> {
        let mut all: Vec<Holder> = Vec::new();
        for holder in self.connected.iter().chain(&self.earlier) {
            if !all.contains(holder) {
                all.push(*holder);
            }
        }
        all
    }

    /// One connection of this process less.
    pub(super) fn disconnect(&mut self, holder: Holder) {
        if let Some(at) = self.connected.iter().position(|one| *one == holder) {
            self.connected.swap_remove(at);
        }
    }

    /// A process that holds by none but an earlier run's connection holds no more.
    pub(super) fn forget_earlier(&mut self, holder: Holder) {
        self.earlier.retain(|one| *one != holder);
    }

    /// Whether whoever held it was lost, and nobody holds it or has let go of it since.
    fn is_lost(&self) -> bool {
        self.is_empty() && !self.is_let_go
    }

    /// One that held it wants it no more.
    pub(super) fn let_go(&mut self) {
        self.is_let_go |= self.is_empty();
    }
}

impl Holders {
    /// As they are written down for a session that was opened just now, or by an earlier run.
    pub(super) fn written(holders: &[Holder]) -> Self {
        Self(Mutex::new(Holding { written: holders.to_vec(), ..Holding::default() }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Holding> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn are_lost(&self) -> bool {
        self.lock().is_lost()
    }

    /// Whether the last of them wanted the session to go on without anybody.
    pub(super) fn have_let_go(&self) -> bool {
        self.lock().is_let_go
    }

    /// Whether the session is still to be ended; whoever asks does it.
    pub(super) fn take_to_be_ended(&self) -> bool {
        let mut holding = self.lock();
        std::mem::take(&mut holding.to_be_ended) && holding.is_lost()
    }

    pub(super) fn leave_to_be_ended(&self) {
        self.lock().to_be_ended = true;
    }
}
