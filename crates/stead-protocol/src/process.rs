//! Processes.

use serde::{Deserialize, Serialize};

use crate::{Index, Text};

/// A variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// Its name.
    pub name: Text,
    /// Its value.
    pub value: Text,
}

/// What is changed in the environment that the token gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Begins with none.
    #[serde(default)]
    pub clear: bool,
    /// Variables that are not kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<Text>,
    /// Variables that are set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<Variable>,
}

/// A further descriptor of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// Which.
    pub descriptor: Index,
    /// Its number in the process.
    pub target: u32,
}

/// A limit of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessLimit {
    /// Its name in the manual page, as `RLIMIT_NOFILE`.
    pub name: String,
    /// The soft limit; none at all where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<u64>,
    /// The hard limit; none at all where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard: Option<u64>,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Rows of characters.
    pub rows: u16,
    /// Columns of characters.
    pub columns: u16,
    /// Its width in pixels, or 0.
    #[serde(default)]
    pub pixel_width: u16,
    /// Its height in pixels, or 0.
    #[serde(default)]
    pub pixel_height: u16,
}

/// Creates a process from a primary token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own, by its name in the message")]
pub struct CreateProcess {
    /// The token.
    pub token: u64,
    /// The program: a path, or a name that is looked for in the process's own PATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Text>,
    /// The program as an open file, in place of `program`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Index>,
    /// What the program finds as its own name, if not that under which it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument_zero: Option<Text>,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Vec<Text>,
    /// What is changed in its environment.
    #[serde(default)]
    pub environment: Environment,
    /// A sealed memory file with [`Strings`](crate::Strings), in place of `arguments` and of what `environment` sets and
    /// removes: for those that are longer than a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strings: Option<Index>,
    /// Its directory; the home directory where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<Text>,
    /// Its standard input; nothing to read where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Index>,
    /// Its standard output; thrown away where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Index>,
    /// Its standard error; thrown away where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Index>,
    /// Further descriptors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub descriptors: Vec<Descriptor>,
    /// Limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<ProcessLimit>,
    /// The nice value; below 0 it takes the privilege increase-quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// How readily it is ended when memory runs out; below 0 it takes the privilege increase-quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// The permissions that new files do not get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Keeps the process from gaining privileges by executing anything.
    #[serde(default)]
    pub no_new_privs: bool,
    /// A terminal of its own, of this size; the standard streams that are not given are its.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// The program can be stopped from its terminal (Ctrl-Z): the process is then the program's parent in its
    /// session, which ends as the program ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub job_control: bool,
    /// Does not execute the program before it is resumed.
    #[serde(default)]
    pub suspended: bool,
    /// A desktop that it may use: its name; or `interactive` (of the token's user), `active`, `console`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desktop: Option<Text>,
    /// Lets the user have the desktop in all logon sessions, while the process runs: also where the token is of no
    /// logon session with a group of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub desktop_for_user: bool,
    /// How long the program may take to be executed, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
}

/// The process that was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatedProcess {
    /// What it is.
    pub process: Process,
    /// Its pidfd.
    pub pidfd: Index,
    /// The other end of its terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Index>,
}

/// A process that the service created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The service's own name for it, of sixteen hexadecimal digits: never another's, also after the service
    /// was started anew.
    pub id: String,
    /// Its process id, for people to read; once it has ended the number may be another's.
    pub pid: u32,
    /// As whom it was created.
    pub uid: u32,
    /// The uid of the caller that asked for it.
    pub owner: u32,
    /// The logon session that it was created in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The program as it was named.
    pub program: Text,
    /// When, in seconds since 1970.
    pub since: u64,
    /// What holds it and its descendants together: `cgroup`, `session_worker` or `posix_session`.
    pub containment: String,
    /// Whether it waits to be resumed.
    pub suspended: bool,
    /// Whether it lives.
    pub running: bool,
}

/// Processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Processes {
    /// Each of them.
    pub processes: Vec<Process>,
}

/// A reply that says no more than that it is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// The processes that the caller may see: those it asked for, and its own user's; root sees all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListProcesses {
    /// Only those of this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// One process, with its pidfd as the reply's only descriptor while it lives.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetProcess {
    /// Its id.
    pub process: String,
}

/// Waits for a process to end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitProcess {
    /// Its id.
    pub process: String,
    /// For how long, in milliseconds; for ever where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitStatus {
    /// The wait status as wait(2) gives it.
    pub raw: i32,
    /// What it returned, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

/// What came of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waited {
    /// How it ended; none while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ExitStatus>,
}

/// Lets a process that was created suspended execute its program.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeProcess {
    /// Its id.
    pub process: String,
}

/// Sends a signal to a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalProcess {
    /// Its id.
    pub process: String,
    /// The signal's number.
    pub signal: i32,
    /// To the process group that the process leads, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub group: bool,
}

/// Ends a process and its descendants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillTree {
    /// Its id.
    pub process: String,
}
