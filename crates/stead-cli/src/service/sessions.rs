//! `stead sessions`, `stead logoff`.

use std::io::ErrorKind::PermissionDenied;

use serde_json::json;
use stead::LogonSession;
use stead_protocol::{ListSessions, LogonType, Session, TerminateSession};

use super::{Line, ago, named, path};
use crate::arguments::Form;
use crate::ending::{Ending, Failure};
use crate::output::{self, Cell, Table};

/// The sessions that the caller may see; without a service those that other servers of the same user left to be
/// found again.
pub fn sessions(form: Form) -> Result<Ending, Failure> {
    if !path().exists() {
        return detached(form);
    }
    let sessions = Line::open()?.call(&ListSessions {})?.sessions;
    if form.json {
        return output::json(&serde_json::to_value(sessions).map_err(Failure::new)?);
    }
    let mut table = Table::new("", &["Session", "User", "Logon", "Opened by", "For", "Processes"]);
    for Session { id, uid, user_name, owner, logon_type, since, pids, lifetime: _ } in &sessions {
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        table.row([
            id.clone(),
            format!("{} ({uid})", user_name.to_string_lossy()),
            logon_type.map_or("not known", name).to_owned(),
            named(*owner),
            ago(*since),
            pids.join(" "),
        ]);
    }
    output::list(table, "no sessions")
}

fn detached(form: Form) -> Result<Ending, Failure> {
    let found = match LogonSession::detached_sessions() {
        // The folder is another's: none of those in it is of this user's servers.
        Err(error) if error.os_error().is_some_and(|source| source.kind() == PermissionDenied) => Vec::new(),
        other => other?,
    };
    if form.json {
        let list: Vec<_> = found.iter().map(|id| json!({ "id": id.to_string() })).collect();
        return output::json(&list.into());
    }
    let mut table = Table::new("", &["Session"]);
    for id in found {
        table.row([Cell::from(id.to_string())]);
    }
    output::complain("no service is running; these are the detached sessions of servers of this user");
    output::list(table, "no sessions")
}

/// Ends every process of these sessions.
pub fn logoff(sessions: &[String]) -> Result<Ending, Failure> {
    let mut line = Line::open()?;
    Ok(super::each(sessions, |session| {
        line.call(&TerminateSession { session: session.to_owned() }).map(drop)
    }))
}

/// A logon type as the command line names it.
fn name(kind: LogonType) -> &'static str {
    match kind {
        LogonType::Interactive => "interactive",
        LogonType::Network => "network",
        LogonType::NetworkCleartext => "network-cleartext",
        LogonType::Batch => "batch",
        LogonType::Service => "service",
    }
}
