//! Logon sessions, as callers find, hold and end them.

use std::sync::Arc;

use stead::os::linux::{LogonSessionExt, Uid};
use stead::{ErrorKind, LogonSession};
use stead_protocol as wire;
use stead_protocol::{
    CloseSession, Failure, FailureKind, Nothing, OpenSession, OpenedSession, TerminateSession, Text, Variable,
};

use super::explain::{logon_type, subject};
use crate::audit::Event;
use crate::policy::{LogonRequest, Privilege, Request};
use crate::serve::caller::{Caller, may_see};
use crate::serve::failure::failure;
use crate::serve::service::Service;
use crate::serve::session::{Closer, Known, Record};
use crate::serve::state::State;
use crate::serve::token::{AnyToken, Held, Origin};

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
    let (kind, s4u) = (known.record.logon_type, known.record.s4u);
    let kept = state.keep(Held::whole(token, Origin::Logon { session, kind, s4u }));
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
    let all: Vec<Arc<Known>> = service.sessions.all();
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
    let result = open_known(service, state, &known);
    service.note_session(Event::SessionOpen, &state.caller, &known.record, result.as_ref().err());
    result
}

fn open_known(
    service: &Arc<Service>,
    state: &mut State,
    known: &Arc<Known>,
) -> Result<OpenedSession, Failure> {
    let session = service.sessions.attach(known)?;
    // It was the policy's to give, and is the policy's to take.
    let client = subject(&known.record.user_name)?;
    let privilege = if known.record.s4u { Privilege::Tcb } else { Privilege::Logon };
    let kind = logon_type(known.record.logon_type);
    let request = Request::new(privilege, &client).logon(LogonRequest::Type(kind));
    service.decide(&state.caller, &request)?;
    let pids = session.processes().unwrap_or_default();
    opened(service, state, known, session, pids)
}

/// Ends every process of a session.
pub(super) fn terminate(
    service: &Service,
    state: &mut State,
    call: &TerminateSession,
) -> Result<Nothing, Failure> {
    let uid = state.caller.uid;
    let known = service.sessions.find(&call.session, |record| may_see(uid, record.owner, record.uid))?;
    let terminate = || {
        require_free_of_another(&state.caller, &known.record)?;
        let session = service.sessions.attach(&known)?;
        session.terminate().map_err(|error| failure(&error))
    };
    let result = terminate();
    service.note_session(Event::SessionTerminate, &state.caller, &known.record, result.as_ref().err());
    result?;
    state.let_go(&call.session);
    Ok(Nothing {})
}

/// The user of a session could end its processes itself; not from a sandbox, though.
fn require_free_of_another(caller: &Caller, record: &Record) -> Result<(), Failure> {
    if record.owner == caller.uid.as_raw() { Ok(()) } else { caller.require_free() }
}

/// Lets go of a session and of the connection's tokens of it, and ends it if it is over, or is to be.
pub(super) fn close(service: &Service, state: &mut State, call: &CloseSession) -> Result<Nothing, Failure> {
    let uid = state.caller.uid;
    let own = |record: &Record| uid == Uid::ROOT || record.owner == uid.as_raw();
    let known = service.sessions.find(&call.session, own)?;
    let closer = state.closing.take().filter(|closer| closer.is_of(&known));
    // It may be asked for again and again until the session is over.
    if closer.is_none() {
        if call.terminate
            && let Err(confined) = require_free_of_another(&state.caller, &known.record)
        {
            service.note_session(Event::SessionTerminate, &state.caller, &known.record, Some(&confined));
            return Err(confined);
        }
        service.note_session(Event::SessionClose, &state.caller, &known.record, None);
    }
    let mut closer = closer.unwrap_or_else(|| Closer::of(&known));
    // What becomes of ending all that runs in it is recorded once.
    let mut is_told = !call.terminate || std::mem::replace(&mut closer.has_ended_all, true);
    let mut note_ended = |caller: &Caller, failed: Option<&Failure>| {
        if !std::mem::replace(&mut is_told, true) {
            service.note_session(Event::SessionTerminate, caller, &known.record, failed);
        }
    };
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
        Err(failure) => {
            let is_over = failure.kind == (FailureKind::SessionEnded {});
            note_ended(&state.caller, (!is_over).then_some(&failure));
            if is_over {
                return Ok(Nothing {});
            }
            state.closing = Some(closer);
            return Err(failure);
        }
        Ok(attached) => attached,
    };
    let waits_for = |what: &str| {
        FailureKind::DeadlinePassed { waiting_for: what.to_owned() }.while_doing("closing a session")
    };
    // What is ended anyhow needs not be listed before.
    let is_over = call.terminate || session.processes().map_err(|error| failure(&error))?.is_empty();
    let mut alone = if is_over { Arc::try_unwrap(session) } else { Err(session) };
    if call.terminate
        && let Err(session) = alone
    {
        let ended = session.terminate().map_err(|error| failure(&error));
        note_ended(&state.caller, ended.as_ref().err());
        ended?;
        // Whoever held it for a process may have let go of it meanwhile.
        alone = Arc::try_unwrap(session);
    }
    match alone {
        Err(session) => {
            closing.session = Some(session);
            drop(closing);
            state.closing = Some(closer);
            Err(waits_for(if is_over { "others to let go of the session" } else { "its processes to end" }))
        }
        Ok(session) => {
            drop(closing);
            let closed = if call.terminate { session.log_off() } else { session.close() };
            // One that does not end in time is still there, and is forgotten when it has. Of any other PAM may still complain.
            let lives =
                closed.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::DeadlinePassed { .. }));
            if !lives {
                service.sessions.forget(&call.session);
            }
            let closed = closed.map(|()| Nothing {}).map_err(|error| failure(&error));
            note_ended(&state.caller, closed.as_ref().err().filter(|_| lives));
            closed
        }
    }
}
