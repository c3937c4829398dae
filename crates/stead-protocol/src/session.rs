//! Logon sessions.

use serde::{Deserialize, Serialize};

use crate::{Index, Text, Token, Variable};

/// Who is to be logged on; a name, never a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The name.
    pub name: Text,
    /// Whether the account must have exactly this name: one of a directory may be found under another.
    #[serde(default)]
    pub local: bool,
}

/// How an account logs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogonType {
    /// At this machine's screen and keyboard, or a terminal.
    Interactive,
    /// From the network.
    Network,
    /// From the network, with credentials that are kept for further machines.
    NetworkCleartext,
    /// A job without its user.
    Batch,
    /// A service that runs as the account.
    Service,
}

/// When a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// With its last process, once no connection holds it any more; and, with all its processes, when the last
    /// connection that holds it ends without having let go of it ([`CloseSession`]).
    Tied,
    /// With its last process, once no connection holds it any more. So does one that was tied and that its last holder has
    /// let go of, whoever opens it afterwards.
    #[default]
    Detached,
}

/// Logs an account on.
///
/// With a `secret`, a `conversation`, or both; or with `s4u`, without any.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogOn {
    /// Who.
    pub account: Account,
    /// How.
    pub logon_type: LogonType,
    /// A pipe, a Unix stream socket or a memory file with the secret, and nothing else, in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Index>,
    /// A stream socket over which questions are asked and answered; see [`conversation`](crate::conversation).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Index>,
    /// Without authentication: takes the privilege tcb.
    #[serde(default)]
    pub s4u: bool,
    /// Variables for PAM and the session: only those of language, time zone and terminal type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<Variable>,
    /// The terminal's name, for PAM: a pseudo-terminal's, or a word that is no terminal's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<Text>,
    /// The machine the user comes from, for PAM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_host: Option<Text>,
    /// The user's name there, for PAM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_user: Option<Text>,
    /// Whether the session gets a group of its own.
    #[serde(default)]
    pub logon_gid: bool,
    /// When it ends.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// How long it may take, in milliseconds, without the time that answers take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
}

/// A session, opened on this connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenedSession {
    /// The session.
    pub session: Session,
    /// Its token's number on this connection.
    pub token: u64,
    /// What the token is.
    pub context: Token,
    /// The environment of the session's processes.
    pub environment: Vec<Variable>,
    /// The umask of the session's processes.
    pub umask: u32,
    /// The kernel's audit session, where it keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_session: Option<u32>,
}

/// A logon session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Its id, of sixteen hexadecimal digits.
    pub id: String,
    /// The user.
    pub uid: u32,
    /// The account's name.
    pub user_name: Text,
    /// The uid of the caller that opened it.
    pub owner: u32,
    /// How the account logged on, where that is still known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logon_type: Option<LogonType>,
    /// When, in seconds since 1970.
    pub since: u64,
    /// When it ends.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// The ids of its processes now, all of them.
    pub pids: Vec<u32>,
}

/// Sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// Each of them.
    pub sessions: Vec<Session>,
}

/// The sessions that the caller may see: those it opened, and its own user's; root sees all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListSessions {}

/// Opens a session that the caller, or another process of its uid, opened before; also before the service
/// was started anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    /// The session's id.
    pub session: String,
}

/// Ends every process of a session; it is closed then.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminateSession {
    /// The session's id.
    pub session: String,
}

/// Lets go of the session and of every token of it that this connection has, and waits for the session's end: it
/// ends with its last process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseSession {
    /// The session's id.
    pub session: String,
    /// Whether every process of the session is ended first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminate: bool,
}
