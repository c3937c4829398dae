//! What only Windows tokens have.
#![forbid(unsafe_code)]

use std::marker::PhantomData;
use std::os::windows::io::{AsHandle, BorrowedHandle, OwnedHandle};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::impersonate::as_server;
use crate::sys::sid::Sid;
use crate::sys::token::{Elevation, Group, SecurityContext, TokenPrivilege, at_level};
use crate::token::{
    ConfinementKnowledge, Impersonation, ImpersonationLevel, Primary, Restriction, Token, TokenData,
    TokenKind,
};

/// The parts of a token as Windows has them.
///
/// Reference: [GetTokenInformation](https://learn.microsoft.com/windows/win32/api/securitybaseapi/nf-securitybaseapi-gettokeninformation).
///
/// ```
/// # fn main() -> stead::Result<()> {
/// use stead::os::windows::TokenExt;
/// let own = stead::Token::current()?;
/// println!("{} in {} groups", own.user_sid(), own.groups().len());
/// # Ok(()) }
/// ```
pub trait TokenExt {
    /// The whole context.
    #[doc(alias = "GetTokenInformation")]
    fn context(&self) -> &SecurityContext;

    /// The user.
    #[doc(alias = "TokenUser")]
    fn user_sid(&self) -> Sid {
        self.context().user
    }

    /// The groups, with their attributes.
    #[doc(alias = "TokenGroups")]
    fn groups(&self) -> &[Group] {
        &self.context().groups
    }

    /// The logon session's own SID, `S-1-5-5-x-y`; a token of a network logon, of S4U or of the system may have
    /// none.
    #[doc(alias = "TokenLogonSid")]
    #[doc(alias = "SE_GROUP_LOGON_ID")]
    fn logon_sid(&self) -> Option<Sid> {
        self.context().logon_sid()
    }

    /// The same where one is needed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoLogonSid`].
    fn require_logon_sid(&self) -> Result<Sid> {
        self.logon_sid().ok_or_else(|| Error::new("naming a logon session", ErrorKind::NoLogonSid))
    }

    /// The privileges.
    #[doc(alias = "TokenPrivileges")]
    fn privileges(&self) -> &[TokenPrivilege] {
        &self.context().privileges
    }

    /// The integrity level: 0x1000 low, 0x2000 medium, 0x3000 high, 0x4000 system.
    #[doc(alias = "TokenIntegrityLevel")]
    fn integrity_level(&self) -> Option<u32> {
        self.context().integrity
    }

    /// The terminal session.
    #[doc(alias = "TokenSessionId")]
    fn session_id(&self) -> u32 {
        self.context().session_id
    }

    /// Whether it has restricting SIDs.
    #[doc(alias = "IsTokenRestricted")]
    fn is_restricted(&self) -> bool {
        self.context().restricted
    }

    /// How it stands to the other half of a split administrator.
    #[doc(alias = "TokenElevationType")]
    fn elevation(&self) -> Elevation {
        self.context().elevation
    }

    /// The other half of a split administrator; `None` without one.
    ///
    /// Its level is [`Identification`](ImpersonationLevel::Identification) unless the server has SeTcbPrivilege. A server
    /// that has it and acts as the elevated half does what the client was not asked for: what Windows asks at the screen.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] where the system refuses.
    ///
    /// Reference: [TOKEN_LINKED_TOKEN](https://learn.microsoft.com/windows/win32/api/winnt/ns-winnt-token_linked_token).
    #[doc(alias = "TokenLinkedToken")]
    fn linked(&self) -> Result<Option<Token<Impersonation>>>;
}

impl<K: TokenKind> TokenExt for Token<K> {
    fn context(&self) -> &SecurityContext {
        &self.data().context
    }

    fn linked(&self) -> Result<Option<Token<Impersonation>>> {
        const DOING: &str = "opening a linked token";
        let system = |call| move |source| Error::system(DOING, call, source);
        as_server(|| {
            let Some(linked) = self.context().linked().map_err(system("GetTokenInformation"))? else {
                return Ok(None);
            };
            let (context, level) =
                SecurityContext::of(linked.as_handle()).map_err(system("GetTokenInformation"))?;
            // A primary one is what a server with SeTcbPrivilege gets.
            let granted = level.unwrap_or(ImpersonationLevel::Impersonation);
            let data = data(context);
            let data = if level.is_none() { at_level(&data, granted, DOING)? } else { data };
            Ok(Some(Token { data, level: granted, kind: PhantomData }))
        })
    }
}

/// The token itself. Its rights are to query it, to duplicate it, to put it on a thread and to create processes.
impl<K: TokenKind> AsHandle for Token<K> {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.data().context.handle()
    }
}

fn data(context: SecurityContext) -> Arc<TokenData> {
    let confinement = ConfinementKnowledge::Verified;
    Arc::new(TokenData { context, session: None, confinement, account: OnceLock::new() })
}

const TAKING: &str = "taking a token over";

fn taken(handle: &OwnedHandle) -> Result<(SecurityContext, Option<ImpersonationLevel>)> {
    let (context, level) = as_server(|| SecurityContext::of(handle.as_handle()))
        .map_err(|source| Error::system(TAKING, "GetTokenInformation or DuplicateTokenEx", source))?;
    if context.user == Sid::ANONYMOUS {
        let what = "the anonymous logon (S-1-5-7) is nobody".into();
        return Err(Error::new(TAKING, ErrorKind::NoIdentity { what }));
    }
    Ok((context, level))
}

fn wrong_kind(what: &'static str) -> Error {
    Error::new(TAKING, ErrorKind::InvalidInput { what: what.into() })
}

/// A primary token from elsewhere; it is duplicated, so that nobody else adjusts it later.
///
/// `InvalidInput` for an impersonation token; `NoIdentity` for one of the anonymous logon; `System` for what is no token, or was opened without the rights to
/// query and to duplicate it.
impl TryFrom<OwnedHandle> for Token<Primary> {
    type Error = Error;

    fn try_from(handle: OwnedHandle) -> Result<Self> {
        match taken(&handle)? {
            (context, None) => {
                Ok(Self { data: data(context), level: ImpersonationLevel::Impersonation, kind: PhantomData })
            }
            _ => Err(wrong_kind("it is an impersonation token, not a primary one")),
        }
    }
}

/// An impersonation token from elsewhere (of SSPI, of RPC); it is duplicated, so that nobody else adjusts it later.
///
/// `InvalidInput` for a primary or an anonymous token; `NoIdentity` for one of the anonymous logon; `System` as for a primary one.
impl TryFrom<OwnedHandle> for Token<Impersonation> {
    type Error = Error;

    fn try_from(handle: OwnedHandle) -> Result<Self> {
        match taken(&handle)? {
            (_, None) => Err(wrong_kind("it is a primary token, not an impersonation token")),
            (_, Some(ImpersonationLevel::Anonymous)) => Err(wrong_kind("an anonymous token names nobody")),
            (context, Some(level)) => Ok(Self { data: data(context), level, kind: PhantomData }),
        }
    }
}

/// What can be taken from a token on Windows.
///
/// ```
/// # fn main() -> stead::Result<()> {
/// use stead::os::windows::{RestrictionExt, Sid};
/// use stead::{Token, token::Restriction};
/// let restriction = Restriction::new().without_privileges().deny_only(Sid::ADMINISTRATORS);
/// let token = Token::current()?.restrict(&restriction);
/// # Ok(()) }
/// ```
pub trait RestrictionExt: Sized {
    /// This group (or the user) counts for denying only from now on.
    #[doc(alias = "SidsToDisable")]
    #[doc(alias = "SE_GROUP_USE_FOR_DENY_ONLY")]
    #[must_use]
    fn deny_only(self, sid: Sid) -> Self;

    /// Takes this privilege, as `SeBackupPrivilege`.
    #[doc(alias = "PrivilegesToDelete")]
    #[must_use]
    fn without_privilege(self, name: impl Into<String>) -> Self;

    /// Adds a restricting SID: what the token is granted must be granted to one of them too.
    #[doc(alias = "SidsToRestrict")]
    #[must_use]
    fn restricted_to(self, sid: Sid) -> Self;
}

impl RestrictionExt for Restriction {
    fn deny_only(mut self, sid: Sid) -> Self {
        self.0.deny_only.push(sid);
        self
    }

    fn without_privilege(mut self, name: impl Into<String>) -> Self {
        self.0.privileges.push(name.into());
        self
    }

    fn restricted_to(mut self, sid: Sid) -> Self {
        self.0.restricting.push(sid);
        self
    }
}
