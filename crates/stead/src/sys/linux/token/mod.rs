//! A security context as the kernel holds it.
#![forbid(unsafe_code)]

mod capability;
mod id;
mod own;

pub use capability::{Capability, CapabilitySet, CapabilitySets, SecureBits};
pub use id::{Gid, GroupSet, LoginUid, Uid};
pub(crate) use own::{from_status, label, login_uid, open_directory, own_context};

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
