//! From a call to what handles it: on a thread that may wait.

use serde::Serialize;
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use stead_protocol::{CreateProcess, Failure, FailureKind, Request};

use super::connection::{Answer, State};
use super::given::Given;
use super::service::Service;
use super::slots::Kind;
use super::{client, create, explain, file, logon, session};

/// What the call waits for.
pub(super) fn slot_of(request: &Request) -> Kind {
    match request {
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
    super::fuzzing::panic_if_asked(&request);
    match request {
        Request::LogOn(call) => plain(&logon::log_on(service, state, &call, given)?),
        Request::OwnToken(call) => plain(&client::own_token(state, &call)?),
        Request::ClientToken(call) => plain(&client::client_token(service, state, &call, given)?),
        Request::DescribeToken(call) => plain(&state.describe_token(&call)?),
        Request::DuplicateToken(call) => plain(&state.duplicate_token(&call)?),
        Request::RestrictToken(call) => plain(&state.restrict_token(&call)?),
        Request::CloseToken(call) => plain(&state.close_token(&call)?),
        Request::OpenFile(call) => {
            let (opened, file) = file::open(service, state, &call)?;
            with(&opened, vec![file])
        }
        Request::CreateProcess(call) => {
            let (created, descriptors) = create::create(service, state, call, given)?;
            with(&created, descriptors)
        }
        Request::ListProcesses(call) => plain(&service.processes.list(&state.caller, &call)),
        Request::GetProcess(call) => {
            let (process, pidfd) = service.processes.get(&state.caller, &call)?;
            with(&process, pidfd.into_iter().collect())
        }
        Request::ResumeProcess(call) => plain(&service.processes.resume(&state.caller, &call)?),
        Request::SignalProcess(call) => {
            let (process, done) = service.processes.signal(&state.caller, &call)?;
            service.note_signal(&state.caller, &process.record, &format!("signal {}", call.signal));
            plain(&done)
        }
        Request::KillTree(call) => {
            let (process, done) = service.processes.kill_tree(&state.caller, &call)?;
            service.note_signal(&state.caller, &process.record, "its tree was ended");
            plain(&done)
        }
        Request::ListSessions(_) => plain(&session::list(service, state)),
        Request::OpenSession(call) => plain(&session::open(service, state, &call)?),
        Request::TerminateSession(call) => plain(&session::terminate(service, state, &call)?),
        Request::CloseSession(call) => plain(&session::close(service, state, &call)?),
        Request::ExplainPolicy(call) => plain(&explain::explain(service, state, &call)?),
        Request::GetStatus(call) => plain(&service.status(&state.caller, &call)),
        // These wait, and are not handled here.
        Request::WaitProcess(_) | Request::Monitor(_) => {
            Err(FailureKind::MethodNotFound { method: request.method().to_owned() }.while_doing(""))
        }
    }
}

fn plain(reply: &impl Serialize) -> Result<Answer, Failure> {
    with(reply, Vec::new())
}

fn with(reply: &impl Serialize, descriptors: Vec<OwnedFd>) -> Result<Answer, Failure> {
    let parameters: Value = serde_json::to_value(reply)
        .map_err(|error| FailureKind::Other { text: error.to_string() }.while_doing("writing a reply"))?;
    Ok(Answer { parameters, descriptors })
}
