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
use stead::os::linux::{LogonExt, LogonGid, LogonSessionExt, TokenExt, Uid, User};
use stead::{Account, ErrorKind, Lifetime, Logon, LogonSession, SessionId};
use stead_protocol as wire;
use stead_protocol::{
    CloseSession, Failure, FailureKind, LogOn, Nothing, OpenSession, OpenedSession, TerminateSession, Text,
    Variable,
};

use super::connection::State;
use super::explain::{logon_type, subject};
use super::failure::{failure, invalid};
use super::folder::{Folder, now};
use super::given::Given;
use super::secret::{self, Talk};
use super::service::{Service, denied};
use super::tie::{self, Holder, Holders};
use super::token::{AnyToken, Held, Origin};
use super::watch;
use crate::policy::{LogonRequest, Privilege, Request, Subject};
use crate::throttle::{Held as Counted, Holding};

/// The longest that a logon may be given.
const LONGEST: Duration = Duration::from_secs(300);
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
        self.record.lifetime == wire::Lifetime::Tied
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
            lifetime: self.record.lifetime,
            pids,
        }
    }
}

fn no_such() -> Failure {
    FailureKind::NoSuchHandle { of: "session".to_owned() }.while_doing("looking up a session")
}

/// Logs an account on, if the policy lets the caller.
pub(super) fn log_on(
    service: &Arc<Service>,
    state: &mut State,
    call: &LogOn,
    given: &Given,
) -> Result<OpenedSession, Failure> {
    let name = call.account.name.to_string_lossy().into_owned();
    let doing = format!("logging on {name}");
    let privilege = if call.s4u { Privilege::Tcb } else { Privilege::Logon };
    if call.s4u == (call.secret.is_some() || call.conversation.is_some()) {
        return Err(invalid(&doing, "it takes a secret or a conversation, or neither with s4u"));
    }
    let caller = &state.caller;
    if service.policy().refuses_outright(&caller.policy, privilege).is_some() {
        // Decided all the same, for the record; of nobody, so that no account is looked up.
        let nobody = Subject::unknown(name.clone());
        let request = Request::new(privilege, &nobody).logon(LogonRequest::Type(logon_type(call.logon_type)));
        let _ = service.decide(caller, &request);
        return Err(denied(privilege, &name));
    }
    let client = subject(&call.account.name)?;
    let request = Request::new(privilege, &client).logon(LogonRequest::Type(logon_type(call.logon_type)));
    service.decide(caller, &request)?;

    let counted = service.take(caller, Holding::Session).or_else(|_| {
        // Some of those that are counted may have ended.
        service.sessions.sweep();
        service.take(caller, Holding::Session)
    })?;
    let logon = prepare(service, call, given, &doing)?;
    // Dropped unsaid, it has failed.
    let attempt =
        if call.s4u { None } else { Some(service.attempt(caller.uid, &counted_as(call)?, &doing)?) };
    let session = logon.open().map_err(|error| failure(&error));
    let kind = stead_protocol::name_of(logon_type(call.logon_type));
    service.note_logon(caller, &client, &kind, session.as_ref().err());
    let session = session?;
    watch::reap_in_the_end(service, &session);
    watch::make_ready(service, logon_type(call.logon_type));
    if let Some(attempt) = attempt {
        service.failures().succeeded(attempt);
    }
    // A module may have made another account of the name: only the one that was decided on is served.
    let uid = session.token().uid();
    if client.uid != Some(uid) {
        drop(session);
        return Err(denied(privilege, &name));
    }
    let record = Record {
        id: session.id().to_string(),
        uid: uid.as_raw(),
        user_name: Text::from(session.account()),
        owner: caller.uid.as_raw(),
        logon_type: call.logon_type,
        s4u: call.s4u,
        lifetime: call.lifetime,
        holders: match call.lifetime {
            wire::Lifetime::Tied => vec![Holder::of(caller)],
            wire::Lifetime::Detached => Vec::new(),
        },
        since: now(),
    };
    if let Err(error) = service.sessions.folder.write(&record.id, &record) {
        return Err(super::failure::system(&doing, "write", error));
    }
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
    service.sessions.lock().insert(known.record.id.clone(), Arc::clone(&known));
    opened(service, state, &known, session)
}

/// Whose failure it will be, if it fails: the account's, however it was spelled, where there is an account. It is
/// looked for where there is none just as long.
fn counted_as(call: &LogOn) -> Result<String, Failure> {
    let name = call.account.name.as_os_str();
    let found = User::by_any_spelling(name).map_err(|error| failure(&error))?;
    Ok(match found {
        // alice@a and alice@b are two, and what one gets right forgives the other nothing.
        Some(user) if user.name().as_encoded_bytes().iter().any(|byte| b"@\\".contains(byte)) => {
            format!("uid {}", user.uid())
        }
        Some(user) => user.name().to_string_lossy().into_owned(),
        None => name.to_string_lossy().into_owned(),
    })
}

fn prepare(service: &Service, call: &LogOn, given: &Given, doing: &str) -> Result<Logon, Failure> {
    let account = account(call);
    let secret = call.secret.map(|index| secret::read(given.get(index)?)).transpose()?;
    let mut logon = match secret {
        Some(secret) => Logon::password(account, secret),
        // Without a secret it asks for one; without authentication it does not.
        None => Logon::s4u(account),
    };
    if let Some(index) = call.conversation {
        let talk = Talk::over(given.copy(index)?)?;
        logon = match call.secret {
            Some(_) => logon.conversation(talk),
            None => Logon::with_conversation(self::account(call), talk),
        };
    }
    logon = logon.kind(logon_type(call.logon_type)).lifetime(Lifetime::Detached);
    logon = logon.ready(&service.ready);
    if let Some(worker) = &service.options.worker {
        logon = logon.worker(worker);
    }
    for Variable { name, value } in &call.environment {
        // Modules act on variables: a seat or a session class (XDG_*) is not the caller's to claim
        // (CVE-2019-3842), nor is a library path.
        if !is_harmless(name.as_bytes()) {
            let what =
                format!("the variable {:?} is not a caller's to set at a logon", name.to_string_lossy());
            return Err(invalid(doing, what));
        }
        logon = logon.env(name.as_os_str(), value.as_os_str());
    }
    if let Some(tty) = &call.tty {
        // A virtual terminal, or a display's name, claims the seat as XDG_SEAT and XDG_VTNR do (pam_systemd).
        if !is_nobodys_seat(tty.as_bytes()) {
            let what = format!("the terminal {:?} is not a caller's to claim", tty.to_string_lossy());
            return Err(invalid(doing, what));
        }
        logon = logon.tty(tty.as_os_str());
    }
    if let Some(host) = &call.remote_host {
        logon = logon.remote_host(host.as_os_str());
    }
    if let Some(user) = &call.remote_user {
        logon = logon.remote_user(user.as_os_str());
    }
    if call.logon_gid {
        logon = logon.logon_gid(LogonGid::default());
    }
    if let Some(deadline) = call.deadline {
        logon = logon.deadline(Duration::from_millis(deadline).min(LONGEST));
    }
    Ok(logon)
}

fn account(call: &LogOn) -> Account {
    let name = call.account.name.as_os_str();
    if call.account.local { Account::local(name) } else { Account::upn(name) }
}

/// Language, time zone and terminal type.
fn is_harmless(name: &[u8]) -> bool {
    matches!(name, b"LANG" | b"LANGUAGE" | b"TZ" | b"TERM" | b"COLORTERM") || name.starts_with(b"LC_")
}

/// A pseudo-terminal, or a word that is no terminal's name.
fn is_nobodys_seat(tty: &[u8]) -> bool {
    let number = tty.strip_prefix(b"/dev/").unwrap_or(tty).strip_prefix(b"pts/");
    match number {
        Some(number) => !number.is_empty() && number.iter().all(u8::is_ascii_digit),
        None => tty != b"console" && tty.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'-'),
    }
}

fn opened(
    service: &Arc<Service>,
    state: &mut State,
    known: &Arc<Known>,
    session: Arc<LogonSession>,
) -> Result<OpenedSession, Failure> {
    let described = known.describe(session.processes().unwrap_or_default());
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| Variable {
        name: Text::from(name.as_os_str()),
        value: Text::from(value.as_os_str()),
    };
    let environment = session.environment().into_iter().map(variable).collect();
    let (umask, audit_session) = (session.umask(), session.audit_session());
    let token = AnyToken::Primary(session.token().clone());
    state.ties.hold(service, known, &state.caller)?;
    let kept = state.keep(Held { token, origin: Origin::Logon { session, s4u: known.record.s4u } });
    let kept = kept.inspect_err(|_| state.ties.let_go(&known.record.id))?;
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
    let seen = all.into_iter().filter(|known| may_see(uid, &known.record));
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

fn may_see(uid: Uid, record: &Record) -> bool {
    uid == Uid::ROOT || [record.owner, record.uid].contains(&uid.as_raw())
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
    opened(service, state, &known, session)
}

/// Ends every process of a session.
pub(super) fn terminate(
    service: &Service,
    state: &mut State,
    call: &TerminateSession,
) -> Result<Nothing, Failure> {
    let uid = state.caller.uid;
    let known = service.sessions.find(&call.session, |record| may_see(uid, record))?;
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
