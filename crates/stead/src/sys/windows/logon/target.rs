//! Whom to log on, and what the system's answer is worth.

use std::ffi::OsString;
use std::io;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::os::windows::io::{AsHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{
    ERROR_LOGON_TYPE_NOT_GRANTED, ERROR_NO_SUCH_USER, ERROR_PRIVILEGE_NOT_HELD,
};
use windows_sys::Win32::Security::{TOKEN_ASSIGN_PRIMARY, TokenPrimary};
use windows_sys::Win32::System::WindowsProgramming::GetComputerNameW;

use super::password;
use super::session::SessionHandle;
use crate::account::Account;
use crate::error::{Error, ErrorKind, Result};
use crate::logon::LogonType;
use crate::privilege::Privilege;
use crate::sys::account::AccountEntry;
use crate::sys::fault;
use crate::sys::sid::Sid;
use crate::sys::thread_token::{Identity, USUAL, duplicate};
use crate::sys::token::SecurityContext;
use crate::token::ImpersonationLevel;

/// Whom to log on, in the parts that Windows takes.
#[derive(Debug)]
pub(super) struct Target {
    shown: String,
    user: Vec<u16>,
    domain: Domain,
    /// The name by which the account database is asked.
    asked: OsString,
}

/// Where an account is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Domain {
    /// In this machine's own database, which has the machine's name.
    ThisMachine(Vec<u16>),
    Named(Vec<u16>),
    /// In the one that the principal name says.
    OfPrincipal,
}

impl Domain {
    /// As LogonUserW takes it: `.` is this machine's database and no other, also where a domain has its name.
    pub(super) fn for_logon(&self) -> Option<&[u16]> {
        const DOT: &[u16] = &[0x2e];
        match self {
            Self::ThisMachine(_) => Some(DOT),
            Self::Named(domain) => Some(domain),
            Self::OfPrincipal => None,
        }
    }
}

impl Target {
    pub(super) fn of(account: &Account) -> Result<Self> {
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
        let machine =
            machine_name().map_err(|source| Error::system("logging on", "GetComputerNameW", source))?;
        let here = |user: Vec<u16>| {
            // Never a well-known name, nor one of the domain that the machine is in.
            let asked: Vec<u16> = machine.iter().chain(&[u16::from(b'\\')]).chain(&user).copied().collect();
            let asked = OsString::from_wide(&asked);
            Self { shown: shown.clone(), user, domain: Domain::ThisMachine(machine.clone()), asked }
        };
        let backslash = units.iter().position(|unit| *unit == u16::from(b'\\'));
        match (account.is_local(), backslash) {
            (true, None) => Ok(here(units)),
            (true, Some(_)) => Err(invalid("is no name of a local account")),
            (false, Some(at)) => {
                let (domain, user) = (units[..at].to_vec(), units[at + 1..].to_vec());
                if domain.is_empty() || user.is_empty() || user.contains(&u16::from(b'\\')) {
                    return Err(invalid(r"is no DOMAIN\name"));
                }
                let name = OsString::from_wide(&domain);
                if name == "." || name.eq_ignore_ascii_case(OsString::from_wide(&machine)) {
                    return Ok(here(user));
                }
                let asked = account.name().to_owned();
                Ok(Self { shown: shown.clone(), user, domain: Domain::Named(domain), asked })
            }
            (false, None) if units.contains(&u16::from(b'@')) => {
                let asked = account.name().to_owned();
                Ok(Self { shown: shown.clone(), user: units, domain: Domain::OfPrincipal, asked })
            }
            (false, None) => Err(invalid("is no user@realm")),
        }
    }

    pub(super) fn user(&self) -> &[u16] {
        &self.user
    }

    pub(super) fn domain(&self) -> &Domain {
        &self.domain
    }

    pub(super) fn doing(&self) -> String {
        format!("logging on {}", self.shown)
    }

    /// The session of a token that the system gave for this account.
    ///
    /// Wine says that every logon succeeded, with a token that is none; and a logon of the wrong kind succeeds on
    /// Windows with the server's own.
    pub(super) fn session(
        &self,
        token: &OwnedHandle,
        additions: Vec<(OsString, OsString)>,
    ) -> Result<SessionHandle> {
        let system = |call| move |source| Error::system(self.doing(), call, source);
        let identity = Identity::of(token.as_handle()).map_err(system("GetTokenInformation"))?;
        let account = AccountEntry::by_name(&self.asked).map_err(system("LookupAccountNameW"))?;
        let account = account.ok_or_else(|| self.unlike(&identity.user))?;
        if account.sid != identity.user {
            return Err(self.unlike(&identity.user));
        }
        if let Domain::ThisMachine(name) = &self.domain
            && !account.domain.eq_ignore_ascii_case(OsString::from_wide(name))
        {
            let domain = account.domain.display();
            let what = format!("the token is of an account of {domain}, not of this machine");
            return Err(Error::new(self.doing(), ErrorKind::NoIdentity { what: what.into() }));
        }
        if !account.has_a_secret() {
            let what = format!("{} is the system's own, to which every password is right", account.sid);
            return Err(Error::new(self.doing(), ErrorKind::LogonFailed).with_source(io::Error::other(what)));
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
        SessionHandle::new(context, account, additions).map_err(system("CreateJobObjectW"))
    }

    fn unlike(&self, found: &Sid) -> Error {
        let what = format!("the token that the system gave is that of {found}, not of the account").into();
        Error::new(self.doing(), ErrorKind::NoIdentity { what })
    }

    /// Without SeTcbPrivilege the system gives a token by which the account can only be known.
    pub(super) fn without_tcb(&self) -> Error {
        let missing = "SeTcbPrivilege".into();
        let privilege = Privilege::Logon;
        Error::new(
            self.doing(),
            ErrorKind::PrivilegeMissing { privilege, missing, held: false, enabled: false },
        )
    }

    /// What the system's refusal means.
    pub(super) fn refused(&self, call: &'static str, source: io::Error, kind: LogonType) -> Error {
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
pub(super) fn machine_name() -> io::Result<Vec<u16>> {
    // MAX_COMPUTERNAME_LENGTH is 15.
    let mut name = [0_u16; 32];
    let mut length = 32;
    // SAFETY: the buffer is writable for `length` characters.
    if unsafe { GetComputerNameW(name.as_mut_ptr(), &raw mut length) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(name.into_iter().take_while(|unit| *unit != 0).collect())
}
