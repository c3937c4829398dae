//! What goes on in the service.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Method;

/// The audit records as they are made; needs `more`, and ends with the connection.
///
/// Root sees all, others what they asked for themselves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitor {}

/// One audit record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The record, as it also stands in the service's log.
    pub record: Box<RawValue>,
    /// How many records were not sent before this one, for the caller was too slow.
    #[serde(default)]
    pub missed: u64,
}

/// Which service it is: a method of Varlink's own interface, answered to everybody.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetInfo {}

/// What any Varlink service says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Its version.
    pub version: String,
    /// The interfaces that it has.
    pub interfaces: Vec<String>,
}

impl Method for GetInfo {
    const NAME: &'static str = "org.varlink.service.GetInfo";
    type Reply = Info;
}

/// The service itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetStatus {}

/// What the service says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Since when it runs, in seconds since 1970.
    pub since: u64,
    /// How many connections there are.
    pub connections: u64,
    /// How many logon sessions it holds.
    pub sessions: u64,
    /// How many of its processes run.
    pub processes: u64,
    /// The uid by which it knows the caller.
    pub caller: u32,
    /// What confines the caller more than the service, where something does: such a caller gets nothing that
    /// the policy does not name it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confined: Option<String>,
}
