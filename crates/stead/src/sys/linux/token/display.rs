//! A token for people: `Display` and `Debug`.

use std::borrow::Cow;
use std::fmt;

use super::{Capability, CapabilitySet, CapabilitySets, Gid, LoginUid, Uid};
use crate::os::linux::TokenExt;
use crate::sys::account::AccountEntry;
use crate::sys::group::group_name;
use crate::token::{Token, TokenKind};

/// A set that lacks no more than this many is told by what it lacks.
const FEW: usize = 10;

impl<K: TokenKind> fmt::Debug for Token<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = &self.data.context;
        write!(f, "Token<{}>({}, uid {}, gid {})", K::NAME, self.level, context.uid, context.gid)
    }
}

impl<K: TokenKind> fmt::Display for Token<K> {
    /// The whole token, one part a line. Names are looked up; the numbers are what counts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = &self.data.context;
        let own_name = self.account().ok().flatten().map(|account| account.name.to_string_lossy());
        writeln!(f, "{} token, level {}", K::NAME, self.level)?;
        line(f, "user", named(own_name, context.uid))?;
        line(f, "group", group(context.gid))?;
        line(f, "groups", list(context.groups.as_slice().iter().map(|gid| group(*gid))))?;
        capabilities(f, &context.capabilities)?;
        line(f, "bounding set", set(context.capabilities.bounding))?;
        if context.securebits.0 != 0 {
            line(f, "securebits", format_args!("{:#x}", context.securebits.0))?;
        }
        line(f, "no_new_privs", if context.no_new_privs { "yes" } else { "no" })?;
        if let Some(label) = &context.label {
            line(f, "label", String::from_utf8_lossy(label.as_bytes()).escape_debug())?;
        }
        line(f, "login uid", login_uid(context.login_uid))?;
        match self.logon_session_id() {
            Some(id) => line(f, "logon session", id)?,
            None => line(f, "logon session", "none of this server's")?,
        }
        if let Some(gid) = self.logon_gid() {
            line(f, "logon gid", gid)?;
        }
        write!(f, "  {:<14}{}", "confinement", self.data.confinement)
    }
}

fn line(f: &mut fmt::Formatter<'_>, part: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {part:<14}{value}")
}

/// A name may be anything that the account database says: no control character of it reaches a terminal.
fn named(name: Option<Cow<'_, str>>, id: impl fmt::Display) -> String {
    match name {
        Some(name) => format!("{} ({id})", name.escape_debug()),
        None => id.to_string(),
    }
}

fn group(gid: Gid) -> String {
    let name = group_name(gid).ok().flatten();
    named(name.as_ref().map(|name| name.to_string_lossy()), gid)
}

fn user(uid: Uid) -> String {
    let account = AccountEntry::by_uid(uid).ok().flatten();
    named(account.as_ref().map(|account| account.name.to_string_lossy()), uid)
}

fn login_uid(login: LoginUid) -> String {
    match login {
        LoginUid::Set(uid) => user(uid),
        LoginUid::Unset => "not set".into(),
        LoginUid::Unsupported => "not known".into(),
    }
}

fn list(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

/// One line when all four sets are empty, as a client's are.
fn capabilities(f: &mut fmt::Formatter<'_>, sets: &CapabilitySets) -> fmt::Result {
    let named = [
        ("permitted", sets.permitted),
        ("effective", sets.effective),
        ("inheritable", sets.inheritable),
        ("ambient", sets.ambient),
    ];
    if named.iter().all(|(_, held)| held.is_empty()) {
        return line(f, "capabilities", "none");
    }
    named.into_iter().try_for_each(|(name, held)| line(f, name, set(held)))
}

fn set(set: CapabilitySet) -> String {
    let lacking: Vec<&str> =
        Capability::ALL.iter().filter(|one| !set.contains(**one)).map(|one| one.name()).collect();
    match lacking.len() {
        0 => "all".into(),
        lack if lack <= FEW => format!("all but {}", lacking.join(", ")),
        _ => set.to_string().replace(',', ", "),
    }
}
