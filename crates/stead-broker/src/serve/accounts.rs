//! Which uids are an account's.
//!
//! All that are no account's count as one caller: anybody who was given subordinate uids (`/etc/subuid`) has tens of thousands
//! to appear as, in a user namespace of its own and, by a setuid file, outside of it. The account database may be slow, or
//! never answer; it is asked away from where connections are taken, and whoever it has told of once does not wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stead::os::linux::{self, Uid};

use super::newcomers::{Newcomer, Newcomers};

/// The overflow uid, as which nobody can call: what no account's uids hold together counts for it.
pub(super) const STRANGERS: Uid = match Uid::new(65_534) {
    Some(uid) => uid,
    None => unreachable!(),
};
/// How long it is remembered that a uid is no account's.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// The uids of which it is remembered that they are no account's, at most.
const MOST_STRANGERS: usize = 1 << 17;
/// How long a connection waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The user at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    pub(super) uid: Uid,
    /// For whom it counts what the connection occupies.
    pub(super) counted: Uid,
}

/// What is known of the account database.
#[derive(Debug)]
pub(super) struct Accounts {
    known: Mutex<HashMap<Uid, (bool, Instant)>>,
    newcomers: Arc<Newcomers>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { known: Mutex::default(), newcomers: Newcomers::new() }
    }
}

impl Accounts {
    /// For whom counts what a uid holds, where that is known already.
    pub(super) fn counted(&self, uid: Uid) -> Option<Uid> {
        if uid == Uid::ROOT || uid == STRANGERS {
            return Some(counted(uid, false));
        }
        let (is_one, since) = *self.lock().get(&uid)?;
        // That an account which is no more counts for itself harms nobody.
        (is_one || since.elapsed() < REMEMBERED).then(|| counted(uid, is_one))
    }

    /// A place to wait for the account database; else how many there are.
    pub(super) fn newcomer(&self, uid: Uid) -> Result<Newcomer, usize> {
        self.newcomers.place(uid)
    }

    /// Asks the account database for whom counts what the newcomer holds.
    pub(super) async fn ask(&self, newcomer: Newcomer) -> Uid {
        // Where it does not answer no call of its can be answered either.
        tokio::time::timeout(PATIENCE, self.answer(newcomer)).await.ok().flatten().unwrap_or(STRANGERS)
    }

    async fn answer(&self, newcomer: Newcomer) -> Option<Uid> {
        let uid = newcomer.uid;
        let turn = newcomer.turn().await?;
        // Another connection of the same user may have asked meanwhile.
        if let Some(counted) = self.counted(uid) {
            return Some(counted);
        }
        // Turn and place are taken until the database has answered, whoever waits for that.
        let asked = move || (linux::User::by_uid(uid), (turn, newcomer));
        let (found, _taken) = tokio::task::spawn_blocking(asked).await.ok()?;
        let is_one = found.ok()?.is_some();
        self.remember(uid, is_one);
        Some(counted(uid, is_one))
    }

    fn remember(&self, uid: Uid, is_one: bool) {
        let mut known = self.lock();
        if known.len() >= MOST_STRANGERS {
            known.retain(|_, (is_one, _)| *is_one);
        }
        known.insert(uid, (is_one, Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uid, (bool, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For whom counts what a uid holds, which is an account's or not. Root is nobody's subordinate, whatever the account
/// database knows.
pub(super) fn counted(uid: Uid, is_an_accounts: bool) -> Uid {
    if is_an_accounts || uid == Uid::ROOT { uid } else { STRANGERS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(raw: u32) -> Uid {
        Uid::new(raw).unwrap()
    }

    #[test]
    fn an_accounts_uid_counts_for_itself_and_all_others_for_one_that_nobody_has() {
        let accounts = Accounts::default();
        assert_eq!(accounts.counted(Uid::ROOT), Some(Uid::ROOT), "without having been asked for");
        assert_eq!(counted(Uid::ROOT, false), Uid::ROOT, "for its calls as for its connections");
        assert_eq!(accounts.counted(uid(7)), None);
        accounts.remember(uid(7), true);
        accounts.remember(uid(8), false);
        accounts.remember(uid(9), false);
        let counted = [7, 8, 9].map(|raw| accounts.counted(uid(raw)));
        assert_eq!(counted, [Some(uid(7)), Some(STRANGERS), Some(STRANGERS)]);
    }

    #[test]
    fn of_strangers_no_more_are_remembered_than_there_is_room_for_and_accounts_stay() {
        let accounts = Accounts::default();
        accounts.remember(uid(7), true);
        for raw in 0..2 * u32::try_from(MOST_STRANGERS).unwrap() {
            accounts.remember(uid(100_000 + raw), false);
        }
        assert!(accounts.lock().len() <= MOST_STRANGERS);
        assert_eq!(accounts.counted(uid(7)), Some(uid(7)));
    }
}
