//! What is kept of processes that have ended.
//!
//! It is a few bytes for each, next to each other; the rest lies in the file of its record. Small pieces that stay, made
//! between pieces that go, would each keep a page from going back to the kernel.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

/// The statuses that are told of one user's processes at most.
const MOST_REMEMBERED: usize = 256;
/// The processes of one user that have ended and whose trees can still be ended: each holds descriptors.
const MOST_TREES: usize = 16;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    /// With this wait status.
    Status(i32),
    /// Nobody can tell.
    Lost,
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(raw) => write!(formatter, "wait status {raw:#06x}"),
            Self::Lost => formatter.write_str("nobody can tell"),
        }
    }
}

/// A process that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// Who asked for it.
    pub(super) owner: u32,
    /// For whom that counts.
    pub(super) counted: u32,
    /// As whom it ran.
    pub(super) uid: u32,
    /// In seconds since 1970.
    pub(super) when: u64,
    pub(super) end: End,
}

/// Of each user's processes the last ones, however fast they come.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    ended: HashMap<u64, Ended>,
    /// Of whom they count for, the oldest first.
    counted: HashMap<u32, VecDeque<u64>>,
}

/// What one more was too much for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Surplus {
    /// The process whose tree is not to be known any more.
    pub(super) tree: Option<u64>,
    /// The process that is forgotten.
    pub(super) record: Option<u64>,
}

impl Remembered {
    /// One more, the last of whom it counts for.
    pub(super) fn add(&mut self, id: u64, ended: Ended) -> Surplus {
        self.ended.insert(id, ended);
        let counted = self.counted.entry(ended.counted).or_default();
        counted.push_back(id);
        let tree = counted.len().checked_sub(MOST_TREES + 1).map(|at| counted[at]);
        let record = if counted.len() > MOST_REMEMBERED { counted.pop_front() } else { None };
        if let Some(id) = record {
            self.ended.remove(&id);
        }
        Surplus { tree, record }
    }

    pub(super) fn get(&self, id: u64) -> Option<Ended> {
        self.ended.get(&id).copied()
    }

    pub(super) fn forget(&mut self, id: u64) {
        let Some(Ended { counted, .. }) = self.ended.remove(&id) else { return };
        if let Some(ids) = self.counted.get_mut(&counted) {
            ids.retain(|one| *one != id);
            if ids.is_empty() {
                self.counted.remove(&counted);
            }
        }
    }

    /// Those that had ended at that moment.
    pub(super) fn until(&self, moment: u64) -> Vec<(u64, Ended)> {
        self.ended.iter().filter(|(_, one)| one.when <= moment).map(|(id, one)| (*id, *one)).collect()
    }

    /// Those of which `wanted` holds, by when they ended.
    pub(super) fn newest_first(&self, wanted: impl Fn(&Ended) -> bool) -> Vec<(u64, Ended)> {
        let wanted = self.ended.iter().filter(|(_, one)| wanted(one));
        let mut found: Vec<_> = wanted.map(|(id, one)| (*id, *one)).collect();
        found.sort_unstable_by_key(|(_, one)| std::cmp::Reverse(one.when));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(owner: u32, when: u64) -> Ended {
        Ended { owner, counted: owner, uid: owner, when, end: End::Status(0) }
    }

    #[test]
    fn of_each_user_the_last_ones_are_remembered_and_fewer_with_their_trees() {
        let mut remembered = Remembered::default();
        assert_eq!(remembered.add(u64::MAX, ended(2, 0)), Surplus::default());
        for number in 0..1000_u64 {
            let surplus = remembered.add(number, ended(1, number));
            let before = |many: usize| number.checked_sub(many as u64);
            assert_eq!(surplus, Surplus { tree: before(MOST_TREES), record: before(MOST_REMEMBERED) });
        }
        assert!(remembered.get(u64::MAX).is_some(), "another user's are its own");
        let seen = remembered.newest_first(|one| one.owner == 1);
        let ids: Vec<u64> = seen.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, (1000 - MOST_REMEMBERED as u64..1000).rev().collect::<Vec<_>>());
        assert_eq!(remembered.ended.len(), MOST_REMEMBERED + 1);
    }

    #[test]
    fn nothing_is_kept_of_a_user_whose_processes_are_forgotten() {
        let mut remembered = Remembered::default();
        for number in 0..10 {
            remembered.add(number, ended(1, number));
        }
        for (id, _) in remembered.until(4) {
            remembered.forget(id);
        }
        assert_eq!(remembered.until(u64::MAX).len(), 5);
        for (id, _) in remembered.until(u64::MAX) {
            remembered.forget(id);
        }
        assert!(remembered.ended.is_empty() && remembered.counted.is_empty());
    }
}
