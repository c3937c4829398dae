//! Who a client is: what the kernel recorded at connect, and nothing that came later.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    unused_qualifications,
    dead_code,
    reason = "`crate::` is not this where the service's tests take it in"
)]

#[path = "common/client.rs"]
mod common;

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use common::*;
use stead::os::linux::{ClientExt, LoginUid, TokenExt};
use stead::token::ConfinementKnowledge;
use stead::{Client, Confinement, ErrorKind, Token};

fn changed(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::ClientChanged { .. })
}

/// The client of the next connection.
fn accepted(server: &Server) -> Client {
    crate::take_client(&server.accept(), &server.listener, Confinement::Refuse).unwrap()
}

/// What is said of a client that must be refused.
fn unknown(server: &Server, socket: &UnixStream) -> ErrorKind {
    unknown_to(server, socket, Confinement::Refuse)
}

fn unknown_to(server: &Server, socket: &UnixStream, choice: Confinement) -> ErrorKind {
    let taken = crate::take_client(socket, &server.listener, choice);
    taken.expect_err("the client must be refused").kind().clone()
}

#[test]
fn a_client_of_every_user_is_who_the_kernel_says() {
    let bed = testbed::require!();
    for name in ["alice", "bob", "carol"] {
        let Some(user) = bed.find_user(name) else { continue };
        let server = Server::new(bed, "identity");
        let mut process = bed.client(name).connect(&server.path);
        let control = process.probe();
        let client = accepted(&server);
        let identity = client.identity().unwrap();
        assert_eq!((identity.uid.as_raw(), identity.gid.as_raw()), (user.uid, user.gid));
        let groups: Vec<u32> = identity.groups.as_slice().iter().map(|gid| gid.as_raw()).collect();
        let control: BTreeSet<u32> = control.groups.into_iter().collect();
        assert_eq!(groups, control.into_iter().collect::<Vec<_>>());
        assert_eq!(identity.pid, process.pid().cast_unsigned());
        if may_inspect() {
            let token = client.token().unwrap();
            assert_eq!(
                (token.uid(), token.gid(), token.groups()),
                (identity.uid, identity.gid, identity.groups)
            );
        }
    }
}

#[test]
fn a_uid_above_two_to_the_31_is_as_any_other() {
    let bed = testbed::require!();
    let Some(carol) = bed.find_user("carol") else { testbed::skip!("the id map does not reach carol's uid") };
    assert_eq!(carol.uid, 4_000_000_000);
    let server = Server::new(bed, "carol");
    let _process = bed.client("carol").connect(&server.path);
    let client = accepted(&server);
    assert_eq!(client.identity().unwrap().uid.as_raw(), 4_000_000_000);
    if may_inspect() {
        assert_eq!(client.token().unwrap().uid().as_raw(), 4_000_000_000);
    }
}

#[test]
fn the_token_is_the_clients_ids_and_groups_and_nothing_else() {
    let bed = testbed::require!();
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let alice = bed.user("alice");
    let server = Server::new(bed, "token");
    let _process = bed.client("alice").connect(&server.path);
    let token = accepted(&server).token().unwrap();
    let own = Token::current().unwrap();
    assert_eq!((token.uid().as_raw(), token.gid().as_raw()), (alice.uid, alice.gid));
    assert_eq!(token.groups().as_slice().len(), alice.all_groups().len());
    let sets = token.capabilities();
    assert!(sets.permitted.is_empty() && sets.effective.is_empty());
    assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
    assert_eq!(sets.bounding, own.capabilities().bounding);
    assert!(!token.no_new_privs());
    assert_eq!(token.securebits().0, 0);
    assert_eq!(token.confinement(), &ConfinementKnowledge::Verified);
    assert_ne!(token.login_uid(), LoginUid::Set(stead::os::linux::Uid::ROOT));
    assert_eq!(token.user_name().unwrap().unwrap(), "alice");
    let text = token.to_string();
    assert!(text.contains(&format!("  user          alice ({})\n", alice.uid)), "{text}");
    assert!(text.ends_with("confinement   no more than the server"), "{text}");
    token.to_primary().unwrap();
}

#[test]
fn capabilities_that_a_clients_process_holds_are_not_in_its_token() {
    let bed = testbed::require!();
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let server = Server::new(bed, "capabilities");
    let held = ["net_admin", "sys_admin", "setuid"];
    let mut process = match bed.client("alice").holding(&held).try_connect(&server.path) {
        Ok(process) => process,
        Err(reason) => testbed::skip!("{reason}"),
    };
    assert_ne!(process.probe().capabilities.effective, 0);
    let token = accepted(&server).token().unwrap();
    let sets = token.capabilities();
    assert!(sets.permitted.is_empty() && sets.effective.is_empty());
    assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
}

#[test]
fn a_client_that_executes_a_setuid_program_after_connecting_is_refused() {
    let bed = testbed::require!();
    let server = Server::new(bed, "setuid");
    let process = bed.client("alice").exec_after(bed.setuid_program()).connect(&server.path);
    let socket = server.accept();
    wait_for_status(process.pid(), |status| has_uid(status, 1, 0));
    // CVE-2011-1485, CVE-2013-4288: the process is root's by now, the connection was alice's.
    assert!(changed(&unknown(&server, &socket)));
    assert!(changed(&unknown_to(&server, &socket, Confinement::Unknown)));
}

#[test]
fn a_client_that_executes_a_setuid_program_between_check_and_use_is_refused() {
    let bed = testbed::require!();
    let server = Server::new(bed, "between");
    let mut process = bed.client("alice").connect(&server.path);
    // Otherwise one that may not look at all would refuse it for that.
    let choice = if may_inspect() { Confinement::Refuse } else { Confinement::Unknown };
    let client = crate::take_client(&server.accept(), &server.listener, choice).unwrap();
    assert_eq!(process.tell(&format!("exec {} wait", bed.setuid_program().display())), "ok");
    wait_for_status(process.pid(), |status| has_uid(status, 1, 0));
    let kind = refused(&client);
    assert!(changed(&kind), "{kind:?}");
}

#[test]
fn a_client_that_ended_has_no_credentials() {
    let bed = testbed::require!();
    let server = Server::new(bed, "ended");
    let process = bed.client("alice").exit_after().connect(&server.path);
    let socket = server.accept();
    process.finish();
    // CVE-2021-3560: gone in the middle of the check is no "root by default".
    assert!(changed(&unknown(&server, &socket)));
}

#[test]
fn a_client_that_ends_between_check_and_use_is_refused() {
    let bed = testbed::require!();
    let server = Server::new(bed, "ends");
    let process = bed.client("alice").connect(&server.path);
    let client = accepted(&server);
    process.finish();
    assert!(changed(&refused(&client)));
}

#[test]
fn a_client_that_left_its_connection_to_a_child_is_refused() {
    let bed = testbed::require!();
    let server = Server::new(bed, "left");
    let process = bed.client("alice").leave_to_child().connect(&server.path);
    let socket = server.accept();
    process.finish();
    assert!(changed(&unknown(&server, &socket)));
}

#[test]
fn a_reused_process_id_is_not_the_client() {
    let bed = testbed::require!(alone);
    let server = Server::new(bed, "reused");
    let process = bed.client("alice").exit_after().connect(&server.path);
    let socket = server.accept();
    let pid = process.pid();
    process.finish();
    // The next process that is created gets the next number.
    for _ in 0..200 {
        if std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).is_err() {
            testbed::skip!("process ids cannot be chosen here (ns_last_pid)");
        }
        let mut other = Command::new("setpriv")
            .args(["--reuid", &bed.user("alice").uid.to_string(), "--clear-groups", "--"])
            .arg(bed.bin("testbed-client"))
            .arg("wait")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let reused = other.id().cast_signed() == pid;
        if reused {
            assert!(changed(&unknown(&server, &socket)));
            assert!(changed(&unknown_to(&server, &socket, Confinement::Unknown)));
        }
        drop(other.stdin.take());
        other.wait().unwrap();
        if reused {
            return;
        }
    }
    testbed::skip!("the process id could not be had again");
}

/// A client of ids that no account has.
fn connect_as(bed: &testbed::Bed, server: &Server, uid: u32, gid: u32) -> Option<std::process::Child> {
    let mut child = Command::new("setpriv")
        .args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into(), "--".into()])
        .arg(bed.bin("testbed-client"))
        .arg("connect")
        .arg(&server.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    if line.starts_with("connected") {
        return Some(child);
    }
    child.wait().unwrap();
    None
}

#[test]
fn the_overflow_uid_is_no_identity() {
    let bed = testbed::require!();
    let server = Server::new(bed, "overflow");
    let Some(mut process) = connect_as(bed, &server, 65_534, bed.user("alice").gid) else {
        testbed::skip!("no process can have uid 65534 here");
    };
    assert!(matches!(unknown(&server, &server.accept()), ErrorKind::NoIdentity { .. }));
    drop(process.stdin.take());
    process.wait().unwrap();
}

#[test]
fn the_overflow_gid_is_a_group_only_where_every_group_has_an_id() {
    let bed = testbed::require!();
    let server = Server::new(bed, "nogroup");
    let Some(mut process) = connect_as(bed, &server, bed.user("alice").uid, 65_534) else {
        testbed::skip!("no process can have gid 65534 here");
    };
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap();
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    let client = crate::take_client(&server.accept(), &server.listener, Confinement::Refuse);
    assert_eq!(client.is_ok(), whole, "{client:?}");
    if let Ok(client) = &client
        && may_inspect()
    {
        assert_eq!(client.token().unwrap().gid().as_raw(), 65_534);
    }
    drop(process.stdin.take());
    process.wait().unwrap();
}

#[test]
fn the_token_of_a_process_by_pidfd_is_the_processs_own() {
    let bed = testbed::require!();
    crate::without_privileges_of_its_own("another process's token");
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let server = Server::new(bed, "process");
    let mut process = match bed.client("alice").holding(&["net_admin"]).try_connect(&server.path) {
        Ok(process) => process,
        Err(reason) => testbed::skip!("{reason}"),
    };
    let client = accepted(&server);
    let token = Token::of_process(client.pidfd().unwrap()).unwrap();
    let control = process.probe();
    assert_eq!(token.uid().as_raw(), control.uid.real);
    assert_eq!(token.gid().as_raw(), control.gid.real);
    assert_eq!(token.capabilities().permitted.bits(), control.capabilities.permitted);
    assert_eq!(token.capabilities().ambient.bits(), control.capabilities.ambient);
    assert_eq!(token.capabilities().bounding.bits(), control.capabilities.bounding);
    let smaller = bed.client("bob").smaller_bounding_set().connect(&server.path);
    let client = accepted(&server);
    // It is carried, so that nothing is widened.
    let token = Token::of_process(client.pidfd().unwrap()).unwrap();
    assert_ne!(token.capabilities().bounding, Token::current().unwrap().capabilities().bounding);
    drop(smaller);
}

#[test]
fn the_servers_own_token_is_what_a_probe_of_it_shows() {
    let _bed = testbed::require!();
    crate::without_privileges_of_its_own("a token with what this thread holds");
    let probe = testbed::Probe::of_self().unwrap();
    let own = Token::current().unwrap();
    assert_eq!((own.uid().as_raw(), own.gid().as_raw()), (probe.uid.real, probe.gid.real));
    assert_eq!(own.capabilities().effective.bits(), probe.capabilities.effective);
    assert_eq!(own.capabilities().bounding.bits(), probe.capabilities.bounding);
    assert_eq!(own.securebits().0, probe.securebits);
    assert_eq!(own.no_new_privs(), probe.no_new_privs);
}
