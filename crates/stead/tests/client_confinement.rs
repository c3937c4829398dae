//! A client that is confined more than the server is refused, and the error names what confines it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    unused_qualifications,
    dead_code,
    reason = "`crate::` is not this where the service's tests take it in"
)]

#[path = "common/client.rs"]
mod common;

use common::*;
use stead::error::ConfinedPart;
use stead::os::linux::TokenExt;
use stead::token::ConfinementKnowledge;
use stead::{Client, Confinement, ErrorKind};
use testbed::Bed;
use testbed::ClientBuilder;

/// The client that `confine` makes is refused for `part`, also by a server that accepts what it cannot know.
fn check(
    bed: &Bed,
    part: ConfinedPart,
    confine: impl Fn(ClientBuilder, &Server) -> ClientBuilder,
) -> Result<(), String> {
    let server = Server::new(bed, "confined");
    let builder = confine(bed.client("alice"), &server);
    let _process = builder.try_connect(&server.path)?;
    let socket = server.accept();
    for choice in [Confinement::Refuse, Confinement::Unknown] {
        // In a PID namespace of its own it still has a number here.
        let client = crate::take_client(&socket, &server.listener, choice);
        let client = client.map_err(|error| error.to_string())?;
        let error = client.token().expect_err("a confined client must be refused");
        assert_eq!(error.kind(), &ErrorKind::ClientConfined { part }, "{error}");
        assert!(error.to_string().contains(&part.to_string()), "{error}");
    }
    Ok(())
}

macro_rules! refused {
    ($($name:ident: $part:ident, $confine:expr;)*) => {$(
        #[test]
        fn $name() {
            let bed = testbed::require!();
            if !may_inspect() {
                testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
            }
            if let Err(reason) = check(bed, ConfinedPart::$part, $confine) {
                testbed::skip!("{reason}");
            }
        }
    )*};
}

refused! {
    a_client_under_no_new_privs_is_refused: NoNewPrivileges, |client, _| client.no_new_privs();
    no_new_privs_on_one_thread_is_enough: NoNewPrivileges, |client, _| client.no_new_privs_on_a_thread();
    a_client_with_a_seccomp_filter_is_refused: Seccomp, |client, _| client.seccomp();
    a_seccomp_filter_on_one_thread_is_enough: Seccomp, |client, _| client.seccomp_on_a_thread();
    a_client_in_a_user_namespace_is_refused: UserNamespace, |client, _| client.user_namespace();
    a_client_in_a_mount_namespace_is_refused: MountNamespace, |client, _| client.namespace("mnt");
    a_client_in_a_pid_namespace_is_refused: PidNamespace, |client, _| client.namespace("pid");
    a_client_in_a_network_namespace_is_refused: NetworkNamespace, |client, _| client.namespace("net");
    a_client_in_an_ipc_namespace_is_refused: IpcNamespace, |client, _| client.namespace("ipc");
    a_client_in_a_uts_namespace_is_refused: UtsNamespace, |client, _| client.namespace("uts");
    a_client_in_a_cgroup_namespace_is_refused: CgroupNamespace, |client, _| client.namespace("cgroup");
    a_client_in_a_time_namespace_is_refused: TimeNamespace, |client, _| client.namespace("time");
    a_client_below_another_root_directory_is_refused: RootDirectory,
        |client, server| client.chroot(&server.directory);
    a_client_with_a_smaller_bounding_set_is_refused: BoundingSet, |client, _| client.smaller_bounding_set();
}

#[test]
fn a_client_that_confines_itself_after_connecting_is_refused_from_then_on() {
    let bed = testbed::require!();
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let server = Server::new(bed, "later");
    let mut process = bed.client("alice").connect(&server.path);
    let client = crate::take_client(&server.accept(), &server.listener, Confinement::Refuse).unwrap();
    client.token().unwrap();
    process.confine(&["--no-new-privs-thread"]);
    let part = ConfinedPart::NoNewPrivileges;
    assert_eq!(refused(&client), ErrorKind::ClientConfined { part });
}

#[test]
fn no_new_privs_is_carried_over_where_the_server_chose_so() {
    let bed = testbed::require!();
    crate::without_privileges_of_its_own("what to do about a confined client");
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let choice = Confinement::Refuse.carry_no_new_privs();
    let server = Server::new(bed, "carried");
    for confined in [bed.client("alice").no_new_privs(), bed.client("alice").no_new_privs_on_a_thread()] {
        let _process = confined.connect(&server.path);
        let token = Client::with(choice).of(server.accept()).unwrap().token().unwrap();
        assert!(token.no_new_privs());
        assert!(token.to_string().contains("  no_new_privs  yes\n"));
    }
    // What it does not cover is still refused.
    let _process = bed.client("alice").no_new_privs().seccomp().try_connect(&server.path);
    let client = Client::with(choice).of(server.accept()).unwrap();
    assert_eq!(refused(&client), ErrorKind::ClientConfined { part: ConfinedPart::Seccomp });
    // Nor does an unconfined client get it.
    let _process = bed.client("bob").connect(&server.path);
    assert!(!Client::with(choice).of(server.accept()).unwrap().token().unwrap().no_new_privs());
}

/// What a server that may not look at other users' processes says.
fn serve_without_ptrace(bed: &Bed) {
    assert!(!may_inspect());
    testbed::confine::need_pinned_clients();
    let server = Server::new(bed, "blind");
    let _process = bed.client("alice").connect(&server.path);
    let socket = server.accept();
    let client = Client::of(&socket).unwrap();
    let part = ConfinedPart::UserNamespace;
    assert_eq!(refused(&client), ErrorKind::ConfinementUnknown { part });
    let token = Client::with(Confinement::Unknown).of(&socket).unwrap().token().unwrap();
    assert_eq!(token.uid().as_raw(), bed.user("alice").uid);
    let ConfinementKnowledge::Partial(parts) = token.confinement() else {
        panic!("{:?}", token.confinement());
    };
    assert!(parts.contains(&ConfinedPart::RootDirectory) && parts.contains(&part), "{parts:?}");
    assert!(!parts.contains(&ConfinedPart::Seccomp), "{parts:?}");
    assert!(token.to_string().contains("confinement partly unknown"));
    // What can be read still counts.
    let _process = bed.client("alice").no_new_privs().connect(&server.path);
    let client = Client::with(Confinement::Unknown).of(server.accept()).unwrap();
    assert_eq!(refused(&client), ErrorKind::ClientConfined { part: ConfinedPart::NoNewPrivileges });
    println!("served");
}

#[test]
fn without_the_right_to_look_the_client_is_refused_unless_the_server_accepts_that() {
    let bed = testbed::require!();
    crate::without_privileges_of_its_own("looking at its clients itself");
    if role().is_some() {
        return serve_without_ptrace(bed);
    }
    let mut command = std::process::Command::new("setpriv");
    command.args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", "--"]).arg(bed.this_program());
    let test = "without_the_right_to_look_the_client_is_refused_unless_the_server_accepts_that";
    assert!(played(&play(command, test, "server")).contains("served"));
}

#[test]
fn in_a_container_its_client_is_confined_no_more_than_the_server() {
    let bed = testbed::require!();
    crate::without_privileges_of_its_own("looking at its clients itself");
    if role().is_some() {
        // Both have the container's seccomp filter and bounding set.
        return serve_without_ptrace(bed);
    }
    let command = bed.docker_like(bed.this_program());
    let test = "in_a_container_its_client_is_confined_no_more_than_the_server";
    assert!(played(&play(command, test, "server")).contains("served"));
}
