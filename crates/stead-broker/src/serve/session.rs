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
use stead_protocol::{
    CloseSession, Failure, FailureKind, Nothing, OpenSession, OpenedSession, TerminateSession, Text, Variable,
};

use super::caller::may_see;
use super::connection::State;
use super::explain::{logon_type, subject};
use super::failure::failure;
use super::folder::Folder;
use super::service::Service;
use super::tie::{self, Holder, Holders};
use super::token::{AnyToken, Held, Origin};
use crate::policy::{LogonRequest, Privilege, Request};
use crate::throttle::{Held as Counted, Holding};

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
    /// Its worker's process, which is there until PAM has closed the session; unknown after a restart of the service.
    worker: Option<OwnedFd>,
    _counted: Counted,
}

/// Who waits for a session's end is to be told what PAM said to it; of a session that nobody holds any more nobody is.
#[derive(Debug, Default)]
struct Closing {
    waiting: usize,
    session: Option<Arc<LogonSession>>,
}

/// One who waits for a session's end.
#[derive(Debug)]
pub(super) struct Closer(Arc<Known>);

impl Closer {
    fn of(known: &Arc<Known>) -> Self {
        known.closing().waiting += 1;
        Self(Arc::clone(known))
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        let mut closing = self.0.closing();
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
}

impl Sessions {
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { folder: Folder::at(path)?, known: Mutex::default() })
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
    pub(super) fn recover(&self, service: &Service) -> stead::Result<()> {
        let living: Vec<String> =
            LogonSession::detached_sessions()?.into_iter().map(|id| id.to_string()).collect();
        // A logon that nobody was told of has no process, and ends by itself.
        self.folder.forget_unfinished();
        let records: Vec<Record> = self.folder.read_all().unwrap_or_default();
        for record in records {
            let (Ok(id), Some(owner)) = (record.id.parse(), Uid::new(record.owner)) else { continue };
            if !living.contains(&record.id) {
                self.folder.remove(&record.id);
                continue;
            }
            let counted = service.quotas.adopt(owner, Holding::Session);
            let (attached, holders) = (Mutex::default(), Holders::written(&record.holders));
            let (closing, worker) = Default::default();
            let known = Known { id, attached, holders, closing, worker, _counted: counted, record };
            self.lock().insert(known.record.id.clone(), Arc::new(known));
        }
        Ok(())
    }

    /// Holds tied sessions that were recovered for those who held them.
    pub(super) fn recover_ties(&self, service: &Arc<Service>) {
        let known: Vec<Arc<Known>> = self.lock().values().cloned().collect();
        for session in known {
            tie::recover(service, &session);
        }
    }

    /// Writes down who holds a session now; of one that has ended nothing is kept.
    pub(super) fn rewrite(&self, known: &Known, holders: &[Holder]) -> io::Result<()> {
        if !self.lock().contains_key(&known.record.id) {
            return Ok(());
        }
        let record = Record { holders: holders.to_vec(), ..known.record.clone() };
        self.folder.write(&record.id, &record)
    }

    /// Ends the sessions whose last holder was lost and that could not be ended then.
    pub(super) fn end_lost(&self, service: &Service) {
        let known: Vec<Arc<Known>> = self.lock().values().cloned().collect();
        tie::sweep(service, &known);
    }

    /// Forgets the sessions that have ended.
    pub(super) fn sweep(&self) {
        let Ok(living) = LogonSession::detached_sessions() else { return };
        let known: Vec<Arc<Known>> = self.lock().values().cloned().collect();
        for session in known {
            // Asked again under the session's lock: one that is being opened is not ended.
            if !living.contains(&session.id) && session.is_let_go() && session.is_closed(Duration::ZERO) {
                self.forget(&session.record.id);
            }
        }
    }

    fn forget(&self, id: &str) {
        if let Some(known) = self.lock().remove(id) {
            self.folder.remove(id);
            tracing::info!(session = id, uid = known.record.uid, "a logon session has ended");
        }
    }

    /// The session of this id, if `owns` holds for it; who may not see it is told that there is none.
    fn find(&self, id: &str, may: impl Fn(&Record) -> bool) -> Result<Arc<Known>, Failure> {
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
        let known: Vec<Arc<Known>> = self.lock().values().cloned().collect();
        let attached = |known: &Arc<Known>| Some((known.record.id.clone(), self.attach(known).ok()?));
        known.iter().filter_map(attached).collect()
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

    fn closing(&self) -> MutexGuard<'_, Closing> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_let_go(&self) -> bool {
        self.attached.lock().is_ok_and(|attached| attached.strong_count() == 0)
    }

    fn describe(&self, pids: Vec<u32>) -> wire::Session {
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

/// What who opened a session is told of it; the connection holds it from now on.
pub(super) fn opened(
    service: &Arc<Service>,
    state: &mut State,
    known: &Arc<Known>,
    session: Arc<LogonSession>,
    pids: Vec<u32>,
) -> Result<OpenedSession, Failure> {
    let described = known.describe(pids);
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| Variable {
        name: Text::from(name.as_os_str()),
        value: Text::from(value.as_os_str()),
    };
    let environment = session.environment().into_iter().map(variable).collect();
    let (umask, audit_session) = (session.umask(), session.audit_session());
    let token = AnyToken::Primary(session.token().clone());
    let new = state.ties.hold(service, known, &state.caller)?;
    let kept = state.keep(Held { token, origin: Origin::Logon { session, s4u: known.record.s4u } });
    let kept = kept.inspect_err(|_| {
        if new {
            state.ties.lose(&known.record.id);
        }
    })?;
    Ok(OpenedSession {
        session: described,
        token: kept.token,
        context: kept.context,
        environment,
        umask,
        audit_session,
    })
}

/// The sessions that the caller may see.
pub(super) fn list(service: &Service, state: &State) -> wire::Sessions {
    service.sessions.sweep();
    let uid = state.caller.uid;
    let all: Vec<Arc<Known>> = service.sessions.lock().values().cloned().collect();
    let seen = all.into_iter().filter(|known| may_see(uid, known.record.owner, known.record.uid));
    let describe = |known: Arc<Known>| {
        let session = service.sessions.attach(&known).ok()?;
        match session.processes() {
            // Its worker was killed, and somebody holds a token of it still.
            Err(error) if *error.kind() == ErrorKind::SessionEnded => {
                service.sessions.forget(&known.record.id);
                None
            }
            pids => Some(known.describe(pids.unwrap_or_default())),
        }
    };
    wire::Sessions { sessions: seen.filter_map(describe).collect() }
}

/// Opens a session that the caller's user opened before.
pub(super) fn open(
    service: &Arc<Service>,
    state: &mut State,
    call: &OpenSession,
) -> Result<OpenedSession, Failure> {
    let uid = state.caller.uid;
    let own = |record: &Record| uid == Uid::ROOT || record.owner == uid.as_raw();
    let known = service.sessions.find(&call.session, own)?;
    let session = service.sessions.attach(&known)?;
    // It was the policy's to give, and is the policy's to take.
    let client = subject(&known.record.user_name)?;
    let privilege = if known.record.s4u { Privilege::Tcb } else { Privilege::Logon };
    let kind = logon_type(known.record.logon_type);
    let request = Request::new(privilege, &client).logon(LogonRequest::Type(kind));
    service.decide(&state.caller, &request)?;
    let pids = session.processes().unwrap_or_default();
    opened(service, state, &known, session, pids)
}

/// Ends every process of a session.
pub(super) fn terminate(
    service: &Service,
    state: &mut State,
    call: &TerminateSession,
) -> Result<Nothing, Failure> {
    let uid = state.caller.uid;
    let known = service.sessions.find(&call.session, |record| may_see(uid, record.owner, record.uid))?;
    if known.record.owner != uid.as_raw() {
        // Its user could end its processes itself; not from a sandbox, though.
        state.caller.require_free()?;
    }
    let session = service.sessions.attach(&known)?;
    session.terminate().map_err(|error| failure(&error))?;
    state.let_go(&call.session);
    Ok(Nothing {})
}

/// Lets go of a session and of the connection's tokens of it, and ends it if it is over.
pub(super) fn close(service: &Service, state: &mut State, call: &CloseSession) -> Result<Nothing, Failure> {
    let uid = state.caller.uid;
    let own = |record: &Record| uid == Uid::ROOT || record.owner == uid.as_raw();
    let known = service.sessions.find(&call.session, own)?;
    let closer = state.closing.take().filter(|closer| Arc::ptr_eq(&closer.0, &known));
    let closer = closer.unwrap_or_else(|| Closer::of(&known));
    let mut closing = known.closing();
    // Before this connection lets go of it.
    let session = match closing.session.take() {
        Some(session) => Ok(session),
        None => service.sessions.attach(&known),
    };
    state.let_go(&call.session);
    state.ties.let_go(&call.session);
    known.let_go_earlier(service, &state.caller);
    let session = match session {
        Err(failure) if failure.kind == (FailureKind::SessionEnded {}) => return Ok(Nothing {}),
        attached => attached?,
    };
    let waits_for = |what: &str| {
        FailureKind::DeadlinePassed { waiting_for: what.to_owned() }.while_doing("closing a session")
    };
    let is_over = session.processes().map_err(|error| failure(&error))?.is_empty();
    let alone = if is_over { Arc::try_unwrap(session) } else { Err(session) };
    match alone {
        Err(session) => {
            closing.session = Some(session);
            drop(closing);
            state.closing = Some(closer);
            Err(waits_for(if is_over { "others to let go of the session" } else { "its processes to end" }))
        }
        Ok(session) => {
            drop(closing);
            let closed = session.close().map_err(|error| failure(&error));
            service.sessions.forget(&call.session);
            closed.map(|()| Nothing {})
        }
    }
}

impl State {
    /// Drops the tokens of a session.
    fn let_go(&mut self, id: &str) {
        self.tokens.retain(|_, held| match &held.origin {
            Origin::Logon { session, .. } => session.id().to_string() != id,
            _ => true,
        });
    }
}
