//! The Linux backend: the same module names as the API.

pub(crate) use std::os::fd::OwnedFd as OwnedObject;

pub(crate) mod account;
pub(crate) mod client;
pub(crate) mod descriptor;
pub(crate) mod desktop;
#[cfg_attr(not(feature = "service"), allow(dead_code, reason = "nothing is elsewhere without it"))]
pub(crate) mod elsewhere;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
pub(crate) mod group;
pub(crate) mod impersonate;
mod library;
pub(crate) mod limit;
pub(crate) mod local;
pub(crate) mod logind;
pub(crate) mod logon;
pub(crate) mod memory;
pub(crate) mod privilege;
pub(crate) mod proc;
pub(crate) mod process;
#[cfg(feature = "service")]
pub(crate) mod service;
pub(crate) mod subordinate;
pub(crate) mod token;
