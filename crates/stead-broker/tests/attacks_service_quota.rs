//! Attacks on what the service has room for, by who can appear as many users.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::process::Command;

use service_support::{Part, Service, another, be_told, call, own, part, say, shell};
use stead_protocol::client::Connection;
use stead_protocol::{CreateProcess, CreatedProcess, GetStatus, KillTree, Text};
use testbed::{Bed, until};

/// What one caller may have of connections, if the policy says nothing.
const CONNECTIONS: usize = 64;
/// As many users with as many connections fill the service, if each is a caller of its own.
const USERS: usize = 4096 / CONNECTIONS + 2;

/// How many connections a part says that it got.
fn got(part: &mut Part) -> usize {
    part.says().parse().unwrap()
}

/// Takes the connections that it gets, of as many as it is told, and keeps them.
#[test]
fn role_takes_connections() {
    let Some(first) = part() else { return };
    let wanted = std::env::var("WANTED").unwrap().parse().unwrap();
    let mut held = vec![first];
    held.resize_with(wanted, another);
    held.retain_mut(|connection| connection.call(&GetStatus {}, &[]).is_ok());
    say(held.len());
    be_told();
}

/// A command of mallory's as root of a user namespace with its subordinate ids: this shell script.
fn in_a_user_namespace(bed: &Bed, script: &str) -> Command {
    let mut command = bed.as_user("mallory", &[], "unshare");
    command.args(["--user", "--map-root-user", "--map-auto", "--", "/bin/sh", "-c", script, "sh"]);
    command
}

#[test]
fn who_appears_as_its_subordinate_users_gets_what_one_caller_gets_and_keeps_nobody_out() {
    let bed = testbed::require!();
    testbed::time_limit!(300);
    let succeeds = |mut command: Command| command.output().is_ok_and(|output| output.status.success());
    let mut unmapped = bed.as_user("mallory", &[], "unshare");
    unmapped.args(["--user", "--", "true"]);
    // Where there are no namespaces a process of unshare's that would map the ids waits for one, and never ends.
    if !succeeds(unmapped)
        || !succeeds(in_a_user_namespace(bed, "exec setpriv --reuid=70 --regid=70 --clear-groups -- true"))
    {
        testbed::skip!("mallory can make no user namespace with subordinate ids here");
    }
    let service = Service::start(bed, "");
    let script = format!(
        "exec 3<&0; for id in $(seq {USERS}); do \
         setpriv --reuid=$id --regid=$id --clear-groups -- \"$@\" <&3 & done; wait"
    );
    let mut command = in_a_user_namespace(bed, &script);
    command.arg(bed.this_program());
    let wanted = CONNECTIONS.to_string();
    let mut many = service.part_by(command, "role_takes_connections", &[("WANTED", &wanted)]);
    let got: usize = (0..USERS).map(|_| got(&mut many)).sum();
    assert_eq!(got, CONNECTIONS, "of {}", USERS * CONNECTIONS);

    // Users of whom the service has not heard, and root.
    for user in ["alice", "bob"] {
        service.caller_with(bed, user, "role_has_all_of_its_own", &[("WANTED", &wanted)]);
    }
    let mut root = service.connect();
    // Bob's end a moment after bob.
    until("all but theirs and root's own are given back", || {
        call(&mut root, &GetStatus {}, &[]).0.connections == CONNECTIONS as u64 + 1
    });
    many.kill();
    until("what they held is given back", || call(&mut root, &GetStatus {}, &[]).0.connections == 1);
}

#[test]
fn role_has_all_of_its_own() {
    let Some(first) = part() else { return };
    let wanted = std::env::var("WANTED").unwrap().parse().unwrap();
    let mut held = vec![first];
    held.resize_with(wanted, another);
    for connection in &mut held {
        call(connection, &GetStatus {}, &[]);
    }
}

/// A part that is played as a uid that no account has: as a user's setuid file of one of its subordinate uids would.
fn stranger(service: &Service, bed: &Bed, uid: u32, role: &str, wanted: &str) -> Part {
    let mut command = Command::new("setpriv");
    let id = |what: &str| format!("--re{what}={uid}");
    command.args([&id("uid"), &id("gid"), "--clear-groups", "--inh-caps=-all", "--"]).current_dir("/");
    command.arg(bed.this_program());
    service.part_by(command, role, &[("WANTED", wanted)])
}

#[test]
fn uids_that_no_account_has_are_one_caller_to_the_quotas() {
    let bed = testbed::require!();
    let service = Service::start(bed, "[quotas]\nconnections = 4\nprocesses = 3\n");
    let (first, second) = (47_901, 47_902);
    let mut one = stranger(&service, bed, first, "role_takes_connections", "3");
    assert_eq!(got(&mut one), 3);
    let mut other = stranger(&service, bed, second, "role_takes_connections", "3");
    assert_eq!(got(&mut other), 1, "the other three are the first one's");
    drop((one, other));
    let mut root = service.connect();
    until("their connections are given back", || call(&mut root, &GetStatus {}, &[]).0.connections == 1);

    let mut one = stranger(&service, bed, first, "role_takes_processes", "2");
    assert_eq!(got(&mut one), 2);
    let mut other = stranger(&service, bed, second, "role_takes_processes", "2");
    assert_eq!(got(&mut other), 1, "the other two are the first one's");
    one.wait();
    other.wait();
    // An account has its own.
    service.caller_with(bed, "alice", "role_has_three_processes_of_its_own", &[("WANTED", "3")]);
}

/// The processes that a part gets, of as many as it is told.
fn take_processes(service: &mut Connection) -> Vec<CreatedProcess> {
    let wanted: usize = std::env::var("WANTED").unwrap().parse().unwrap();
    let token = own(service).token;
    let process = CreateProcess { directory: Some(Text::from("/")), ..shell(token, "sleep 600") };
    (0..wanted).filter_map(|_| service.call(&process, &[]).ok().map(|(created, _)| created)).collect()
}

fn end(service: &mut Connection, created: &[CreatedProcess]) {
    for created in created {
        call(service, &KillTree { process: created.process.id.clone() }, &[]);
    }
}

#[test]
fn role_takes_processes() {
    let Some(mut service) = part() else { return };
    let created = take_processes(&mut service);
    say(created.len());
    be_told();
    end(&mut service, &created);
}

#[test]
fn role_has_three_processes_of_its_own() {
    let Some(mut service) = part() else { return };
    let created = take_processes(&mut service);
    assert_eq!(created.len(), 3);
    end(&mut service, &created);
}
