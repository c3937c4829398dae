//! What can be taken from a token.
#![forbid(unsafe_code)]

use super::{CapabilitySet, CapabilitySets, Gid, GroupSet, SecurityContext};
use crate::error::{Error, ErrorKind, Result};

/// What a [`Restriction`](crate::token::Restriction) takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Taken {
    pub(crate) groups: Vec<Gid>,
    pub(crate) capabilities: CapabilitySet,
    pub(crate) no_new_privs: bool,
}

impl Taken {
    /// All privileges, and the ways to new ones.
    pub(crate) fn take_privileges(&mut self) {
        self.capabilities = CapabilitySet::from_bits(u64::MAX);
        self.no_new_privs = true;
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
        let bounding = left(sets.bounding);
        // A set-user-ID program that gets some of its capabilities and not others goes on after calls that it never
        // expects to fail: without CAP_SETUID it stays root (CVE-2000-0506).
        let no_new_privs = self.no_new_privs || bounding != sets.bounding;
        Ok(SecurityContext {
            groups: kept.collect::<GroupSet>(),
            capabilities: CapabilitySets {
                permitted: left(sets.permitted),
                effective: left(sets.effective),
                inheritable: left(sets.inheritable),
                ambient: left(sets.ambient),
                bounding,
            },
            no_new_privs: context.no_new_privs || no_new_privs,
            ..context.clone()
        })
    }
}
