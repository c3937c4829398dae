//! What only Linux tokens have.

use crate::sys::token::{
    Capability, CapabilitySet, CapabilitySets, Gid, GroupSet, Label, LoginUid, SecureBits, SecurityContext,
    Uid,
};
use crate::token::{Restriction, Token, TokenKind};

/// The parts of a token as Linux has them.
///
/// Reference: [credentials(7)](https://man7.org/linux/man-pages/man7/credentials.7.html).
///
/// ```
/// # fn main() -> stead::Result<()> {
/// use stead::os::linux::TokenExt;
/// let own = stead::Token::current()?;
/// println!("uid {} in {} groups", own.uid(), own.groups().as_slice().len());
/// # Ok(()) }
/// ```
pub trait TokenExt {
    /// The whole context.
    #[doc(alias = "GetTokenInformation")]
    fn context(&self) -> &SecurityContext;

    /// The user.
    #[doc(alias = "TokenUser")]
    fn uid(&self) -> Uid {
        self.context().uid
    }

    /// The primary group.
    #[doc(alias = "TokenPrimaryGroup")]
    fn gid(&self) -> Gid {
        self.context().gid
    }

    /// The supplementary groups.
    #[doc(alias = "TokenGroups")]
    fn groups(&self) -> &GroupSet {
        &self.context().groups
    }

    /// The capability sets.
    #[doc(alias = "TokenPrivileges")]
    fn capabilities(&self) -> CapabilitySets {
        self.context().capabilities
    }

    /// The securebits flags.
    fn securebits(&self) -> SecureBits {
        self.context().securebits
    }

    /// Whether execve can give the processes of this token nothing more.
    #[doc(alias = "TokenHasRestrictions")]
    fn no_new_privs(&self) -> bool {
        self.context().no_new_privs
    }

    /// The label of the Linux security module, where one is active.
    #[doc(alias = "TokenIntegrityLevel")]
    fn label(&self) -> Option<&Label> {
        self.context().label.as_ref()
    }

    /// The gid of its own that the token's logon session has, where one was asked for.
    ///
    /// It is one of the [groups](Self::groups), unless a [restriction](Restriction) took it.
    #[doc(alias = "TokenLogonSid")]
    #[doc(alias = "SE_GROUP_LOGON_ID")]
    fn logon_gid(&self) -> Option<Gid>;

    /// The login uid of the audit system.
    #[doc(alias = "TokenOrigin")]
    fn login_uid(&self) -> LoginUid {
        self.context().login_uid
    }
}

impl<K: TokenKind> TokenExt for Token<K> {
    fn context(&self) -> &SecurityContext {
        &self.data().context
    }

    fn logon_gid(&self) -> Option<Gid> {
        let gid = self.data().session.as_ref()?.logon_gid().and_then(Gid::new)?;
        self.groups().contains(gid).then_some(gid)
    }
}

/// What can be taken from a token on Linux.
///
/// ```
/// # fn main() -> stead::Result<()> {
/// use stead::os::linux::{Capability, RestrictionExt};
/// use stead::{Token, token::Restriction};
/// let restriction = Restriction::new().without_capability(Capability::SysAdmin).no_new_privs();
/// let token = Token::current()?.restrict(&restriction)?;
/// # Ok(()) }
/// ```
pub trait RestrictionExt: Sized {
    /// Takes this supplementary group.
    ///
    /// A file or an ACL can deny by group, so a process with fewer groups may be let into more
    /// (CVE-2014-8989): only groups that are named here are ever removed.
    #[doc(alias = "SidsToDisable")]
    #[must_use]
    fn without_group(self, gid: Gid) -> Self;

    /// Takes this capability from every set, the bounding set included, and sets no_new_privs with that.
    ///
    /// Without it a set-user-ID program would get a part of its capabilities, and what it then fails at unseen may leave it
    /// root (CVE-2000-0506).
    #[doc(alias = "PrivilegesToDelete")]
    #[must_use]
    fn without_capability(self, capability: Capability) -> Self;

    /// Takes every capability that is not in `kept`, from every set, as
    /// [`without_capability`](RestrictionExt::without_capability) takes one.
    #[must_use]
    fn capabilities_within(self, kept: CapabilitySet) -> Self;

    /// Sets no_new_privs.
    #[must_use]
    fn no_new_privs(self) -> Self;
}

impl RestrictionExt for Restriction {
    fn without_group(mut self, gid: Gid) -> Self {
        self.0.groups.push(gid);
        self
    }

    fn without_capability(mut self, capability: Capability) -> Self {
        self.0.capabilities = self.0.capabilities.with(capability);
        self
    }

    fn capabilities_within(mut self, kept: CapabilitySet) -> Self {
        self.0.capabilities = CapabilitySet::from_bits(self.0.capabilities.bits() | !kept.bits());
        self
    }

    fn no_new_privs(mut self) -> Self {
        self.0.no_new_privs = true;
        self
    }
}
