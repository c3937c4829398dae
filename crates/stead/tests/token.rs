//! What a process created from a token is, by the kernel's account: the token, no more and no less.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    unused_qualifications,
    dead_code,
    reason = "`crate::` is not this where the service's tests take it in"
)]

#[path = "common/client.rs"]
mod common;

use std::os::unix::net::{UnixListener, UnixStream};

use common::{Server, may_inspect};
use stead::os::linux::{Capability, CapabilitySet, ClientExt, Gid, RestrictionExt, TokenExt};
use stead::token::{Primary, Restriction};
use stead::{
    Account, Client, Command, Confinement, ImpersonationLevel, Logon, LogonSession, LogonType, Stdio, Token,
};
use testbed::{Bed, ClientBuilder, Probe};

/// What a process created from this token tells about itself.
fn seen(bed: &Bed, token: &Token<Primary>) -> Probe {
    let output = Command::new(bed.bin("probe"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output_as(token)
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Probe::parse(&output.stdout)
}

/// The primary token of a client made in this way.
fn client_token(bed: &Bed, client: ClientBuilder, confinement: Confinement) -> Token<Primary> {
    let server = Server::new(bed, "token");
    let _process = client.connect(&server.path);
    crate::client_of(&server.accept(), &server.listener, confinement).token().unwrap().to_primary().unwrap()
}

/// The client at the other end of a connection. The program says by whose privileges: the library's tests by their own,
/// those of the service by the service's.
fn client_of(stream: &UnixStream, _listener: &UnixListener, confinement: Confinement) -> Client {
    Client::with(confinement).of(stream).unwrap()
}

/// The same, of a logon.
fn open_logon(logon: Logon) -> stead::Result<LogonSession> {
    logon.open()
}

/// This program has what it has.
fn without_privileges_of_its_own(_what: &str) {}

#[test]
fn a_process_of_a_clients_token_equals_the_control() {
    let bed = testbed::require!();
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    for name in ["alice", "bob", "carol"] {
        if bed.find_user(name).is_none() {
            continue;
        }
        let token = client_token(bed, bed.client(name), Confinement::Refuse);
        let (process, control) = (seen(bed, &token), bed.control_setpriv(name));
        assert_eq!(process.uid, control.uid);
        assert_eq!(process.gid, control.gid);
        assert_eq!(process.effective_groups(), control.effective_groups());
        assert_eq!(process.capabilities, control.capabilities);
        assert_eq!(process.securebits, control.securebits);
        assert_eq!(process.no_new_privs, control.no_new_privs);
    }
}

#[test]
fn a_process_of_a_restricted_token_lacks_what_was_taken_and_nothing_else() {
    let bed = testbed::require!();
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let whole = client_token(bed, bed.client("alice"), Confinement::Refuse);
    let taken = bed.user("alice").groups[3];
    let restriction = Restriction::new()
        .without_group(Gid::new(taken).unwrap())
        .without_capability(Capability::NetRaw)
        .no_new_privs();
    let process = seen(bed, &whole.restrict(&restriction).unwrap());
    let before = seen(bed, &whole);
    let left: Vec<u32> = before.effective_groups().into_iter().filter(|gid| *gid != taken).collect();
    assert_eq!(process.effective_groups(), left);
    let net_raw = 1 << 13;
    assert_eq!(process.capabilities.bounding, before.capabilities.bounding & !net_raw);
    assert!(process.no_new_privs && !before.no_new_privs);
    assert_eq!((process.uid, process.gid), (before.uid, before.gid));

    let process = seen(bed, &whole.restrict(&Restriction::new().without_privileges()).unwrap());
    assert_eq!(process.capabilities.bounding, 0);
    assert!(process.no_new_privs);
    assert_eq!(process.effective_groups(), before.effective_groups());
}

/// CVE-2000-0506: with CAP_SETUID missing, `setuid(getuid())` succeeds and leaves the saved uid 0.
#[test]
fn a_setuid_program_is_never_root_with_a_part_of_its_capabilities() {
    let bed = testbed::require!();
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let whole = client_token(bed, bed.client("alice"), Confinement::Refuse);
    let less = whole.restrict(&Restriction::new().without_capability(Capability::Setuid)).unwrap();
    let became = |token: &Token<Primary>| {
        let mut command = Command::new(bed.setuid_program());
        command.args(["confine", "--", "grep", "^Uid:", "/proc/self/status"]);
        String::from_utf8(command.output_as(token).unwrap().stdout).unwrap()
    };
    let alice = bed.user("alice").uid;
    // The control: it is root's where nothing was taken.
    assert_eq!(became(&whole), format!("Uid:\t{alice}\t0\t0\t0\n"));
    assert_eq!(became(&less), format!("Uid:\t{alice}\t{alice}\t{alice}\t{alice}\n"));
}

#[test]
fn a_process_for_a_client_under_no_new_privs_is_under_it_too() {
    let bed = testbed::require!();
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    crate::without_privileges_of_its_own("what to do about a confined client");
    let choice = Confinement::Refuse.carry_no_new_privs();
    let token = client_token(bed, bed.client("alice").no_new_privs(), choice);
    assert!(seen(bed, &token).no_new_privs);
}

#[test]
fn a_process_of_another_processs_token_has_its_capabilities() {
    let bed = testbed::require!();
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    crate::without_privileges_of_its_own("another process's token");
    let server = Server::new(bed, "process");
    let mut holder = match bed.client("alice").holding(&["net_admin"]).try_connect(&server.path) {
        Ok(holder) => holder,
        Err(reason) => testbed::skip!("{reason}"),
    };
    let client = Client::of(server.accept()).unwrap();
    let token = Token::of_process(client.pidfd().unwrap()).unwrap().to_primary().unwrap();
    let (process, control) = (seen(bed, &token), holder.probe());
    assert_ne!(control.capabilities.permitted, 0);
    assert_eq!(process.capabilities, control.capabilities);
    assert_eq!((process.uid, process.gid), (control.uid, control.gid));
    // A client's own token has none of them.
    let token = client.token().unwrap().to_primary().unwrap();
    assert_eq!(seen(bed, &token).capabilities.permitted, 0);
    // And what is not wanted of them can be taken.
    let none = Restriction::new().capabilities_within(CapabilitySet::EMPTY);
    let token = Token::of_process(client.pidfd().unwrap()).unwrap().restrict(&none).unwrap();
    assert_eq!(seen(bed, &token.to_primary().unwrap()).capabilities.bounding, 0);
}

#[test]
fn a_token_of_a_logon_says_which_session_it_belongs_to() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    let logon =
        Logon::password(Account::local("alice"), alice.password.as_str()).kind(LogonType::Interactive);
    let session = crate::open_logon(logon).unwrap_or_else(|error| panic!("{error}"));
    let token = session.token();
    assert_eq!(token.logon_session_id(), Some(session.id()));
    assert_eq!(token.logon_gid(), None);
    assert_eq!(token.user_name().unwrap().unwrap(), "alice");
    assert_eq!(token.level(), ImpersonationLevel::Impersonation);
    let text = token.to_string();
    assert!(text.starts_with("primary token, level impersonation\n"), "{text}");
    assert!(text.contains(&format!("  logon session {}\n", session.id())), "{text}");
    assert!(text.contains(&format!("  user          alice ({})\n", alice.uid)), "{text}");
    // Every copy and every part of it stays in the session.
    let copy = token.duplicate(ImpersonationLevel::Identification).unwrap();
    let restricted = token.restrict(&Restriction::new().without_privileges()).unwrap();
    assert_eq!(copy.logon_session_id(), Some(session.id()));
    assert_eq!(restricted.logon_session_id(), Some(session.id()));
    assert_eq!(Token::current().unwrap().logon_session_id(), None);
}

#[cfg(feature = "serde")]
#[test]
fn a_clients_token_as_json_is_what_the_kernel_tells() {
    let bed = testbed::require!();
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let alice = bed.user("alice");
    let json = serde_json::to_value(client_token(bed, bed.client("alice"), Confinement::Refuse)).unwrap();
    assert_eq!(json["kind"], "primary");
    assert_eq!(json["uid"], alice.uid);
    assert_eq!(json["gid"], alice.gid);
    assert_eq!(json["groups"], serde_json::json!(alice.all_groups()));
    assert_eq!(json["capabilities"]["permitted"], serde_json::json!([]));
    assert_eq!(json["confinement"], "verified");
    assert_eq!(json["logon_session"], serde_json::Value::Null);
}
