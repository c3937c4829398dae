//! When the last process of a tree has ended: what a server that leased something to the tree waits for.
//!
//! Every process here starts a POSIX session of its own, by which what it leaves behind is known. A process that left
//! that session *and* was orphaned may be any tree's that is younger than it is old: it then counts as each one's, so
//! that nothing is taken from it while it lives.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use super::tree;

/// The processes that the server asked for, and who is told of the end of their trees.
#[derive(Default)]
pub(super) struct Trees {
    /// Those that have not been collected: their numbers are their own.
    roots: BTreeSet<i32>,
    /// Those that have, and whose session numbers may live on in what they left.
    ended: BTreeSet<i32>,
    /// How many of `ended` were found to live on when that was last looked at.
    living: usize,
    watches: Vec<Watch>,
}

/// So many, and as many again as live on, may have ended until it is looked at which of them do: where something always
/// runs, and nobody watches, processes may come and go for years.
const MOST_ENDED: usize = 64;

struct Watch {
    root: i32,
    started: u64,
    /// Closed when the tree has ended.
    _told: OwnedFd,
}

impl Trees {
    /// A process was created; `told` is closed when its tree has ended.
    pub(super) fn started(&mut self, root: i32, told: Option<OwnedFd>) {
        self.roots.insert(root);
        self.ended.remove(&root);
        if let Some(told) = told {
            let started = tree::start_time(root).unwrap_or(0);
            self.watches.push(Watch { root, started, _told: told });
        }
    }

    /// Whether this is the number of a process that was created and has not been collected.
    pub(super) fn has_root(&self, pid: i32) -> bool {
        self.roots.contains(&pid)
    }

    /// A child was collected.
    pub(super) fn collected(&mut self, pid: i32) {
        if self.roots.remove(&pid) {
            self.ended.insert(pid);
        }
    }

    /// The session has no process.
    pub(super) fn all_ended(&mut self) {
        self.ended.clear();
        self.living = 0;
        self.watches.clear();
    }

    /// Tells those whose trees have ended; nobody while nobody knows which children there are.
    pub(super) fn tell(&mut self, children: impl FnOnce() -> Option<Vec<i32>>) {
        let many = self.ended.len() > MOST_ENDED + 2 * self.living;
        if !many && self.watches.iter().all(|watch| self.roots.contains(&watch.root)) {
            return;
        }
        let Some(children) = children() else { return };
        let orphans: Vec<Orphan> = children
            .into_iter()
            .filter(|pid| !self.roots.contains(pid))
            .map(|pid| Orphan { session: tree::session_of(pid), started: tree::start_time(pid) })
            .collect();
        self.ended.retain(|root| {
            orphans.iter().any(|orphan| orphan.session.is_none_or(|session| session == *root))
        });
        self.living = self.ended.len();
        let (roots, ended) = (&self.roots, &self.ended);
        self.watches.retain(|watch| {
            roots.contains(&watch.root) || orphans.iter().any(|orphan| orphan.may_be_of(watch, roots, ended))
        });
    }
}

/// What cannot be read of it may be anything: a child is there until it is collected.
struct Orphan {
    session: Option<i32>,
    started: Option<u64>,
}

impl Orphan {
    fn may_be_of(&self, watch: &Watch, roots: &BTreeSet<i32>, ended: &BTreeSet<i32>) -> bool {
        let Some(session) = self.session else { return true };
        if roots.contains(&session) || ended.contains(&session) {
            return session == watch.root;
        }
        self.started.is_none_or(|started| started >= watch.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_come_and_go_while_another_stays_leave_nothing() {
        let mut trees = Trees::default();
        for pid in 1_000_000_000..1_000_010_000 {
            trees.started(pid, None);
            trees.collected(pid);
            trees.tell(|| Some(Vec::new()));
            assert!(trees.ended.len() <= MOST_ENDED);
        }
        assert!(trees.roots.is_empty());
    }
}
