//! Local connections as Unix sockets.
#![forbid(unsafe_code)]

mod listener;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(feature = "tokio")]
pub(crate) mod tokio;

pub(crate) use listener::Listener;
pub(crate) use stream::Stream;

use crate::local::{Address, ConnectOptions};

/// How a client says whose its server must be.
pub(crate) type ServerIdentity = crate::sys::token::Uid;

/// Where names live: only root can put a socket there, so that a name is nobody else's.
pub(crate) const NAMES: &str = "/run/stead/local/";
