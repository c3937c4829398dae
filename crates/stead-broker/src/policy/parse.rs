//! From a policy's text to its rules.

use std::ops::Range;
use std::time::Duration;

use toml::de::DeTable;

use super::Policy;
use super::error::{Place, PolicyError};
use super::model::{LOGON_TYPES, Limits, People, Programs, Rule};
use super::names::Names;
use super::part::{desktops, limits, logon_types, people, privileges_of, programs, quota, variables};
use super::privilege::Privilege;
use super::value::{Reader, Value};

const TOP: &[&str] = &["allow", "deny", "quotas", "failed-logons"];
const ALLOW: &[&str] = &[
    "name",
    "callers",
    "clients",
    "privileges",
    "programs",
    "environment",
    "logon-types",
    "pam-services",
    "limits",
    "desktops",
    "quotas",
];
const DENY: &[&str] =
    &["name", "callers", "clients", "privileges", "logon-types", "pam-services", "desktops"];
const FAILED_LOGONS: &[&str] =
    &["free-attempts", "first-delay-seconds", "longest-delay-seconds", "forget-after-seconds"];
const A_DAY: u64 = 86_400;

/// Reads one file's text into `policy`; what is wrong with it is added to `errors`.
pub(super) fn add(
    policy: &mut Policy,
    file: &str,
    text: &str,
    names: &dyn Names,
    errors: &mut Vec<PolicyError>,
) {
    let before = errors.len();
    add_rules(policy, &mut Reader::new(file, text, errors), names);
    // Keys are read in the order of their meaning; a person mends them from the top.
    errors.get_mut(before..).unwrap_or_default().sort_by(|one, other| one.place.cmp(&other.place));
}

fn add_rules(policy: &mut Policy, reader: &mut Reader<'_>, names: &dyn Names) {
    let (document, wrong) = DeTable::parse_recoverable(reader.text);
    // What follows the first is mostly its consequence.
    if let Some(error) = wrong.first() {
        let span = error.span().unwrap_or(0..0);
        reader.error(&span, format!("not TOML: {}", error.message().replace('\n', ", ")));
        return;
    }
    let document = document.get_ref();
    reader.refuse_unknown(document, TOP, "a policy");
    for (key, value) in document {
        match key.get_ref().as_ref() {
            "allow" => {
                for table in tables(reader, value, "allow") {
                    if let Some(rule) = allow(reader, table.0, &table.1, names) {
                        policy.allow.push(rule);
                    }
                }
            }
            "deny" => {
                for table in tables(reader, value, "deny") {
                    policy.deny.push(deny(reader, table.0, &table.1, names));
                }
            }
            "quotas" => {
                once(reader, &mut policy.settings.quota_place, &key.span(), "[quotas]");
                let quota = quota(reader, value);
                policy.settings.quota = quota.instead_of(policy.settings.quota);
            }
            "failed-logons" => {
                once(reader, &mut policy.settings.failed_logons_place, &key.span(), "[failed-logons]");
                failed_logons(reader, value, policy);
            }
            _ => {}
        }
    }
}

/// The tables of `[[allow]]` or `[[deny]]`, each with where it stands.
fn tables<'t, 'v>(
    reader: &mut Reader<'_>,
    value: &'v Value<'t>,
    name: &str,
) -> Vec<(&'v DeTable<'t>, Range<usize>)> {
    let what = format!("a rule: write [[{name}]]");
    let Some(array) = value.get_ref().as_array() else {
        reader.error(&value.span(), format!("expected rules: write [[{name}]], with two brackets"));
        return Vec::new();
    };
    array.iter().filter_map(|item| Some((reader.table(item, &what)?, item.span()))).collect()
}

fn once(reader: &mut Reader<'_>, known: &mut Option<Place>, span: &Range<usize>, what: &str) {
    let place = reader.place(span);
    match known {
        Some(first) => {
            let message = format!("{what} may stand once only; it stands at {first} already");
            reader.error(span, message);
        }
        None => *known = Some(place),
    }
}

fn allow(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    span: &Range<usize>,
    names: &dyn Names,
) -> Option<Rule> {
    reader.refuse_unknown(table, ALLOW, "an [[allow]] rule");
    let callers = required(reader, table, span, "callers", "who asks the service");
    let callers = callers.map(|value| people(reader, value, "callers", names));
    let clients = required(reader, table, span, "clients", "whom it may act for");
    let clients = clients.map(|value| people(reader, value, "clients", names));
    let privileges = required(reader, table, span, "privileges", "what it may do");
    let privileges = privileges.map(|value| privileges_of(reader, value)).unwrap_or_default();
    let has = |privilege| privileges.contains(&privilege);
    let creates = has(Privilege::AssignPrimaryToken);
    let logs_on = has(Privilege::Logon) || has(Privilege::Tcb);

    let programs = table.get("programs").map(|value| programs(reader, value));
    let environment = table.get("environment").map(|value| variables(reader, value));
    let logon_types = logon_types(reader, table);
    let limits = table.get("limits").map(|value| limits(reader, value));
    let desktops = table.get("desktops").map(|value| desktops(reader, value));
    let quota = table.get("quotas").map(|value| quota(reader, value));

    if !privileges.is_empty() {
        let raises = has(Privilege::IncreaseQuota);
        let process = "assign-primary-token";
        needs(reader, table, span, creates, process, "programs", "\"any\", or a list of absolute paths");
        needs(reader, table, span, raises, "increase-quota", "limits", "\"any\", or the most of each");
        let types = logs_on && table.get("pam-services").is_none();
        let of_types = format!("\"any\", or some of {}", LOGON_TYPES.join(", "));
        needs(reader, table, span, types, "logon or tcb", "logon-types", &of_types);
        useless(reader, table, creates, process, &["programs", "environment", "desktops"]);
        useless(reader, table, raises, "increase-quota", &["limits"]);
        useless(reader, table, logs_on, "logon or tcb", &["logon-types", "pam-services"]);
        let environment = table.get_key_value("environment").filter(|_| creates);
        if let (Some((key, _)), Some(Programs::Any)) = (environment, &programs) {
            reader.error(
                &key.span(),
                "`environment` means nothing where `programs` is \"any\": every variable may be set then",
            );
        }
    }
    Some(Rule {
        place: reader.place(span),
        name: name(reader, table),
        callers: callers?,
        clients: clients?,
        privileges,
        programs: programs.unwrap_or(Programs::These(Vec::new())),
        environment: environment.unwrap_or_default(),
        logon_types: Some(logon_types.unwrap_or_default()),
        limits: limits.unwrap_or(Limits::UpTo(Vec::new())),
        desktops: Some(desktops.unwrap_or_default()),
        quota,
    })
}

fn deny(reader: &mut Reader<'_>, table: &DeTable<'_>, span: &Range<usize>, names: &dyn Names) -> Rule {
    for key in ["programs", "environment"] {
        if let Some((key, _)) = table.get_key_value(key) {
            reader.error(
                &key.span(),
                format!(
                    "a [[deny]] rule cannot name {}: a copy under another path would not be denied; name what is \
                     allowed instead",
                    key.get_ref()
                ),
            );
        }
    }
    for key in ["limits", "quotas"] {
        if let Some((key, _)) = table.get_key_value(key) {
            let key_name = key.get_ref().to_string();
            reader.error(&key.span(), format!("`{key_name}` belongs in an [[allow]] rule"));
        }
    }
    let before = reader.errors.len();
    reader.refuse_unknown_but(
        table,
        DENY,
        &["programs", "environment", "limits", "quotas"],
        "a [[deny]] rule",
    );
    if table.get("callers").is_none() && table.get("clients").is_none() && reader.errors.len() == before {
        reader.error(span, "a [[deny]] rule needs `callers` or `clients`: \"everyone\", or users and groups");
    }
    let mut everyone_or = |key| match table.get(key) {
        Some(value) => people(reader, value, key, names),
        None => People::all(),
    };
    let (callers, clients) = (everyone_or("callers"), everyone_or("clients"));
    let privileges = match table.get("privileges") {
        Some(value) => privileges_of(reader, value),
        None => Privilege::ALL.to_vec(),
    };
    Rule {
        place: reader.place(span),
        name: name(reader, table),
        callers,
        clients,
        privileges,
        programs: Programs::Any,
        environment: Vec::new(),
        logon_types: logon_types(reader, table),
        limits: Limits::Any,
        desktops: table.get("desktops").map(|value| desktops(reader, value)),
        quota: None,
    }
}

fn name(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Option<String> {
    let value = table.get("name")?;
    Some(reader.string(value, "a name, as a string")?.to_owned())
}

fn required<'t, 'v>(
    reader: &mut Reader<'_>,
    table: &'v DeTable<'t>,
    span: &Range<usize>,
    key: &str,
    what: &str,
) -> Option<&'v Value<'t>> {
    let value = table.get(key);
    if value.is_none() {
        reader.error(span, format!("an [[allow]] rule needs `{key}`: {what}"));
    }
    value
}

/// `key` must be there where the rule has the privilege that it is about.
fn needs(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    span: &Range<usize>,
    needed: bool,
    privilege: &str,
    key: &str,
    what: &str,
) {
    if needed && table.get(key).is_none() {
        reader.error(span, format!("{privilege} needs `{key}`: {what}"));
    }
}

/// `keys` must not be there where the rule has none of the privileges that they are about.
fn useless(reader: &mut Reader<'_>, table: &DeTable<'_>, used: bool, privilege: &str, keys: &[&str]) {
    for key in keys.iter().filter(|_| !used) {
        if let Some((key, _)) = table.get_key_value(*key) {
            let message = format!("`{}` means nothing in a rule without {privilege}", key.get_ref());
            reader.error(&key.span(), message);
        }
    }
}

fn failed_logons(reader: &mut Reader<'_>, value: &Value<'_>, policy: &mut Policy) {
    let Some(table) = reader.table(value, "a table: [failed-logons]") else { return };
    reader.refuse_unknown(table, FAILED_LOGONS, "[failed-logons]");
    let mut number = |key, least, most| reader.integer(table.get(key)?, least, most);
    let settings = &mut policy.settings.failed_logons;
    if let Some(free) = number("free-attempts", 1, 1000).and_then(|free| u32::try_from(free).ok()) {
        settings.free_attempts = free;
    }
    if let Some(seconds) = number("first-delay-seconds", 1, A_DAY) {
        settings.first_delay = Duration::from_secs(seconds);
    }
    if let Some(seconds) = number("longest-delay-seconds", 1, A_DAY) {
        settings.longest_delay = Duration::from_secs(seconds);
    }
    if let Some(seconds) = number("forget-after-seconds", 1, A_DAY) {
        settings.forget_after = Duration::from_secs(seconds);
    }
}
