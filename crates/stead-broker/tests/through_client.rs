//! The library's own tests of who a client is and how it is confined, with clients that the service is asked for.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::duplicate_mod, reason = "each file of tests has its support with it")]

mod through_support;

#[path = "../../stead/tests/client_confinement.rs"]
mod client_confinement;
#[path = "../../stead/tests/client_identity.rs"]
mod client_identity;

use std::os::unix::net::{UnixListener, UnixStream};

use stead::{Client, Confinement};
use testbed::Bed;
use through_support::{the_service, without_privileges_of_its_own};

/// What to do about a confined client is for the service's policy to say.
fn take_client(
    stream: &UnixStream,
    listener: &UnixListener,
    _confinement: Confinement,
) -> stead::Result<Client> {
    the_service(Bed::current().unwrap()).connect().client_of(stream, listener)
}
