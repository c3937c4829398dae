//! What can be taken from a token.

use crate::error::{Error, ErrorKind, Result};
use crate::sys::token::{CapabilitySet, CapabilitySets, Gid, GroupSet, SecurityContext};

/// What [`Token::restrict`](crate::Token::restrict) takes from a token; it can only take.
///
/// What only one platform's tokens have is taken by the methods of
/// [`RestrictionExt`](crate::os::linux::RestrictionExt).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[doc(alias = "CreateRestrictedToken")]
pub struct Restriction {
    pub(crate) groups: Vec<Gid>,
    pub(crate) capabilities: CapabilitySet,
    pub(crate) no_new_privs: bool,
}

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
        self.capabilities = CapabilitySet::from_bits(u64::MAX);
        self.no_new_privs = true;
        self
    }

    pub(crate) fn apply(&self, context: &SecurityContext) -> Result<SecurityContext> {
        for gid in &self.groups {
            if !context.groups.contains(*gid) {
                let what = format!("group {gid} is not among the token's supplementary groups");
                return Err(Error::new("restricting a token", ErrorKind::InvalidInput { what: what.into() }));
            }
        }
        let kept = context.groups.as_slice().iter().copied().filter(|gid| !self.groups.contains(gid));
        let left = |set: CapabilitySet| CapabilitySet::from_bits(set.bits() & !self.capabilities.bits());
        let sets = context.capabilities;
        Ok(SecurityContext {
            groups: kept.collect::<GroupSet>(),
            capabilities: CapabilitySets {
                permitted: left(sets.permitted),
                effective: left(sets.effective),
                inheritable: left(sets.inheritable),
                ambient: left(sets.ambient),
                bounding: left(sets.bounding),
            },
            no_new_privs: context.no_new_privs || self.no_new_privs,
            ..context.clone()
        })
    }
}
