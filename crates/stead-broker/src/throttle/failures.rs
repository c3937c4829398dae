//! Failed logons, counted for each user and caller.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use stead::os::linux::Uid;

use crate::policy::FailedLogons;

/// Callers whose failures are remembered; the least conspicuous is forgotten for a new one.
const MOST_CALLERS: usize = 256;
/// Users remembered for each caller, and users remembered in all: as above.
const MOST_USERS: usize = 512;
const MOST_USERS_IN_ALL: usize = 4096;
/// What is longer is counted under its beginning.
const LONGEST_NAME: usize = 256;
/// A user may fail this many times as often with all callers together as with one, and waits this much less then:
/// one caller shall not be able to keep a user from logging on through another.
const ALL_CALLERS: u32 = 4;
const ALL_CALLERS_DELAY: u32 = 10;
/// A caller may fail this many times as often with all users together as with one: it may be a portal for many.
const ALL_USERS: u32 = 64;

/// An attempt that has begun, and counts as failed until it has succeeded: also when nobody ever says how it ended.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is not said to have succeeded has failed"]
pub struct Attempt {
    caller: Uid,
    user: Box<str>,
}

/// It is too early for this attempt. Nothing was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(
    /// How long.
    pub Duration,
);

/// Failed logons: for each user with each caller, for each user, and for each caller.
///
/// Users are counted whether or not there is such an account, and those that there are no otherwise than the rest: nobody
/// learns from the waiting which accounts exist. One name in several spellings, as directories take it for the same
/// account, is one user: whatever the size of its letters, and with a domain or without. What is remembered is bounded,
/// whatever names and callers come.
///
/// ```
/// use std::time::{Duration, Instant};
/// use stead::os::linux::Uid;
/// use stead_broker::policy::FailedLogons;
/// use stead_broker::throttle::Failures;
///
/// let mut failures = Failures::new(FailedLogons { free_attempts: 1, ..FailedLogons::default() });
/// let (portal, now) = (Uid::new(990).unwrap(), Instant::now());
/// let attempt = failures.begin(now, portal, "alice").expect("the first one waits for nothing");
/// failures.failed(attempt);
/// assert!(failures.begin(now, portal, "alice").is_err());
/// assert!(failures.begin(now + Duration::from_secs(1), portal, "alice").is_ok());
/// ```
#[derive(Debug)]
pub struct Failures {
    settings: FailedLogons,
    callers: HashMap<Uid, OfCaller>,
    users: HashMap<Box<str>, Count>,
}

#[derive(Debug, Default)]
struct OfCaller {
    all: Count,
    users: HashMap<Box<str>, Count>,
}

impl Failures {
    /// None yet.
    pub fn new(settings: FailedLogons) -> Self {
        Self { settings, callers: HashMap::new(), users: HashMap::new() }
    }

    /// From now on with these settings; what was counted stays.
    pub fn set(&mut self, settings: FailedLogons) {
        self.settings = settings;
    }

    /// Begins an attempt to log `user` on for `caller`.
    ///
    /// # Errors
    ///
    /// How long to wait, where too many failed: the attempt must not be made.
    pub fn begin(&mut self, now: Instant, caller: Uid, user: &str) -> Result<Attempt, Wait> {
        let user = &*key(user);
        let (pair, in_all, any) = self.rules();
        let of_caller = self.callers.get(&caller);
        let waits = [
            of_caller.and_then(|known| known.users.get(user)).map(|count| count.wait(now, pair)),
            of_caller.map(|known| known.all.wait(now, any)),
            self.users.get(user).map(|count| count.wait(now, in_all)),
        ];
        let wait = waits.into_iter().flatten().max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(Wait(wait));
        }
        let weight = |of_caller: &OfCaller| of_caller.all.now(now, any);
        let of_caller = entry(&mut self.callers, caller, MOST_CALLERS, weight);
        of_caller.all.add(now, any);
        entry(&mut of_caller.users, user.into(), MOST_USERS, |count| count.now(now, pair)).add(now, pair);
        entry(&mut self.users, user.into(), MOST_USERS_IN_ALL, |count| count.now(now, in_all))
            .add(now, in_all);
        Ok(Attempt { caller, user: user.into() })
    }

    /// The attempt failed. The same as if nobody ever said how it ended.
    #[allow(clippy::unused_self, clippy::needless_pass_by_value)] // It takes the attempt away from its holder.
    pub fn failed(&mut self, attempt: Attempt) {
        drop(attempt);
    }

    /// The attempt succeeded: earlier failures of this user with this caller are forgotten.
    #[allow(clippy::needless_pass_by_value)] // An attempt succeeds once.
    pub fn succeeded(&mut self, attempt: Attempt) {
        if let Some(of_caller) = self.callers.get_mut(&attempt.caller) {
            of_caller.users.remove(&attempt.user);
            of_caller.all.take_one();
            if of_caller.users.is_empty() && of_caller.all.failures == 0 {
                self.callers.remove(&attempt.caller);
            }
        }
        if let Some(count) = self.users.get_mut(&attempt.user) {
            count.take_one();
            if count.failures == 0 {
                self.users.remove(&attempt.user);
            }
        }
    }

    /// How many failures count against this user with this caller now.
    pub fn counted(&self, now: Instant, caller: Uid, user: &str) -> u32 {
        let count = self.callers.get(&caller).and_then(|known| known.users.get(&*key(user)));
        count.map_or(0, |count| count.now(now, self.rules().0))
    }

    /// How many callers and users are remembered: for tests of its bounds.
    pub fn remembered(&self) -> usize {
        let of_callers: usize = self.callers.values().map(|known| 1 + known.users.len()).sum();
        of_callers + self.users.len()
    }

    /// For a user with one caller, for a user in all, for a caller in all.
    fn rules(&self) -> (Rule, Rule, Rule) {
        let FailedLogons { free_attempts, first_delay, longest_delay, forget_after } = self.settings;
        let pair =
            Rule { free: free_attempts, first: first_delay, longest: longest_delay, forget: forget_after };
        let longest = longest_delay / ALL_CALLERS_DELAY;
        let in_all = Rule { free: free_attempts.saturating_mul(ALL_CALLERS), longest, ..pair };
        // A steady pace, which one bad user of a portal cannot stretch for its others.
        let free = free_attempts.saturating_mul(ALL_USERS);
        let any = Rule { free, first: first_delay, longest: first_delay, forget: first_delay };
        (pair, in_all, any)
    }
}

#[derive(Debug, Clone, Copy)]
struct Rule {
    free: u32,
    first: Duration,
    longest: Duration,
    /// One failure is forgotten each time this has passed.
    forget: Duration,
}

impl Rule {
    /// What has to pass after the last of `failures`.
    fn delay(self, failures: u32) -> Duration {
        let Some(beyond) = failures.checked_sub(self.free) else { return Duration::ZERO };
        let factor = 1_u32.checked_shl(beyond).unwrap_or(u32::MAX);
        self.first.checked_mul(factor).unwrap_or(Duration::MAX).min(self.longest)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    failures: u32,
    /// When the last one was counted; it is from here that failures are forgotten.
    last: Option<Instant>,
}

impl Count {
    fn passed(self, now: Instant) -> Duration {
        self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last))
    }

    /// The failures that are not forgotten yet.
    fn now(self, now: Instant, rule: Rule) -> u32 {
        let forgotten = self.passed(now).as_millis() / rule.forget.as_millis().max(1);
        self.failures.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    fn wait(self, now: Instant, rule: Rule) -> Duration {
        let failures = self.now(now, rule);
        rule.delay(failures).saturating_sub(self.passed(now))
    }

    fn add(&mut self, now: Instant, rule: Rule) {
        self.failures = self.now(now, rule).saturating_add(1);
        self.last = Some(now);
    }

    fn take_one(&mut self) {
        self.failures = self.failures.saturating_sub(1);
    }
}

/// The entry of `key`; in a full map one of the least weight is forgotten for it.
fn entry<K: Hash + Eq + Clone, V: Default>(
    map: &mut HashMap<K, V>,
    key: K,
    most: usize,
    weight: impl Fn(&V) -> u32,
) -> &mut V {
    if map.len() >= most && !map.contains_key(&key) {
        let least = map.iter().min_by_key(|(_, value)| weight(value)).map(|(key, _)| key.clone());
        least.map(|least| map.remove(&least));
    }
    map.entry(key).or_default()
}

/// What a user is counted under: `Alice@EXAMPLE.COM`, `EXAMPLE\alice` and `alice` are one.
fn key(user: &str) -> String {
    let behind = user.rsplit_once('\\').map_or(user, |(_, name)| name);
    let name = behind.split_once('@').map_or(behind, |(name, _)| name);
    // A domain alone is no name.
    let name = if name.is_empty() { user } else { name };
    let mut end = name.len().min(LONGEST_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().to_lowercase()
}
