//! Logon sessions: the server's side of a session worker, and the worker itself.

mod detached;
mod find;
mod log_on;
mod logon_gid;
mod message;
mod open;
mod ready;
mod session;
mod wire;
mod worker;

pub(crate) use detached::{detached_sessions, reattach};
pub(crate) use find::{NO_WORKER, init, worker_program};
#[cfg(feature = "service")]
pub(crate) use message::Snapshot;
pub(crate) use open::{Native, open, service, with_logon_sid};
pub(crate) use ready::ReadyWorkers;
pub(crate) use session::SessionHandle;

use crate::process::Stage;

/// Where PAM's services are looked for: the administrator's, then the distribution's.
const PAM_DIRECTORIES: [&str; 4] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d", "/usr/share/pam.d"];

/// Results of PAM that mean something to this library (`security/_pam_types.h`).
mod pam_code {
    pub(super) const SUCCESS: i32 = 0;
    pub(super) const SYSTEM_ERR: i32 = 4;
    pub(super) const PERM_DENIED: i32 = 6;
    pub(super) const AUTH_ERR: i32 = 7;
    pub(super) const CRED_INSUFFICIENT: i32 = 8;
    pub(super) const USER_UNKNOWN: i32 = 10;
    pub(super) const MAXTRIES: i32 = 11;
    pub(super) const NEW_AUTHTOK_REQD: i32 = 12;
    pub(super) const ACCT_EXPIRED: i32 = 13;
    pub(super) const CRED_EXPIRED: i32 = 16;
    pub(super) const AUTHTOK_EXPIRED: i32 = 27;
}

/// The steps that `launch` itself can fail in: all others are on the report pipe, which is the server's.
const STEPS: [Stage; 6] =
    [Stage::Prepare, Stage::Clone, Stage::Cgroup, Stage::Place, Stage::Raise, Stage::Trampoline];

/// A step's number on the wire.
fn step_number(stage: Stage) -> u8 {
    STEPS.iter().position(|step| *step == stage).and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
}

/// The step with this number.
fn step_from_number(number: u8) -> Stage {
    STEPS.get(usize::from(number)).copied().unwrap_or(Stage::Prepare)
}

#[cfg(feature = "fuzzing")]
pub(in crate::sys) use worker::fuzz_mappings;

/// A request to the worker, as bytes: its kind, then its body. What is read is written as the same bytes.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_request(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    if let Some(request) = message::Request::decode(*kind, body) {
        let (again, written) = request.encode();
        assert_eq!((again, written.as_slice()), (*kind, body));
    }
}

/// The same for a reply of the worker's; a text in it is read as UTF-8, whatever it was.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_reply(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    if let Some(reply) = message::Reply::decode(*kind, body) {
        let (again, written) = reply.encode();
        assert_eq!(again, *kind);
        let reread = message::Reply::decode(again, &written).expect("it was just written");
        assert_eq!(reread.encode(), (again, written));
    }
}

#[cfg(test)]
mod tests;
