//! What the policy would say.

use std::ffi::OsString;

use stead::LogonType;
use stead::os::linux::{Uid, User};
use stead_protocol as wire;
use stead_protocol::{ExplainPolicy, Explanation, Failure, FailureKind, Text};

use crate::policy::{
    Caller, DesktopRequest, LogonRequest, Privilege, ProgramRequest, Request, RuleRef, Subject,
};
use crate::serve::caller::{account_groups, with};
use crate::serve::failure::{failure, invalid};
use crate::serve::limits;
use crate::serve::service::Service;
use crate::serve::state::State;

const DOING: &str = "explaining the policy";

pub(super) fn explain(
    service: &Service,
    state: &State,
    call: &ExplainPolicy,
) -> Result<Explanation, Failure> {
    let question = &call.question;
    let privilege = Privilege::from_name(&question.privilege)
        .ok_or_else(|| invalid(DOING, format!("there is no privilege {:?}", question.privilege)))?;
    let is_root = state.caller.uid == Uid::ROOT;
    let caller = match &call.caller {
        None => state.caller.policy.clone(),
        Some(_) if !is_root => {
            let object = "what another caller may do".to_owned();
            return Err(FailureKind::AccessDenied { object }.while_doing(DOING));
        }
        Some(name) => {
            let unknown = || FailureKind::AccountUnknown { name: name.to_string_lossy().into_owned() };
            let user = find(name)?.ok_or_else(|| unknown().while_doing(DOING))?;
            let groups = user.groups().map_err(|error| failure(&error))?;
            let groups: Vec<_> = with(&groups, user.gid()).collect();
            Caller::new(user.uid(), groups.clone()).account_groups(groups)
        }
    };
    let policy = service.policy();
    let outright = policy.refuses_outright(&caller, privilege).filter(|_| !is_root);
    let subject = match &question.client {
        None => own(&caller)?,
        // Whether the user exists is not told to who could do nothing with it.
        Some(name) if outright.is_some() && !is_own(&caller, name)? => {
            Subject::not_looked_up(name.to_string_lossy())
        }
        Some(name) => subject(name)?,
    };
    let mut request = Request::new(privilege, &subject);
    if let Some(kind) = question.logon_type {
        request = request.logon(LogonRequest::Type(logon_type(kind)));
    }
    if let Some(program) = &question.program {
        request = request.program(ProgramRequest::Path(program.as_bytes()));
    }
    let desktop;
    if let Some(name) = &question.desktop {
        desktop = name.to_string_lossy();
        request = request.desktop(desktop_request(&desktop));
    }
    for asked in &question.limits {
        let (limit, _, hard) = limits::asked(asked).map_err(|why| invalid(DOING, why))?;
        request = request.limit(limit, hard);
    }
    let decision = policy.decide(&caller, &request);
    let rule = match &decision.rule {
        RuleRef::NoRule => None,
        rule => Some(rule.to_string()),
    };
    // Which rules there are for others is the administrator's to know.
    let why = match (is_root, decision.allowed) {
        (true, _) | (false, true) => decision.why,
        (false, false) => format!("no rule gives you {privilege} over that client, for that"),
    };
    Ok(Explanation { allowed: decision.allowed, rule: rule.filter(|_| is_root || decision.allowed), why })
}

fn find(name: &Text) -> Result<Option<User>, Failure> {
    User::by_name(OsString::from(name.clone())).map_err(|error| failure(&error))
}

fn own(caller: &Caller) -> Result<Subject, Failure> {
    let user = User::by_uid(caller.uid).map_err(|error| failure(&error))?;
    let name = user.map_or_else(String::new, |user| user.name().to_string_lossy().into_owned());
    Ok(Subject::new(caller.uid, name, caller.gids.as_slice().iter().copied()))
}

fn is_own(caller: &Caller, name: &Text) -> Result<bool, Failure> {
    let user = User::by_uid(caller.uid).map_err(|error| failure(&error))?;
    Ok(user.is_some_and(|user| user.name() == name.as_os_str()))
}

/// The account of this name as the policy sees it, also where there is none.
pub(super) fn subject(name: &Text) -> Result<Subject, Failure> {
    let Some(user) = find(name)? else { return Ok(Subject::unknown(name.to_string_lossy())) };
    let groups = account_groups(user.uid()).map_err(|error| failure(&error))?;
    Ok(Subject::new(user.uid(), name.to_string_lossy(), groups.clone()).account_groups(groups))
}

pub(super) fn logon_type(kind: wire::LogonType) -> LogonType {
    match kind {
        wire::LogonType::Interactive => LogonType::Interactive,
        wire::LogonType::Network => LogonType::Network,
        wire::LogonType::NetworkCleartext => LogonType::NetworkCleartext,
        wire::LogonType::Batch => LogonType::Batch,
        wire::LogonType::Service => LogonType::Service,
    }
}

/// A desktop as the policy sees it.
pub(super) fn desktop_request(name: &str) -> DesktopRequest<'_> {
    match name {
        "interactive" => DesktopRequest::Own,
        "active" | "console" => DesktopRequest::Interactive,
        name => DesktopRequest::Named(name),
    }
}
