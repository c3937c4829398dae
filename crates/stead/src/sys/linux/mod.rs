//! The Linux backend: the same module names as the API.

pub(crate) use std::os::fd::OwnedFd as OwnedObject;

pub(crate) mod account;
pub(crate) mod client;
pub(crate) mod desktop;
pub(crate) mod group;
pub(crate) mod impersonate;
pub(crate) mod local;
pub(crate) mod logon;
pub(crate) mod privilege;
pub(crate) mod proc;
pub(crate) mod process;
pub(crate) mod token;
