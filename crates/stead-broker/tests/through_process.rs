//! The library's own tests of processes, with tokens and sessions that come from the service: what a program does with
//! them is the same code, to the letter.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::duplicate_mod, reason = "each file of tests has its support with it")]

mod through_support;

#[path = "../../stead/tests/process.rs"]
mod process;
#[path = "../../stead/tests/process_async.rs"]
mod process_async;
#[path = "../../stead/tests/process_bad_input.rs"]
mod process_bad_input;
#[path = "../../stead/tests/process_pty.rs"]
mod process_pty;
#[path = "../../stead/tests/process_session.rs"]
mod process_session;
#[path = "../../stead/tests/process_tree.rs"]
mod process_tree;
#[path = "../../stead/tests/process_tricks.rs"]
mod process_tricks;
#[path = "../../stead/tests/token.rs"]
#[allow(unexpected_cfgs, reason = "as the library's own program has it")]
mod token;

use std::os::unix::net::{UnixListener, UnixStream};

use stead::{Client, Confinement, Logon, LogonSession, Primary, Token};
use through_support::{Connected, connect_and_stay, listener, the_service, without_privileges_of_its_own};

/// The token of a client that `setpriv` made, and that connected to this program: by way of the service.
fn minted(setpriv: &[&str]) -> Token<Primary> {
    let bed = testbed::Bed::current().unwrap();
    let (listener, path) = listener(&bed.scratch("server"));
    let prefix = [&["setpriv"], setpriv, &["--inh-caps=-all", "--"]].concat();
    let client = Connected::by(&prefix, bed, &listener, &path);
    let client_of = the_service(bed).connect().client_of(&client.stream, &listener);
    let token = client_of.and_then(|client| client.token()?.to_primary());
    token.unwrap_or_else(|error| panic!("{error}"))
}

/// What to do about a confined client is for the service's policy to say.
fn client_of(stream: &UnixStream, listener: &UnixListener, _confinement: Confinement) -> Client {
    let service = the_service(testbed::Bed::current().unwrap()).connect();
    service.client_of(stream, listener).unwrap_or_else(|error| panic!("{error}"))
}

fn open_logon(logon: Logon) -> stead::Result<LogonSession> {
    logon.open_through(&the_service(testbed::Bed::current().unwrap()).connect())
}

/// What the service has itself, as more descriptors than is usual, is not its clients'.
#[test]
fn a_clients_process_has_the_clients_limits_through_the_service_too() {
    let bed = testbed::require!();
    let (listener, path) = listener(&bed.scratch("server"));
    let uid = format!("--reuid={}", bed.user("alice").uid);
    let prefix =
        ["prlimit", "--nofile=60:70", "--", "setpriv", &uid, "--clear-groups", "--inh-caps=-all", "--"];
    let client = Connected::by(&prefix, bed, &listener, &path);
    let client_of = the_service(bed).connect().client_of(&client.stream, &listener);
    let token = client_of.and_then(|client| client.token()?.to_primary()).unwrap();
    let mut shell = stead::Command::new("/bin/sh");
    shell.args(["-c", "ulimit -Sn; ulimit -Hn"]).current_dir("/");
    let output = shell.output_as(&token).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "60\n70\n");
}

#[test]
fn role_that_connects() {
    connect_and_stay();
}
