//! A security context as the kernel holds it.
#![forbid(unsafe_code)]

mod capability;
mod display;
mod id;
mod own;
mod restriction;
#[cfg(feature = "serde")]
mod serde;
#[cfg(test)]
mod tests;

pub use capability::{Capability, CapabilitySet, CapabilitySets, SecureBits};
pub use id::{Gid, GroupSet, LoginUid, Uid};
pub(crate) use own::{
    from_status, label, label_as_written, last_capability, login_uid, none_as_written, open_directory,
    own_context, own_label,
};
pub(crate) use restriction::Taken;

use std::sync::Arc;

use crate::error::Result;
use crate::sys::elsewhere::TokenElsewhere;
use crate::token::{ImpersonationLevel, TokenData};

/// What a token of another level or kind shares with it: all of it, for the level is kept beside it.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere the system makes another token, and may refuse")]
pub(crate) fn at_level(
    data: &Arc<TokenData>,
    _level: ImpersonationLevel,
    _doing: &'static str,
) -> Result<Arc<TokenData>> {
    Ok(Arc::clone(data))
}

/// The same for a primary token.
pub(crate) fn as_primary(data: &Arc<TokenData>, _doing: &'static str) -> Result<Arc<TokenData>> {
    let Some(holder) = &data.elsewhere.0 else { return Ok(Arc::clone(data)) };
    Ok(Arc::new(TokenData {
        context: data.context.clone(),
        session: data.session.clone(),
        confinement: data.confinement.clone(),
        account: data.account.clone(),
        elsewhere: Elsewhere(Some(holder.primary()?)),
        limits: data.limits.clone(),
    }))
}

/// Who holds a token that this process does not hold itself.
#[derive(Clone, Default)]
pub(crate) struct Elsewhere(pub(crate) Option<Arc<dyn TokenElsewhere>>);

impl Elsewhere {
    /// Whether another process does what is done with the token, leases of desktops among it.
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn restrict(&self, taken: &Taken) -> Result<Self> {
        self.0.as_ref().map(|holder| holder.restrict(taken)).transpose().map(Self)
    }
}

/// A security label of a Linux security module (SELinux, AppArmor, Smack), without the final NUL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Label(pub(crate) Box<[u8]>);

impl Label {
    /// The label's bytes, as the kernel writes them in `/proc/PID/attr/current`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Everything of a security context that a process created from a token takes on.
///
/// References: [credentials(7)](https://man7.org/linux/man-pages/man7/credentials.7.html),
/// [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityContext {
    /// The user: real, effective and saved uid of the process.
    pub uid: Uid,
    /// The primary group: real, effective and saved gid of the process.
    pub gid: Gid,
    /// The supplementary groups, exactly as the kernel will hold them.
    pub groups: GroupSet,
    /// The five capability sets.
    pub capabilities: CapabilitySets,
    /// The securebits flags.
    pub securebits: SecureBits,
    /// Whether the process and all its descendants are kept from gaining privileges by execve.
    pub no_new_privs: bool,
    /// The label of the Linux security module, where one is active and the label is known.
    pub label: Option<Label>,
    /// The login uid of the audit system, where the kernel keeps one.
    pub login_uid: LoginUid,
}

impl SecurityContext {
    /// The user, for messages.
    pub(crate) fn user(&self) -> String {
        format!("uid {}", self.uid)
    }
}
