//! The library's errors on the wire.

use stead::{Error, ErrorKind};
use stead_protocol::{Failure, FailureKind, SystemError, name_of};

/// What the library's error is on the wire.
pub(super) fn failure(error: &Error) -> Failure {
    let system = error
        .os_error()
        .map(|source| SystemError { number: source.raw_os_error(), text: source.to_string() });
    Failure { doing: error.doing().to_owned(), kind: kind(error), system }
}

fn kind(error: &Error) -> FailureKind {
    match error.kind() {
        ErrorKind::PrivilegeMissing { privilege, missing, held, enabled } => FailureKind::PrivilegeMissing {
            privilege: name_of(privilege),
            missing: missing.to_string(),
            held: *held,
            enabled: *enabled,
        },
        ErrorKind::LevelTooLow { granted, needed } => {
            FailureKind::LevelTooLow { granted: (*granted).into(), needed: (*needed).into() }
        }
        ErrorKind::LogonFailed => FailureKind::LogonFailed {},
        ErrorKind::LogonTypeDenied { logon_type } => {
            FailureKind::LogonTypeDenied { logon_type: logon_type.to_string() }
        }
        ErrorKind::AccountRestriction { restriction } => {
            FailureKind::AccountRestriction { restriction: name_of(restriction) }
        }
        ErrorKind::AccountUnknown { name } => FailureKind::AccountUnknown { name: name.clone() },
        ErrorKind::AccessDenied { object } => FailureKind::AccessDenied { object: object.clone() },
        ErrorKind::NotFound { object } => FailureKind::NotFound { object: object.clone() },
        ErrorKind::ProgramNotFound { program } => FailureKind::ProgramNotFound { program: program.clone() },
        ErrorKind::ProgramUnusable { program, why } => {
            FailureKind::ProgramUnusable { program: program.clone(), why: name_of(why) }
        }
        ErrorKind::DirectoryUnusable { directory } => {
            FailureKind::DirectoryUnusable { directory: directory.clone() }
        }
        ErrorKind::NotImpersonating => FailureKind::NotImpersonating {},
        ErrorKind::ImpersonationChanged { what } => {
            FailureKind::ImpersonationChanged { what: what.to_string() }
        }
        ErrorKind::ClientConfined { part } => FailureKind::ClientConfined { part: name_of(part) },
        ErrorKind::ConfinementUnknown { part } => FailureKind::ConfinementUnknown { part: name_of(part) },
        ErrorKind::ClientChanged { what } => FailureKind::ClientChanged { what: what.to_string() },
        ErrorKind::NoIdentity { what } => FailureKind::NoIdentity { what: what.to_string() },
        ErrorKind::KernelTooOld { needs } => FailureKind::KernelTooOld { needs: needs.to_string() },
        ErrorKind::WorkerUnavailable { why } => FailureKind::WorkerUnavailable { why: why.to_string() },
        ErrorKind::TrampolineUnavailable => FailureKind::TrampolineUnavailable {},
        ErrorKind::LogonServerUnavailable => FailureKind::LogonServerUnavailable {},
        ErrorKind::NoLogonSid => FailureKind::NoLogonSid {},
        ErrorKind::SessionEnded => FailureKind::SessionEnded {},
        ErrorKind::StatusLost => FailureKind::StatusLost {},
        ErrorKind::DeadlinePassed { waiting_for } => {
            FailureKind::DeadlinePassed { waiting_for: waiting_for.to_string() }
        }
        ErrorKind::InvalidInput { what } => FailureKind::InvalidInput { what: what.to_string() },
        ErrorKind::LimitReached { limit } => FailureKind::LimitReached { limit: limit.to_string() },
        ErrorKind::SpawnFailed { stage } => FailureKind::SpawnFailed { stage: name_of(stage) },
        ErrorKind::System { call } => FailureKind::System { call: (*call).to_owned() },
        _ => FailureKind::Other { text: error.to_string() },
    }
}

/// A value of the caller's that cannot be used.
pub(super) fn invalid(doing: &str, what: impl Into<String>) -> Failure {
    FailureKind::InvalidInput { what: what.into() }.while_doing(doing)
}

/// A call of the system that failed.
pub(super) fn system(doing: &str, call: &str, error: impl Into<std::io::Error>) -> Failure {
    let error = error.into();
    let system = Some(SystemError { number: error.raw_os_error(), text: error.to_string() });
    Failure { doing: doing.to_owned(), kind: FailureKind::System { call: call.to_owned() }, system }
}

#[cfg(test)]
mod tests {
    use stead::process::Stage;

    use super::*;

    #[test]
    fn variants_are_written_in_lower_case() {
        assert_eq!(name_of(Stage::NoNewPrivileges), "no_new_privileges");
        assert_eq!(name_of(Stage::Clone), "clone");
    }
}
