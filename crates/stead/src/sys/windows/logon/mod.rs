//! Logons: LogonUserW with a password, LsaLogonUser without one, and the tokens of those who sit at the machine.
//!
//! Whatever the system answers, the token is read: its user must be the account that was named. `new_credentials`
//! is not offered: its token is the server's own.

mod interactive;
mod password;
mod s4u;

pub use crate::desktop::InteractiveSession as TerminalSession;
pub(crate) use interactive::of_session;

use std::ffi::OsString;
use std::io;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::os::windows::io::{AsHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{
    ERROR_LOGON_TYPE_NOT_GRANTED, ERROR_NO_SUCH_USER, ERROR_PRIVILEGE_NOT_HELD,
};
use windows_sys::Win32::Security::{TOKEN_ASSIGN_PRIMARY, TokenPrimary};
use windows_sys::Win32::System::WindowsProgramming::GetComputerNameW;

use super::account::AccountEntry;
use super::fault;
use super::impersonate::as_server;
use super::sid::Sid;
use super::thread_token::{Identity, USUAL, duplicate};
use super::token::SecurityContext;
use crate::account::Account;
use crate::error::{Error, ErrorKind, Result};
use crate::logon::{Logon, LogonType};
use crate::privilege::Privilege;
use crate::token::ImpersonationLevel;

/// Nothing: Windows keeps its logon sessions itself, and no program has to be its own worker.
pub(crate) fn init() {}

/// The same: every logon that is to be interactive has a SID of its own here.
pub(crate) fn with_logon_sid(logon: Logon) -> Logon {
    logon
}

/// A logon session: the system closes it with its last token.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    context: SecurityContext,
    account: AccountEntry,
}

impl SessionHandle {
    /// The context of its primary token.
    pub(crate) fn context(&self) -> &SecurityContext {
        &self.context
    }

    /// Who logged on.
    pub(crate) fn account(&self) -> &AccountEntry {
        &self.account
    }

    /// What is waited for when it is closed.
    #[expect(clippy::unused_self, reason = "elsewhere it is the session's own")]
    pub(crate) fn ending(&self) -> Ending {
        Ending
    }

    /// The logon session's LUID.
    pub(crate) fn id(&self) -> u64 {
        self.context.logon_id
    }
}

/// The end of a logon session: the system's own affair, when the last token of it is closed.
pub(crate) struct Ending;

impl Ending {
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "elsewhere there is something to wait for"
    )]
    pub(crate) fn wait(self) -> Result<()> {
        Ok(())
    }
}

/// Logs on: one attempt.
pub(crate) fn open(logon: Logon) -> Result<SessionHandle> {
    let target = Target::of(&logon.account)?;
    let kind = logon.kind;
    as_server(|| {
        let token = match (logon.authenticate, logon.secret) {
            (true, Some(secret)) => password::log_on(&target, secret, kind)?,
            (true, None) => {
                let what = "Windows asks nothing beyond the password: give that".into();
                return Err(Error::new(target.doing(), ErrorKind::InvalidInput { what }));
            }
            // Only here, where the server has said so: never for want of a password.
            (false, _) => s4u::log_on(&target, kind)?,
        };
        target.session(&token)
    })
}

/// Whom to log on, in the parts that Windows takes.
#[derive(Debug)]
struct Target {
    shown: String,
    user: Vec<u16>,
    /// `None` where the user is a principal name.
    domain: Option<Vec<u16>>,
    /// The name by which the account database is asked.
    asked: OsString,
}

impl Target {
    fn of(account: &Account) -> Result<Self> {
        let shown = account.to_string();
        let invalid = |what: &str| {
            let what = format!("{shown:?} {what}").into();
            Error::new(format!("logging on {shown}"), ErrorKind::InvalidInput { what })
        };
        let units: Vec<u16> = account.name().encode_wide().collect();
        if units.is_empty() {
            return Err(invalid("is no name of an account"));
        }
        if units.contains(&0) {
            return Err(invalid("contains a NUL"));
        }
        let backslash = units.iter().position(|unit| *unit == u16::from(b'\\'));
        let (user, domain, asked) = match (account.is_local(), backslash) {
            (true, None) => {
                // Of this machine, and never a well-known name or one of the machine's domain.
                let machine = machine_name()
                    .map_err(|source| Error::system("logging on", "GetComputerNameW", source))?;
                let mut asked = machine.clone();
                asked.push(u16::from(b'\\'));
                asked.extend_from_slice(&units);
                (units, Some(machine), OsString::from_wide(&asked))
            }
            (true, Some(_)) => return Err(invalid("is no name of a local account")),
            (false, Some(at)) => {
                let (domain, user) = (units[..at].to_vec(), units[at + 1..].to_vec());
                if domain.is_empty() || user.is_empty() || user.contains(&u16::from(b'\\')) {
                    return Err(invalid(r"is no DOMAIN\name"));
                }
                (user, Some(domain), account.name().to_owned())
            }
            (false, None) if units.contains(&u16::from(b'@')) => (units, None, account.name().to_owned()),
            (false, None) => return Err(invalid("is no user@realm")),
        };
        Ok(Self { shown, user, domain, asked })
    }

    /// Whether it is an account of this machine, and not of a domain.
    fn is_local_machine(&self) -> bool {
        let machine = machine_name().map(|name| OsString::from_wide(&name));
        let domain = self.domain.as_ref().map(|name| OsString::from_wide(name));
        domain.is_some_and(|domain| machine.is_ok_and(|machine| machine.eq_ignore_ascii_case(&domain)))
    }

    fn doing(&self) -> String {
        format!("logging on {}", self.shown)
    }

    /// The session of a token that the system gave for this account.
    ///
    /// Wine says that every logon succeeded, with a token that is none; and a logon of the wrong kind succeeds on
    /// Windows with the server's own.
    fn session(&self, token: &OwnedHandle) -> Result<SessionHandle> {
        let system = |call| move |source| Error::system(self.doing(), call, source);
        let identity = Identity::of(token.as_handle()).map_err(system("GetTokenInformation"))?;
        let account = AccountEntry::by_name(&self.asked).map_err(system("LookupAccountNameW"))?;
        let account = account.ok_or_else(|| self.unlike(&identity.user))?;
        if account.sid != identity.user {
            return Err(self.unlike(&identity.user));
        }
        if identity.level.is_some_and(|level| level < ImpersonationLevel::Impersonation) {
            return Err(self.without_tcb());
        }
        // A network logon gives an impersonation token; processes are created from primary ones.
        let context = if identity.level.is_none() {
            SecurityContext::of(token.as_handle())
        } else {
            let level = ImpersonationLevel::Impersonation;
            let access = USUAL | TOKEN_ASSIGN_PRIMARY;
            let primary = duplicate(token.as_handle(), access, level, TokenPrimary)
                .map_err(system("DuplicateTokenEx"))?;
            SecurityContext::of(primary.as_handle())
        };
        let (context, _) = context.map_err(system("GetTokenInformation"))?;
        if context.user != identity.user || context.logon_id != identity.logon {
            return Err(self.unlike(&context.user));
        }
        Ok(SessionHandle { context, account })
    }

    fn unlike(&self, found: &Sid) -> Error {
        let what = format!("the token that the system gave is that of {found}, not of the account").into();
        Error::new(self.doing(), ErrorKind::NoIdentity { what })
    }

    /// Without SeTcbPrivilege the system gives a token by which the account can only be known.
    fn without_tcb(&self) -> Error {
        let missing = "SeTcbPrivilege".into();
        let privilege = Privilege::Logon;
        Error::new(
            self.doing(),
            ErrorKind::PrivilegeMissing { privilege, missing, held: false, enabled: false },
        )
    }

    /// What the system's refusal means.
    fn refused(&self, call: &'static str, source: io::Error, kind: LogonType) -> Error {
        let kind = match source.raw_os_error().map(i32::cast_unsigned) {
            Some(ERROR_NO_SUCH_USER) => ErrorKind::AccountUnknown { name: self.shown.clone() },
            Some(ERROR_LOGON_TYPE_NOT_GRANTED) => {
                ErrorKind::LogonTypeDenied { logon_type: password::type_name(kind).into() }
            }
            Some(ERROR_PRIVILEGE_NOT_HELD) => return self.without_tcb().with_source(source),
            code => code.and_then(fault::kind).unwrap_or(ErrorKind::System { call }),
        };
        Error::new(self.doing(), kind).with_source(source)
    }
}

/// The machine's name, as local accounts have it for their domain.
fn machine_name() -> io::Result<Vec<u16>> {
    // MAX_COMPUTERNAME_LENGTH is 15.
    let mut name = [0_u16; 32];
    let mut length = 32;
    // SAFETY: the buffer is writable for `length` characters.
    if unsafe { GetComputerNameW(name.as_mut_ptr(), &raw mut length) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(name.into_iter().take_while(|unit| *unit != 0).collect())
}

/// With a NUL at its end.
fn terminated(text: &[u16]) -> Vec<u16> {
    text.iter().copied().chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::AccountRestriction;
    use std::ffi::OsStr;

    #[test]
    fn names_are_taken_apart_as_they_were_meant() {
        let wide = |text: &str| OsStr::new(text).encode_wide().collect::<Vec<_>>();
        let domain = Target::of(&Account::domain("EXAMPLE", "alice")).unwrap();
        assert_eq!((domain.user, domain.domain), (wide("alice"), Some(wide("EXAMPLE"))));
        let upn = Target::of(&Account::upn("alice@example.com")).unwrap();
        assert_eq!((upn.user, upn.domain), (wide("alice@example.com"), None));
        let local = Target::of(&Account::local("alice")).unwrap();
        assert_eq!(local.domain, Some(machine_name().unwrap()));
        assert!(local.asked.to_string_lossy().ends_with(r"\alice"), "{local:?}");
        for account in [
            Account::local(""),
            Account::local(r"EXAMPLE\alice"),
            Account::local("al\0ice"),
            Account::upn("alice"),
            Account::domain("", "alice"),
            Account::domain("EXAMPLE", ""),
            Account::domain("EXAMPLE", r"a\b"),
        ] {
            let refused = Target::of(&account).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
        }
    }

    #[test]
    fn no_account_that_is_not_there_logs_on() {
        // Under Wine every logon succeeds, with the handle 0xdeadbeef: reading the token back finds that out.
        for kind in [LogonType::Interactive, LogonType::Network, LogonType::Batch, LogonType::Service] {
            let account = Account::local("no-such-user-of-stead");
            let refused = Logon::password(account, "no such password").kind(kind).open();
            assert!(refused.is_err(), "{refused:?}");
        }
    }

    #[test]
    fn no_account_that_is_not_there_is_logged_on_without_a_password() {
        let refused = Logon::s4u(Account::local("no-such-user-of-stead")).open();
        assert!(refused.is_err(), "{refused:?}");
        let interactive = Logon::s4u(Account::local("alice")).kind(LogonType::Interactive).open();
        assert!(matches!(interactive.unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
    }

    #[test]
    fn what_the_system_refuses_has_a_kind() {
        let target = Target::of(&Account::domain("EXAMPLE", "alice")).unwrap();
        let kind = |code: i32| {
            let source = io::Error::from_raw_os_error(code);
            target.refused("LogonUserW", source, LogonType::Batch).kind().clone()
        };
        let restricted = |restriction| ErrorKind::AccountRestriction { restriction };
        assert_eq!(kind(1326), ErrorKind::LogonFailed);
        assert_eq!(kind(1385), ErrorKind::LogonTypeDenied { logon_type: "LOGON32_LOGON_BATCH".into() });
        assert!(matches!(kind(1314), ErrorKind::PrivilegeMissing { privilege: Privilege::Logon, .. }));
        for code in [1327, 1328, 1329] {
            assert_eq!(kind(code), restricted(AccountRestriction::PolicyForbids), "{code}");
        }
        for code in [1330, 1907] {
            assert_eq!(kind(code), restricted(AccountRestriction::PasswordExpired), "{code}");
        }
        assert_eq!(kind(1331), restricted(AccountRestriction::AccountDisabled));
        assert_eq!(kind(1793), restricted(AccountRestriction::AccountExpired));
        assert_eq!(kind(1909), restricted(AccountRestriction::AccountLocked));
        assert_eq!(kind(1311), ErrorKind::LogonServerUnavailable);
        assert_eq!(kind(31), ErrorKind::System { call: "LogonUserW" });
    }
}
