//! The other side of [`elsewhere`](super::elsewhere): stead's service, which holds the privileges.
//!
//! A token has a connection of its own, so that what one client makes wait holds up no other; what goes by names
//! that outlive connections (processes, sessions) goes over whichever connection is free.
#![forbid(unsafe_code)]

mod client;
mod connection;
mod error;
mod process;
mod session;
mod token;

pub(crate) use client::client_of;
pub(crate) use connection::Service;
pub(crate) use session::{Known, log_on, open_session, sessions};
pub(crate) use token::own_token;
