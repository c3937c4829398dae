//! A token as Linux has it.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;
use stead::Token;
use stead::os::linux::{Capability, CapabilitySet, Gid, LoginUid, TokenExt, Uid, User, group_name};
use stead::token::{Impersonation, TokenKind};

use crate::ending::{Failure, system};
use crate::output::{Cell, Style, Table};

/// The token of a running process, to be looked at.
pub fn of_process(process: i32) -> Result<Token<Impersonation>, Failure> {
    let pid = Pid::from_raw(process).ok_or_else(|| Failure::new("0 is no process"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
        Errno::SRCH => Failure::new(format_args!("there is no process {process}")),
        other => Failure::new(format_args!("process {process}: {}", system(&other.into()))),
    })?;
    Ok(Token::identify_process(pidfd)?)
}

/// The logon session of a process: the token's own, or else the one that the service has it in.
pub fn session<K: TokenKind>(token: &Token<K>, pid: u32) -> Option<String> {
    token.logon_session_id().map(|id| id.to_string()).or_else(|| crate::service::session_of(pid))
}

/// The whole token, its logon session, and the names of its ids.
pub fn json<K: TokenKind>(token: &Token<K>, session: Option<String>) -> Result<serde_json::Value, Failure> {
    let mut shown = serde_json::to_value(token).map_err(Failure::new)?;
    shown["logon_session"] = session.into();
    let named = |gid: Gid| Some((gid.to_string(), text(group_name(gid).ok()??)));
    let groups: BTreeMap<String, String> =
        token.groups().as_slice().iter().copied().chain([token.gid()]).filter_map(named).collect();
    shown["names"] = json!({ "user": user_name(token), "groups": groups });
    Ok(shown)
}

/// The whole token, for people.
pub fn tables<K: TokenKind>(token: &Token<K>, session: Option<String>) -> Vec<Table> {
    vec![user(token), groups(token), capabilities(token), rest(token, session)]
}

fn user<K: TokenKind>(token: &Token<K>) -> Table {
    let mut table = Table::new("User", &["Name", "Uid", "Login uid"]);
    let login = match token.login_uid() {
        LoginUid::Set(uid) => named(uid),
        LoginUid::Unset => "not set".to_owned(),
        LoginUid::Unsupported => "not known".to_owned(),
    };
    table.row([user_name(token).unwrap_or_else(|| "no name".to_owned()), token.uid().to_string(), login]);
    table
}

fn groups<K: TokenKind>(token: &Token<K>) -> Table {
    let mut table = Table::new("Groups", &["Name", "Gid", "Kind"]);
    let name = |gid: Gid| group_name(gid).ok().flatten().map_or_else(|| "no name".to_owned(), text);
    table.row([name(token.gid()), token.gid().to_string(), "primary".to_owned()]);
    for gid in token.groups().as_slice() {
        let kind = if token.logon_gid() == Some(*gid) { "logon session" } else { "supplementary" };
        table.row([name(*gid), gid.to_string(), kind.to_owned()]);
    }
    table
}

fn capabilities<K: TokenKind>(token: &Token<K>) -> Table {
    let sets = token.capabilities();
    let mut table = Table::new("Capabilities", &["Set", "Holds"]);
    for (name, set) in [
        ("permitted", sets.permitted),
        ("effective", sets.effective),
        ("inheritable", sets.inheritable),
        ("ambient", sets.ambient),
        ("bounding", sets.bounding),
    ] {
        // An ordinary process has none and a full bounding set: all else is worth a look.
        let usual = if name == "bounding" { lacking(set).is_empty() } else { set.is_empty() };
        let style = if usual { Style::Plain } else { Style::Notable };
        table.row([Cell::from(name), Cell::styled(held(set), style)]);
    }
    table
}

fn rest<K: TokenKind>(token: &Token<K>, session: Option<String>) -> Table {
    let context = token.context();
    let mut table = Table::new("Context", &[]);
    let kind = token.level().to_string();
    table.row([Cell::from("Level"), Cell::from(kind)]);
    let session = session.unwrap_or_else(|| "none that this process could tell".to_owned());
    table.row([Cell::from("Logon session"), Cell::from(session)]);
    let no_new_privs =
        if context.no_new_privs { Cell::styled("yes", Style::Notable) } else { Cell::from("no") };
    table.row([Cell::from("no_new_privs"), no_new_privs]);
    table.row([Cell::from("Securebits"), Cell::from(format!("{:#x}", context.securebits.0))]);
    let label = token.label().map_or("none".into(), |label| String::from_utf8_lossy(label.as_bytes()));
    table.row([Cell::from("Label"), Cell::from(label)]);
    table
}

fn user_name<K: TokenKind>(token: &Token<K>) -> Option<String> {
    token.user_name().ok().flatten().map(text)
}

fn text(name: impl AsRef<OsStr>) -> String {
    name.as_ref().to_string_lossy().into_owned()
}

fn named(uid: Uid) -> String {
    let entry = User::by_uid(uid).ok().flatten();
    entry.map_or_else(|| uid.to_string(), |user| format!("{} ({uid})", user.name().to_string_lossy()))
}

fn lacking(set: CapabilitySet) -> Vec<&'static str> {
    Capability::ALL.iter().filter(|one| !set.contains(**one)).map(|one| one.name()).collect()
}

/// A nearly full set is told by what it lacks.
fn held(set: CapabilitySet) -> String {
    let lacking = lacking(set);
    match lacking.len() {
        _ if set.is_empty() => "none".to_owned(),
        0 => "all".to_owned(),
        few if few <= 10 => format!("all but {}", lacking.join(", ")),
        _ => set.to_string().replace(',', ", "),
    }
}
