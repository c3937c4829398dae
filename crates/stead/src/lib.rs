//! Create processes in a client's security context: `CreateProcessAsUser` for Linux and Windows.
//!
//! A server that runs things for its users holds rights that they do not have. This library creates each
//! process with exactly the rights of the client that it is for, or not at all. It is the system of
//! Microsoft's page [Processes in the Client Security Context][page], on Linux by the kernel's own means: PAM,
//! peer credentials, capabilities, pidfds. On Windows it stands on the functions that the page names
//! (`docs/windows.md`).
//!
//! Data flows one way:
//!
//! ```text
//! who is it?            what may be done as them?    what is to run?      the running thing
//! logon / client   ->   token                   ->   command         ->   process
//! ```
//!
//! **To log the client on**, and create its process in the logon session:
//!
//! ```no_run
//! # fn main() -> stead::Result<()> {
//! use stead::{Account, Command, Logon};
//! let session = Logon::password(Account::local("alice"), "her password").open()?;
//! let output = Command::new("report").output_as(session.token())?;
//! # Ok(()) }
//! ```
//!
//! **To impersonate the client** of a connected socket or named pipe, and create its process:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let stream = stead::local::Listener::bind(&stead::local::Address::name("example")?)?.accept()?;
//! use stead::{Client, Command};
//! let token = Client::of(&stream)?.token()?.to_primary()?;
//! let mut child = Command::new("report").spawn_as(&token)?;
//! # Ok(()) }
//! ```
//!
//! A server that holds no privileges does both through stead's service, by the same code: see `Service`, with the
//! feature `service`.
//!
//! # What stands for what
//!
//! | Win32 | here |
//! |---|---|
//! | `LogonUser`, `LsaLogonUser` | [`Logon`], [`LogonSession`] |
//! | `ImpersonateNamedPipeClient` | [`Client::of`], [`Client::impersonate`] |
//! | `ImpersonateLoggedOnUser`, `RevertToSelf` | [`Token::impersonate`], which ends with its closure |
//! | `OpenThreadToken` | [`Token::open_thread`] |
//! | `DuplicateTokenEx` | [`Token::duplicate`], [`Token::to_primary`] |
//! | `CreateRestrictedToken` | [`Token::restrict`] |
//! | `CreateProcessAsUser` | [`Command::spawn_as`] |
//! | `AdjustTokenPrivileges` | [`Privilege::enabled`] |
//! | `CreateNamedPipe`, `ConnectNamedPipe` | [`local::Listener`] |
//! | `STARTUPINFO.lpDesktop`, DACLs of window station and desktop | [`Desktop`], [`AccessLease`] |
//!
//! What only one platform has is in [`os`].
//!
//! [page]: https://learn.microsoft.com/windows/win32/secauthz/processes-in-the-client-security-context
#![deny(unsafe_code)]

#[cfg(not(any(target_os = "linux", windows)))]
compile_error!("stead runs on Linux and Windows");

pub mod account;
pub mod client;
pub mod desktop;
pub mod error;
pub mod impersonate;
pub mod local;
pub mod logon;
pub mod os;
pub mod privilege;
pub mod process;
#[cfg(all(feature = "service", unix))]
pub mod service;
pub mod token;

// All of the unsafe code of the crate is below here.
#[allow(unsafe_code)]
mod sys;

#[doc(inline)]
pub use account::Account;
#[doc(inline)]
pub use client::{Client, Confinement};
#[doc(inline)]
pub use desktop::{AccessLease, Desktop};
#[doc(inline)]
pub use error::{Error, ErrorKind, Result};
#[doc(inline)]
pub use impersonate::Impersonating;
#[doc(inline)]
pub use logon::{Conversation, Lifetime, Logon, LogonSession, LogonType, Prompt, Secret, SessionId};
#[doc(inline)]
pub use privilege::{Privilege, PrivilegeStatus};
#[doc(inline)]
pub use process::{Child, Command, Stdio};
#[cfg(unix)]
#[doc(inline)]
pub use process::{Pty, PtySize};
#[cfg(all(feature = "service", unix))]
#[doc(inline)]
pub use service::Service;
#[doc(inline)]
pub use token::{Impersonation, ImpersonationLevel, Primary, Token};

/// Lets the program be its own session worker: call it first in `main`, before any thread is started.
///
/// Logging on takes a session worker. Where the small program `stead-session` is not installed, the server's
/// own program is executed again, and this call is where it becomes a worker: it then never returns. In every
/// other process it returns at once.
///
/// `stead-session` unwinds: should anything in a worker panic, it still ends the session's processes and closes the session in
/// order. A program that is built with `panic = "abort"` cannot, and what it was worker of is left as by one that was killed.
///
/// ```
/// // fn main() {
/// stead::init();
/// // ... the server
/// ```
pub fn init() {
    sys::logon::init();
}

/// The decoders, for the fuzzers; not part of the API.
#[cfg(all(feature = "fuzzing", target_os = "linux"))]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::sys::fuzzing::{TARGETS, Target};
}

/// What the service asks of its own process; not part of the API.
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod memory {
    pub use crate::sys::memory::{give_back, keep_little};
}

/// What the service and the command were given by who started them; not part of the API.
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod descriptor {
    pub use crate::sys::descriptor::inherited;
}

/// README's own examples, compiled as tests.
#[cfg(all(doctest, unix))]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The service's page for authors of servers, the same.
#[cfg(all(doctest, feature = "service", unix))]
#[doc = include_str!("../../../docs/service.md")]
struct ServicePage;
