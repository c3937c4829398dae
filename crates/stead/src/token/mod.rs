//! Access tokens: immutable snapshots of a security context.
//!
//! A token comes from a logon, from a client's connection ([`Client`](crate::Client)), from an
//! impersonation, or from the server itself ([`Token::current`]). Whatever it comes from, it stays what it
//! was: a right taken from the account later is not taken from the token, and none is added to it.
#![forbid(unsafe_code)]

mod confinement;
mod level;
mod restriction;

pub use confinement::ConfinementKnowledge;
pub use level::ImpersonationLevel;
pub use restriction::Restriction;

use std::ffi::OsString;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind, Result};
use crate::logon::SessionId;
use crate::sys;
use crate::sys::account::AccountEntry;

/// A token's kind as a type: only [`Primary`] tokens create processes.
pub trait TokenKind: sealed::Sealed {}

/// The token of a process: what a new process is created from.
#[derive(Debug, Clone, Copy)]
#[doc(alias = "TokenPrimary")]
pub enum Primary {}

/// The token of a thread that acts for a client.
#[derive(Debug, Clone, Copy)]
#[doc(alias = "TokenImpersonation")]
pub enum Impersonation {}

impl TokenKind for Primary {}
impl TokenKind for Impersonation {}

pub(crate) mod sealed {
    pub trait Sealed {
        const NAME: &'static str;
    }
    impl Sealed for super::Primary {
        const NAME: &'static str = "primary";
    }
    impl Sealed for super::Impersonation {
        const NAME: &'static str = "impersonation";
    }
}

/// An immutable snapshot of a security context.
///
/// A clone is the same token; it costs a reference count. Two tokens are equal when their contexts are.
/// `Display` writes the whole token in readable lines, `Debug` one short line; the `serde` feature makes
/// JSON of it. What only one platform's tokens have is in [`os`](crate::os).
///
/// Reference: [Access Tokens](https://learn.microsoft.com/windows/win32/secauthz/access-tokens),
/// [credentials(7)](https://man7.org/linux/man-pages/man7/credentials.7.html).
///
/// ```
/// # fn main() -> stead::Result<()> {
/// let own = stead::Token::current()?;
/// println!("{own}");
/// # Ok(()) }
/// ```
#[doc(alias = "GetTokenInformation")]
#[doc(alias = "TOKEN_USER")]
#[doc(alias = "HANDLE")]
pub struct Token<K: TokenKind> {
    pub(crate) data: Arc<TokenData>,
    pub(crate) level: ImpersonationLevel,
    pub(crate) kind: PhantomData<fn() -> K>,
}

/// What tokens of both kinds share.
pub(crate) struct TokenData {
    /// The context as the kernel gave it.
    pub(crate) context: sys::token::SecurityContext,
    /// The logon session that it belongs to, kept open as long as the token lives.
    pub(crate) session: Option<Arc<sys::logon::SessionHandle>>,
    /// What is known of how the process that it comes from was confined.
    pub(crate) confinement: ConfinementKnowledge,
    /// The account database's entry for the user, looked up when first needed.
    pub(crate) account: OnceLock<Option<AccountEntry>>,
    /// Who holds the token where this process does not: it is then only described here.
    #[cfg(unix)]
    pub(crate) elsewhere: sys::token::Elsewhere,
    /// The limits of the process that it comes from.
    #[cfg(unix)]
    pub(crate) limits: sys::limit::Limits,
}

impl TokenData {
    pub(crate) fn new(
        context: sys::token::SecurityContext,
        session: Option<Arc<sys::logon::SessionHandle>>,
        confinement: ConfinementKnowledge,
    ) -> Self {
        Self {
            context,
            session,
            confinement,
            account: OnceLock::new(),
            #[cfg(unix)]
            elsewhere: sys::token::Elsewhere::default(),
            #[cfg(unix)]
            limits: sys::limit::Limits::default(),
        }
    }
}

impl<K: TokenKind> Token<K> {
    pub(crate) fn from_context(
        context: sys::token::SecurityContext,
        level: ImpersonationLevel,
        session: Option<Arc<sys::logon::SessionHandle>>,
    ) -> Self {
        Self::from_data(TokenData::new(context, session, ConfinementKnowledge::Verified), level)
    }

    /// The same, for the context of another process.
    pub(crate) fn from_process(
        context: sys::token::SecurityContext,
        level: ImpersonationLevel,
        confinement: ConfinementKnowledge,
    ) -> Self {
        Self::from_data(TokenData::new(context, None, confinement), level)
    }

    pub(crate) fn from_data(data: TokenData, level: ImpersonationLevel) -> Self {
        Self { data: Arc::new(data), level, kind: PhantomData }
    }

    pub(crate) fn data(&self) -> &Arc<TokenData> {
        &self.data
    }

    /// The account database's entry for the token's user; `None` where it has none.
    ///
    /// That of a logon is the one that logged on, for two names may share an id. A failed lookup is not
    /// remembered: the next call asks again.
    pub(crate) fn account(&self) -> Result<Option<&AccountEntry>> {
        if let Some(session) = &self.data.session {
            return Ok(Some(session.account()));
        }
        if let Some(known) = self.data.account.get() {
            return Ok(known.as_ref());
        }
        let found = AccountEntry::of_context(&self.data.context)?;
        Ok(self.data.account.get_or_init(|| found).as_ref())
    }

    /// How far the holder may act for the client.
    #[doc(alias = "TokenImpersonationLevel")]
    #[doc(alias = "GetTokenInformation")]
    pub fn level(&self) -> ImpersonationLevel {
        self.level
    }

    /// What is known of how the process that the token comes from was confined.
    pub fn confinement(&self) -> &ConfinementKnowledge {
        &self.data.confinement
    }

    /// The logon session that the token belongs to; `None` for a client's, whose session is not this
    /// server's.
    #[doc(alias = "AuthenticationId")]
    #[doc(alias = "TokenStatistics")]
    #[doc(alias = "TokenLogonSid")]
    pub fn logon_session_id(&self) -> Option<SessionId> {
        self.data.session.as_ref().map(|session| SessionId(session.id()))
    }

    /// The name of the token's user; `None` where the account database has none for its id.
    ///
    /// On Linux the name is looked up (NSS) when it is first asked for; it is for people to read, and no
    /// decision should rest on it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] when the account database cannot be asked.
    #[doc(alias = "LookupAccountSid")]
    pub fn user_name(&self) -> Result<Option<OsString>> {
        Ok(self.account()?.map(|account| account.name().to_owned()))
    }

    /// The same context as an impersonation token of at most the same level.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LevelTooLow`] when `level` is above the token's own: duplicating never raises it.
    /// [`ErrorKind::InvalidInput`] for [`ImpersonationLevel::Anonymous`]: a token that may not say whose it
    /// is would be none.
    ///
    /// Reference: [DuplicateToken](https://learn.microsoft.com/windows/win32/api/securitybaseapi/nf-securitybaseapi-duplicatetoken).
    ///
    /// ```
    /// # fn main() -> stead::Result<()> {
    /// use stead::{ImpersonationLevel, Token};
    /// let known = Token::current()?.duplicate(ImpersonationLevel::Identification)?;
    /// assert!(known.duplicate(ImpersonationLevel::Impersonation).is_err());
    /// # Ok(()) }
    /// ```
    #[doc(alias = "DuplicateToken")]
    #[doc(alias = "DuplicateTokenEx")]
    pub fn duplicate(&self, level: ImpersonationLevel) -> Result<Token<Impersonation>> {
        const DOING: &str = "duplicating a token";
        if level == ImpersonationLevel::Anonymous {
            let what = "an anonymous token would name nobody".into();
            return Err(Error::new(DOING, ErrorKind::InvalidInput { what }));
        }
        self.require_level(level, DOING)?;
        let data = sys::token::at_level(&self.data, level, DOING)?;
        Ok(Token { data, level, kind: PhantomData })
    }

    /// The same context as a primary token, from which processes are created.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LevelTooLow`] below [`ImpersonationLevel::Impersonation`].
    ///
    /// Reference: [DuplicateTokenEx](https://learn.microsoft.com/windows/win32/api/securitybaseapi/nf-securitybaseapi-duplicatetokenex).
    #[doc(alias = "DuplicateTokenEx")]
    pub fn to_primary(&self) -> Result<Token<Primary>> {
        self.require_level(ImpersonationLevel::Impersonation, "making a primary token")?;
        let data = sys::token::as_primary(&self.data, "making a primary token")?;
        Ok(Token { data, level: self.level, kind: PhantomData })
    }

    /// The token without what `restriction` takes from it; the logon session stays the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when the restriction names what the token does not have, so that a
    /// mistaken one is not mistaken for a restricted token.
    ///
    /// Reference: [CreateRestrictedToken](https://learn.microsoft.com/windows/win32/api/securitybaseapi/nf-securitybaseapi-createrestrictedtoken).
    ///
    /// ```
    /// # fn main() -> stead::Result<()> {
    /// use stead::{Token, token::Restriction};
    /// let least = Token::current()?.restrict(&Restriction::new().without_privileges())?;
    /// println!("{least}");
    /// # Ok(()) }
    /// ```
    #[doc(alias = "CreateRestrictedToken")]
    #[doc(alias = "AdjustTokenGroups")]
    pub fn restrict(&self, restriction: &Restriction) -> Result<Self> {
        let data = TokenData {
            context: restriction.0.apply(&self.data.context)?,
            session: self.data.session.clone(),
            confinement: self.data.confinement.clone(),
            account: self.data.account.clone(),
            #[cfg(unix)]
            elsewhere: self.data.elsewhere.restrict(&restriction.0)?,
            #[cfg(unix)]
            limits: self.data.limits.clone(),
        };
        Ok(Self::from_data(data, self.level))
    }

    /// Fails unless the client granted `needed`.
    pub(crate) fn require_level(&self, needed: ImpersonationLevel, doing: &'static str) -> Result<()> {
        if self.level >= needed {
            return Ok(());
        }
        Err(Error::new(doing, ErrorKind::LevelTooLow { granted: self.level, needed }))
    }
}

impl Token<Primary> {
    /// The server's own token.
    ///
    /// Inside an impersonation it is still the server's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] when `/proc` is not mounted.
    ///
    /// Reference: [OpenProcessToken](https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-openprocesstoken).
    #[doc(alias = "OpenProcessToken")]
    #[doc(alias = "GetCurrentProcessToken")]
    pub fn current() -> Result<Self> {
        let context = sys::impersonate::as_server(sys::token::own_context)?;
        Ok(Self::from_context(context, ImpersonationLevel::Impersonation, None))
    }
}

#[cfg(windows)]
impl Token<Primary> {
    /// The same token in another terminal session: nothing else of its context differs.
    pub(crate) fn with_context(&self, context: sys::token::SecurityContext) -> Self {
        let data = TokenData {
            context,
            session: self.data.session.clone(),
            confinement: self.data.confinement.clone(),
            account: self.data.account.clone(),
        };
        Self::from_data(data, self.level)
    }
}

impl<K: TokenKind> Clone for Token<K> {
    fn clone(&self) -> Self {
        Self { data: Arc::clone(&self.data), level: self.level, kind: PhantomData }
    }
}

impl<K: TokenKind> PartialEq for Token<K> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.data, &other.data) || self.data.context == other.data.context
    }
}

impl<K: TokenKind> Eq for Token<K> {}
