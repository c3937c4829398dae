//! Create processes in a client's security context: `CreateProcessAsUser` for Linux and Windows.
//!
//! Data flows one way, whatever the platform:
//!
//! ```text
//! who is it?            what may be done as them?    what is to run?      the running thing
//! logon / client   ->   token                   ->   command         ->   process
//! ```
#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("stead runs on Linux; the Windows backend is on its way");

pub mod account;
pub mod client;
pub mod error;
pub mod impersonate;
pub mod local;
pub mod logon;
pub mod os;
pub mod privilege;
pub mod process;
pub mod token;

// All of the unsafe code of the crate is below here.
#[allow(unsafe_code)]
mod sys;

#[doc(inline)]
pub use account::Account;
#[doc(inline)]
pub use client::{Client, Confinement};
#[doc(inline)]
pub use error::{Error, ErrorKind, Result};
#[doc(inline)]
pub use impersonate::Impersonating;
#[doc(inline)]
pub use logon::{Conversation, Lifetime, Logon, LogonSession, LogonType, Prompt, Secret, SessionId};
#[doc(inline)]
pub use privilege::{Privilege, PrivilegeStatus};
#[doc(inline)]
pub use process::{Child, Command, Pty, PtySize, Stdio};
#[doc(inline)]
pub use token::{Impersonation, ImpersonationLevel, Primary, Token};

/// Lets the program be its own session worker: call it first in `main`, before any thread is started.
///
/// Logging on takes a session worker. Where the small program `stead-session` is not installed, the server's
/// own program is executed again, and this call is where it becomes a worker: it then never returns. In every
/// other process it returns at once.
///
/// ```
/// // fn main() {
/// stead::init();
/// // ... the server
/// ```
pub fn init() {
    sys::logon::init();
}
