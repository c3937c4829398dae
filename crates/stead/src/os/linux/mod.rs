//! What only Linux has: ids, groups, capabilities, labels, and the extension traits that show them.

mod account;
mod client;
mod desktop;
mod impersonate;
mod local;
mod logon;
mod process;
#[cfg(feature = "service")]
mod service;
mod token;

pub use crate::sys::desktop::LogonSid;
pub use crate::sys::token::{
    Capability, CapabilitySet, CapabilitySets, Gid, GroupSet, Label, LoginUid, SecureBits, SecurityContext,
    Uid,
};
pub use account::{User, group_by_name, group_name, subordinate_ids};
pub use client::{ClientExt, ClientIdentity, ConnectOptionsExt};
pub use desktop::DesktopExt;
pub use impersonate::OpenOptionsExt;
pub use logon::{LogonExt, LogonGid, LogonSessionExt, ReadyWorkers, session_worker};
pub use process::{Cgroup, ChildExt, CommandExt, Limit, Signal, occupy_low_descriptors};
#[cfg(feature = "service")]
pub use service::ServiceExt;
pub use token::{RestrictionExt, TokenExt};
