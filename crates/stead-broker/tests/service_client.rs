//! "My client": whose sockets a caller may have turned into tokens, and the ways to be taken for somebody else.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::io::Read;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use service_support::{
    Service, another, call, everything, log_on, output, own, part, refusal, shell, skip_if_unseen,
};
use stead_protocol::client::Connection;
use stead_protocol::{ClientToken, FailureKind, LogOn, LogonType, OpenFile, OpenedToken, Text};
use testbed::{Bed, until};

const POLICY: &str = r#"
[[allow]]
name = "a server for students"
callers = { users = ["svc"] }
clients = { users = ["alice", "bob"] }
privileges = ["impersonate", "assign-primary-token"]
programs = "any"
"#;

/// A folder where the caller can put its socket.
const FOLDER: &str = "STEAD_TEST_FOLDER";

fn folder() -> PathBuf {
    std::env::var_os(FOLDER).unwrap().into()
}

fn in_a_folder(bed: &Bed, user: &str, role: &str) {
    let folder = bed.scratch("sockets");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let service = Service::start(bed, POLICY);
    // Root can be lured, too: it connects to whatever listens there.
    let lured = folder.join("root-connects-here");
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let root = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::Relaxed) {
                if let Ok(mut connected) = UnixStream::connect(&lured) {
                    let _ = connected.read(&mut [0]);
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    });
    service.caller_with(bed, user, role, &[(FOLDER, folder.to_str().unwrap())]);
    stop.store(true, Ordering::Relaxed);
    root.join().unwrap();
}

fn listen(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    listener
}

const CALL: ClientToken = ClientToken { socket: 0, listener: 1, level: None };

fn client_of(service: &mut Connection, socket: &impl AsFd, listener: &impl AsFd) -> OpenedToken {
    call(service, &CALL, &[socket.as_fd(), listener.as_fd()]).0
}

fn refused(service: &mut Connection, socket: &impl AsFd, listener: &impl AsFd) -> FailureKind {
    let kind = refusal(service, &CALL, &[socket.as_fd(), listener.as_fd()]);
    skip_if_unseen(&kind);
    kind
}

#[test]
fn a_server_without_privileges_acts_for_its_clients() {
    let bed = testbed::require!();
    let folder = bed.scratch("sockets");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let service = Service::start(bed, POLICY);
    let path = folder.join("portal");
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            service.caller_with(bed, "svc", "role_serves_alice", &[(FOLDER, folder.to_str().unwrap())]);
        });
        until("the portal listens", || path.exists() || serving.is_finished());
        let mut client = None;
        until("alice connects", || {
            client = bed.client("alice").try_connect(&path).ok();
            client.is_some() || serving.is_finished()
        });
        serving.join().unwrap();
    });
}

#[test]
fn role_serves_alice() {
    let Some(mut service) = part() else { return };
    let bed = Bed::current().unwrap();
    let listener = listen(&folder().join("portal"));
    let (accepted, _) = listener.accept().unwrap();
    let token = client_of(&mut service, &accepted, &listener);
    assert_eq!(token.context.uid, bed.user("alice").uid);
    assert_eq!(token.context.capabilities.permitted, 0);
    let (text, _) = output(&mut service, shell(token.token, "id -u"));
    assert_eq!(text.trim(), bed.user("alice").uid.to_string());
    let path = Text::from(bed.user("alice").home.as_os_str());
    call(&mut service, &OpenFile { token: token.token, path, read: true, ..OpenFile::default() }, &[]);
}

#[test]
fn a_socket_of_the_connecting_end_is_nobodys_client() {
    in_a_folder(testbed::require!(), "svc", "role_passes_connecting_ends");
}

#[test]
fn role_passes_connecting_ends() {
    let Some(mut service) = part() else { return };
    let listener = listen(&folder().join("own"));
    // Its peer is the one that listens: of the service's own socket, root.
    let connecting = another();
    assert!(matches!(refused(&mut service, &connecting, &listener), FailureKind::InvalidInput { .. }));
    // Bound first, it has a name and a path as an accepted one has.
    let bound =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    let name = rustix::net::SocketAddrUnix::new(folder().join("bound")).unwrap();
    rustix::net::bind(&bound, &name).unwrap();
    let to = std::env::var_os("STEAD_TEST_SERVICE_SOCKET").unwrap();
    rustix::net::connect(&bound, &rustix::net::SocketAddrUnix::new(Path::new(&to)).unwrap()).unwrap();
    assert!(matches!(refused(&mut service, &bound, &listener), FailureKind::InvalidInput { .. }));
    // And as its own listener, or the listener as the socket, it is no better.
    assert!(matches!(refused(&mut service, &bound, &bound), FailureKind::InvalidInput { .. }));
    assert!(matches!(refused(&mut service, &listener, &listener), FailureKind::InvalidInput { .. }));
}

#[test]
fn a_pair_a_file_and_an_unnamed_socket_are_nobodys_client() {
    in_a_folder(testbed::require!(), "svc", "role_passes_pairs");
}

#[test]
fn role_passes_pairs() {
    let Some(mut service) = part() else { return };
    let listener = listen(&folder().join("own"));
    let (one, other) = UnixStream::pair().unwrap();
    assert!(matches!(refused(&mut service, &one, &listener), FailureKind::InvalidInput { .. }));
    assert!(matches!(refused(&mut service, &one, &other), FailureKind::InvalidInput { .. }));
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(
        refused(&mut service, &file, &listener),
        FailureKind::InvalidInput { .. } | FailureKind::System { .. }
    ));
    assert!(matches!(refused(&mut service, &one, &file), FailureKind::InvalidInput { .. }));
    // An abstract name can be taken by another once it is free: no proof.
    let name = format!("stead-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let hidden = UnixListener::bind_addr(&address).unwrap();
    let _connecting = UnixStream::connect_addr(&address).unwrap();
    let (accepted, _) = hidden.accept().unwrap();
    assert!(matches!(refused(&mut service, &accepted, &hidden), FailureKind::InvalidInput { .. }));
    // No descriptor at all.
    assert!(matches!(refusal(&mut service, &CALL, &[]), FailureKind::InvalidInput { .. }));
}

#[test]
fn a_client_of_another_listener_is_refused_and_lured_root_gives_nothing() {
    in_a_folder(testbed::require!(), "svc", "role_lures_root");
}

#[test]
fn role_lures_root() {
    let Some(mut service) = part() else { return };
    let first = listen(&folder().join("root-connects-here"));
    let (of_root, _) = first.accept().unwrap();
    let denied = FailureKind::PolicyDenied { privilege: "impersonate".to_owned(), client: String::new() };
    assert_eq!(refused(&mut service, &of_root, &first), denied);
    let second = listen(&folder().join("second"));
    assert!(matches!(refused(&mut service, &of_root, &second), FailureKind::InvalidInput { .. }));
    // One bound at the same path after the first was removed is another.
    std::fs::remove_file(folder().join("root-connects-here")).unwrap();
    let third = listen(&folder().join("root-connects-here"));
    assert!(matches!(refused(&mut service, &of_root, &third), FailureKind::InvalidInput { .. }));
    drop(of_root);
}

#[test]
fn who_is_not_entitled_gets_no_client_but_itself() {
    let bed = testbed::require!();
    in_a_folder(bed, "mallory", "role_without_rights_lures");
}

#[test]
fn role_without_rights_lures() {
    let Some(mut service) = part() else { return };
    let listener = listen(&folder().join("root-connects-here"));
    let (of_root, _) = listener.accept().unwrap();
    let denied = FailureKind::PolicyDenied { privilege: "impersonate".to_owned(), client: String::new() };
    assert_eq!(refused(&mut service, &of_root, &listener), denied);
    drop(of_root);
    // Its own processes are its own.
    let mine = listen(&folder().join("mine"));
    let _connecting = UnixStream::connect(folder().join("mine")).unwrap();
    let (accepted, _) = mine.accept().unwrap();
    let token = client_of(&mut service, &accepted, &mine);
    assert_eq!(token.context.uid, own(&mut service).context.uid);
}

#[test]
fn the_listener_of_another_user_speaks_for_that_user_only() {
    let bed = testbed::require!();
    let folder = bed.scratch("sockets");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let service = Service::start(bed, POLICY);
    // bob listens, alice connects; both sockets then come into the hands of svc, who may act for alice.
    let path = folder.join("of-bob");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let bob = scope.spawn(|| {
            service.caller_with(
                bed,
                "bob",
                "role_gives_its_sockets_away",
                &[(FOLDER, folder.to_str().unwrap())],
            );
        });
        until("bob listens", || path.exists());
        let client = scope.spawn(|| {
            // Whether she is accepted before bob has ended is not hers to see.
            until("alice connects", || {
                bed.client("alice").try_connect(&path).is_ok() || over.load(Ordering::Relaxed)
            });
        });
        service.caller_with(bed, "svc", "role_passes_anothers", &[(FOLDER, folder.to_str().unwrap())]);
        over.store(true, Ordering::Relaxed);
        bob.join().unwrap();
        client.join().unwrap();
    });
}

#[test]
fn role_gives_its_sockets_away() {
    let Some(_service) = part() else { return };
    let hand = listen(&folder().join("hand-over"));
    let listener = listen(&folder().join("of-bob"));
    let (accepted, _) = listener.accept().unwrap();
    let (over, _) = hand.accept().unwrap();
    let both = [accepted.as_fd(), listener.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    control.push(rustix::net::SendAncillaryMessage::ScmRights(&both));
    let flags = rustix::net::SendFlags::empty();
    rustix::net::sendmsg(&over, &[std::io::IoSlice::new(b"x")], &mut control, flags).unwrap();
    let _ = (&over).read(&mut [0]);
}

#[test]
fn role_passes_anothers() {
    let Some(mut service) = part() else { return };
    let mut over = None;
    // It is there before others may connect to it.
    until("bob listens", || {
        over = UnixStream::connect(folder().join("hand-over")).ok();
        over.is_some()
    });
    let over = over.unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = rustix::net::RecvFlags::empty();
    rustix::net::recvmsg(&over, &mut [std::io::IoSliceMut::new(&mut byte)], &mut control, flags).unwrap();
    let mut received = Vec::new();
    for message in control.drain() {
        if let rustix::net::RecvAncillaryMessage::ScmRights(some) = message {
            received.extend(some);
        }
    }
    let [accepted, listener] = &received[..] else { panic!("{received:?}") };
    assert!(matches!(refused(&mut service, accepted, listener), FailureKind::AccessDenied { .. }));
}

#[test]
fn a_confined_caller_gets_nothing_that_the_policy_does_not_name_it_for() {
    let bed = testbed::require!();
    let service = Service::start(bed, POLICY);
    let mut command = bed.as_user("alice", &[], bed.bin("testbed-client"));
    command.args(["confine", "--no-new-privs", "--"]).arg(bed.this_program());
    service.succeed(command, "role_is_confined", &[]);

    let service = Service::start(bed, &everything(&["bob"], &["bob"]));
    let mut command = bed.as_user("bob", &[], bed.bin("testbed-client"));
    command.args(["confine", "--no-new-privs", "--"]).arg(bed.this_program());
    service.succeed(command, "role_logs_itself_on_by_a_rule", &[]);

    // Without a rule it is refused, and that is on record.
    let policy = "[[allow]]\ncallers = { users = [\"bob\"] }\nclients = { users = [\"bob\"] }\n\
                  privileges = [\"tcb\"]\nlogon-types = [\"batch\"]\n";
    let service = Service::start(bed, policy);
    let mut command = bed.as_user("bob", &[], bed.bin("testbed-client"));
    command.args(["confine", "--no-new-privs", "--"]).arg(bed.this_program());
    service.succeed(command, "role_logs_itself_on_and_no_more", &[]);
    let decisions = || service.audit().into_iter().filter(|record| record["event"] == "decision");
    until("both are on record", || decisions().count() == 2);
    let refused = decisions().find(|record| record["privilege"] == "assign-primary-token").unwrap();
    assert_eq!((&refused["outcome"], &refused["rule"]), (&"failed".into(), &"itself".into()), "{refused}");
    assert_eq!(refused["program"], "/bin/sh", "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("no_new_priv"), "{refused}");
}

#[test]
fn role_logs_itself_on_and_no_more() {
    let Some(mut service) = part() else { return };
    testbed::confine::need_pinned_clients();
    let by_a_rule = LogOn { s4u: true, ..log_on("bob", LogonType::Batch) };
    let token = call(&mut service, &by_a_rule, &[]).0.token;
    let confined = FailureKind::ClientConfined { part: "no_new_privileges".to_owned() };
    assert_eq!(refusal(&mut service, &shell(token, "exit 0"), &[]), confined);
}

#[test]
fn role_is_confined() {
    let Some(mut service) = part() else { return };
    testbed::confine::need_pinned_clients();
    let confined = FailureKind::ClientConfined { part: "no_new_privileges".to_owned() };
    assert_eq!(refusal(&mut service, &stead_protocol::OwnToken {}, &[]), confined);
    let (status, _) = call(&mut service, &stead_protocol::GetStatus {}, &[]);
    assert_eq!(status.confined.as_deref(), Some("no_new_privs"));
}

#[test]
fn before_linux_6_5_callers_get_what_a_rule_names_them_for_and_nobody_is_anybodys_client() {
    let bed = testbed::require!();
    let policy = everything(&["root"], &["alice"]) + &everything(&["bob"], &["bob"]);
    let mut service = Service::prepare(bed, &policy, None);
    service.without_peerpidfd = true;
    service.run(bed);
    let mut root = service.connect();
    let by_a_rule = LogOn { s4u: true, ..log_on("alice", LogonType::Batch) };
    let token = call(&mut root, &by_a_rule, &[]).0.token;
    let (text, _) = output(&mut root, shell(token, "id -u"));
    assert_eq!(text.trim(), bed.user("alice").uid.to_string());

    let path = bed.scratch("sockets").join("portal");
    let listener = listen(&path);
    let _client = UnixStream::connect(&path).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert_eq!(refusal(&mut root, &CALL, &[accepted.as_fd(), listener.as_fd()]), too_old());
    service.caller_with(bed, "alice", "role_cannot_be_pinned", &[]);
    service.caller(bed, "bob", "role_logs_itself_on_by_a_rule");
}

/// Without a rule it would rest on what this process could do by itself, which is less, or not known.
#[test]
fn role_logs_itself_on_by_a_rule() {
    let Some(mut service) = part() else { return };
    let by_a_rule = LogOn { s4u: true, ..log_on("bob", LogonType::Batch) };
    let token = call(&mut service, &by_a_rule, &[]).0.token;
    let (text, _) = output(&mut service, shell(token, "id -u"));
    assert_eq!(text.trim(), rustix::process::getuid().as_raw().to_string());
}

fn too_old() -> FailureKind {
    FailureKind::KernelTooOld { needs: "SO_PEERPIDFD (Linux 6.5)".to_owned() }
}

#[test]
fn role_cannot_be_pinned() {
    let Some(mut service) = part() else { return };
    assert_eq!(refusal(&mut service, &stead_protocol::OwnToken {}, &[]), too_old());
    let by_no_rule = LogOn { s4u: true, ..log_on("alice", LogonType::Batch) };
    assert!(matches!(refusal(&mut service, &by_no_rule, &[]), FailureKind::PolicyDenied { .. }));
    let (status, _) = call(&mut service, &stead_protocol::GetStatus {}, &[]);
    assert!(status.confined.unwrap().contains("SO_PEERPIDFD (Linux 6.5)"));
}
