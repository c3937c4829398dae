//! The Windows backend: the same module names as the API.

pub(crate) use std::os::windows::io::OwnedHandle as OwnedObject;

pub(crate) mod account;
pub(crate) mod client;
pub(crate) mod dacl;
pub(crate) mod desktop;
pub(crate) mod fault;
pub(crate) mod impersonate;
pub(crate) mod local;
pub(crate) mod logon;
pub(crate) mod privilege;
pub(crate) mod process;
pub(crate) mod sid;
pub(crate) mod thread_token;
pub(crate) mod token;
pub(crate) mod wide;
#[cfg(test)]
pub(crate) mod wine;
