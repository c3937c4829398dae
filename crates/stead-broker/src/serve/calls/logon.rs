//! Logons: what the policy lets a caller have opened, and with what.

use std::sync::Arc;
use std::time::Duration;

use stead::os::linux::{LogonExt, LogonGid, TokenExt, User};
use stead::{Account, Lifetime, Logon};
use stead_protocol as wire;
use stead_protocol::{Failure, LogOn, OpenedSession, Text, Variable};

use super::explain::{logon_type, subject};
use super::secret::{self, Talk};
use super::session::opened;
use crate::policy::{LogonRequest, Privilege, Request, Subject, is_harmless, is_time_zone};
use crate::serve::failure::{failure, invalid, system};
use crate::serve::folder::now;
use crate::serve::given::Given;
use crate::serve::holders::Holder;
use crate::serve::service::{Service, denied};
use crate::serve::session::Record;
use crate::serve::state::State;
use crate::serve::watch;
use crate::throttle::Holding;

/// The longest that a logon may be given.
const LONGEST: Duration = Duration::from_secs(300);

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
        let nobody = Subject::not_looked_up(name.clone());
        let request = Request::new(privilege, &nobody).logon(LogonRequest::Type(logon_type(call.logon_type)));
        let refused = service.decide(caller, &request).err();
        return Err(refused.unwrap_or_else(|| denied(privilege, &name)));
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
        if call.s4u { None } else { Some(service.attempt(caller.counted, &counted_as(call)?, &doing)?) };
    let session = logon.open().map_err(|error| failure(&error));
    let kind = stead_protocol::name_of(logon_type(call.logon_type));
    let result = session.as_ref().map(|session| session.id().to_string());
    service.note_logon(caller, &client, &kind, result);
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
    let added = service.sessions.add(record, session, counted);
    let (known, session) = added.map_err(|error| system(&doing, "write", error))?;
    // It is held before anybody can find it: who opened it, and went away, would end it or set it free.
    state.ties.hold(service, &known, &state.caller)?;
    service.sessions.publish(&known);
    // Nothing has been created in it yet.
    let told = opened(service, state, &known, session, Vec::new());
    told.inspect_err(|_| state.ties.lose(&known.record.id))
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

/// What is logged on, with no more of what the call asks for than a caller may say.
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
        let zone = name.as_bytes() == b"TZ" && is_time_zone(value.as_bytes());
        if !zone && !is_harmless((name.as_bytes(), Some(value.as_bytes()))) {
            let name = name.to_string_lossy();
            let what = format!("the variable {name:?} is not a caller's to set so at a logon");
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

/// A pseudo-terminal, or a word that is no terminal's name.
fn is_nobodys_seat(tty: &[u8]) -> bool {
    let number = tty.strip_prefix(b"/dev/").unwrap_or(tty).strip_prefix(b"pts/");
    match number {
        Some(number) => !number.is_empty() && number.iter().all(u8::is_ascii_digit),
        None => tty != b"console" && tty.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'-'),
    }
}
