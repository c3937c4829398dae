//! Tokens: the caller's own, its clients'.

use serde::{Deserialize, Serialize};

use crate::{Index, Text};

/// How far the holder of a token may act for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Not at all.
    Anonymous,
    /// It may know who the client is.
    Identification,
    /// It may act for it.
    Impersonation,
    /// It may act for it, and let others do so.
    Delegation,
}

/// A token as the service holds it: an immutable snapshot of a security context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Whether processes can be created from it.
    pub primary: bool,
    /// How far it may be used.
    pub level: Level,
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The capability sets.
    pub capabilities: CapabilitySets,
    /// The securebits.
    pub securebits: u32,
    /// Whether execve can give its processes nothing more.
    pub no_new_privs: bool,
    /// The label of the Linux security module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Text>,
    /// The login uid of the audit system, where the kernel keeps one; as it writes it, -1 as a `u32` while nobody has
    /// logged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// The logon session that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The group of its own that the logon session has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logon_gid: Option<u32>,
    /// The account's name, for people to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<Text>,
}

/// Capability sets, each with one bit for a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilitySets {
    /// The effective set.
    pub effective: u64,
    /// The permitted set.
    pub permitted: u64,
    /// The inheritable set.
    pub inheritable: u64,
    /// The bounding set.
    pub bounding: u64,
    /// The ambient set.
    pub ambient: u64,
}

/// What a call replies that makes a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenedToken {
    /// Its number on this connection.
    pub token: u64,
    /// What it is.
    pub context: Token,
}

/// The caller's own token: impersonates whoever calls.
///
/// A caller that is confined more than the service is refused.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnToken {}

/// The token of a client of the caller: of who connected to a socket that the caller accepted.
///
/// The accepted socket and the listener that accepted it must be the same bound socket, and the listener the
/// caller's own, or one that the system's service manager made for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientToken {
    /// The accepted socket.
    pub socket: Index,
    /// The listener that accepted it.
    pub listener: Index,
    /// At most this level, where the caller's own protocol tells of a lower one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
}

/// What a token of this connection is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribeToken {
    /// The token.
    pub token: u64,
}

/// The same context as another token: an impersonation token of at most a level, or a primary one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuplicateToken {
    /// The token.
    pub token: u64,
    /// Whether the new one is primary.
    #[serde(default)]
    pub primary: bool,
    /// The level of an impersonation token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
}

/// The same token without what is taken from it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestrictToken {
    /// The token.
    pub token: u64,
    /// Takes every capability.
    #[serde(default)]
    pub without_privileges: bool,
    /// Takes these supplementary groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_groups: Vec<u32>,
    /// Takes these capabilities, one bit for each, from every set.
    #[serde(default)]
    pub without_capabilities: u64,
    /// Sets no_new_privs.
    #[serde(default)]
    pub no_new_privs: bool,
}

/// Lets a token of this connection go.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseToken {
    /// The token.
    pub token: u64,
}
