//! Logons: LogonUserW with a password, LsaLogonUser without one, and the tokens of those who sit at the machine.
//!
//! Whatever the system answers, the token is read: its user must be the account that was named. `new_credentials`
//! is not offered: its token is the server's own.

mod conversation;
mod deadline;
mod interactive;
mod open;
mod password;
mod s4u;
mod session;
mod target;
#[cfg(test)]
mod tests;

pub use crate::desktop::InteractiveSession as TerminalSession;
pub(crate) use interactive::{is_there, of_session, own_session, session_number};
pub(crate) use open::open;
pub(crate) use session::{SessionHandle, detached_sessions, reattach};

use crate::logon::Logon;

/// Windows keeps its logon sessions itself, and no program has to be its own worker; but it may be asked to be the
/// desktop helper.
pub(crate) fn init() {
    super::desktop::init();
}

/// The same: every logon that is to be interactive has a SID of its own here.
pub(crate) fn with_logon_sid(logon: Logon) -> Logon {
    logon
}

/// With a NUL at its end.
fn terminated(text: &[u16]) -> Vec<u16> {
    text.iter().copied().chain([0]).collect()
}
