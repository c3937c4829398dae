//! Local connections as Unix sockets.
#![forbid(unsafe_code)]

mod listener;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use crate::local::Address;
pub use listener::{ListenOptions, Listener};
pub use stream::{ConnectOptions, Stream};

/// Where names live: only root can put a socket there, so that a name is nobody else's.
pub(crate) const NAMES: &str = "/run/stead/local/";
