//! From a call to what handles it: on a thread that may wait.

mod client;
mod create;
mod explain;
mod file;
mod logon;
mod secret;
mod session;
mod strings;
mod token;

use std::sync::Arc;

use stead_protocol::{CreateProcess, Failure, FailureKind, LogOn, Request};

use crate::serve::answer::Answer;
use crate::serve::given::Given;
use crate::serve::service::Service;
use crate::serve::slots::Kind;
use crate::serve::state::State;

/// What the call waits for.
pub(super) fn slot_of(request: &Request) -> Kind {
    match request {
        Request::LogOn(LogOn { conversation: None, s4u: true, .. }) => Kind::UnattendedLogon,
        Request::LogOn(_) => Kind::Logon,
        Request::CreateProcess(CreateProcess { strings: Some(_), .. }) => Kind::Large,
        _ => Kind::Call,
    }
}

/// Handles a call, but for those that only wait.
pub(super) fn handle(
    service: &Arc<Service>,
    state: &mut State,
    request: Request,
    given: &mut Given,
) -> Result<Answer, Failure> {
    #[cfg(feature = "fuzzing")]
    crate::serve::fuzzing::panic_if_asked(&request);
    match request {
        Request::LogOn(call) => Answer::plain(&logon::log_on(service, state, &call, given)?),
        Request::OwnToken(call) => Answer::plain(&client::own_token(state, &call)?),
        Request::ClientToken(call) => Answer::plain(&client::client_token(service, state, &call, given)?),
        Request::DescribeToken(call) => Answer::plain(&token::describe(state, &call)?),
        Request::DuplicateToken(call) => Answer::plain(&token::duplicate(state, &call)?),
        Request::RestrictToken(call) => Answer::plain(&token::restrict(state, &call)?),
        Request::CloseToken(call) => Answer::plain(&token::close(state, &call)?),
        Request::OpenFile(call) => {
            let (opened, file) = file::open(service, state, &call)?;
            Answer::with_files(&opened, vec![file])
        }
        Request::CreateProcess(call) => {
            let (created, descriptors) = create::create(service, state, call, given)?;
            Answer::with(&created, descriptors)
        }
        Request::ListProcesses(call) => Answer::plain(&service.processes.list(&state.caller, &call)),
        Request::GetProcess(call) => {
            let (process, pidfd) = service.processes.get(&state.caller, &call)?;
            Answer::with(&process, pidfd.into_iter().collect())
        }
        Request::ResumeProcess(call) => Answer::plain(&service.processes.resume(&state.caller, &call)?),
        Request::SignalProcess(call) => {
            let (process, done) = service.processes.signal(&state.caller, &call)?;
            service.note_signal(&state.caller, &process.record, &format!("signal {}", call.signal));
            Answer::plain(&done)
        }
        Request::KillTree(call) => {
            let (process, done) = service.processes.kill_tree(&state.caller, &call)?;
            service.note_signal(&state.caller, &process.record, "its tree was ended");
            Answer::plain(&done)
        }
        Request::ListSessions(_) => Answer::plain(&session::list(service, state)),
        Request::OpenSession(call) => Answer::plain(&session::open(service, state, &call)?),
        Request::TerminateSession(call) => Answer::plain(&session::terminate(service, state, &call)?),
        Request::CloseSession(call) => Answer::plain(&session::close(service, state, &call)?),
        Request::ExplainPolicy(call) => Answer::plain(&explain::explain(service, state, &call)?),
        Request::GetStatus(call) => Answer::plain(&service.status(&state.caller, &call)),
        // These wait, and are not handled here.
        Request::WaitProcess(_) | Request::Monitor(_) => {
            Err(FailureKind::MethodNotFound { method: request.method().to_owned() }.while_doing(""))
        }
    }
}
