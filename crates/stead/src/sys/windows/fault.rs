//! What Win32's errors mean to this library, wherever they come from.

use crate::error::{AccountRestriction, ErrorKind};
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
        // ERROR_BAD_VALIDATION_CLASS, ERROR_BAD_TOKEN_TYPE
        1347 | 1349 => {
            ErrorKind::InvalidInput { what: "the token is of a type that this cannot be done with".into() }
        }
        // ERROR_NOT_ENOUGH_QUOTA
        1816 => ErrorKind::LimitReached { limit: "quota of the process".into() },
        _ => return None,
    })
}

/// Which of the two privileges of CreateProcessAsUser the server lacks. Asked afterwards, for a restricted token of
/// the server's own takes neither.
fn assign_primary_token() -> ErrorKind {
    let own = super::token::own_context().ok();
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
