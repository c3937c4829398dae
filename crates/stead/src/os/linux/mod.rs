//! What only Linux has: ids, groups, capabilities, labels, and the extension traits that show them.

pub use crate::sys::token::{
    Capability, CapabilitySet, CapabilitySets, Gid, GroupSet, Label, LoginUid, SecureBits, SecurityContext,
    Uid,
};
