//! Who may have whose processes created: the service's policy.
//!
//! Rules are additive. A request is allowed where **one** `[[allow]]` rule covers all of it and **no** `[[deny]]`
//! rule matches it; the order of rules and files never matters. Without any rule everyone may create processes as
//! itself, and nothing else. Root is a client only for rules that name it: groups and `everyone` do not reach it.
//! What each key means stands in `docs/policy.md`.
//!
//! This module decides and does nothing: it reads the policy's files and the account database when it is loaded, and
//! touches no client, no path of a client's, and no PAM.
//!
//! ```
//! use stead::os::linux::Uid;
//! use stead_broker::policy::{Caller, NameTable, Policy, Privilege, Request, Subject};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let names = NameTable::new().user("portal", 990).user("alice", 1000).group("students", 500);
//! let policy = Policy::parse("policy.toml", r#"
//!     [[allow]]
//!     callers = { users = ["portal"] }
//!     clients = { groups = ["students"] }
//!     privileges = ["tcb"]
//!     logon-types = ["batch"]
//! "#, &names)?;
//! let portal = Caller::new(Uid::new(990).unwrap(), []);
//! let alice = Subject::new(Uid::new(1000).unwrap(), "alice", []);
//! let decision = policy.decide(&portal, &Request::new(Privilege::Tcb, &alice));
//! assert!(!decision.allowed, "alice is no student: {}", decision.why);
//! # Ok(()) }
//! ```

mod decide;
mod error;
mod explain;
mod files;
mod model;
mod names;
mod near;
mod parse;
mod part;
mod privilege;
mod request;
mod settings;
mod value;
mod variable;

#[cfg(test)]
mod tests;

pub use decide::{Decision, RuleRef};
pub use error::{Place, PolicyError, PolicyErrors};
pub use explain::Explanation;
pub use files::DEFAULT_FOLDER;
pub use names::{Accounts, NameTable, Names};
pub use privilege::Privilege;
pub use request::{Caller, DesktopRequest, LogonRequest, ProgramRequest, Request, Subject};
pub use settings::{FailedLogons, Quota};
pub use variable::Variable;
pub(crate) use variable::{is_harmless, is_time_zone};

use std::path::Path;

use model::{Rule, Settings};

/// A policy, checked and with its names looked up.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    settings: Settings,
    files: Vec<String>,
}

impl Policy {
    /// The policy where nobody wrote one: everyone may create processes as itself.
    pub fn without_rules() -> Self {
        Self::default()
    }

    /// Reads `folder/policy.toml` and `folder/policy.d/*.toml`; none of them has to be there.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them, each with its file, line and column. A file or folder that is not root's,
    /// or that others may write, is not believed.
    pub fn load(folder: &Path) -> Result<Self, PolicyErrors> {
        files::load(folder, &Accounts)
    }

    /// The policy that one text is: `file` is what errors and decisions call it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, each with its line and column.
    pub fn parse(file: &str, text: &str, names: &dyn Names) -> Result<Self, PolicyErrors> {
        Self::from_texts([(file.to_owned(), text.to_owned())], names)
    }

    /// The policy that several texts are together, each with what it is called.
    ///
    /// # Errors
    ///
    /// As [`Policy::parse`].
    pub fn from_texts(
        texts: impl IntoIterator<Item = (String, String)>,
        names: &dyn Names,
    ) -> Result<Self, PolicyErrors> {
        let mut policy = Self::default();
        let mut errors = Vec::new();
        for (file, text) in texts {
            parse::add(&mut policy, &file, &text, names, &mut errors);
            policy.files.push(file);
        }
        if errors.is_empty() { Ok(policy) } else { Err(PolicyErrors::new(errors)) }
    }

    /// Whether `caller` may have what it asks for, by which rule, and why.
    pub fn decide(&self, caller: &Caller, request: &Request<'_>) -> Decision {
        decide::decide(self, caller, request)
    }

    /// The same without what needs no rule: for a caller that may not even do what everyone may, because something
    /// confines its process or that cannot be known.
    pub fn decide_by_a_rule(&self, caller: &Caller, request: &Request<'_>) -> Decision {
        decide::decide_by_a_rule(self, caller, request)
    }

    /// A refusal where `caller` could have no client at all with this privilege but itself: known without looking
    /// any client up, so that a caller without rights cannot learn which accounts exist.
    pub fn refuses_outright(&self, caller: &Caller, privilege: Privilege) -> Option<Decision> {
        decide::refuses_outright(self, caller, privilege)
    }

    /// What would happen, by which line, and what every other rule says to it.
    pub fn explain(&self, caller: &Caller, request: &Request<'_>) -> Explanation {
        explain::explain(self, caller, request)
    }

    /// How much this caller may hold at once: the default, or the largest that a rule about it gives.
    pub fn quota(&self, caller: &Caller) -> Quota {
        let of_rules = self.allow.iter().filter(|rule| rule.callers.allows_caller(caller));
        of_rules.filter_map(|rule| rule.quota).fold(self.settings.quota, |all, one| one.over(all))
    }

    /// How failed logons are answered.
    pub fn failed_logons(&self) -> FailedLogons {
        self.settings.failed_logons
    }

    /// The files that it was read from, in the order of reading.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// How many rules allow, and how many deny.
    pub fn rule_counts(&self) -> (usize, usize) {
        (self.allow.len(), self.deny.len())
    }
}
