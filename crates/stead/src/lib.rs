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

pub mod client;
pub mod error;
pub mod impersonate;
pub mod local;
pub mod os;
pub mod privilege;
pub mod process;
pub mod token;

// All of the unsafe code of the crate is below here.
#[allow(unsafe_code)]
mod sys;

#[doc(inline)]
pub use client::{Client, Confinement};
#[doc(inline)]
pub use error::{Error, ErrorKind, Result};
#[doc(inline)]
pub use impersonate::Impersonating;
#[doc(inline)]
pub use privilege::{Privilege, PrivilegeStatus};
#[doc(inline)]
pub use process::{Child, Command, Pty, PtySize, Stdio};
#[doc(inline)]
pub use token::{Impersonation, ImpersonationLevel, Primary, Token};
