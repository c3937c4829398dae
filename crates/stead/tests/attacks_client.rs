//! Clients that are confined, and try to pass for free.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/client.rs"]
mod common;

use std::os::fd::{AsFd, OwnedFd};

use common::{ROLE, Server, may_inspect, played, role};
use stead::error::ConfinedPart;
use stead::{Client, Confinement, ErrorKind};
use testbed::{Bed, ClientBuilder};

/// Has a server that is confined by its own unit (that is what `--no-new-privs --seccomp` makes) say what it
/// makes of a client that is no child of its.
fn hardened_server_says(bed: &Bed, test: &str, client: ClientBuilder) -> String {
    let server = Server::new(bed, "hardened");
    let _process = client.connect(&server.path);
    let mut command = bed.confined(&["--no-new-privs", "--seccomp"], bed.this_program());
    command.args(["--exact", test, "--nocapture"]).env(ROLE, "server").stdin(OwnedFd::from(server.accept()));
    played(&command.output().unwrap())
}

fn play_the_hardened_server() {
    let kind =
        |choice| match Client::with(choice).of(std::io::stdin().as_fd()).and_then(|client| client.token()) {
            Ok(_) => "served".to_owned(),
            Err(error) => match error.kind() {
                ErrorKind::ClientConfined { part } => format!("confined by {part}"),
                other => panic!("{other:?}"),
            },
        };
    println!("says: {} / {}", kind(Confinement::Refuse), kind(Confinement::Unknown));
}

fn check(test: &str, says: &str, client: impl Fn(ClientBuilder) -> ClientBuilder) {
    if role().is_some() {
        return play_the_hardened_server();
    }
    let Some(bed) = Bed::shared() else { testbed::skip!("needs the testbed") };
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let said = hardened_server_says(bed, test, client(bed.client("alice")));
    assert!(said.contains(&format!("says: {says} / {says}")), "{said}");
}

#[test]
fn no_new_privs_of_the_servers_unit_does_not_excuse_the_clients() {
    let test = "no_new_privs_of_the_servers_unit_does_not_excuse_the_clients";
    let part = ConfinedPart::NoNewPrivileges;
    check(test, &format!("confined by {part}"), ClientBuilder::no_new_privs);
}

#[test]
fn a_seccomp_filter_of_the_servers_unit_does_not_excuse_the_clients() {
    let test = "a_seccomp_filter_of_the_servers_unit_does_not_excuse_the_clients";
    check(test, &format!("confined by {}", ConfinedPart::Seccomp), ClientBuilder::seccomp);
}

#[test]
fn a_confined_server_serves_a_client_that_is_free() {
    check("a_confined_server_serves_a_client_that_is_free", "served", |client| client);
}
