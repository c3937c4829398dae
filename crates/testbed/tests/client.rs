//! Clients are confined as the tests that use them believe.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::os::unix::net::{UnixListener, UnixStream};
use testbed::{Bed, ClientBuilder, Probe, RunningClient};

fn connected(
    bed: &'static Bed,
    confine: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<(RunningClient, UnixStream), String> {
    use std::os::unix::fs::PermissionsExt;
    let path = bed.scratch("socket").join("server");
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let client = confine(bed.client("alice")).try_connect(&path)?;
    Ok((client, listener.accept().unwrap().0))
}

#[test]
fn a_client_is_its_user_and_is_not_confined_unless_asked() {
    let bed = testbed::require!();
    let (mut client, _socket) = connected(bed, |client| client).unwrap();
    let seen = client.probe();
    let control = bed.control_setpriv("alice");
    assert_eq!(seen.uid, control.uid);
    assert_eq!(seen.groups, control.groups);
    assert_eq!(seen.capabilities, control.capabilities);
    assert_eq!(seen.namespaces, control.namespaces);
    assert!(!seen.no_new_privs);
    assert_eq!(Probe::of(client.pid()).unwrap().uid, seen.uid);
    assert!(client.finish().success());
}

#[test]
fn a_client_can_be_confined_in_one_way_at_a_time() {
    let bed = testbed::require!();
    let control = bed.control_setpriv("alice");

    let (mut client, _socket) = connected(bed, ClientBuilder::no_new_privs).unwrap();
    let seen = client.probe();
    assert!(seen.no_new_privs);
    assert_eq!(seen.seccomp, control.seccomp);

    let (mut client, _socket) = connected(bed, ClientBuilder::smaller_bounding_set).unwrap();
    let seen = client.probe().capabilities;
    assert_eq!(seen.bounding, control.capabilities.bounding & !(1 << 13));
    assert_eq!(seen.permitted, 0);

    let (client, _socket) = connected(bed, ClientBuilder::no_new_privs_on_a_thread).unwrap();
    assert!(!Probe::of(client.pid()).unwrap().no_new_privs);
    let threads = std::fs::read_dir(format!("/proc/{}/task", client.pid())).unwrap();
    let confined = threads
        .map(|thread| std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap())
        .filter(|status| status.contains("NoNewPrivs:\t1"))
        .count();
    assert_eq!(confined, 1);
}

#[test]
fn a_client_can_have_a_seccomp_filter_without_no_new_privs() {
    let bed = testbed::require!();
    let (mut client, _socket) = match connected(bed, ClientBuilder::seccomp) {
        Ok(connected) => connected,
        Err(why) => testbed::skip!("a filter cannot be set here: {why}"),
    };
    let seen = client.probe();
    assert!(!seen.no_new_privs && seen.seccomp == 2);
    assert_eq!(seen.capabilities.permitted, 0);
}

#[test]
fn a_client_can_be_in_one_namespace_of_its_own() {
    let bed = testbed::require!();
    let control = bed.control_setpriv("alice");
    for kind in ["mnt", "net", "ipc", "uts", "cgroup", "pid", "time"] {
        let (mut client, _socket) = match connected(bed, |client| client.namespace(kind)) {
            Ok(connected) => connected,
            Err(why) => testbed::skip!("namespace {kind} cannot be made here: {why}"),
        };
        // Who is in a PID namespace of its own finds itself in /proc under another number.
        let seen = Probe::of(client.pid()).unwrap();
        for (name, link) in &control.namespaces {
            let same = seen.namespaces[name] == *link;
            assert_eq!(same, name.strip_suffix("_for_children").unwrap_or(name) != kind, "{kind}: {name}");
        }
        assert_eq!(client.tell("send x"), "ok");
    }
}

#[test]
fn a_client_can_be_in_a_user_namespace_or_have_another_root() {
    let bed = testbed::require!();
    let control = bed.control_setpriv("alice");
    match connected(bed, ClientBuilder::user_namespace) {
        Ok((client, _socket)) => {
            let seen = Probe::of(client.pid()).unwrap();
            assert_ne!(seen.namespaces["user"], control.namespaces["user"]);
            assert_eq!(seen.uid, control.uid);
        }
        Err(why) => testbed::skip!("no user namespaces for users here: {why}"),
    }
    match connected(bed, |client| client.chroot("/run")) {
        Ok((client, _socket)) => assert_eq!(Probe::of(client.pid()).unwrap().root, "/run"),
        Err(why) => testbed::skip!("no chroot here: {why}"),
    }
}

#[test]
fn a_client_can_become_another_program_after_connecting() {
    let bed = testbed::require!();
    let (client, _socket) = connected(bed, |client| client.exec_after(bed.setuid_program())).unwrap();
    // `connected` is said before the exec.
    let became = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        Probe::of(client.pid())
            .is_ok_and(|seen| seen.uid.effective == 0 && seen.uid.real == bed.user("alice").uid)
    });
    assert!(became);
}

#[test]
fn a_client_can_be_gone_right_after_connecting() {
    let bed = testbed::require!();
    for (client, socket) in [
        connected(bed, ClientBuilder::exit_after).unwrap(),
        connected(bed, ClientBuilder::leave_to_child).unwrap(),
    ] {
        assert!(client.finish().success());
        drop(socket);
    }
}

#[test]
fn a_container_is_imitated_down_to_its_capabilities_and_denied_calls() {
    let bed = testbed::require!();
    if bed.mode() == testbed::Mode::Container {
        testbed::skip!("this is a container already");
    }
    let output = bed.docker_like(bed.bin("probe")).output().unwrap();
    let seen = Probe::parse(&output.stdout);
    let docker = testbed::confine::DOCKER_CAPABILITIES.bits();
    // Root of a bed may itself hold less than Docker gives.
    let own = Probe::of_self().unwrap().capabilities.bounding;
    assert_eq!(seen.capabilities.bounding, docker & own);
    assert_eq!(seen.capabilities.effective, docker & own);
    assert_eq!(seen.seccomp, 2);
    assert!(!seen.no_new_privs);
    assert_eq!(seen.keyring, None);
    let denied = bed.docker_like("unshare").args(["--mount", "true"]).status().unwrap();
    assert!(!denied.success());
    let passwd = bed.container("cat").arg("/etc/passwd").output().unwrap();
    let passwd = String::from_utf8(passwd.stdout).unwrap();
    assert!(passwd.contains("root:") && !passwd.contains("alice"));
}
