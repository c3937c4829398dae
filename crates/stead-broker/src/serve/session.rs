//! Logon sessions: each in a worker process of its own, which outlives the service.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use serde::{Deserialize, Serialize};
use stead::os::linux::{LogonSessionExt, Uid};
use stead::{ErrorKind, LogonSession, SessionId};
use stead_protocol as wire;
use stead_protocol::{Failure, FailureKind, Text};
use tokio::sync::Notify;

use super::failure::failure;
use super::folder::Folder;
use super::holders::{Holder, Holders};
use super::note::of_session;
use crate::audit::{Event, Log};
use crate::throttle::{Held as Counted, Holding, Quotas};

/// A worker that was let go of just now takes this long to notice at most.
const LET_GO: Duration = Duration::from_secs(5);

/// What is written down of a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) uid: u32,
    pub(super) user_name: Text,
    pub(super) owner: u32,
    pub(super) logon_type: wire::LogonType,
    pub(super) s4u: bool,
    /// Whether it ends with the connections that hold it.
    #[serde(default)]
    pub(super) lifetime: wire::Lifetime,
    /// Who holds it, if it does.
    #[serde(default)]
    pub(super) holders: Vec<Holder>,
    pub(super) since: u64,
}

/// A session that the service opened, in this run or an earlier one.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) record: Record,
    id: SessionId,
    /// Held by the tokens and processes of it; without any it is the worker's alone.
    attached: Mutex<Weak<LogonSession>>,
    pub(super) holders: Holders,
    /// Held for those who wait for its end.
    closing: Mutex<Closing>,
    let_go: LetGo,
    /// Its worker's process, which is there until PAM has closed the session; unknown after a restart of the service.
    worker: Option<OwnedFd>,
    _counted: Counted,
}

/// Who waits for a session's end is to be told what PAM said to it; of a session that nobody holds any more nobody is.
#[derive(Debug, Default)]
pub(super) struct Closing {
    waiting: usize,
    pub(super) session: Option<Arc<LogonSession>>,
}

/// One who waits for a session's end.
#[derive(Debug)]
pub(super) struct Closer {
    known: Arc<Known>,
    /// It has tried to end all that runs in it, if it was to.
    pub(super) has_ended_all: bool,
}

/// Somebody has let go of a session.
#[derive(Debug, Clone, Default)]
pub(super) struct LetGo(Arc<Notify>);

impl LetGo {
    /// Tells one who waits for it, or the next one who will.
    fn tell(&self) {
        self.0.notify_one();
    }

    /// Waits until somebody has, or for so long.
    pub(super) async fn wait(&self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.0.notified()).await;
    }
}

impl Closer {
    pub(super) fn of(known: &Arc<Known>) -> Self {
        known.closing().waiting += 1;
        Self { known: Arc::clone(known), has_ended_all: false }
    }

    /// Whether it is this session's.
    pub(super) fn is_of(&self, known: &Arc<Known>) -> bool {
        Arc::ptr_eq(&self.known, known)
    }

    /// What it waits for.
    pub(super) fn let_go(&self) -> LetGo {
        self.known.let_go.clone()
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        let mut closing = self.known.closing();
        closing.waiting = closing.waiting.saturating_sub(1);
        let session = if closing.waiting == 0 { closing.session.take() } else { None };
        drop(closing);
        drop(session);
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Sessions {
    folder: Folder,
    known: Mutex<BTreeMap<String, Arc<Known>>>,
    audit: Log,
}

impl Sessions {
    /// Those that are written down in this folder; their ends are recorded here.
    pub(super) fn at(path: &Path, audit: Log) -> io::Result<Self> {
        Ok(Self { folder: Folder::at(path)?, known: Mutex::default(), audit })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Knows a session that was opened just now, once it is written down.
    pub(super) fn add(
        &self,
        record: Record,
        session: LogonSession,
        counted: Counted,
    ) -> io::Result<(Arc<Known>, Arc<LogonSession>)> {
        self.folder.write(&record.id, &record)?;
        let worker = session.worker().unwrap_or_default();
        let session = Arc::new(session);
        let known = Arc::new(Known {
            id: session.id(),
            worker,
            attached: Mutex::new(Arc::downgrade(&session)),
            holders: Holders::written(&record.holders),
            closing: Mutex::default(),
            let_go: LetGo::default(),
            _counted: counted,
            record,
        });
        Ok((known, session))
    }

    /// From now on others find it.
    pub(super) fn publish(&self, known: &Arc<Known>) {
        self.lock().insert(known.record.id.clone(), Arc::clone(known));
    }

    /// Knows the sessions again that an earlier run of the service opened and that live.
    pub(super) fn recover(&self, quotas: &Quotas) -> stead::Result<()> {
        let living: Vec<String> =
            LogonSession::detached_sessions()?.into_iter().map(|id| id.to_string()).collect();
        // A logon that nobody was told of has no process, and ends by itself.
        self.folder.forget_unfinished();
        let records: Vec<Record> = self.folder.read_all().unwrap_or_default();
        for record in records {
            let (Ok(id), Some(owner)) = (record.id.parse(), Uid::new(record.owner)) else { continue };
            if !living.contains(&record.id) {
                self.folder.remove(&record.id);
                self.audit.record(of_session(Event::SessionEnd, &record));
                continue;
            }
            let counted = quotas.adopt(owner, Holding::Session);
            let (attached, holders) = (Mutex::default(), Holders::written(&record.holders));
            let (closing, let_go, worker) = Default::default();
            let known = Known { id, attached, holders, closing, let_go, worker, _counted: counted, record };
            self.lock().insert(known.record.id.clone(), Arc::new(known));
        }
        Ok(())
    }

    /// Writes down who holds a session now; of one that has ended nothing is kept.
    pub(super) fn rewrite(&self, known: &Known, holders: &[Holder]) -> io::Result<()> {
        if !self.lock().contains_key(&known.record.id) {
            return Ok(());
        }
        let record = Record { holders: holders.to_vec(), ..known.record.clone() };
        self.folder.write(&record.id, &record)
    }

    /// All of them, as they are now.
    pub(super) fn all(&self) -> Vec<Arc<Known>> {
        self.lock().values().cloned().collect()
    }

    /// Forgets the sessions that have ended.
    pub(super) fn sweep(&self) {
        let Ok(living) = LogonSession::detached_sessions() else { return };
        for session in self.all() {
            // Asked again under the session's lock: one that is being opened is not ended.
            if !living.contains(&session.id) && session.is_let_go() && session.is_closed(Duration::ZERO) {
                self.forget(&session.record.id);
            }
        }
    }

    pub(super) fn forget(&self, id: &str) {
        let forgotten = self.lock().remove(id);
        if let Some(known) = forgotten {
            self.folder.remove(id);
            self.audit.record(of_session(Event::SessionEnd, &known.record));
            tracing::info!(session = id, uid = known.record.uid, "a logon session has ended");
        }
    }

    /// A process of a session has ended, and holds the session no more.
    pub(super) fn let_go_of(&self, id: &str) {
        if let Some(known) = self.lock().get(id) {
            known.let_go.tell();
        }
    }

    /// The session of this id, if `owns` holds for it; who may not see it is told that there is none.
    pub(super) fn find(&self, id: &str, may: impl Fn(&Record) -> bool) -> Result<Arc<Known>, Failure> {
        let found = self.lock().get(id).cloned().filter(|known| may(&known.record));
        found.ok_or_else(no_such)
    }

    /// The session itself, attached to anew where nobody holds it.
    pub(super) fn attach(&self, known: &Known) -> Result<Arc<LogonSession>, Failure> {
        let mut attached = known.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let give_up = std::time::Instant::now() + LET_GO;
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(session) = attached.upgrade() {
                return Ok(session);
            }
            match LogonSession::reattach(known.id) {
                Ok(session) => {
                    let session = Arc::new(session);
                    *attached = Arc::downgrade(&session);
                    return Ok(session);
                }
                Err(error) if *error.kind() == ErrorKind::SessionEnded => {
                    // Its worker takes nobody on any more, and may be in the midst of PAM's closing.
                    if !known.is_closed(LET_GO) {
                        return Err(FailureKind::DeadlinePassed {
                            waiting_for: "PAM to close the session".into(),
                        }
                        .while_doing("attaching to a session"));
                    }
                    self.forget(&known.record.id);
                    return Err(failure(&error));
                }
                // Our own earlier hold on it, which the worker has not seen go yet.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WorkerUnavailable { .. })
                        && std::time::Instant::now() < give_up =>
                {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(10));
                }
                Err(error) => return Err(failure(&error)),
            }
        }
    }

    /// All of them, each with its id.
    pub(super) fn all_attached(&self) -> Vec<(String, Arc<LogonSession>)> {
        let attached = |known: &Arc<Known>| Some((known.record.id.clone(), self.attach(known).ok()?));
        self.all().iter().filter_map(attached).collect()
    }

    /// The session that a process of an earlier run is in.
    pub(super) fn attach_by_id(&self, id: &str) -> Option<Arc<LogonSession>> {
        let known = self.lock().get(id).cloned()?;
        self.attach(&known).ok()
    }
}

impl Known {
    /// Whether it ends with the connections that hold it.
    pub(super) fn is_tied(&self) -> bool {
        self.lifetime() == wire::Lifetime::Tied
    }

    /// One that its last holder has let go of is tied to nobody.
    fn lifetime(&self) -> wire::Lifetime {
        if self.holders.have_let_go() { wire::Lifetime::Detached } else { self.record.lifetime }
    }

    /// Whether its worker has ended, and with it the session, as far as that is known; waits so long for it.
    fn is_closed(&self, patience: Duration) -> bool {
        let Some(worker) = &self.worker else { return true };
        let patience = Timespec::try_from(patience).ok();
        let ended = retry_on_intr(|| poll(&mut [PollFd::new(worker, PollFlags::IN)], patience.as_ref()));
        ended != Ok(0)
    }

    pub(super) fn closing(&self) -> MutexGuard<'_, Closing> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_let_go(&self) -> bool {
        self.attached.lock().is_ok_and(|attached| attached.strong_count() == 0)
    }

    pub(super) fn describe(&self, pids: Vec<u32>) -> wire::Session {
        wire::Session {
            id: self.record.id.clone(),
            uid: self.record.uid,
            user_name: self.record.user_name.clone(),
            owner: self.record.owner,
            logon_type: Some(self.record.logon_type),
            since: self.record.since,
            lifetime: self.lifetime(),
            pids,
        }
    }
}

fn no_such() -> Failure {
    FailureKind::NoSuchHandle { of: "session".to_owned() }.while_doing("looking up a session")
}
