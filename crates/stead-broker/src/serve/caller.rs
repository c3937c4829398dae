//! Who calls: by the library's own client, of the connection itself.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::time::Duration;

use stead::os::linux::{ClientExt, Gid, GroupSet, Uid, User};
use stead::{Client, Confinement, ErrorKind, Impersonation, Token};
use stead_protocol::{Failure, FailureKind};

use super::accounts;
use super::failure::failure;
use crate::policy;

/// What pins the process at the other end of a socket.
const PINNING: &str = "SO_PEERPIDFD (Linux 6.5)";

/// Who calls, as of connect.
#[derive(Debug)]
pub(super) struct Caller {
    client: Client,
    pub(super) uid: Uid,
    /// For whom counts what it holds.
    pub(super) counted: Uid,
    /// What the policy knows of it.
    pub(super) policy: policy::Caller,
    pub(super) pid: u32,
    /// How long its call is to wait, for it filled the audit log.
    wait: Cell<Duration>,
}

impl Caller {
    /// The caller at the other end of a connection.
    pub(super) fn of(connection: impl AsFd) -> stead::Result<Self> {
        let client = identified(connection)?;
        let identity = client.identity()?;
        let (uid, pid) = (identity.uid, identity.pid);
        let gids = with(identity.groups, identity.gid);
        let account_groups = groups_of_account(uid)?;
        let counted = accounts::counted(uid, account_groups.is_some());
        let policy = policy::Caller::new(uid, gids).account_groups(account_groups.unwrap_or_default());
        Ok(Self { client, uid, counted, policy, pid, wait: Cell::default() })
    }

    /// Its own token. How it is confined is looked at now, and must be known.
    pub(super) fn token(&self) -> Result<Token<Impersonation>, Failure> {
        if self.pidfd().is_none() {
            let kind = FailureKind::KernelTooOld { needs: PINNING.to_owned() };
            return Err(kind.while_doing("finding out how the caller is confined"));
        }
        self.client.token().map_err(|error| failure(&error))
    }

    /// Its call is to wait at least so long.
    pub(super) fn must_wait(&self, wait: Duration) {
        self.wait.set(self.wait.get().max(wait));
    }

    /// How long its last call is to wait.
    pub(super) fn take_wait(&self) -> Duration {
        self.wait.take()
    }

    /// The pidfd that pins it; none before Linux 6.5.
    pub(super) fn pidfd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.client.pidfd()
    }

    /// Fails when something confines the caller more than the service, or that cannot be known.
    ///
    /// What the policy gives is given to a user; what needs no policy rests on what the process could do by
    /// itself, and a confined one could do less.
    pub(super) fn require_free(&self) -> Result<(), Failure> {
        self.token().map(drop)
    }

    /// What confines it, for people to read.
    pub(super) fn confined(&self) -> Option<String> {
        if self.pidfd().is_none() {
            return Some(format!("perhaps, for that cannot be known without {PINNING}"));
        }
        match self.client.token() {
            Ok(_) => None,
            Err(error) => match error.kind() {
                ErrorKind::ClientConfined { part } => Some(part.to_string()),
                _ => Some(error.to_string()),
            },
        }
    }
}

/// A client by its connection. Before Linux 6.5 nothing pins its process, and how that is confined cannot be known: then by
/// its ids and groups as of connect, which the policy's rules go by.
pub(super) fn identified(connection: impl AsFd) -> stead::Result<Client> {
    let connection = connection.as_fd();
    match Client::of(connection) {
        Err(error) if matches!(error.kind(), ErrorKind::KernelTooOld { .. }) => {
            Client::with(Confinement::Unknown).of(connection)
        }
        client => client,
    }
}

/// Whether a session or process of `uid` that `owner` asked for is any of the caller's business.
pub(super) fn may_see(caller: Uid, owner: u32, uid: u32) -> bool {
    caller == Uid::ROOT || [owner, uid].contains(&caller.as_raw())
}

/// The groups, and one more.
pub(super) fn with(groups: &GroupSet, gid: Gid) -> impl Iterator<Item = Gid> {
    groups.as_slice().iter().copied().chain([gid]).collect::<Vec<_>>().into_iter()
}

/// The groups that the account database has a user in; none where it does not know the user.
pub(super) fn account_groups(uid: Uid) -> stead::Result<Vec<Gid>> {
    Ok(groups_of_account(uid)?.unwrap_or_default())
}

fn groups_of_account(uid: Uid) -> stead::Result<Option<Vec<Gid>>> {
    match User::by_uid(uid)? {
        Some(user) => Ok(Some(with(&user.groups()?, user.gid()).collect())),
        None => Ok(None),
    }
}
