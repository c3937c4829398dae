//! Who watches.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use stead::os::linux::Uid;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::record::Record;

/// Records that wait for one watcher; what comes when it is full is lost for it.
const MOST_WAITING: usize = 1024;
/// Watchers at once of all users together, root excepted, and of root.
const MOST_WATCHERS: usize = 64;
/// Watchers at once of one user: all of a user's see the same.
const MOST_OF_USER: usize = 4;

/// A record as it was written: once, for everyone.
#[derive(Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// Its line of JSON, without the line's end.
    pub json: String,
    /// How many records are lost with it: those that it tells of, or itself.
    pub(super) weight: u64,
}

/// What a watcher sees.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Seen {
    /// The record.
    pub entry: std::sync::Arc<Entry>,
    /// How many were lost since the one before, because this watcher was too slow.
    pub lost: u64,
}

/// There are as many watchers as there may be: this many, of one user or of all users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany(pub usize);

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.0 == MOST_OF_USER { "of the user's " } else { "" };
        write!(f, "watching the audit stream: there are {} watchers {whose}already", self.0)
    }
}

impl std::error::Error for TooMany {}

/// The records from now on, until it is dropped.
#[derive(Debug)]
pub struct Subscription(Receiver<Seen>);

impl Subscription {
    /// The next record, and how many were lost before it; `None` when there will be none.
    pub async fn next(&mut self) -> Option<Seen> {
        self.0.recv().await
    }

    /// The same, without waiting: `None` where there is none now.
    pub fn next_now(&mut self) -> Option<Seen> {
        self.0.try_recv().ok()
    }
}

#[derive(Debug)]
struct Watcher {
    /// Records of this caller only.
    only: Option<Uid>,
    /// For whom it counts.
    counted: Uid,
    sender: Sender<Seen>,
    lost: u64,
}

/// All watchers.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<Vec<Watcher>>);

impl Watchers {
    pub(super) fn add(&self, only: Option<Uid>, counted: Uid) -> Result<Subscription, TooMany> {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| !watcher.sender.is_closed());
        let is_root = counted == Uid::ROOT;
        let (mut of_user, mut all) = (0, 0);
        for watcher in &*watchers {
            of_user += usize::from(watcher.counted == counted);
            all += usize::from((watcher.counted == Uid::ROOT) == is_root);
        }
        // Nobody takes the places of root's, who looks for intruders by it.
        if !is_root && of_user >= MOST_OF_USER {
            return Err(TooMany(MOST_OF_USER));
        }
        if all >= MOST_WATCHERS {
            return Err(TooMany(MOST_WATCHERS));
        }
        let (sender, receiver) = channel(MOST_WAITING);
        watchers.push(Watcher { only, counted, sender, lost: 0 });
        Ok(Subscription(receiver))
    }

    /// Tells everyone whom it concerns; waits for nobody.
    pub(super) fn tell(&self, entry: &std::sync::Arc<Entry>) {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = entry.record.caller.as_ref().and_then(|caller| caller.uid);
        watchers.retain_mut(|watcher| {
            if watcher.only.is_some() && watcher.only != caller {
                return true;
            }
            match watcher.sender.try_send(Seen { entry: entry.clone(), lost: watcher.lost }) {
                Ok(()) => watcher.lost = 0,
                Err(TrySendError::Full(_)) => watcher.lost = watcher.lost.saturating_add(1),
                Err(TrySendError::Closed(_)) => return false,
            }
            true
        });
    }
}
