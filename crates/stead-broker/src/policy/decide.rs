//! The decision.

use std::fmt;

use stead::os::linux::Uid;

use super::Policy;
use super::error::Place;
use super::model::{Desktops, Programs, Rule, covers_variable};
use super::privilege::Privilege;
use super::request::{Caller, DesktopRequest, LogonRequest, ProgramRequest, Request};
use super::variable::says_how_to_show;

/// What the policy says to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// By which rule.
    pub rule: RuleRef,
    /// Why, in a sentence for the log and for administrators. It names rules and whom they are for: it is not for
    /// the caller.
    pub why: String,
}

/// Which rule decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleRef {
    /// One of the policy's.
    At(Place),
    /// The one that needs no policy: everyone may create processes as itself.
    Itself,
    /// None: what no rule allows is refused.
    NoRule,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(place) => write!(f, "{}:{}", place.file, place.line),
            Self::Itself => f.write_str("itself"),
            Self::NoRule => f.write_str("no rule"),
        }
    }
}

pub(super) fn decide(policy: &Policy, caller: &Caller, request: &Request<'_>) -> Decision {
    if let Some(rule) = policy.deny.iter().find(|rule| denies(rule, caller, request)) {
        return denied_by(rule);
    }
    if as_itself(caller, request) {
        let why = "everyone may create processes as itself".to_owned();
        return Decision { allowed: true, rule: RuleRef::Itself, why };
    }
    by_a_rule(policy, caller, request)
}

pub(super) fn decide_by_a_rule(policy: &Policy, caller: &Caller, request: &Request<'_>) -> Decision {
    match policy.deny.iter().find(|rule| denies(rule, caller, request)) {
        Some(rule) => denied_by(rule),
        None => by_a_rule(policy, caller, request),
    }
}

/// What the `[[allow]]` rules say.
fn by_a_rule(policy: &Policy, caller: &Caller, request: &Request<'_>) -> Decision {
    let mut nearest: Option<(Gap, &Rule)> = None;
    for rule in &policy.allow {
        match gap(rule, caller, request) {
            None => {
                let why = format!("allowed by {}", title(rule));
                return Decision { allowed: true, rule: RuleRef::At(rule.place.clone()), why };
            }
            Some(gap) => {
                if nearest.as_ref().is_none_or(|(least, _)| gap.part > least.part) {
                    nearest = Some((gap, rule));
                }
            }
        }
    }
    let nearest = nearest.filter(|(gap, _)| gap.part > Part::Privilege);
    let nearest = nearest.map(|(gap, rule)| format!("; the nearest, {}, {}", title(rule), gap.what));
    let why = no_rule(caller, request) + &nearest.unwrap_or_default();
    Decision { allowed: false, rule: RuleRef::NoRule, why }
}

pub(super) fn refuses_outright(policy: &Policy, caller: &Caller, privilege: Privilege) -> Option<Decision> {
    let everyone = |rule: &&Rule| {
        rule.clients.everyone
            && rule.logon_types.is_none()
            && rule.desktops.is_none()
            && rule.privileges.contains(&privilege)
            && rule.callers.denies_caller(caller)
    };
    if let Some(rule) = policy.deny.iter().find(everyone) {
        return Some(denied_by(rule));
    }
    let some = |rule: &Rule| rule.privileges.contains(&privilege) && rule.callers.allows_caller(caller);
    if policy.allow.iter().any(some) {
        return None;
    }
    let why = format!("no rule gives uid {} {privilege} over anyone", caller.uid);
    Some(Decision { allowed: false, rule: RuleRef::NoRule, why })
}

fn denied_by(rule: &Rule) -> Decision {
    let rule_ref = RuleRef::At(rule.place.clone());
    Decision { allowed: false, rule: rule_ref, why: format!("denied by {}", title(rule)) }
}

fn no_rule(caller: &Caller, request: &Request<'_>) -> String {
    format!("no rule gives uid {} {} over {}", caller.uid, request.privilege, client_name(request))
}

/// The client as a person reads it.
pub(super) fn client_name(request: &Request<'_>) -> String {
    match request.client.uid {
        Some(uid) => format!("{:?} (uid {uid})", request.client.name),
        None if !request.client.is_looked_up => format!("{:?}", request.client.name),
        None => format!("{:?}, whom the account database does not know", request.client.name),
    }
}

/// A rule by its place, and its name where it has one.
pub(super) fn title(rule: &Rule) -> String {
    match &rule.name {
        Some(name) => format!("{}:{} ({name:?})", rule.place.file, rule.place.line),
        None => format!("{}:{}", rule.place.file, rule.place.line),
    }
}

/// What needs no rule: the caller's own uid and its own groups; without one of them it could be let into what is shut to
/// that group, and the kernel lets nobody drop one who has no privilege for it (CVE-2014-8989).
pub(super) fn as_itself(caller: &Caller, request: &Request<'_>) -> bool {
    let own = request.client.uid == Some(caller.uid) && request.client.gids == caller.gids;
    let asked = match request.privilege {
        Privilege::AssignPrimaryToken => {
            matches!(request.desktop, DesktopRequest::None | DesktopRequest::Own)
        }
        Privilege::Impersonate => true,
        Privilege::IncreaseQuota | Privilege::Logon | Privilege::Tcb => false,
    };
    own && asked
}

/// Whether a `[[deny]]` rule matches.
pub(super) fn denies(rule: &Rule, caller: &Caller, request: &Request<'_>) -> bool {
    rule.privileges.contains(&request.privilege)
        && rule.callers.denies_caller(caller)
        && rule.clients.denies_client(request.client)
        && rule.logon_types.as_ref().is_none_or(|types| types.cover(request.logon))
        && rule.desktops.as_ref().is_none_or(|desktops| {
            let named = request.found.map(DesktopRequest::Named);
            let mut either = [request.desktop].into_iter().chain(named);
            request.desktop != DesktopRequest::None && either.any(|desktop| desktops.cover(desktop))
        })
}

/// The parts of a request in the order in which they are compared: what a rule covers last is nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Caller,
    Privilege,
    Client,
    Logon,
    Program,
    Environment,
    Desktop,
    Limits,
}

/// What of a request an `[[allow]]` rule does not cover.
#[derive(Debug, Clone)]
pub(super) struct Gap {
    pub(super) part: Part,
    /// What the rule does, as a phrase that follows its name.
    pub(super) what: String,
}

/// The first part of the request that the rule does not cover; `None` where it covers all.
pub(super) fn gap(rule: &Rule, caller: &Caller, request: &Request<'_>) -> Option<Gap> {
    let gap = |part, what: String| Some(Gap { part, what });
    if !rule.callers.allows_caller(caller) {
        return gap(Part::Caller, format!("is for {}", rule.callers));
    }
    if !rule.privileges.contains(&request.privilege) {
        return gap(Part::Privilege, format!("does not give {}", request.privilege));
    }
    if !rule.clients.allows_client(request.client) {
        let root = if request.client.uid == Some(Uid::ROOT) { "; root must be named" } else { "" };
        return gap(Part::Client, format!("is over {}{root}", rule.clients));
    }
    match request.privilege {
        Privilege::Logon | Privilege::Tcb => logon_gap(rule, request),
        Privilege::AssignPrimaryToken => process_gap(rule, request),
        Privilege::IncreaseQuota => limits_gap(rule, request),
        Privilege::Impersonate => None,
    }
}

fn logon_gap(rule: &Rule, request: &Request<'_>) -> Option<Gap> {
    if rule.logon_types.as_ref().is_some_and(|types| types.cover(request.logon)) {
        return None;
    }
    let what = match request.logon {
        Some(LogonRequest::Type(kind)) => {
            let name = super::model::logon_type_name(kind).unwrap_or("this one");
            format!("does not name the logon type {name}")
        }
        Some(LogonRequest::PamService(service)) => format!("does not name the PAM service {service:?}"),
        None => "is for certain logon types only".to_owned(),
    };
    Some(Gap { part: Part::Logon, what })
}

fn process_gap(rule: &Rule, request: &Request<'_>) -> Option<Gap> {
    if !rule.programs.cover(request.program) {
        let what = match request.program {
            Some(ProgramRequest::Path(path)) if super::model::is_plain_path(path) => {
                format!("does not name the program {:?}", String::from_utf8_lossy(path))
            }
            Some(ProgramRequest::Path(path)) => format!(
                "names programs by absolute paths without `.` and `..`, which {:?} is not",
                String::from_utf8_lossy(path)
            ),
            Some(ProgramRequest::Descriptor) => {
                "is for certain programs, which an open file is not known to be".to_owned()
            }
            None => "is for certain programs only".to_owned(),
        };
        return Some(Gap { part: Part::Program, what });
    }
    if rule.programs != Programs::Any {
        let refused = request.environment.iter().find(|one| !covers_variable(&rule.environment, **one));
        if let Some((name, _)) = refused {
            let shown = String::from_utf8_lossy(name);
            let what = if says_how_to_show(name) {
                format!("does not let it set {shown:?} to what has `/` or `%` in it")
            } else {
                format!("does not let it set {shown:?}")
            };
            return Some(Gap { part: Part::Environment, what });
        }
    }
    if !rule.desktops.as_ref().unwrap_or(&Desktops::default()).cover(request.desktop) {
        let what = match request.desktop {
            DesktopRequest::Named(name) => format!("does not name the desktop {name:?}"),
            DesktopRequest::Own => "gives no desktop".to_owned(),
            _ => "does not give the desktop of whoever is at the machine".to_owned(),
        };
        return Some(Gap { part: Part::Desktop, what });
    }
    None
}

fn limits_gap(rule: &Rule, request: &Request<'_>) -> Option<Gap> {
    let (limit, value) = rule.limits.exceeded_by(&request.limits)?;
    Some(Gap { part: Part::Limits, what: format!("does not let {limit} be raised to {value}") })
}
