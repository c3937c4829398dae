//! The parts of a rule.

use stead::Desktop;
use stead::os::linux::Limit;
use toml::de::{DeTable, DeValue};

use super::model::{Desktops, LIMITS, LOGON_TYPES, Limits, LogonTypes, People, Programs, is_plain_path};
use super::names::Names;
use super::near::hint;
use super::privilege::Privilege;
use super::settings::PartialQuota;
use super::value::{Reader, Value};

const PEOPLE: &[&str] = &["users", "groups"];
const QUOTAS: &[&str] = &["sessions", "processes", "connections"];
const MOST_OF_A_QUOTA: u64 = 1_000_000;

pub(super) fn people(reader: &mut Reader<'_>, value: &Value<'_>, key: &str, names: &dyn Names) -> People {
    let mut people = People::default();
    let table = match value.get_ref() {
        DeValue::String(word) if word == "everyone" => return People::all(),
        DeValue::Table(table) => table,
        _ => {
            let message = "expected \"everyone\", or a table: { users = [..], groups = [..] }";
            reader.error(&value.span(), message);
            return people;
        }
    };
    reader.refuse_unknown(table, PEOPLE, &format!("`{key}`"));
    if table.is_empty() {
        reader.error(&value.span(), "nobody is meant: give `users` or `groups`, or leave the rule out");
    }
    if let Some(value) = table.get("users") {
        for (name, span) in reader.strings(value, "users") {
            match names.user(&name) {
                Ok(Some(uid)) => people.users.push((uid, name)),
                Ok(None) => {
                    let hint = unknown_name(&name, names.group(&name).is_ok_and(|found| found.is_some()));
                    reader.error(&span, format!("there is no user {name:?}{hint}"));
                }
                Err(why) => reader.error(&span, format!("the user {name:?} cannot be looked up: {why}")),
            }
        }
    }
    if let Some(value) = table.get("groups") {
        for (name, span) in reader.strings(value, "groups") {
            match names.group(&name) {
                Ok(Some(gid)) => people.groups.push((gid, name)),
                Ok(None) => {
                    let hint = unknown_name(&name, names.user(&name).is_ok_and(|found| found.is_some()));
                    reader
                        .error(&span, format!("there is no group {name:?}{}", hint.replace("group", "user")));
                }
                Err(why) => reader.error(&span, format!("the group {name:?} cannot be looked up: {why}")),
            }
        }
    }
    people
}

fn unknown_name(name: &str, is_the_other: bool) -> &'static str {
    if is_the_other {
        "; there is a group of that name"
    } else if name.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() {
        "; a name is never taken for a number"
    } else {
        ""
    }
}

pub(super) fn privileges_of(reader: &mut Reader<'_>, value: &Value<'_>) -> Vec<Privilege> {
    let known: Vec<&'static str> = Privilege::ALL.iter().map(|privilege| privilege.name()).collect();
    let mut privileges = Vec::new();
    for (name, span) in reader.strings(value, "privileges") {
        // The name that Windows has for it says the same.
        match known.iter().find(|known| windows_name(&name) == known.replace('-', "")) {
            Some(near) => {
                reader.error(&span, format!("there is no privilege {name:?}; did you mean `{near}`?"));
            }
            None => privileges
                .extend(reader.one_of(&name, &span, "privilege", &known).and_then(Privilege::from_name)),
        }
    }
    privileges
}

/// `tcb` of `SeTcbPrivilege` and of `SE_TCB_NAME`; nothing of another form.
fn windows_name(name: &str) -> String {
    let plain = name.to_ascii_lowercase().replace('_', "");
    let middle = plain.strip_prefix("se").unwrap_or_default();
    let ends = ["privilege", "name"];
    ends.iter().find_map(|end| middle.strip_suffix(end)).unwrap_or_default().to_owned()
}

fn is_any(value: &Value<'_>) -> bool {
    value.get_ref().as_str() == Some("any")
}

pub(super) fn programs(reader: &mut Reader<'_>, value: &Value<'_>) -> Programs {
    if is_any(value) {
        return Programs::Any;
    }
    if value.get_ref().is_str() {
        reader.error(&value.span(), "expected \"any\", or a list of absolute paths");
        return Programs::These(Vec::new());
    }
    let mut list = Vec::new();
    for (path, span) in reader.strings(value, "absolute paths") {
        let stars = path.bytes().filter(|byte| *byte == b'*').count();
        if !is_plain_path(path.as_bytes()) {
            reader.error(&span, format!("{path:?} is no absolute path without empty parts, `.` and `..`"));
        } else if stars > 0 && !(stars == 1 && path.ends_with("/*") && path != "/*") {
            reader.error(&span, format!("{path:?}: `*` stands for the whole last part of a path only"));
        } else {
            list.push(path);
        }
    }
    Programs::These(list)
}

pub(super) fn variables(reader: &mut Reader<'_>, value: &Value<'_>) -> Vec<String> {
    let mut list = Vec::new();
    for (name, span) in reader.strings(value, "variables' names") {
        let stem = name.strip_suffix('*').unwrap_or(&name);
        if stem.is_empty() || stem.contains(['=', '\0', '*']) {
            reader.error(&span, format!("{name:?} is no name of a variable; `*` may stand at the end only"));
        } else {
            list.push(name);
        }
    }
    list
}

/// `logon-types` and `pam-services`; `None` where neither stands.
pub(super) fn logon_types(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Option<LogonTypes> {
    let (types, services) = (table.get("logon-types"), table.get("pam-services"));
    if types.is_none() && services.is_none() {
        return None;
    }
    let mut found = LogonTypes::default();
    if let Some(value) = types {
        found.any = is_any(value);
        let listed = if found.any { Vec::new() } else { reader.strings(value, "logon types") };
        for (name, span) in listed {
            found.types.extend(reader.one_of(&name, &span, "logon type", LOGON_TYPES));
        }
    }
    if let Some(value) = services {
        for (name, span) in reader.strings(value, "PAM services") {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
            if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                reader.error(&span, format!("{name:?} is no name of a file in /etc/pam.d"));
            } else {
                found.pam_services.push(name);
            }
        }
    }
    Some(found)
}

pub(super) fn limits(reader: &mut Reader<'_>, value: &Value<'_>) -> Limits {
    if is_any(value) {
        return Limits::Any;
    }
    let Some(table) = reader.table(value, "\"any\", or a table such as { open-files = 65536 }") else {
        return Limits::UpTo(Vec::new());
    };
    let known: Vec<&str> = LIMITS.iter().map(|(name, _)| *name).collect();
    reader.refuse_unknown(table, &known, "`limits`");
    let mut list = Vec::new();
    for (name, limit) in LIMITS {
        if let Some(value) = table.get(*name) {
            if value.get_ref().as_str() == Some("unlimited") {
                list.push((*limit, Limit::UNLIMITED));
            } else if value.get_ref().is_integer() {
                list.extend(reader.integer(value, 0, u64::MAX - 1).map(|most| (*limit, most)));
            } else {
                reader.error(&value.span(), "expected a whole number, or \"unlimited\"");
            }
        }
    }
    Limits::UpTo(list)
}

pub(super) fn desktops(reader: &mut Reader<'_>, value: &Value<'_>) -> Desktops {
    let mut desktops = Desktops { any: is_any(value), ..Desktops::default() };
    if desktops.any {
        return desktops;
    }
    for (name, span) in reader.strings(value, "desktops") {
        match name.as_str() {
            "own" => desktops.own = true,
            "interactive" => desktops.interactive = true,
            named if named.starts_with(':') || named.starts_with('/') => {
                if let Ok(desktop) = Desktop::by_name(named) {
                    desktops.names.push(desktop.to_string());
                } else {
                    let what = "a display is of this machine (\":1\"), and a path is one without `..`";
                    reader.error(&span, format!("there is no desktop {name:?}; {what}"));
                }
            }
            _ => {
                let near = hint(&name, ["own", "interactive", "any"]);
                let all = "; there are own, interactive, a display such as \":1\", and a socket's or terminal's path";
                let near = if near.is_empty() { all.to_owned() } else { near };
                reader.error(&span, format!("there is no desktop {name:?}{near}"));
            }
        }
    }
    desktops
}

pub(super) fn quota(reader: &mut Reader<'_>, value: &Value<'_>) -> PartialQuota {
    let mut quota = PartialQuota::default();
    let Some(table) = reader.table(value, "a table such as { sessions = 100 }") else { return quota };
    reader.refuse_unknown(table, QUOTAS, "[quotas]");
    let mut number = |key| {
        let value = table.get(key)?;
        reader.integer(value, 0, MOST_OF_A_QUOTA).and_then(|number| u32::try_from(number).ok())
    };
    quota.sessions = number("sessions");
    quota.processes = number("processes");
    quota.connections = number("connections");
    quota
}
