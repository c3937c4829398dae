//! A security context as a Windows token holds it.

mod display;
mod read;
mod restriction;
#[cfg(feature = "serde")]
mod serde;
#[cfg(test)]
mod tests;

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle};
use std::sync::{Arc, OnceLock};

use windows_sys::Win32::Foundation::ERROR_PRIVILEGE_NOT_HELD;
use windows_sys::Win32::Security::{
    SetTokenInformation, TOKEN_ACCESS_MASK, TOKEN_ADJUST_DEFAULT, TOKEN_ADJUST_SESSIONID,
    TOKEN_ASSIGN_PRIMARY, TOKEN_DUPLICATE, TOKEN_QUERY, TokenImpersonation, TokenPrimary, TokenSessionId,
};

use super::sid::Sid;
use super::thread_token;
use crate::error::{Error, ErrorKind, Result};
use crate::privilege::Privilege;
use crate::token::{ImpersonationLevel, TokenData};

pub(crate) use restriction::Taken;

/// What tokens of ours are opened for: what CreateProcessAsUserW and ImpersonateLoggedOnUser ask for, and no more.
const ACCESS: TOKEN_ACCESS_MASK = thread_token::USUAL | TOKEN_ASSIGN_PRIMARY;

/// A group of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "SID_AND_ATTRIBUTES")]
pub struct Group {
    /// Which.
    pub sid: Sid,
    /// `SE_GROUP_*`.
    pub attributes: u32,
}

impl Group {
    /// Whether it counts for allowing (`SE_GROUP_ENABLED`).
    pub fn is_enabled(&self) -> bool {
        self.attributes & 0x4 != 0
    }

    /// Whether it counts for denying only (`SE_GROUP_USE_FOR_DENY_ONLY`).
    pub fn is_deny_only(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    /// Whether it is the logon session's (`SE_GROUP_LOGON_ID`).
    #[doc(alias = "SE_GROUP_LOGON_ID")]
    pub fn is_logon_session(&self) -> bool {
        self.attributes & 0xC000_0000 == 0xC000_0000
    }
}

/// A privilege of a token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[doc(alias = "LUID_AND_ATTRIBUTES")]
pub struct TokenPrivilege {
    /// Its name, as `SeImpersonatePrivilege`; its number where it has none.
    pub name: String,
    /// Its number on this machine.
    pub luid: u64,
    /// `SE_PRIVILEGE_*`.
    pub attributes: u32,
}

impl TokenPrivilege {
    /// Whether it counts now (`SE_PRIVILEGE_ENABLED`); a held one can be enabled.
    pub fn is_enabled(&self) -> bool {
        self.attributes & 0x2 != 0
    }
}

/// How a token stands to the other half of a split administrator.
///
/// Reference: [TOKEN_ELEVATION_TYPE](https://learn.microsoft.com/windows/win32/api/winnt/ne-winnt-token_elevation_type).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "TOKEN_ELEVATION_TYPE")]
#[non_exhaustive]
pub enum Elevation {
    /// The account has but one token.
    Default,
    /// The elevated one of two.
    Full,
    /// The filtered one of two; the other is linked to it.
    Limited,
}

/// Everything that a token says of the context of its processes, and the token itself.
///
/// Two are equal when they say the same; the handles behind them may be different tokens.
///
/// Reference: [Access Tokens](https://learn.microsoft.com/windows/win32/secauthz/access-tokens).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SecurityContext {
    handle: Arc<OwnedHandle>,
    /// The user.
    pub user: Sid,
    /// The groups, with their attributes, in the token's order.
    pub groups: Vec<Group>,
    /// The privileges, enabled or not.
    pub privileges: Vec<TokenPrivilege>,
    /// The last part of the integrity level's SID: 0x1000 low, 0x2000 medium, 0x3000 high, 0x4000 system.
    pub integrity: Option<u32>,
    /// The terminal session.
    pub session_id: u32,
    /// The logon session's LUID.
    pub logon_id: u64,
    /// Whether it has restricting SIDs.
    pub restricted: bool,
    /// How it stands to the other half of a split administrator.
    pub elevation: Elevation,
}

impl PartialEq for SecurityContext {
    fn eq(&self, other: &Self) -> bool {
        (self.user, &self.groups, &self.privileges, self.integrity, self.session_id)
            == (other.user, &other.groups, &other.privileges, other.integrity, other.session_id)
            && (self.logon_id, self.restricted, self.elevation)
                == (other.logon_id, other.restricted, other.elevation)
    }
}

impl Eq for SecurityContext {}

impl SecurityContext {
    /// The user, for messages.
    pub(crate) fn user(&self) -> String {
        self.user.to_string()
    }

    /// The logon session's own SID; a token of a network logon, of S4U or of the system may have none.
    #[doc(alias = "TokenLogonSid")]
    pub fn logon_sid(&self) -> Option<Sid> {
        self.groups.iter().find(|group| group.is_logon_session()).map(|group| group.sid)
    }

    /// The token itself.
    pub(crate) fn handle(&self) -> BorrowedHandle<'_> {
        self.handle.as_handle()
    }

    /// What `token` says, with a duplicate of it that nobody else has a handle to.
    ///
    /// A handle can be to a token that its other holders go on adjusting.
    pub(crate) fn of(token: BorrowedHandle<'_>) -> io::Result<(Self, Option<ImpersonationLevel>)> {
        let level = thread_token::Identity::of(token)?.level;
        let own = match level {
            None => primary(token)?,
            Some(level) => thread_token::duplicate(token, ACCESS, level, TokenImpersonation)?,
        };
        Ok((Self::read(own)?, level))
    }
}

fn primary(token: BorrowedHandle<'_>) -> io::Result<OwnedHandle> {
    thread_token::duplicate(token, ACCESS, ImpersonationLevel::Impersonation, TokenPrimary)
}

/// The server's own context; the caller is not impersonating.
pub(crate) fn own_context() -> Result<SecurityContext> {
    const DOING: &str = "reading the server's own token";
    let token = thread_token::process(TOKEN_QUERY | TOKEN_DUPLICATE)
        .map_err(|source| Error::system(DOING, "OpenProcessToken", source))?;
    let (context, _) = SecurityContext::of(token.as_handle())
        .map_err(|source| Error::system(DOING, "GetTokenInformation", source))?;
    Ok(context)
}

/// The same context as a primary token of another terminal session, in which its processes then are.
///
/// Wine says that it changed the session, and did not: what is read back decides.
pub(crate) fn in_session(
    context: &SecurityContext,
    session: u32,
    doing: &'static str,
) -> Result<SecurityContext> {
    let access = ACCESS | TOKEN_ADJUST_SESSIONID | TOKEN_ADJUST_DEFAULT;
    let level = ImpersonationLevel::Impersonation;
    let handle = thread_token::duplicate(context.handle(), access, level, TokenPrimary)
        .map_err(|source| Error::system(doing, "DuplicateTokenEx", source))?;
    // SAFETY: the handle is open with the right that this class asks for; the number outlives the call.
    let done = unsafe {
        SetTokenInformation(handle.as_raw_handle(), TokenSessionId, (&raw const session).cast(), 4)
    };
    if done == 0 {
        let source = io::Error::last_os_error();
        let kind = if source.raw_os_error() == Some(ERROR_PRIVILEGE_NOT_HELD.cast_signed()) {
            let (privilege, missing) = (Privilege::Logon, "SeTcbPrivilege".into());
            ErrorKind::PrivilegeMissing { privilege, missing, held: false, enabled: false }
        } else {
            ErrorKind::System { call: "SetTokenInformation" }
        };
        return Err(Error::new(doing, kind).with_source(source));
    }
    let found = SecurityContext::read(handle)
        .map_err(|source| Error::system(doing, "GetTokenInformation", source))?;
    if found.session_id != session || found.user != context.user || found.logon_id != context.logon_id {
        let what = format!("the token's session is {}, not {session}", found.session_id).into();
        return Err(Error::new(doing, ErrorKind::ImpersonationChanged { what }));
    }
    Ok(found)
}

/// The same context at another level: a token of its own. The caller has seen that the level is not raised, which
/// is also what the system refuses (error 1346).
pub(crate) fn at_level(
    data: &Arc<TokenData>,
    level: ImpersonationLevel,
    doing: &'static str,
) -> Result<Arc<TokenData>> {
    changed(data, doing, |handle| thread_token::duplicate(handle, ACCESS, level, TokenImpersonation))
}

/// The same context as a primary token. The caller has seen that its level allows that: Windows would refuse an
/// identification token, Wine does not.
pub(crate) fn as_primary(data: &Arc<TokenData>, doing: &'static str) -> Result<Arc<TokenData>> {
    changed(data, doing, primary)
}

fn changed(
    data: &Arc<TokenData>,
    doing: &'static str,
    duplicate: impl FnOnce(BorrowedHandle<'_>) -> io::Result<OwnedHandle>,
) -> Result<Arc<TokenData>> {
    let system = |source| Error::system(doing, "DuplicateTokenEx", source);
    let handle = duplicate(data.context.handle()).map_err(system)?;
    let context = SecurityContext::read(handle).map_err(system)?;
    if context.user != data.context.user || context.logon_id != data.context.logon_id {
        let what = format!("the duplicate is of {}", context.user).into();
        return Err(Error::new(doing, ErrorKind::ImpersonationChanged { what }));
    }
    Ok(Arc::new(TokenData {
        context,
        session: data.session.clone(),
        confinement: data.confinement.clone(),
        account: data.account.get().map_or_else(OnceLock::new, |known| OnceLock::from(known.clone())),
    }))
}
