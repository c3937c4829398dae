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
//!     let mut stream = listener.accept()?;
//!     std::io::Read::read(&mut stream, &mut [0; 64])?; // on Windows a client is known when something was read
//!     println!("{}", stream.client()?.token()?);
//! }
//! # }
//! ```
//!
//! # How a level is told
//!
//! Not in the stream, which carries the program's bytes and nothing else: any client of Unix sockets may
//! connect (`curl --unix-socket`), and grants impersonation, as a client of a named pipe does by default.
//! One that wants to grant something else connects from an abstract name that says so; see
//! [`Client::level`](crate::Client::level). On Linux a level is advice to an honest server: the kernel tells
//! a server who its peer is whatever that peer chose.
#![forbid(unsafe_code)]

mod address;
mod listener;
mod options;
mod stream;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use address::Address;
pub use listener::Listener;
pub use options::{ConnectOptions, ListenOptions};
pub use stream::Stream;
