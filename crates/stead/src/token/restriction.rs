//! What can be taken from a token.

use crate::sys::token::Taken;

/// What [`Token::restrict`](crate::Token::restrict) takes from a token; it can only take.
///
/// What only one platform's tokens have is taken by the methods of
/// `RestrictionExt` in [`os`](crate::os).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[doc(alias = "CreateRestrictedToken")]
pub struct Restriction(pub(crate) Taken);

impl Restriction {
    /// One that takes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes all privileges, and the ways to new ones.
    ///
    /// On Linux: every capability from every set, the bounding set included, and no_new_privs is set, so
    /// that neither a set-user-ID program nor file capabilities give any back.
    #[doc(alias = "DISABLE_MAX_PRIVILEGE")]
    #[must_use]
    pub fn without_privileges(mut self) -> Self {
        self.0.take_privileges();
        self
    }
}
