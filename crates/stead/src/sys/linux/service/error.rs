//! What the service answers when it does not do what it was asked for, as this library's errors.

use std::borrow::Cow;
use std::fmt::Debug;
use std::io;
use std::time::Duration;

use stead_protocol::client::CallError;
use stead_protocol::frame::Malformed;
use stead_protocol::{Failure, FailureKind, LARGEST_MESSAGE, name_of};

use crate::error::{AccountRestriction, Error, ErrorKind, ProgramFault};
use crate::privilege::Privilege;
use crate::process::Stage;
use crate::sys::client::BY_WEIGHT;

type Doing = Cow<'static, str>;

/// What became of a call.
pub(super) fn error(doing: Doing, fault: CallError) -> Error {
    match fault {
        CallError::Failed(failure) => failed(doing, failure),
        CallError::Malformed(Malformed::TooLong) => {
            let what = format!("what the service is told would be longer than {LARGEST_MESSAGE} bytes");
            Error::new(doing, ErrorKind::InvalidInput { what: what.into() })
        }
        CallError::Malformed(Malformed::Unsendable(what)) => {
            Error::new(doing, ErrorKind::InvalidInput { what: what.into() })
        }
        CallError::Malformed(Malformed::NoMessage(what)) => {
            Error::new(doing, ErrorKind::ServiceUnavailable { why: what.into() })
        }
        // The time that the socket may take (SO_RCVTIMEO in socket(7)).
        CallError::Connection(source) if source.kind() == io::ErrorKind::WouldBlock => {
            Error::new(doing, ErrorKind::DeadlinePassed { waiting_for: "the service".into() })
        }
        CallError::Connection(source) => {
            let why = "the connection ended before it answered; what it was doing it may have done".into();
            Error::new(doing, ErrorKind::ServiceUnavailable { why }).with_source(source)
        }
    }
}

/// An answer that lacks what the protocol says is there.
pub(super) fn protocol(doing: String, source: io::Error) -> Error {
    let why = "its answer is not as the protocol has it".into();
    Error::new(doing, ErrorKind::ServiceUnavailable { why }).with_source(source)
}

/// An answer that describes nobody.
pub(super) fn undescribed(doing: &'static str) -> Error {
    protocol(doing.to_owned(), io::Error::new(io::ErrorKind::InvalidData, "no identity or session"))
}

/// What a server without privileges does not have to give.
pub(super) fn not_through(doing: String, what: &'static str) -> Error {
    Error::new(doing, ErrorKind::NotThroughService { what: what.into() })
}

fn failed(doing: Doing, failure: Failure) -> Error {
    let doing = if failure.doing.is_empty() { doing } else { failure.doing.into() };
    let error = Error::new(doing, kind(failure.kind));
    match failure.system {
        None => error,
        Some(system) => error.with_source(match system.number {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::other(system.text),
        }),
    }
}

fn kind(kind: FailureKind) -> ErrorKind {
    use FailureKind as Wire;
    match kind {
        Wire::PrivilegeMissing { privilege, missing, held, enabled } => {
            match Privilege::ALL.iter().find(|one| one.to_string() == privilege || name_of(one) == privilege)
            {
                Some(privilege) => ErrorKind::PrivilegeMissing {
                    privilege: *privilege,
                    missing: missing.into(),
                    held,
                    enabled,
                },
                None => service(format!("it lacks the privilege {privilege} ({missing})")),
            }
        }
        Wire::LevelTooLow { granted, needed } => {
            ErrorKind::LevelTooLow { granted: granted.into(), needed: needed.into() }
        }
        Wire::LogonFailed {} => ErrorKind::LogonFailed,
        Wire::LogonTypeDenied { logon_type } => ErrorKind::LogonTypeDenied { logon_type: logon_type.into() },
        Wire::AccountRestriction { restriction } => {
            let restriction = named(RESTRICTIONS, &restriction).unwrap_or(AccountRestriction::PolicyForbids);
            ErrorKind::AccountRestriction { restriction }
        }
        Wire::AccountUnknown { name } => ErrorKind::AccountUnknown { name },
        Wire::AccessDenied { object } => ErrorKind::AccessDenied { object },
        Wire::NotFound { object } => ErrorKind::NotFound { object },
        Wire::ProgramNotFound { program } => ErrorKind::ProgramNotFound { program },
        Wire::ProgramUnusable { program, why } => match named(FAULTS, &why) {
            Some(why) => ErrorKind::ProgramUnusable { program, why },
            None => service(format!("{program:?} cannot be executed: {why}")),
        },
        Wire::DirectoryUnusable { directory } => ErrorKind::DirectoryUnusable { directory },
        Wire::NotImpersonating {} => ErrorKind::NotImpersonating,
        Wire::ImpersonationChanged { what } => ErrorKind::ImpersonationChanged { what: what.into() },
        Wire::ClientConfined { part } => match named(&BY_WEIGHT, &part) {
            Some(part) => ErrorKind::ClientConfined { part },
            None => service(format!("the client is confined more than it is: {part}")),
        },
        Wire::ConfinementUnknown { part } => match named(&BY_WEIGHT, &part) {
            Some(part) => ErrorKind::ConfinementUnknown { part },
            None => service(format!("how the client is confined cannot be read: {part}")),
        },
        Wire::ClientChanged { what } => ErrorKind::ClientChanged { what: what.into() },
        Wire::NoIdentity { what } => ErrorKind::NoIdentity { what: what.into() },
        Wire::KernelTooOld { needs } => ErrorKind::KernelTooOld { needs: needs.into() },
        Wire::WorkerUnavailable { why } => ErrorKind::WorkerUnavailable { why: why.into() },
        Wire::TrampolineUnavailable {} => ErrorKind::TrampolineUnavailable,
        Wire::LogonServerUnavailable {} => ErrorKind::LogonServerUnavailable,
        Wire::NoLogonSid {} => ErrorKind::NoLogonSid,
        Wire::SessionEnded {} => ErrorKind::SessionEnded,
        Wire::StatusLost {} => ErrorKind::StatusLost,
        Wire::DeadlinePassed { waiting_for } => ErrorKind::DeadlinePassed { waiting_for: waiting_for.into() },
        Wire::InvalidInput { what } => ErrorKind::InvalidInput { what: what.into() },
        Wire::LimitReached { limit } => ErrorKind::LimitReached { limit: limit.into() },
        Wire::SpawnFailed { stage } => match named(Stage::ALL, &stage) {
            Some(stage) => ErrorKind::SpawnFailed { stage },
            None => service(format!("the step {stage:?} failed; nothing was started")),
        },
        Wire::PolicyDenied { privilege, client } => {
            ErrorKind::PolicyDenied { privilege: privilege.into(), client }
        }
        Wire::QuotaReached { of, most } => {
            ErrorKind::LimitReached { limit: format!("{of} of this server at the service ({most})").into() }
        }
        Wire::TryLater { after } => ErrorKind::TryLater { after: Duration::from_millis(after) },
        Wire::NoSuchHandle { of } if of == "session" => ErrorKind::SessionEnded,
        Wire::NoSuchHandle { of } if of == "process" => ErrorKind::StatusLost,
        Wire::NoSuchHandle { of } => service(format!("it knows no such {of} (any more)")),
        Wire::System { call } => match CALLS.iter().find(|known| **known == call) {
            Some(call) => ErrorKind::System { call },
            None => ErrorKind::System { call: "a call of the service's" },
        },
        Wire::Other { text } => service(text),
        Wire::InterfaceNotFound { interface } => service(format!("it has no interface {interface}")),
        Wire::MethodNotFound { method } => service(format!("it has no method {method}")),
        Wire::InvalidParameter { parameter } => {
            service(format!("it does not know the parameters: {parameter}"))
        }
        Wire::ExpectedMore {} => service("it expects to answer more than once".to_owned()),
    }
}

fn service(why: String) -> ErrorKind {
    ErrorKind::ServiceUnavailable { why: why.into() }
}

/// The one of `all` that goes by this name on the wire.
fn named<T: Debug + Copy>(all: &[T], name: &str) -> Option<T> {
    all.iter().copied().find(|one| name_of(one) == name)
}

const RESTRICTIONS: &[AccountRestriction] = &[
    AccountRestriction::AccountExpired,
    AccountRestriction::AccountDisabled,
    AccountRestriction::AccountLocked,
    AccountRestriction::PasswordExpired,
    AccountRestriction::PolicyForbids,
];

const FAULTS: &[ProgramFault] = &[
    ProgramFault::NotPermitted,
    ProgramFault::IsDirectory,
    ProgramFault::NotRegular,
    ProgramFault::BadFormat,
    ProgramFault::InterpreterUnusable,
    ProgramFault::Busy,
    ProgramFault::ArgumentsTooLong,
    ProgramFault::ElevationRequired,
    ProgramFault::BatchFile,
    ProgramFault::PinnedScript,
    ProgramFault::AppAlias,
];

/// Calls that errors of this library name, so that the same error names the same call.
const CALLS: &[&str] = &[
    "openat2",
    "open",
    "openat",
    "fstat",
    "statx",
    "connect",
    "socket",
    "getdents64",
    "faccessat2",
    "pipe",
    "poll",
    "pidfd_send_signal",
    "waitid",
    "fcntl",
    "socketpair",
    "posix_openpt",
    "unlockpt",
    "fchown",
    "fchmod",
    "clone3",
    "pam_setcred",
    "pam_close_session",
    "pam_open_session",
    "pam_authenticate",
    "pam_acct_mgmt",
    "pam_start",
    "getpwuid_r",
    "getpwnam_r",
    "setgroups",
    "setresuid",
    "setresgid",
    "capset",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ConfinedPart;

    #[test]
    fn every_kind_that_holds_another_enumeration_comes_back_from_its_name() {
        assert_eq!(named(&BY_WEIGHT, "no_new_privileges"), Some(ConfinedPart::NoNewPrivileges));
        assert_eq!(named(Stage::ALL, "read_back"), Some(Stage::ReadBack));
        assert_eq!(named(FAULTS, "bad_format"), Some(ProgramFault::BadFormat));
        assert_eq!(named(RESTRICTIONS, "password_expired"), Some(AccountRestriction::PasswordExpired));
        assert_eq!(named(&BY_WEIGHT, "no-such-part"), None);
    }

    #[test]
    fn what_the_service_says_is_said_on() {
        let failure = FailureKind::ClientConfined { part: "seccomp".into() }.while_doing("making a token");
        let error = error("calling".into(), CallError::Failed(failure));
        assert_eq!(error.doing(), "making a token");
        assert_eq!(*error.kind(), ErrorKind::ClientConfined { part: ConfinedPart::Seccomp });
    }
}
