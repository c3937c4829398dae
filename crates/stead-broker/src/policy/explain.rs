//! What would happen, for administrators.

use std::fmt;

use super::Policy;
use super::decide::{self, Decision, RuleRef, gap, title};
use super::request::{Caller, Request};

/// What would happen, by which line, and what every other rule says to it.
///
/// `Display` has the decision in its first line, and then a line for each rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// What would happen.
    pub decision: Decision,
    /// A sentence for each rule, in the order of the files.
    pub rules: Vec<String>,
}

pub(super) fn explain(policy: &Policy, caller: &Caller, request: &Request<'_>) -> Explanation {
    let deny = policy.deny.iter().map(|rule| {
        let does = if decide::denies(rule, caller, request) { "denies it" } else { "does not concern it" };
        (&rule.place, format!("{} {does}", title(rule)))
    });
    let allow = policy.allow.iter().map(|rule| {
        let does = gap(rule, caller, request).map_or_else(|| "allows it".to_owned(), |gap| gap.what);
        (&rule.place, format!("{} {does}", title(rule)))
    });
    let mut rules: Vec<_> = deny.chain(allow).collect();
    let order = |file: &str| policy.files.iter().position(|known| known == file);
    rules.sort_by_key(|(place, _)| (order(&place.file), place.line, place.column));
    let rules = rules.into_iter().map(|(_, sentence)| sentence).collect();
    Explanation { decision: policy.decide(caller, request), rules }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.decision.allowed { "allowed" } else { "denied" };
        // Where a rule decides, the reason begins with it.
        if !self.decision.why.starts_with(word) {
            write!(f, "{word}: ")?;
        }
        f.write_str(&self.decision.why)?;
        if self.decision.rule == RuleRef::Itself {
            f.write_str(" (no rule is needed)")?;
        }
        self.rules.iter().try_for_each(|rule| write!(f, "\n  {rule}"))
    }
}
