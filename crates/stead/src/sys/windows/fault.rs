//! What Win32's errors mean to this library, wherever they come from.

use super::impersonate::thread::as_process;
use crate::error::{AccountRestriction, ErrorKind, ProgramFault};
use crate::privilege::Privilege;
use crate::token::ImpersonationLevel;

/// The kind that an error number is whatever was being done; `None` where that depends.
///
/// Reference: [System Error Codes](https://learn.microsoft.com/windows/win32/debug/system-error-codes).
pub(crate) fn kind(code: u32) -> Option<ErrorKind> {
    let account = |restriction| ErrorKind::AccountRestriction { restriction };
    Some(match code {
        // ERROR_NO_TOKEN
        1008 => ErrorKind::NotImpersonating,
        // ERROR_NO_LOGON_SERVERS
        1311 => ErrorKind::LogonServerUnavailable,
        // ERROR_NO_SUCH_LOGON_SESSION
        1312 => ErrorKind::SessionEnded,
        // ERROR_PRIVILEGE_NOT_HELD
        1314 => assign_primary_token(),
        // ERROR_LOGON_FAILURE
        1326 => ErrorKind::LogonFailed,
        // ERROR_ACCOUNT_RESTRICTION, ERROR_INVALID_LOGON_HOURS, ERROR_INVALID_WORKSTATION
        1327..=1329 => account(AccountRestriction::PolicyForbids),
        // ERROR_PASSWORD_EXPIRED, ERROR_PASSWORD_MUST_CHANGE
        1330 | 1907 => account(AccountRestriction::PasswordExpired),
        // ERROR_ACCOUNT_DISABLED
        1331 => account(AccountRestriction::AccountDisabled),
        // ERROR_ACCOUNT_EXPIRED
        1793 => account(AccountRestriction::AccountExpired),
        // ERROR_ACCOUNT_LOCKED_OUT
        1909 => account(AccountRestriction::AccountLocked),
        // ERROR_BAD_IMPERSONATION_LEVEL: what acting as a client takes is the impersonation level, and what says
        // so is below it.
        1346 => ErrorKind::LevelTooLow {
            granted: ImpersonationLevel::Identification,
            needed: ImpersonationLevel::Impersonation,
        },
        // ERROR_CANNOT_IMPERSONATE
        1368 => ErrorKind::NoIdentity { what: "nothing was read from the client yet: read first".into() },
        // ERROR_CANT_OPEN_ANONYMOUS
        1347 => ErrorKind::LevelTooLow {
            granted: ImpersonationLevel::Anonymous,
            needed: ImpersonationLevel::Identification,
        },
        // ERROR_BAD_VALIDATION_CLASS, ERROR_BAD_TOKEN_TYPE
        1348 | 1349 => {
            let what = "the token is of a type that this cannot be done with: Token::to_primary and \
                        Token::duplicate make the other type of it";
            ErrorKind::InvalidInput { what: what.into() }
        }
        // ERROR_NOT_ENOUGH_QUOTA
        1816 => ErrorKind::LimitReached { limit: "quota of the process".into() },
        _ => return None,
    })
}

/// What it is of the creation of a process: of this program, in this directory.
pub(crate) fn of_creation(code: u32, program: String, directory: String) -> Option<ErrorKind> {
    let why = match code {
        // ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND
        2 | 3 => return Some(ErrorKind::ProgramNotFound { program }),
        // ERROR_ACCESS_DENIED
        5 => ProgramFault::NotPermitted,
        // ERROR_SHARING_VIOLATION
        32 => ProgramFault::Busy,
        // ERROR_BAD_EXE_FORMAT, ERROR_EXE_MACHINE_TYPE_MISMATCH
        193 | 216 => ProgramFault::BadFormat,
        // ERROR_FILENAME_EXCED_RANGE
        206 => ProgramFault::ArgumentsTooLong,
        // ERROR_DIRECTORY
        267 => return Some(ErrorKind::DirectoryUnusable { directory }),
        // ERROR_ELEVATION_REQUIRED
        740 => ProgramFault::ElevationRequired,
        // ERROR_CANT_ACCESS_FILE
        1920 => ProgramFault::AppAlias,
        _ => return kind(code),
    };
    Some(ErrorKind::ProgramUnusable { program, why })
}

/// Which of the two privileges of CreateProcessAsUser the server lacks. Asked afterwards, for a restricted token of
/// the server's own takes neither.
fn assign_primary_token() -> ErrorKind {
    // Of the server, also where a client is on the thread.
    let own = as_process(super::token::own_context).ok().and_then(Result::ok);
    let state = |name: &str| {
        let privileges = own.as_ref().map(|own| own.privileges.as_slice()).unwrap_or_default();
        let found = privileges.iter().find(|privilege| privilege.name == name);
        (found.is_some(), found.is_some_and(super::token::TokenPrivilege::is_enabled))
    };
    let (assign, quota) = ("SeAssignPrimaryTokenPrivilege", "SeIncreaseQuotaPrivilege");
    // It enables what is held by itself.
    let (privilege, missing) = if state(assign).0 && !state(quota).0 {
        (Privilege::IncreaseQuota, quota)
    } else {
        (Privilege::AssignPrimaryToken, assign)
    };
    let (held, enabled) = state(missing);
    ErrorKind::PrivilegeMissing { privilege, missing: missing.into(), held, enabled }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::sys::process::explain;
    use std::os::windows::process::ExitStatusExt;
    use std::process::ExitStatus;

    /// What people meet when they do this by hand, each with its kind and with what mends it.
    #[test]
    fn every_error_that_people_meet_has_a_kind_and_a_remedy() {
        let created = |code| of_creation(code, r"C:\report.exe".into(), r"C:\gone".into());
        let account = |restriction| Some(ErrorKind::AccountRestriction { restriction });
        let unusable = |why| Some(ErrorKind::ProgramUnusable { program: r"C:\report.exe".into(), why });
        let directory = Some(ErrorKind::DirectoryUnusable { directory: r"C:\gone".into() });
        let table = [
            (5, created(5), unusable(ProgramFault::NotPermitted), "let the token's user execute"),
            (193, created(193), unusable(ProgramFault::BadFormat), "its interpreter"),
            (267, created(267), directory, "current_dir"),
            (740, created(740), unusable(ProgramFault::ElevationRequired), "elevated token"),
            (1008, kind(1008), Some(ErrorKind::NotImpersonating), "closure of impersonate"),
            (1311, kind(1311), Some(ErrorKind::LogonServerUnavailable), "domain reachable"),
            (1312, kind(1312), Some(ErrorKind::SessionEnded), "log on again"),
            (1326, kind(1326), Some(ErrorKind::LogonFailed), "name and the password"),
            (1327, kind(1327), account(AccountRestriction::PolicyForbids), "empty password"),
            (1328, kind(1328), account(AccountRestriction::PolicyForbids), "hours"),
            (1329, kind(1329), account(AccountRestriction::PolicyForbids), "machines"),
            (1330, kind(1330), account(AccountRestriction::PasswordExpired), "Logon::conversation"),
            (1331, kind(1331), account(AccountRestriction::AccountDisabled), "enabled"),
            (1793, kind(1793), account(AccountRestriction::AccountExpired), "put off"),
            (1907, kind(1907), account(AccountRestriction::PasswordExpired), "Logon::conversation"),
            (1909, kind(1909), account(AccountRestriction::AccountLocked), "unlocked"),
            (1920, created(1920), unusable(ProgramFault::AppAlias), "WindowsApps"),
        ];
        for (code, found, expected, mends) in table {
            assert_eq!(found, expected, "{code}");
            let error = Error::new("creating the process", found.unwrap());
            assert!(error.remedy().is_some_and(|remedy| remedy.contains(mends)), "{code}: {error}");
        }
        // Those that say in what they are how to go on.
        let texts = [
            (1314, "SeAssignPrimaryTokenPrivilege"),
            (1314, "LocalSystem"),
            (1346, "connect_with"),
            (1347, "anonymous"),
            (1348, "Token::to_primary"),
            (1349, "Token::to_primary"),
            (1368, "read first"),
        ];
        for (code, says) in texts {
            let text = Error::new("creating the process", kind(code).unwrap()).to_string();
            assert!(text.contains(says), "{code}: {text}");
        }
        // What only the exit code tells.
        let early = explain(ExitStatus::from_raw(0xC000_0142)).unwrap();
        assert!(early.contains("desktop"), "{early}");
        assert_eq!(explain(ExitStatus::from_raw(1)), None);
    }
}
