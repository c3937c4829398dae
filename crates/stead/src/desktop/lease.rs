//! Leases: one grant for each desktop and trustee, however many processes share it.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::access::Trustee;
use super::{Desktop, GRANTING};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::desktop::{Grant, Place};

/// Access of a trustee to a desktop, which is taken back when the last lease of it is dropped.
///
/// A process that was started with [`Command::desktop`](crate::Command::desktop) has one by itself, until the last
/// process of its tree has ended.
///
/// ```no_run
/// # fn example(token: &stead::Token<stead::Primary>) -> stead::Result<()> {
/// let lease = stead::Desktop::by_name(r"winsta0\default")?.grant(token)?;
/// println!("{lease}");
/// lease.give_back()?;
/// # Ok(()) }
/// ```
pub struct AccessLease {
    slot: Arc<Slot>,
    environment: Vec<(OsString, OsString)>,
    /// Whether it was given back already.
    returned: bool,
}

/// What the leases of one desktop and trustee share.
struct Slot {
    desktop: Desktop,
    trustee: Trustee,
    state: Mutex<State>,
    /// A forked copy of the server has no say.
    owner: u32,
}

#[derive(Default)]
struct State {
    leases: usize,
    grant: Option<Grant>,
}

/// Slots with leases, and slots that are being emptied: a new lease waits until the old grant is taken back, so that
/// the one cannot take the other's entry away.
static SLOTS: Mutex<Option<Slots>> = Mutex::new(None);

type Slots = HashMap<(Place, Trustee), Weak<Slot>>;

/// Takes a lease, and grants what it is for if nobody has it yet.
pub(super) fn take(desktop: &Desktop, place: &Place, trustee: &Trustee) -> Result<AccessLease> {
    if matches!(trustee, Trustee::Everyone | Trustee::Other(_)) {
        let what =
            format!("{trustee} cannot be granted a lease: name a user, a group or a logon session").into();
        return Err(Error::new(GRANTING, ErrorKind::InvalidInput { what }));
    }
    crate::sys::desktop::sweep_once();
    let slot = slot(desktop, place, trustee);
    let mut state = lock(&slot.state);
    // One that the desktop itself has ended (its server was started anew) is of no use to anybody.
    if state.grant.as_ref().is_some_and(|grant| !grant.is_alive()) {
        drop(state.grant.take().map(Grant::revoke));
    }
    if state.grant.is_none() {
        state.grant = Some(place.grant(trustee)?);
    }
    state.leases += 1;
    let environment = state.grant.as_ref().map(Grant::environment).unwrap_or_default();
    drop(state);
    Ok(AccessLease { slot, environment, returned: false })
}

fn slot(desktop: &Desktop, place: &Place, trustee: &Trustee) -> Arc<Slot> {
    let mut slots = lock(&SLOTS);
    let slots = slots.get_or_insert_default();
    let owner = std::process::id();
    slots.retain(|_, slot| slot.upgrade().is_some_and(|slot| slot.owner == owner));
    let key = (place.clone(), trustee.clone());
    if let Some(slot) = slots.get(&key).and_then(Weak::upgrade) {
        return slot;
    }
    let slot =
        Arc::new(Slot { desktop: desktop.clone(), trustee: trustee.clone(), state: Mutex::default(), owner });
    slots.insert(key, Arc::downgrade(&slot));
    slot
}

impl AccessLease {
    /// The desktop that it is for.
    pub fn desktop(&self) -> &Desktop {
        &self.slot.desktop
    }

    /// Who has the access.
    pub fn trustee(&self) -> &Trustee {
        &self.slot.trustee
    }

    /// What a process must find in its environment to use the desktop (`DISPLAY`, `XAUTHORITY`, ...); nothing on
    /// Windows.
    ///
    /// A process that is started with [`Command::desktop`](crate::Command::desktop) has it.
    pub fn environment(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.environment.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// Gives the access back, and says whether that was possible; dropping the lease does the same silently.
    ///
    /// While other leases of the same desktop and trustee live nothing is taken back yet.
    ///
    /// # Errors
    ///
    /// [`DesktopAccess`](ErrorKind::DesktopAccess) when the desktop's access list cannot be changed any more. What
    /// remains is swept at a server's next start.
    pub fn give_back(mut self) -> Result<()> {
        self.take_back()
    }

    fn take_back(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.returned, true) || self.slot.owner != std::process::id() {
            return Ok(());
        }
        let mut state = lock(&self.slot.state);
        state.leases -= 1;
        if state.leases > 0 {
            return Ok(());
        }
        match state.grant.take() {
            Some(grant) => crate::sys::impersonate::as_server(|| grant.revoke()),
            None => Ok(()),
        }
    }
}

impl Clone for AccessLease {
    /// One more lease of the same grant.
    fn clone(&self) -> Self {
        lock(&self.slot.state).leases += 1;
        Self { slot: Arc::clone(&self.slot), environment: self.environment.clone(), returned: false }
    }
}

impl Drop for AccessLease {
    fn drop(&mut self) {
        if let Err(error) = self.take_back() {
            tracing::warn!(%error, "access to a desktop could not be taken back");
        }
    }
}

impl fmt::Display for AccessLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.slot.desktop, self.slot.trustee)
    }
}

impl fmt::Debug for AccessLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLease")
            .field("desktop", &self.slot.desktop)
            .field("trustee", &self.slot.trustee)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
