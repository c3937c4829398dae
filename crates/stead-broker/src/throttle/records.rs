//! How much of the audit log each caller may fill.
//!
//! What needs no rule and what is refused anybody can have recorded, as often as the service answers. So each caller has
//! two allowances, in bytes: a small one for these, and a large one for what a rule gives it, which is its server's work.
//! Each fills up again with time. Nobody sleeps in here, and the clock is passed in.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stead::os::linux::Uid;

/// An allowance: at once, and in each second from then on.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    most: f64,
    each_second: f64,
}

/// Some two thousand records at once, and from then on 1.4 GB a day, which logrotate compresses. Both are less than what
/// journald takes of a service in half a minute (`RateLimitBurst=` in journald.conf(5)).
const SMALL: Allowance = Allowance { most: 1_048_576.0, each_second: 16_384.0 };
/// A thousand processes a second are three records each, of half a KiB where little is said of them: 1.5 MB.
const LARGE: Allowance = Allowance { most: 16_777_216.0, each_second: 4_194_304.0 };
/// How long a caller waits at most for room of either. What it is refused beyond that is counted and no more, and what a rule
/// gives it is for later.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often it is told how much was folded while there is more of it.
const TOLD: Duration = Duration::from_secs(1);

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum About {
    /// What a caller did as itself, without any rule. Its records may be folded into one that counts them.
    Itself,
    /// What it was refused. It waits where there are many; of very many its records are folded, too.
    Refused,
    /// What a rule of the policy gives it. It waits where there are very many.
    Ruled,
}

/// What becomes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Becomes {
    /// It is written, and whoever made it waits for so long before it makes more.
    Written(Duration),
    /// It is counted, and no more.
    Folded,
}

#[derive(Debug)]
struct Bucket {
    level: f64,
    since: Instant,
}

impl Bucket {
    fn full(allowance: Allowance, now: Instant) -> Self {
        Self { level: allowance.most, since: now }
    }

    fn fill(&mut self, allowance: Allowance, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = self.since.max(now);
        self.level = (self.level + passed * allowance.each_second).min(allowance.most);
        self.level
    }

    /// Takes so much, whether it is there or not; how long it is until it is.
    fn take(&mut self, allowance: Allowance, now: Instant, size: f64) -> Duration {
        self.level = self.fill(allowance, now) - size;
        Duration::from_secs_f64((-self.level).max(0.0) / allowance.each_second)
    }
}

#[derive(Debug)]
struct OfCaller {
    small: Bucket,
    large: Bucket,
    folded: u64,
    told: Option<Instant>,
}

/// What each caller has left. What anybody has in full is not kept.
///
/// ```
/// use std::time::{Duration, Instant};
/// use stead::os::linux::Uid;
/// use stead_broker::throttle::{About, Becomes, Records};
///
/// let (records, now, caller) = (Records::default(), Instant::now(), Uid::new(1000).unwrap());
/// assert_eq!(records.take(now, caller, About::Itself, 500), Becomes::Written(Duration::ZERO));
/// while records.take(now, caller, About::Itself, 500) != Becomes::Folded {}
/// assert_eq!(records.take(now, caller, About::Ruled, 500), Becomes::Written(Duration::ZERO));
/// assert_eq!(records.folded(now), [(caller, 1)]);
/// // What is refused is written all the same, and the caller waits for it.
/// assert!(matches!(records.take(now, caller, About::Refused, 500), Becomes::Written(wait) if !wait.is_zero()));
/// ```
#[derive(Debug, Default)]
pub struct Records(Mutex<HashMap<Uid, OfCaller>>);

impl Records {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uid, OfCaller>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of a record of `size` bytes from what `caller` has. Root is not bounded.
    pub fn take(&self, now: Instant, caller: Uid, about: About, size: usize) -> Becomes {
        if caller == Uid::ROOT {
            return Becomes::Written(Duration::ZERO);
        }
        #[allow(clippy::cast_precision_loss)] // no record is so long
        let size = size as f64;
        let mut callers = self.lock();
        let of_caller = callers.entry(caller).or_insert_with(|| OfCaller {
            small: Bucket::full(SMALL, now),
            large: Bucket::full(LARGE, now),
            folded: 0,
            told: None,
        });
        match about {
            About::Ruled => Becomes::Written(of_caller.large.take(LARGE, now, size)),
            About::Refused if of_caller.small.take(SMALL, now, 0.0) < LONGEST_WAIT => {
                Becomes::Written(of_caller.small.take(SMALL, now, size))
            }
            About::Itself if of_caller.small.fill(SMALL, now) >= size => {
                Becomes::Written(of_caller.small.take(SMALL, now, size))
            }
            About::Itself | About::Refused => {
                of_caller.folded += 1;
                Becomes::Folded
            }
        }
    }

    /// When `caller` may do more by a rule, if it did not wait for what it did so far.
    pub fn try_after(&self, now: Instant, caller: Uid) -> Option<Duration> {
        let mut callers = self.lock();
        let owed = callers.get_mut(&caller)?.large.take(LARGE, now, 0.0);
        owed.checked_sub(LONGEST_WAIT).filter(|after| !after.is_zero())
    }

    /// How many records of `caller` were folded since it was told last, if that is to be told again.
    pub fn folded_of(&self, now: Instant, caller: Uid) -> Option<u64> {
        let mut callers = self.lock();
        let of_caller = callers.get_mut(&caller)?;
        let is_time = of_caller.told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD);
        if of_caller.folded == 0 || !is_time {
            return None;
        }
        of_caller.told = Some(now);
        Some(std::mem::take(&mut of_caller.folded))
    }

    /// How many records of each caller were folded since it was told last. Those who have all that they may have are forgotten.
    pub fn folded(&self, now: Instant) -> Vec<(Uid, u64)> {
        let mut all = Vec::new();
        self.lock().retain(|caller, of_caller| {
            if of_caller.folded > 0 {
                all.push((*caller, std::mem::take(&mut of_caller.folded)));
                of_caller.told = Some(now);
            }
            let small = of_caller.small.fill(SMALL, now) < SMALL.most;
            let large = of_caller.large.fill(LARGE, now) < LARGE.most;
            small || large
        });
        all
    }

    /// How many callers have less than they may have, or had when they were asked for last.
    pub fn callers(&self) -> usize {
        self.lock().len()
    }
}
