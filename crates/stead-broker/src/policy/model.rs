//! What a policy says, after its names were looked up.

use std::fmt;

use stead::Desktop;
use stead::os::linux::{Gid, Limit, Uid};

use super::error::Place;
use super::privilege::Privilege;
use super::request::{Caller, DesktopRequest, LogonRequest, ProgramRequest, Subject};
use super::settings::{FailedLogons, Quota};
use super::variable::{self, Variable, is_harmless};

/// Users and groups that a rule names.
#[derive(Debug, Clone, Default)]
pub(super) struct People {
    /// Everyone; in an `[[allow]]` rule everyone but root.
    pub(super) everyone: bool,
    pub(super) users: Vec<(Uid, String)>,
    pub(super) groups: Vec<(Gid, String)>,
}

impl People {
    /// Everyone.
    pub(super) fn all() -> Self {
        Self { everyone: true, ..Self::default() }
    }

    /// Whether an `[[allow]]` rule reaches this uid: groups are those that the kernel has for it now.
    fn allows(&self, uid: Option<Uid>, holds: impl Fn(Gid) -> bool) -> bool {
        let Some(uid) = uid else { return self.everyone };
        let named = self.users.iter().any(|(user, _)| *user == uid);
        let meant = self.everyone || self.groups.iter().any(|(group, _)| holds(*group));
        named || (meant && uid != Uid::ROOT)
    }

    /// Whether a `[[deny]]` rule reaches it: a group also counts where only the account has it, so that nobody
    /// escapes by dropping a group.
    fn denies(&self, uid: Option<Uid>, holds: impl Fn(Gid) -> bool) -> bool {
        let Some(uid) = uid else { return self.everyone };
        self.everyone
            || self.users.iter().any(|(user, _)| *user == uid)
            || self.groups.iter().any(|(group, _)| holds(*group))
    }

    pub(super) fn allows_caller(&self, caller: &Caller) -> bool {
        self.allows(Some(caller.uid), |group| caller.gids.contains(group))
    }

    pub(super) fn denies_caller(&self, caller: &Caller) -> bool {
        self.denies(Some(caller.uid), |group| {
            caller.gids.contains(group) || caller.account_gids.contains(group)
        })
    }

    pub(super) fn allows_client(&self, client: &Subject) -> bool {
        self.allows(client.uid, |group| client.gids.contains(group))
    }

    pub(super) fn denies_client(&self, client: &Subject) -> bool {
        self.denies(client.uid, |group| client.gids.contains(group) || client.account_gids.contains(group))
    }
}

impl fmt::Display for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users = self.users.iter().map(|(_, name)| name.clone());
        let groups = self.groups.iter().map(|(_, name)| format!("group {name}"));
        let everyone = self.everyone.then(|| "everyone".to_owned());
        f.write_str(&everyone.into_iter().chain(users).chain(groups).collect::<Vec<_>>().join(", "))
    }
}

/// The programs that a rule allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Programs {
    Any,
    /// Absolute paths; one that ends in `/*` is every program directly in that folder.
    These(Vec<String>),
}

impl Programs {
    pub(super) fn cover(&self, program: Option<ProgramRequest<'_>>) -> bool {
        let Self::These(list) = self else { return true };
        let Some(ProgramRequest::Path(path)) = program else { return false };
        is_plain_path(path) && list.iter().any(|one| covers_path(one, path))
    }
}

/// An absolute path without empty parts, `.` and `..`, which could lead around a list.
pub(super) fn is_plain_path(path: &[u8]) -> bool {
    let Some(parts) = path.strip_prefix(b"/") else { return false };
    !path.contains(&0)
        && parts.split(|byte| *byte == b'/').all(|part| !part.is_empty() && part != b"." && part != b"..")
}

fn covers_path(one: &str, path: &[u8]) -> bool {
    match one.strip_suffix('*') {
        Some(folder) => path.strip_prefix(folder.as_bytes()).is_some_and(|name| !name.contains(&b'/')),
        None => path == one.as_bytes(),
    }
}

/// Whether a rule that lists `names` lets a caller set a variable.
pub(super) fn covers_variable(names: &[String], variable: Variable<'_>) -> bool {
    is_harmless(variable) || names.iter().any(|one| variable::covers(one, variable.0))
}

/// The logon types that a rule names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LogonTypes {
    pub(super) any: bool,
    pub(super) types: Vec<&'static str>,
    /// PAM services named one by one; `any` does not reach them.
    pub(super) pam_services: Vec<String>,
}

impl LogonTypes {
    pub(super) fn cover(&self, logon: Option<LogonRequest<'_>>) -> bool {
        match logon {
            Some(LogonRequest::Type(kind)) => {
                self.any || logon_type_name(kind).is_some_and(|name| self.types.contains(&name))
            }
            Some(LogonRequest::PamService(service)) => self.pam_services.iter().any(|one| one == service),
            None => false,
        }
    }
}

/// What a policy file calls the logon types.
pub(super) const LOGON_TYPES: &[&str] = &["interactive", "network", "network-cleartext", "batch", "service"];

pub(super) fn logon_type_name(kind: stead::LogonType) -> Option<&'static str> {
    match kind {
        stead::LogonType::Interactive => Some("interactive"),
        stead::LogonType::Network => Some("network"),
        stead::LogonType::NetworkCleartext => Some("network-cleartext"),
        stead::LogonType::Batch => Some("batch"),
        stead::LogonType::Service => Some("service"),
        // A type that this policy has no word for is covered by none.
        _ => None,
    }
}

/// The limits that a rule lets a caller raise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Limits {
    Any,
    UpTo(Vec<(Limit, u64)>),
}

impl Limits {
    /// The first of `wanted` that goes beyond.
    pub(super) fn exceeded_by(&self, wanted: &[(Limit, u64)]) -> Option<(Limit, u64)> {
        let Self::UpTo(limits) = self else { return None };
        let fits = |(limit, value): &(Limit, u64)| {
            limits.iter().any(|(known, most)| known == limit && value <= most)
        };
        wanted.iter().copied().find(|one| !fits(one))
    }
}

/// What a policy file calls the limits.
pub(super) const LIMITS: &[(&str, Limit)] = &[
    ("cpu-time", Limit::CpuTime),
    ("file-size", Limit::FileSize),
    ("data", Limit::Data),
    ("stack", Limit::Stack),
    ("core", Limit::Core),
    ("resident-set", Limit::ResidentSet),
    ("processes", Limit::Processes),
    ("open-files", Limit::OpenFiles),
    ("locked-memory", Limit::LockedMemory),
    ("address-space", Limit::AddressSpace),
    ("locks", Limit::Locks),
    ("pending-signals", Limit::PendingSignals),
    ("message-queues", Limit::MessageQueues),
    ("nice", Limit::Nice),
    ("realtime-priority", Limit::RealtimePriority),
    ("realtime-time", Limit::RealtimeTime),
];

/// The desktops that a rule allows besides none at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Desktops {
    pub(super) any: bool,
    pub(super) own: bool,
    pub(super) interactive: bool,
    pub(super) names: Vec<String>,
}

impl Desktops {
    pub(super) fn cover(&self, desktop: DesktopRequest<'_>) -> bool {
        match desktop {
            DesktopRequest::None => true,
            DesktopRequest::Own => self.any || self.own || self.interactive,
            DesktopRequest::Interactive => self.any || self.interactive,
            DesktopRequest::Named(name) => self.any || self.names.contains(&canonical(name)),
        }
    }
}

/// The one name of a display, socket or terminal, of which there may be more: `:0.0`, `/dev//tty3`.
fn canonical(name: &str) -> String {
    Desktop::by_name(name).map_or_else(|_| name.to_owned(), |desktop| desktop.to_string())
}

/// One rule. A `[[deny]]` rule that leaves a part out means all of it.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) place: Place,
    pub(super) name: Option<String>,
    pub(super) callers: People,
    pub(super) clients: People,
    pub(super) privileges: Vec<Privilege>,
    pub(super) programs: Programs,
    pub(super) environment: Vec<String>,
    /// `None`, of a `[[deny]]` rule: whatever the request is.
    pub(super) logon_types: Option<LogonTypes>,
    pub(super) limits: Limits,
    /// As `logon_types`.
    pub(super) desktops: Option<Desktops>,
    pub(super) quota: Option<super::settings::PartialQuota>,
}

/// What is not a rule.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub(super) quota: Quota,
    pub(super) quota_place: Option<Place>,
    pub(super) failed_logons: FailedLogons,
    pub(super) failed_logons_place: Option<Place>,
}
