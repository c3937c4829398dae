//! What each caller holds at once.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use stead::os::linux::Uid;

use crate::policy::Quota;

/// Callers together may hold this many connections: each is a descriptor or a few of the service's.
const MOST_CONNECTIONS: u32 = 4096;

/// What a caller holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Holding {
    /// A logon session.
    Session,
    /// A process.
    Process,
    /// A connection to the service.
    Connection,
}

impl Holding {
    const ALL: [Self; 3] = [Self::Session, Self::Process, Self::Connection];

    fn most(self, quota: Quota) -> u32 {
        match self {
            Self::Session => quota.sessions,
            Self::Process => quota.processes,
            Self::Connection => quota.connections,
        }
    }

    fn most_in_all(self) -> u32 {
        if self == Self::Connection { MOST_CONNECTIONS } else { u32::MAX }
    }
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "logon sessions",
            Self::Process => "processes",
            Self::Connection => "connections",
        })
    }
}

/// A caller holds as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Of what.
    pub holding: Holding,
    /// How much that is.
    pub most: u32,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at once: at most {}", self.holding, self.most)
    }
}

impl std::error::Error for Exceeded {}

/// Counts what callers hold. Clones count together.
///
/// ```
/// use stead::os::linux::Uid;
/// use stead_broker::policy::Quota;
/// use stead_broker::throttle::{Holding, Quotas};
///
/// let (quotas, caller) = (Quotas::default(), Uid::new(1000).unwrap());
/// let one = Quota { sessions: 1, ..Quota::default() };
/// let session = quotas.take(caller, Holding::Session, one).unwrap();
/// assert!(quotas.take(caller, Holding::Session, one).is_err());
/// drop(session);
/// assert!(quotas.take(caller, Holding::Session, one).is_ok());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Quotas(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    callers: HashMap<Uid, [u32; Holding::ALL.len()]>,
    in_all: [u32; Holding::ALL.len()],
}

impl Quotas {
    /// Takes one for `caller`, until what is returned is dropped.
    ///
    /// # Errors
    ///
    /// [`Exceeded`] where the caller holds as many as `quota` has, or all callers together hold too many.
    pub fn take(&self, caller: Uid, holding: Holding, quota: Quota) -> Result<Held, Exceeded> {
        let mut counts = self.lock();
        let most = holding.most(quota);
        let held = counts.held(caller, holding);
        if held >= most {
            return Err(Exceeded { holding, most });
        }
        if counts.in_all[holding as usize] >= holding.most_in_all() {
            return Err(Exceeded { holding, most: holding.most_in_all() });
        }
        Ok(self.count(&mut counts, caller, holding))
    }

    /// Counts one that is there already, whatever the quota: what an earlier run of the service left.
    pub fn adopt(&self, caller: Uid, holding: Holding) -> Held {
        self.count(&mut self.lock(), caller, holding)
    }

    /// How many `caller` holds.
    pub fn held(&self, caller: Uid, holding: Holding) -> u32 {
        self.lock().held(caller, holding)
    }

    /// How many callers hold anything.
    pub fn callers(&self) -> usize {
        self.lock().callers.len()
    }

    fn count(&self, counts: &mut Counts, caller: Uid, holding: Holding) -> Held {
        let of_caller = &mut counts.callers.entry(caller).or_default()[holding as usize];
        *of_caller = of_caller.saturating_add(1);
        let in_all = &mut counts.in_all[holding as usize];
        *in_all = in_all.saturating_add(1);
        Held { quotas: self.clone(), caller, holding }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        // Counting cannot be left half done: a panic elsewhere while it is held changes nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn held(&self, caller: Uid, holding: Holding) -> u32 {
        self.callers.get(&caller).map_or(0, |counts| counts[holding as usize])
    }
}

/// One that a caller holds, given back when it is dropped.
#[derive(Debug)]
#[must_use = "it is given back when it is dropped"]
pub struct Held {
    quotas: Quotas,
    caller: Uid,
    holding: Holding,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.quotas.lock();
        let counts = &mut *counts;
        if let Some(of_caller) = counts.callers.get_mut(&self.caller) {
            of_caller[self.holding as usize] = of_caller[self.holding as usize].saturating_sub(1);
            if *of_caller == [0; Holding::ALL.len()] {
                counts.callers.remove(&self.caller);
            }
        }
        counts.in_all[self.holding as usize] = counts.in_all[self.holding as usize].saturating_sub(1);
    }
}
