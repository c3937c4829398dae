//! A token for people: `Display` and `Debug`.
#![forbid(unsafe_code)]

use std::fmt;

use super::super::account::AccountEntry;
use super::super::sid::Sid;
use super::{Elevation, Group};
use crate::token::{Token, TokenKind};

impl<K: TokenKind> fmt::Debug for Token<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token<{}>({}, {})", K::NAME, self.level(), self.data().context.user)
    }
}

impl<K: TokenKind> fmt::Display for Token<K> {
    /// The whole token, one part a line. Names are looked up; the SIDs are what counts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = &self.data().context;
        writeln!(f, "{} token, level {}", K::NAME, self.level())?;
        line(f, "user", named(&context.user))?;
        line(f, "groups", list(context.groups.iter().map(group)))?;
        let privileges = context.privileges.iter().map(|privilege| {
            format!("{}{}", privilege.name, if privilege.is_enabled() { "" } else { " (not enabled)" })
        });
        line(f, "privileges", list(privileges))?;
        match context.integrity {
            Some(level) => line(f, "integrity", integrity(level))?,
            None => line(f, "integrity", "none")?,
        }
        line(f, "session", context.session_id)?;
        line(f, "logon id", format_args!("{:#x}", context.logon_id))?;
        match context.logon_sid() {
            Some(sid) => line(f, "logon SID", sid)?,
            None => line(f, "logon SID", "none")?,
        }
        line(f, "restricted", if context.restricted { "yes" } else { "no" })?;
        let elevation = match context.elevation {
            Elevation::Default => "has no other half",
            Elevation::Full => "elevated",
            Elevation::Limited => "filtered; an elevated token is linked to it",
        };
        write!(f, "  {:<14}{elevation}", "elevation")
    }
}

fn line(f: &mut fmt::Formatter<'_>, part: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {part:<14}{value}")
}

/// A name may be anything that the account database says: no control character of it reaches a terminal.
fn named(sid: &Sid) -> String {
    match AccountEntry::by_sid(sid) {
        Ok(Some(account)) => {
            let name = account.name.to_string_lossy().escape_debug().to_string();
            let domain = account.domain.to_string_lossy().escape_debug().to_string();
            if domain.is_empty() { format!("{name} ({sid})") } else { format!("{domain}\\{name} ({sid})") }
        }
        _ => sid.to_string(),
    }
}

fn group(group: &Group) -> String {
    let note = match (group.is_deny_only(), group.is_enabled()) {
        (true, _) => " for denying only",
        (false, true) => "",
        (false, false) => " not enabled",
    };
    format!("{}{note}", named(&group.sid))
}

fn integrity(level: u32) -> String {
    let name = match level {
        0 => "untrusted",
        0x1000 => "low",
        0x2000 => "medium",
        0x2100 => "medium plus",
        0x3000 => "high",
        0x4000 => "system",
        _ => return format!("{level:#x}"),
    };
    format!("{name} ({level:#x})")
}

fn list(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}
