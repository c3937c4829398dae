//! Access tokens: immutable snapshots of a security context.

mod level;

pub use level::ImpersonationLevel;

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use crate::sys;

/// A token's kind as a type: only [`Primary`] tokens create processes.
pub trait TokenKind: sealed::Sealed {}

/// The token of a process: what a new process is created from.
#[derive(Debug, Clone, Copy)]
pub enum Primary {}

/// The token of a thread that acts for a client.
#[derive(Debug, Clone, Copy)]
pub enum Impersonation {}

impl TokenKind for Primary {}
impl TokenKind for Impersonation {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Primary {}
    impl Sealed for super::Impersonation {}
}

/// An immutable snapshot of a security context.
///
/// A clone is the same token; it costs a reference count.
pub struct Token<K: TokenKind> {
    data: Arc<TokenData>,
    level: ImpersonationLevel,
    kind: PhantomData<fn() -> K>,
}

/// What tokens of both kinds share.
pub(crate) struct TokenData {
    /// The context as the kernel gave it.
    pub(crate) context: sys::token::SecurityContext,
    /// The logon session that it belongs to, kept open as long as the token lives.
    pub(crate) session: Option<Arc<sys::logon::SessionHandle>>,
    /// The account database's entry for the user, looked up when first needed.
    pub(crate) account: OnceLock<Option<sys::account::AccountEntry>>,
}

impl<K: TokenKind> Token<K> {
    pub(crate) fn from_context(
        context: sys::token::SecurityContext,
        level: ImpersonationLevel,
        session: Option<Arc<sys::logon::SessionHandle>>,
    ) -> Self {
        let data = TokenData { context, session, account: OnceLock::new() };
        Self { data: Arc::new(data), level, kind: PhantomData }
    }

    pub(crate) fn data(&self) -> &Arc<TokenData> {
        &self.data
    }
}

impl<K: TokenKind> Clone for Token<K> {
    fn clone(&self) -> Self {
        Self { data: Arc::clone(&self.data), level: self.level, kind: PhantomData }
    }
}
