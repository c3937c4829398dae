//! What is said between stead's service and its callers: a Varlink interface.
//!
//! [`INTERFACE`] is the interface in Varlink's own language. Each of its methods is a type here, with its
//! parameters as fields and its reply as [`Method::Reply`]; each of its errors is a [`FailureKind`], one for
//! each kind of error of the library. [`Request`] is the fixed table of all methods: what is not in it is
//! not decoded.
//!
//! Descriptors travel beside a message's first byte (`SCM_RIGHTS`), as systemd's Varlink does it; parameters
//! name them by their [index](Index) among those of the message. [`client::Connection`] is a small blocking
//! client.
#![forbid(unsafe_code)]

#[cfg(unix)]
pub mod client;
pub mod conversation;
pub mod failure;
pub mod frame;
mod manage;
mod method;
mod open;
mod policy;
mod process;
mod session;
mod strings;
mod text;
mod token;

pub use failure::{Failure, FailureKind, SystemError};
pub use manage::{GetInfo, GetStatus, Info, Monitor, Record, Status};
pub use method::{Method, NotDecoded, Request};
pub use open::{OpenFile, OpenedFile};
pub use policy::{ExplainPolicy, Explanation, PolicyQuestion};
pub use process::{
    CreateProcess, CreatedProcess, Descriptor, Environment, ExitStatus, GetProcess, KillTree, ListProcesses,
    Nothing, Process, ProcessLimit, Processes, ResumeProcess, SignalProcess, TerminalSize, Variable,
    WaitProcess, Waited,
};
pub use session::{
    Account, CloseSession, Lifetime, ListSessions, LogOn, LogonType, OpenSession, OpenedSession, Session,
    Sessions, TerminateSession,
};
pub use strings::{LARGEST_STRINGS, Strings};
pub use text::Text;
pub use token::{
    CapabilitySets, ClientToken, CloseToken, DescribeToken, DuplicateToken, Level, OpenedToken, OwnToken,
    RestrictToken, Token,
};

/// The interface's name.
pub const NAME: &str = "io.stead.Service";

/// The interface in Varlink's own language, as the service tells it.
pub const INTERFACE: &str = include_str!("io.stead.Service.varlink");

/// Where the service listens.
pub const SOCKET: &str = "/run/stead/service.sock";

/// The variable that names another socket, for the command and the library.
pub const SOCKET_VARIABLE: &str = "STEAD_SERVICE";

/// A variant's name as the protocol writes it: `NoNewPrivileges` is `no_new_privileges`.
///
/// ```
/// #[derive(Debug)]
/// struct NoNewPrivileges;
/// assert_eq!(stead_protocol::name_of(NoNewPrivileges), "no_new_privileges");
/// ```
pub fn name_of(variant: impl std::fmt::Debug) -> String {
    let mut name = String::new();
    for character in format!("{variant:?}").chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}

/// The place of a descriptor among those that travel with the message.
pub type Index = u32;

/// The largest message that the service takes, with its NUL.
pub const LARGEST_MESSAGE: usize = 1 << 20;

/// The most descriptors that travel with one message.
pub const MOST_DESCRIPTORS: usize = 64;

/// The longest secret, and the longest answer of a conversation.
pub const LONGEST_SECRET: usize = 4096;
