//! Connections of users of whom it is not known yet whether they have an account.
//!
//! They wait for the account database, which may be slow or never answer, and there is room for so many. Nobody is to keep
//! others out meanwhile: neither by one uid nor by those that somebody was given besides (`/etc/subuid`), by which one user
//! appears as tens of thousands.

use std::collections::HashMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stead::os::linux::{Uid, subordinate_ids};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Those of all users together: a server with a large quota may well begin with hundreds.
const ALL: usize = 1024;
/// Those of one uid.
const OF_ONE: usize = ALL / 2;
/// Those of all subordinate uids together.
const SUBORDINATE: usize = ALL / 8;
/// Uids that the account database is asked for at a time; subordinate ones among them.
const ASKED: usize = 16;
const SUBORDINATE_ASKED: usize = 4;
/// How long what was read of `/etc/subuid` is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// The places and turns.
#[derive(Debug)]
pub(super) struct Newcomers {
    places: Mutex<Places>,
    asked: Arc<Semaphore>,
    subordinate_asked: Arc<Semaphore>,
    ranges: Mutex<Ranges>,
}

#[derive(Debug, Default)]
struct Places {
    all: usize,
    subordinate: usize,
    users: HashMap<Uid, OfUid>,
}

/// What those of one uid have: the account database is asked for it once at a time.
#[derive(Debug)]
struct OfUid {
    places: usize,
    asked: Arc<Semaphore>,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Newcomer {
    newcomers: Arc<Newcomers>,
    pub(super) uid: Uid,
    is_subordinate: bool,
}

/// A turn to ask the account database, which is over when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _of_all: OwnedSemaphorePermit,
    _subordinate: Option<OwnedSemaphorePermit>,
    _own: OwnedSemaphorePermit,
}

impl Newcomers {
    pub(super) fn new() -> Arc<Self> {
        let [asked, subordinate_asked] =
            [ASKED, SUBORDINATE_ASKED].map(|most| Arc::new(Semaphore::new(most)));
        Arc::new(Self { places: Mutex::default(), asked, subordinate_asked, ranges: Mutex::default() })
    }

    /// A place for a connection of this user; else how many there are.
    pub(super) fn place(self: &Arc<Self>, uid: Uid) -> Result<Newcomer, usize> {
        let is_subordinate = self.ranges.lock().unwrap_or_else(PoisonError::into_inner).contain(uid);
        let mut places = self.lock();
        let most_of_one = if is_subordinate { SUBORDINATE } else { OF_ONE };
        if places.users.get(&uid).is_some_and(|user| user.places >= most_of_one) {
            return Err(most_of_one);
        }
        if is_subordinate && places.subordinate >= SUBORDINATE {
            return Err(SUBORDINATE);
        }
        if places.all >= ALL {
            return Err(ALL);
        }
        places.all += 1;
        places.subordinate += usize::from(is_subordinate);
        let user = places.users.entry(uid);
        user.or_insert_with(|| OfUid { places: 0, asked: Arc::new(Semaphore::new(1)) }).places += 1;
        Ok(Newcomer { newcomers: Arc::clone(self), uid, is_subordinate })
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newcomer {
    /// A turn to ask the account database for this uid: after all others of it have had theirs.
    pub(super) async fn turn(&self) -> Option<Turn> {
        let own = Arc::clone(&self.newcomers.lock().users.get(&self.uid)?.asked);
        // Its own first: who waits for that keeps nobody else waiting.
        let own = own.acquire_owned().await.ok()?;
        let subordinate = if self.is_subordinate {
            Some(Arc::clone(&self.newcomers.subordinate_asked).acquire_owned().await.ok()?)
        } else {
            None
        };
        let of_all = Arc::clone(&self.newcomers.asked).acquire_owned().await.ok()?;
        Some(Turn { _of_all: of_all, _subordinate: subordinate, _own: own })
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let mut places = self.newcomers.lock();
        places.all -= 1;
        places.subordinate -= usize::from(self.is_subordinate);
        if let Some(user) = places.users.get_mut(&self.uid) {
            user.places -= 1;
            if user.places == 0 {
                places.users.remove(&self.uid);
            }
        }
    }
}

/// The uids that users were given besides their own. That an account has one all the same is possible: then it has
/// fewer places while it is not known.
#[derive(Debug, Default)]
struct Ranges {
    read: Vec<RangeInclusive<u32>>,
    when: Option<Instant>,
}

impl Ranges {
    fn contain(&mut self, uid: Uid) -> bool {
        if self.when.is_none_or(|when| when.elapsed() >= BELIEVED) {
            self.read(std::fs::read("/etc/subuid"));
            self.when = Some(Instant::now());
        }
        self.read.iter().any(|range| range.contains(&uid.as_raw()))
    }

    /// A file that cannot be read, as when no descriptor is left, is still what it was.
    fn read(&mut self, file: io::Result<Vec<u8>>) {
        match file {
            Ok(text) => self.read = subordinate_ids(&text).filter_map(Result::ok).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.read.clear(),
            Err(error) => tracing::warn!(%error, "/etc/subuid cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn uid(raw: u32) -> Uid {
        Uid::new(raw).unwrap()
    }

    /// With 65536 uids from 100000 on that somebody was given.
    fn newcomers() -> Arc<Newcomers> {
        let newcomers = Newcomers::new();
        let when = Some(Instant::now() + Duration::from_secs(3600));
        let mut ranges = newcomers.ranges.lock().unwrap();
        // Other names are in whatever encoding.
        ranges.read(Ok(b"jos\xe9:\nmallory:100000:0x10000\n".to_vec()));
        ranges.when = when;
        drop(ranges);
        newcomers
    }

    /// As many places as a user gets.
    fn all_of(newcomers: &Arc<Newcomers>, mut user: impl FnMut(u32) -> u32) -> Vec<Newcomer> {
        (0..4096).map_while(|number| newcomers.place(uid(user(number))).ok()).collect()
    }

    fn at_once(newcomer: &Newcomer) -> Option<Turn> {
        match pin!(newcomer.turn()).poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(turn) => turn,
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn whoever_appears_as_subordinate_users_takes_no_others_places() {
        let newcomers = newcomers();
        let subordinate = all_of(&newcomers, |number| 100_000 + number);
        assert_eq!(subordinate.len(), SUBORDINATE);
        assert_eq!(newcomers.place(uid(165_535)).unwrap_err(), SUBORDINATE);
        let one = all_of(&newcomers, |_| 1000);
        assert_eq!(one.len(), OF_ONE, "nor does a user with one uid");
        assert_eq!(newcomers.place(uid(1000)).unwrap_err(), OF_ONE);
        let others = all_of(&newcomers, |number| 1001 + number);
        assert_eq!(others.len(), ALL - OF_ONE - SUBORDINATE);
        assert_eq!(newcomers.place(uid(165_536)).unwrap_err(), ALL, "all are taken");
        drop((subordinate, one, others));
        let places = newcomers.lock();
        assert_eq!((places.all, places.subordinate, places.users.len()), (0, 0, 0));
    }

    #[test]
    fn where_the_account_database_never_answers_subordinate_users_take_few_turns_and_a_uid_one() {
        let newcomers = newcomers();
        let subordinate = all_of(&newcomers, |number| 100_000 + number);
        let turns: Vec<Turn> = subordinate.iter().filter_map(at_once).collect();
        assert_eq!(turns.len(), SUBORDINATE_ASKED);
        let one = [(); 8].map(|()| newcomers.place(uid(1000)).unwrap());
        let own: Vec<Turn> = one.iter().filter_map(at_once).collect();
        assert_eq!(own.len(), 1);
        let others = all_of(&newcomers, |number| 1001 + number);
        let rest: Vec<Turn> = others.iter().filter_map(at_once).collect();
        assert_eq!(rest.len(), ASKED - SUBORDINATE_ASKED - 1);
        drop(own);
        assert!(at_once(&one[1]).is_some());
    }

    #[test]
    fn what_cannot_be_read_changes_nothing_and_what_is_gone_does() {
        let newcomers = newcomers();
        let mut ranges = newcomers.ranges.lock().unwrap();
        ranges.read(Err(io::ErrorKind::Other.into()));
        assert!(ranges.contain(uid(100_000)));
        ranges.read(Err(io::ErrorKind::NotFound.into()));
        assert!(!ranges.contain(uid(100_000)));
    }
}
