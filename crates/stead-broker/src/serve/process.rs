//! The processes that the service created, in this run or an earlier one.
//!
//! Each is written down, with what [proves](Proof) that a number is still the same process.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stead::logon::StartedProcess;
use stead::os::linux::{ChildExt, Signal, Uid};
use stead::{Child, LogonSession};
use stead_protocol as wire;
use stead_protocol::{
    Failure, FailureKind, GetProcess, KillTree, ListProcesses, Nothing, ResumeProcess, SignalProcess, Text,
};
use tokio::sync::watch;

use super::caller::Caller;
use super::failure::{failure, invalid};
use super::folder::{Folder, Unfinished, now, parsed, written};
use super::groups::{self, Groups};
use super::proof::{Proof, is_there};
use crate::throttle::Held as Counted;

/// How long the status of a process that has ended is told.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// The statuses that are told of one user's processes at most.
const MOST_REMEMBERED: usize = 256;
/// What a list may take of a message; a program's name may be as long as a path.
const MOST_LISTED: usize = stead_protocol::LARGEST_MESSAGE / 4 * 3;
/// The processes of one user that have ended and whose trees can still be ended: each holds descriptors.
const MOST_TREES: usize = 16;
/// How long a worker may take from the end of a process to knowing its status.
const REAPING: Duration = Duration::from_secs(1);

/// What is written down of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) pid: u32,
    pub(super) proof: Proof,
    pub(super) uid: u32,
    pub(super) owner: u32,
    pub(super) session: Option<String>,
    pub(super) program: Text,
    pub(super) since: u64,
    pub(super) containment: String,
    /// Whether it needed no rule of the policy.
    pub(super) own: bool,
    pub(super) end: Option<(u64, End)>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    /// With this wait status.
    Status(i32),
    /// Nobody can tell.
    Lost,
}

/// A process, with what is held of it.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) record: Record,
    held: Mutex<Held>,
    suspended: AtomicBool,
    end: watch::Sender<Option<(u64, End)>>,
}

/// What is dropped once it has ended; what its tree is known by, some time later.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) pidfd: Option<OwnedFd>,
    /// Its tree is not known any more.
    pub(super) forgotten: bool,
    pub(super) child: Option<Child>,
    /// One that an earlier run created in a session.
    pub(super) earlier: Option<StartedProcess>,
    /// Kept open while it runs.
    pub(super) session: Option<Arc<LogonSession>>,
    pub(super) counted: Option<Counted>,
}

impl Record {
    /// Whether a control group holds its tree.
    fn is_in_a_group(&self) -> bool {
        self.containment == groups::CONTAINMENT
    }
}

impl Tracked {
    pub(super) fn new(record: Record, pidfd: Option<OwnedFd>, held: Held) -> Self {
        let held = Held { pidfd, ..held };
        let suspended = held.child.as_ref().is_some_and(Child::is_suspended).into();
        let end = watch::Sender::new(record.end);
        Self { record, held: Mutex::new(held), suspended, end }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its pidfd, until its end was collected.
    pub(super) fn pidfd(&self) -> io::Result<Option<OwnedFd>> {
        self.held().pidfd.as_ref().map(OwnedFd::try_clone).transpose()
    }

    /// Whether it has ended, by its pidfd, and its end was not collected yet.
    fn has_ended_unseen(&self) -> bool {
        self.held().pidfd.as_ref().is_some_and(|pidfd| !is_there(pidfd.as_fd()))
    }

    /// Lets go of what the rest of its tree is known by.
    fn forget_tree(&self) {
        let mut held = self.held();
        let known = (held.child.take(), held.earlier.take());
        held.forgotten = true;
        drop(held);
        drop(known);
    }

    /// Tells when it has ended, and how.
    pub(super) fn end(&self) -> watch::Receiver<Option<(u64, End)>> {
        self.end.subscribe()
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Relaxed)
    }

    /// Ends it if it is still suspended: whoever could have resumed it is gone.
    pub(super) fn abandon(&self) {
        if self.is_suspended()
            && let Some(child) = &mut self.held().child
        {
            let _ = child.kill();
        }
    }

    pub(super) fn describe(&self) -> wire::Process {
        let Record { id, pid, uid, owner, session, program, since, containment, .. } = self.record.clone();
        let running = self.end.borrow().is_none();
        let suspended = running && self.is_suspended();
        wire::Process { id, pid, uid, owner, session, program, since, containment, suspended, running }
    }

    /// Collects the status of a process whose pidfd says that it has ended.
    fn collect(&self) -> End {
        let mut held = self.held();
        let raw = of_worker(held.earlier.as_ref()).or_else(|| {
            let status: ExitStatus = held.child.as_mut()?.try_wait().ok()??;
            Some(status.into_raw())
        });
        // It, too, is a hold on the session.
        held.earlier = None;
        held.session = None;
        held.counted = None;
        held.pidfd = None;
        raw.map_or(End::Lost, End::Status)
    }
}

/// The wait status that the worker of an earlier run's session kept.
fn of_worker(process: Option<&StartedProcess>) -> Option<i32> {
    let give_up = Instant::now() + REAPING;
    loop {
        match process?.exit_status() {
            Ok(Some(status)) => return Some(status.into_raw()),
            Ok(None) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Processes {
    folder: Folder,
    known: Mutex<BTreeMap<u64, Arc<Tracked>>>,
    /// Those of each user whose trees are known though they have ended, the oldest first.
    ended: Mutex<BTreeMap<u32, VecDeque<Weak<Tracked>>>>,
    pub(super) groups: Groups,
}

impl Processes {
    pub(super) fn at(path: &Path, groups: Groups) -> io::Result<Self> {
        Ok(Self { folder: Folder::at(path)?, known: Mutex::default(), ended: Mutex::default(), groups })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Tracked>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn running(&self) -> usize {
        self.lock().values().filter(|one| one.end.borrow().is_none()).count()
    }

    /// Begins the record of a process that is about to be created.
    ///
    /// One that is created, and whose record is never finished because the service is killed, is ended by the next run
    /// ([`Processes::unfinished`]): its caller was told nothing but that the connection failed.
    pub(super) fn begin(&self, id: u64) -> io::Result<Unfinished<'_>> {
        self.folder.begin(&written(id))
    }

    /// Knows a process, which is written down, from now on.
    pub(super) fn add(&self, id: u64, tracked: Tracked) -> Arc<Tracked> {
        let tracked = Arc::new(tracked);
        self.lock().insert(id, Arc::clone(&tracked));
        tracked
    }

    /// A process is not to be known again: it has never run its program.
    pub(super) fn unwrite(&self, id: u64) {
        self.folder.remove(&written(id));
    }

    /// The ids of processes that an earlier run was creating when it was killed.
    pub(super) fn unfinished(&self) -> Vec<String> {
        self.folder.unfinished()
    }

    /// They are over.
    pub(super) fn forget_unfinished(&self) {
        self.folder.forget_unfinished();
    }

    /// Waits until what has ended of a user's processes is counted no more.
    pub(super) fn count_off(&self, owner: Uid) {
        let give_up = Instant::now() + REAPING;
        let lags = |one: &Arc<Tracked>| one.record.owner == owner.as_raw() && one.has_ended_unseen();
        while self.lock().values().any(lags) && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What an earlier run wrote down.
    pub(super) fn written(&self) -> Vec<Record> {
        self.folder.read_all().unwrap_or_default()
    }

    /// A process has ended: its status is collected, written down and told.
    pub(super) fn ended(&self, tracked: &Arc<Tracked>) -> End {
        let end = tracked.collect();
        let when = now();
        let record = Record { end: Some((when, end)), ..tracked.record.clone() };
        if let Err(error) = self.folder.write(&record.id, &record) {
            tracing::warn!(%error, "the end of a process could not be written down");
        }
        if record.is_in_a_group() {
            self.groups.remove(&record.id);
        }
        tracked.end.send_replace(Some((when, end)));
        self.bound(tracked);
        end
    }

    /// Of a user's processes that have ended only the last ones are remembered, however fast they come; and fewer of them
    /// with their trees, for each of those costs descriptors.
    fn bound(&self, tracked: &Arc<Tracked>) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let of_owner = ended.entry(tracked.record.owner).or_default();
        of_owner.push_back(Arc::downgrade(tracked));
        let tree = of_owner.len().checked_sub(MOST_TREES + 1).and_then(|at| of_owner[at].upgrade());
        let oldest = if of_owner.len() > MOST_REMEMBERED { of_owner.pop_front() } else { None };
        drop(ended);
        if let Some(tree) = tree {
            tree.forget_tree();
        }
        if let Some(oldest) = oldest.and_then(|oldest| oldest.upgrade()) {
            self.folder.remove(&oldest.record.id);
            let id = parsed(&oldest.record.id);
            let dropped = id.and_then(|id| self.lock().remove(&id));
            drop(dropped);
        }
    }

    /// Forgets processes that ended long ago, and the oldest of too many.
    pub(super) fn sweep(&self) {
        let long_ago = now().saturating_sub(REMEMBERED.as_secs());
        let mut of_owner: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        let mut forgotten = Vec::new();
        for (id, one) in &*self.lock() {
            let Some((when, _)) = *one.end.borrow() else { continue };
            // A tree that lives on can still be ended.
            let lives = || one.record.is_in_a_group() && self.groups.is_populated(&one.record.id);
            if when <= long_ago && !lives() {
                forgotten.push(*id);
            } else {
                of_owner.entry(one.record.owner).or_default().push((when, *id));
            }
        }
        for ended in of_owner.values_mut() {
            ended.sort_unstable();
            let many = ended.len().saturating_sub(MOST_REMEMBERED);
            forgotten.extend(ended.iter().take(many).map(|(_, id)| *id));
        }
        let mut dropped = Vec::new();
        for id in forgotten {
            self.folder.remove(&written(id));
            dropped.extend(self.lock().remove(&id));
        }
        self.groups.sweep();
    }

    /// The process of this id, if `may` holds for it; who may not know it is told that there is none.
    fn find(&self, id: &str, may: impl Fn(&Record) -> bool) -> Result<Arc<Tracked>, Failure> {
        let found = parsed(id).and_then(|id| self.lock().get(&id).cloned());
        found.filter(|tracked| may(&tracked.record)).ok_or_else(|| {
            FailureKind::NoSuchHandle { of: "process".to_owned() }.while_doing("looking up a process")
        })
    }

    /// One that the caller may know of.
    pub(super) fn seen(&self, caller: Uid, id: &str) -> Result<Arc<Tracked>, Failure> {
        self.find(id, |record| may_see(caller, record))
    }

    /// One that the caller, or another process of its user, asked for.
    fn owned(&self, caller: &Caller, id: &str) -> Result<Arc<Tracked>, Failure> {
        let uid = caller.uid;
        let found = self.find(id, |record| uid == Uid::ROOT || record.owner == uid.as_raw())?;
        if found.record.own {
            // Nothing that a sandboxed process of the same user should reach.
            caller.require_free()?;
        }
        Ok(found)
    }

    /// As many as a message has room for: those that run before those that have ended, the newest first.
    pub(super) fn list(&self, caller: &Caller, call: &ListProcesses) -> wire::Processes {
        let of_session = |record: &Record| call.session.is_none() || record.session == call.session;
        let mut seen: Vec<Arc<Tracked>> = self.lock().values().cloned().collect();
        seen.retain(|one| may_see(caller.uid, &one.record) && of_session(&one.record));
        seen.sort_by_key(|one| (one.end.borrow().is_some(), std::cmp::Reverse(one.record.since)));
        let mut room = MOST_LISTED;
        let mut processes = Vec::new();
        for one in seen {
            let described = one.describe();
            let length = serde_json::to_string(&described).map_or(MOST_LISTED, |text| text.len() + 1);
            let Some(left) = room.checked_sub(length) else { break };
            room = left;
            processes.push(described);
        }
        wire::Processes { processes }
    }

    pub(super) fn get(
        &self,
        caller: &Caller,
        call: &GetProcess,
    ) -> Result<(wire::Process, Option<OwnedFd>), Failure> {
        let found = self.seen(caller.uid, &call.process)?;
        let pidfd = found.pidfd();
        let pidfd = pidfd.map_err(|error| super::failure::system("looking up a process", "fcntl", error))?;
        Ok((found.describe(), pidfd))
    }

    pub(super) fn resume(&self, caller: &Caller, call: &ResumeProcess) -> Result<Nothing, Failure> {
        let found = self.owned(caller, &call.process)?;
        let mut held = found.held();
        if let Some(child) = &mut held.child {
            let resumed = child.resume();
            found.suspended.store(child.is_suspended(), Ordering::Relaxed);
            resumed.map_err(|error| failure(&error))?;
        }
        Ok(Nothing {})
    }

    pub(super) fn signal(
        &self,
        caller: &Caller,
        call: &SignalProcess,
    ) -> Result<(Arc<Tracked>, Nothing), Failure> {
        let signal = Signal::from_raw(call.signal)
            .ok_or_else(|| invalid("signalling a process", format!("there is no signal {}", call.signal)))?;
        let found = self.owned(caller, &call.process)?;
        if let Some(child) = &found.held().child {
            let sent = if call.group { child.signal_group(signal) } else { child.signal(signal) };
            sent.map_err(|error| failure(&error))?;
        }
        Ok((found, Nothing {}))
    }

    pub(super) fn kill_tree(
        &self,
        caller: &Caller,
        call: &KillTree,
    ) -> Result<(Arc<Tracked>, Nothing), Failure> {
        const DOING: &str = "ending a process and its descendants";
        let found = self.owned(caller, &call.process)?;
        if found.record.is_in_a_group()
            && let Some(killed) = self.groups.kill_tree(&found.record.id)
        {
            killed.map_err(|error| failure(&error))?;
            // systemd moves a process out of it for its own user (AttachProcessesToUnit): then it is reached as a child is.
            let mut held = found.held();
            if let Some(child) = &mut held.child {
                let _ = child.kill_tree();
                let _ = child.kill();
            }
            if let Some(earlier) = &held.earlier {
                let _ = earlier.kill_tree();
            }
            drop(held);
            return Ok((found, Nothing {}));
        }
        let mut guard = found.held();
        let held = &mut *guard;
        let killed = match (&held.earlier, &mut held.child) {
            (Some(earlier), _) => earlier.kill_tree(),
            (None, Some(child)) => child.kill_tree(),
            (None, None) if held.forgotten => {
                return Err(invalid(DOING, "it ended long ago, and what is left of its tree is not known"));
            }
            (None, None) => Ok(()),
        };
        drop(guard);
        killed.map(|()| (found, Nothing {})).map_err(|error| failure(&error))
    }
}

fn may_see(uid: Uid, record: &Record) -> bool {
    uid == Uid::ROOT || [record.owner, record.uid].contains(&uid.as_raw())
}
