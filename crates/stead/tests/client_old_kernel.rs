//! What is told of a client on kernels that tell less of it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/client.rs"]
mod common;

use common::{Server, may_inspect, play, played, refused, role};
use stead::os::linux::TokenExt;
use stead::token::ConfinementKnowledge;
use stead::{Client, Confinement, ErrorKind};
use testbed::Bed;

/// On a kernel without SO_PEERPIDFD.
fn serve_on_an_old_kernel(bed: &Bed) {
    let server = Server::new(bed, "old");
    let mut process = bed.client("alice").connect(&server.path);
    let socket = server.accept();
    let error = Client::of(&socket).unwrap_err();
    let needs = "SO_PEERPIDFD (Linux 6.5)".into();
    assert_eq!(error.kind(), &ErrorKind::KernelTooOld { needs }, "{error}");
    let client = Client::with(Confinement::Unknown).of(&socket).unwrap();
    let token = client.token().unwrap();
    assert_eq!(token.uid().as_raw(), bed.user("alice").uid);
    assert_eq!(token.confinement(), &ConfinementKnowledge::Unknown);
    assert!(token.to_string().ends_with("confinement unknown (ids and groups as of connect)"));
    assert_eq!(process.tell(&format!("exec {} wait", bed.setuid_program().display())), "ok");
    common::wait_for_status(process.pid(), |status| common::has_uid(status, 1, 0));
    assert!(matches!(refused(&client), ErrorKind::ClientChanged { .. }));
    drop(process);
    assert!(client.token().is_ok(), "by the ids of connect, as long as nothing speaks against them");
    println!("served");
}

#[test]
fn a_kernel_without_so_peerpidfd_is_too_old_unless_the_server_accepts_that() {
    let bed = testbed::require!();
    if role().is_some() {
        testbed::confine::Filter::without_peerpidfd().install_on_this_thread().unwrap();
        return serve_on_an_old_kernel(bed);
    }
    let test = "a_kernel_without_so_peerpidfd_is_too_old_unless_the_server_accepts_that";
    let command = std::process::Command::new(bed.this_program());
    assert!(played(&play(command, test, "server")).contains("served"));
}

/// On a kernel without PIDFD_GET_INFO.
fn serve_without_pidfd_info(bed: &Bed) {
    testbed::confine::need_pinned_clients();
    let server = Server::new(bed, "no-info");
    let mut process = bed.client("alice").connect(&server.path);
    let client = Client::of(server.accept()).unwrap();
    let known = if may_inspect() { client.token().is_ok() } else { true };
    assert!(known);
    assert_eq!(process.tell(&format!("exec {} wait", bed.setuid_program().display())), "ok");
    common::wait_for_status(process.pid(), |status| common::has_uid(status, 1, 0));
    assert!(matches!(refused(&client), ErrorKind::ClientChanged { .. }));
    println!("served");
}

#[test]
fn before_pidfd_get_info_the_status_file_tells_whether_the_client_changed() {
    let bed = testbed::require!();
    if role().is_some() {
        const PIDFD_GET_INFO: u32 = 0xC040_FF0B;
        testbed::confine::Filter::new()
            .deny_where(libc::SYS_ioctl, 1, PIDFD_GET_INFO, libc::ENOTTY)
            .install_on_this_thread()
            .unwrap();
        return serve_without_pidfd_info(bed);
    }
    let test = "before_pidfd_get_info_the_status_file_tells_whether_the_client_changed";
    let command = std::process::Command::new(bed.this_program());
    assert!(played(&play(command, test, "server")).contains("served"));
}
