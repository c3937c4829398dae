//! Named connections between processes of one machine, where the client states what it grants.
//!
//! The pair that a named pipe is on Windows and a Unix socket on Linux. A client [connects](Stream::connect)
//! at a [level](crate::ImpersonationLevel) of its choice, and may first make sure whose the server is; the
//! server [accepts](Listener::accept), and learns who the client is by [`Stream::client`].
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use stead::local::{Address, ListenOptions};
//!
//! let listener = ListenOptions::new().open_to_all().bind(&Address::name("report")?)?;
//! loop {
//!     let stream = listener.accept()?;
//!     println!("{}", stream.client()?.token()?);
//! }
//! # }
//! ```
//!
//! # On the wire
//!
//! The client's first eight bytes are `stead`, a zero byte, the version (1), and the level (0 anonymous to 3
//! delegation); nothing is answered, and all that follows is the program's own. A peer that begins otherwise
//! is not taken for one that grants anything. On Linux a level is advice to an honest server: the kernel
//! tells a server who its peer is whatever that peer chose.
#![forbid(unsafe_code)]

mod address;
mod handshake;
mod listener;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use address::Address;
pub use listener::{ListenOptions, Listener};
pub use stream::{ConnectOptions, Stream};
