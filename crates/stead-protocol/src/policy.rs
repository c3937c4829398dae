//! What the policy would say.

use serde::{Deserialize, Serialize};

use crate::{LogonType, ProcessLimit, Text};

/// What would happen if the caller asked for something, and by which line of the policy.
///
/// Root may ask for another caller.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainPolicy {
    /// The user that would call; the caller itself where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Text>,
    /// What would be asked.
    pub question: PolicyQuestion,
}

/// What would be asked of the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyQuestion {
    /// The privilege: `assign-primary-token`, `increase-quota`, `impersonate` or `tcb`.
    pub privilege: String,
    /// The user that it would be used over; the caller itself where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Text>,
    /// The logon type, for a logon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logon_type: Option<LogonType>,
    /// The program, for a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Text>,
    /// The desktop, for a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desktop: Option<Text>,
    /// The limits, for `increase-quota`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<ProcessLimit>,
}

/// The policy's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// Whether it would be allowed.
    pub allowed: bool,
    /// By which file and line, where one decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why, in words.
    pub why: String,
}
