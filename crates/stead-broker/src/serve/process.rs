//! The processes that the service created, in this run or an earlier one.
//!
//! Each is written down, with what [proves](Proof) that a number is still the same process.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stead::logon::StartedProcess;
use stead::os::linux::{ChildExt, Signal, Uid};
use stead::{Child, LogonSession};
use stead_protocol as wire;
use stead_protocol::{
    Failure, FailureKind, GetProcess, KillTree, ListProcesses, Nothing, ResumeProcess, SignalProcess, Text,
};
use tokio::sync::{Notify, watch};

use super::caller::{Caller, may_see};
use super::ended::{End, Ended, Remembered, Surplus};
use super::failure::{failure, invalid};
use super::folder::{Folder, Unfinished, now, parsed, written};
use super::groups::{self, Groups};
use super::proof::{Proof, is_there};
use super::session::Sessions;
use crate::throttle::Held as Counted;

/// How long the status of a process that has ended is told.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// What a list may take of a message; a program's name may be as long as a path.
const MOST_LISTED: usize = stead_protocol::LARGEST_MESSAGE / 4 * 3;
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
    /// For whom it counts; the owner where an earlier version did not write it down.
    pub(super) counted: Option<u32>,
    pub(super) session: Option<String>,
    pub(super) program: Text,
    pub(super) since: u64,
    pub(super) containment: String,
    /// Whether it needed no rule of the policy.
    pub(super) own: bool,
    pub(super) end: Option<(u64, End)>,
}

/// A process, with what is held of it.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) record: Record,
    held: Mutex<Held>,
    suspended: AtomicBool,
    /// Its end was noticed otherwise than by its pidfd.
    over: Notify,
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
    /// The uid for which it counts.
    pub(super) fn counted(&self) -> u32 {
        self.counted.unwrap_or(self.owner)
    }

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
        Self { record, held: Mutex::new(held), suspended, over: Notify::new(), end }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its pidfd, until its end was collected.
    pub(super) fn pidfd(&self) -> io::Result<Option<OwnedFd>> {
        self.held().pidfd.as_ref().map(OwnedFd::try_clone).transpose()
    }

    /// Waits until its end was noticed otherwise than by its pidfd.
    pub(super) async fn over(&self) {
        self.over.notified().await;
    }

    /// Notices the end of a process whose pidfd does not tell it: a tracer has not let go of it. It waits for nothing.
    pub(super) fn look(&self) {
        // Who has it locked is at it.
        let Ok(held) = self.held.try_lock() else { return };
        if held.child.as_ref().is_some_and(ChildExt::has_ended) {
            self.over.notify_one();
        }
    }

    /// Whether it has ended, by its pidfd, and its end was not collected yet.
    fn has_ended_unseen(&self) -> bool {
        self.held().pidfd.as_ref().is_some_and(|pidfd| !is_there(pidfd.as_fd()))
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

    /// Collects the status of a process that has ended, and what it counted for.
    fn collect(&self) -> (End, Option<Counted>) {
        let mut held = self.held();
        let raw = of_worker(held.earlier.as_ref()).or_else(|| {
            // Who traces it may have to let go of it first.
            let status: ExitStatus = held.child.as_mut()?.wait_timeout(REAPING).ok()??;
            Some(status.into_raw())
        });
        // It, too, is a hold on the session.
        held.earlier = None;
        held.session = None;
        held.pidfd = None;
        (raw.map_or(End::Lost, End::Status), held.counted.take())
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
    /// Those that run, and of each user the last ones that have ended: their trees can still be ended.
    known: Mutex<BTreeMap<u64, Arc<Tracked>>>,
    ended: Mutex<Remembered>,
    /// What processes count that have ended, by whom it is for: others of their trees have not.
    trees: Mutex<BTreeMap<u64, (u32, Counted)>>,
    pub(super) groups: Groups,
}

impl Processes {
    pub(super) fn at(path: &Path, groups: Groups) -> io::Result<Self> {
        let (known, ended, trees) = Default::default();
        Ok(Self { folder: Folder::at(path)?, known, ended, trees, groups })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Tracked>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Waits until what has ended of a caller's processes is counted no more.
    pub(super) fn count_off(&self, caller: &Caller) {
        let give_up = Instant::now() + REAPING;
        // Whoever collects the status of one has that locked, and may wait for a tracer; others need all of them.
        let own = |one: &&Arc<Tracked>| one.record.owner == caller.uid.as_raw();
        let own: Vec<_> = self.lock().values().filter(own).map(Arc::clone).collect();
        while own.iter().any(|one| one.has_ended_unseen()) && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.count_off_trees(|counted| counted == caller.counted.as_raw());
    }

    fn trees(&self) -> MutexGuard<'_, BTreeMap<u64, (u32, Counted)>> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for trees whose first process has ended.
    fn count_off_trees(&self, whose: impl Fn(u32) -> bool) {
        let counted: Vec<u64> =
            self.trees().iter().filter(|(_, (counted, _))| whose(*counted)).map(|(id, _)| *id).collect();
        for id in counted {
            if !self.groups.is_populated(&written(id)) {
                let over = self.trees().remove(&id);
                drop(over);
            }
        }
    }

    /// A process that has ended goes on being counted as long as its group has anybody in it.
    pub(super) fn count_tree(&self, record: &Record, counted: Option<Counted>) {
        if let (Some(id), Some(counted)) = (parsed(&record.id), counted) {
            self.trees().insert(id, (record.counted(), counted));
        }
    }

    /// What an earlier run wrote down; what ended first comes first.
    pub(super) fn written(&self) -> Vec<Record> {
        let mut records: Vec<Record> = self.folder.read_all().unwrap_or_default();
        records.sort_by_key(|record| record.end.map(|(when, _)| when));
        records
    }

    /// A process has ended: its status is collected, written down and told.
    pub(super) fn ended(&self, tracked: &Arc<Tracked>, sessions: &Sessions) -> End {
        let (end, counted) = tracked.collect();
        if let Some(session) = &tracked.record.session {
            sessions.let_go_of(session);
        }
        let when = now();
        let record = Record { end: Some((when, end)), ..tracked.record.clone() };
        if let Err(error) = self.folder.write(&record.id, &record) {
            tracing::warn!(%error, "the end of a process could not be written down");
        }
        let is_over = !record.is_in_a_group() || self.groups.remove(&record.id);
        self.count_tree(&record, counted.filter(|_| !is_over));
        tracked.end.send_replace(Some((when, end)));
        self.remember(&record, (when, end));
        end
    }

    /// Of a process that has ended little is kept, and of each user's not many.
    pub(super) fn remember(&self, record: &Record, (when, end): (u64, End)) {
        let Some(id) = parsed(&record.id) else { return };
        let Record { owner, uid, .. } = *record;
        let ended = Ended { owner, counted: record.counted(), uid, when, end };
        let Surplus { tree, records } = self.remembered().add(id, ended);
        // What the tree is known by is let go of when nobody locks anything.
        let dropped = tree.and_then(|id| self.lock().remove(&id));
        drop(dropped);
        for id in records {
            self.forget_unless_populated(id);
        }
    }

    /// A tree that lives on can still be ended, by its group.
    fn forget_unless_populated(&self, id: u64) {
        if !self.groups.is_populated(&written(id)) {
            self.remembered().forget(id);
            let dropped = self.lock().remove(&id);
            drop(dropped);
            self.unwrite(id);
        }
    }

    /// What was written down of a process that has ended.
    fn recall(&self, id: u64, ended: Ended) -> Option<Arc<Tracked>> {
        let record: Record = self.folder.read(&written(id))?;
        // Its end could perhaps not be written down.
        let record = Record { end: Some((ended.when, ended.end)), ..record };
        Some(Arc::new(Tracked::new(record, None, Held { forgotten: true, ..Held::default() })))
    }

    /// Notices which have ended without their pidfds saying so.
    pub(super) fn look(&self) {
        let running: Vec<_> =
            self.lock().values().filter(|one| one.end.borrow().is_none()).map(Arc::clone).collect();
        for tracked in running {
            tracked.look();
        }
    }

    /// Forgets processes that ended long ago.
    pub(super) fn sweep(&self) {
        let old = self.remembered().until(now().saturating_sub(REMEMBERED.as_secs()));
        for id in old {
            self.forget_unless_populated(id);
        }
        self.count_off_trees(|_| true);
        self.groups.sweep();
    }

    /// The process of this id, if `may` holds for it; who may not know it is told that there is none.
    fn find(&self, id: &str, may: impl Fn(&Record) -> bool) -> Result<Arc<Tracked>, Failure> {
        let known = |id| self.lock().get(&id).cloned();
        let ended = |id| self.remembered().get(id);
        let found = parsed(id).and_then(|id| known(id).or_else(|| self.recall(id, ended(id)?)));
        found.filter(|tracked| may(&tracked.record)).ok_or_else(|| {
            FailureKind::NoSuchHandle { of: "process".to_owned() }.while_doing("looking up a process")
        })
    }

    /// One that the caller may know of.
    pub(super) fn seen(&self, caller: Uid, id: &str) -> Result<Arc<Tracked>, Failure> {
        self.find(id, |record| may_see(caller, record.owner, record.uid))
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
        let (mut running, ended) = {
            let (remembered, known) = (self.remembered(), self.lock());
            let running = known.iter().filter(|(id, one)| {
                remembered.get(**id).is_none() && may_see(caller.uid, one.record.owner, one.record.uid)
            });
            let running: Vec<_> = running.map(|(_, one)| Arc::clone(one)).collect();
            (running, remembered.newest_first(|one| may_see(caller.uid, one.owner, one.uid)))
        };
        running.sort_by_key(|one| std::cmp::Reverse(one.record.since));
        let ended = ended.into_iter().filter_map(|(id, ended)| self.recall(id, ended));
        let seen = running.into_iter().chain(ended).filter(|one| of_session(&one.record));
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
        // With a pidfd of one of its own user's, a sandboxed process could take that one's descriptors (pidfd_getfd(2)), which
        // it cannot even name where it has pids of its own.
        if found.record.uid == caller.uid.as_raw() && caller.require_free().is_err() {
            return Ok((found.describe(), None));
        }
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
