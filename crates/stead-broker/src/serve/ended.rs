//! What is kept of processes that have ended.
//!
//! It is a few bytes for each, next to each other; the rest lies in the file of its record. Small pieces that stay, made
//! between pieces that go, would each keep a page from going back to the kernel.

use std::collections::{HashMap, HashSet, VecDeque};
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

/// Of each user's processes the last ones, however fast they come, and those before them whose groups are not empty.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    ended: HashMap<u64, Ended>,
    /// By whom they count for.
    counted: HashMap<u32, OfUser>,
}

/// Processes, the oldest first.
#[derive(Debug, Default)]
struct OfUser {
    last: VecDeque<u64>,
    /// Those before: each has somebody in its group, or had when it was looked at. So they are no more than their user's
    /// processes that run.
    before: VecDeque<u64>,
}

/// What one more was too much for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Surplus {
    /// The process whose tree is not to be known any more.
    pub(super) tree: Option<u64>,
    /// Those that are to be forgotten, unless somebody is in their groups.
    pub(super) records: Vec<u64>,
}

impl Remembered {
    /// One more, the last of whom it counts for.
    pub(super) fn add(&mut self, id: u64, ended: Ended) -> Surplus {
        self.ended.insert(id, ended);
        let OfUser { last, before } = self.counted.entry(ended.counted).or_default();
        last.push_back(id);
        let tree = last.len().checked_sub(MOST_TREES + 1).map(|at| last[at]);
        let mut records = Vec::new();
        if last.len() > MOST_REMEMBERED
            && let Some(oldest) = last.pop_front()
        {
            before.push_back(oldest);
            records.push(oldest);
            // Two that were looked at before, as well: what became empty goes faster than one can add to it.
            for _ in 0..2.min(before.len() - 1) {
                records.extend(before.front());
                before.rotate_left(1);
            }
        }
        Surplus { tree, records }
    }

    pub(super) fn get(&self, id: u64) -> Option<Ended> {
        self.ended.get(&id).copied()
    }

    pub(super) fn forget(&mut self, id: u64) {
        let Some(Ended { counted, .. }) = self.ended.remove(&id) else { return };
        if let Some(OfUser { last, before }) = self.counted.get_mut(&counted) {
            last.retain(|one| *one != id);
            before.retain(|one| *one != id);
            if last.is_empty() && before.is_empty() {
                self.counted.remove(&counted);
            }
        }
    }

    /// Those that had ended at that moment, and those that are only kept for their groups.
    pub(super) fn until(&self, moment: u64) -> Vec<u64> {
        let old = self.ended.iter().filter(|(_, one)| one.when <= moment).map(|(id, _)| *id);
        let before = self.counted.values().flat_map(|user| user.before.iter().copied());
        let all: HashSet<u64> = old.chain(before).collect();
        all.into_iter().collect()
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
            let records: Vec<u64> = before(MOST_REMEMBERED).into_iter().collect();
            for id in &records {
                remembered.forget(*id);
            }
            assert_eq!(surplus, Surplus { tree: before(MOST_TREES), records });
        }
        assert!(remembered.get(u64::MAX).is_some(), "another user's are its own");
        let seen = remembered.newest_first(|one| one.owner == 1);
        let ids: Vec<u64> = seen.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, (1000 - MOST_REMEMBERED as u64..1000).rev().collect::<Vec<_>>());
        assert_eq!(remembered.ended.len(), MOST_REMEMBERED + 1);
    }

    #[test]
    fn whose_group_is_not_empty_is_kept_however_many_come_and_goes_soon_when_it_is() {
        let mut remembered = Remembered::default();
        let mut add = |number: u64, is_populated: &dyn Fn(u64) -> bool| {
            let surplus = remembered.add(number, ended(1, number));
            assert!(surplus.records.len() <= 3, "an end is to cost little");
            for id in surplus.records.into_iter().filter(|id| !is_populated(*id)) {
                remembered.forget(id);
            }
            remembered.ended.len() - remembered.ended.len().min(MOST_REMEMBERED)
        };
        for number in 0..5000 {
            add(number, &|id| id % 10 == 0);
        }
        let kept = add(5000, &|id| id % 10 == 0);
        assert_eq!(kept, (5001 - MOST_REMEMBERED).div_ceil(10));
        // Now they are empty, and all that come are not: as many go as come.
        let mut most = kept;
        for number in 5001..6000 {
            most = most.max(add(number, &|id| id > 5000));
        }
        assert!(most <= kept + 999_usize.saturating_sub(MOST_REMEMBERED), "{most}");
        let early: Vec<u64> = remembered.ended.keys().copied().filter(|id| *id < 4700).collect();
        assert!(early.is_empty(), "{early:?}");
        assert_eq!(
            remembered.until(0).len(),
            remembered.counted[&1].before.len(),
            "all are looked at in time"
        );
        for id in remembered.until(u64::MAX) {
            remembered.forget(id);
        }
        assert!(remembered.ended.is_empty() && remembered.counted.is_empty());
    }

    #[test]
    fn nothing_is_kept_of_a_user_whose_processes_are_forgotten() {
        let mut remembered = Remembered::default();
        for number in 0..10 {
            remembered.add(number, ended(1, number));
        }
        for id in remembered.until(4) {
            remembered.forget(id);
        }
        assert_eq!(remembered.until(u64::MAX).len(), 5);
        for id in remembered.until(u64::MAX) {
            remembered.forget(id);
        }
        assert!(remembered.ended.is_empty() && remembered.counted.is_empty());
    }
}
