//! Servers that are not plain root, and a kernel that refuses: exactly the client, or nothing at all.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

mod impersonate_support;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use impersonate_support::*;
use rustix::thread::CapabilitySet;
use stead::{Error, ErrorKind, Impersonation, Privilege, Token};
use testbed::confine::Filter;

const EPERM: i32 = 1;
const EAGAIN: i32 = 11;

/// Numbers of system calls; argument 1 is the effective id of the two set\*id calls.
#[cfg(target_arch = "x86_64")]
mod call {
    pub const SETRESUID: i64 = 117;
    pub const SETRESGID: i64 = 119;
    pub const SETGROUPS: i64 = 116;
    pub const GETGROUPS: i64 = 115;
    pub const GETRESUID: i64 = 118;
    pub const CAPSET: i64 = 126;
}
#[cfg(target_arch = "aarch64")]
mod call {
    pub const SETRESUID: i64 = 147;
    pub const SETRESGID: i64 = 149;
    pub const SETGROUPS: i64 = 159;
    pub const GETGROUPS: i64 = 158;
    pub const GETRESUID: i64 = 148;
    pub const CAPSET: i64 = 91;
}

/// Impersonates on a thread with this filter; the thread must be the server again when it fails.
fn refused_under(filter: &Filter, token: &Token<Impersonation>) -> Error {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let before = seen();
            filter.install_on_this_thread().unwrap();
            let ran = AtomicBool::new(false);
            let refused = token.impersonate(|_| ran.store(true, Ordering::Relaxed)).unwrap_err();
            assert!(!ran.load(Ordering::Relaxed), "the closure ran");
            assert_eq!(seen(), before);
            refused
        });
        thread.join().unwrap()
    })
}

#[test]
fn where_a_call_of_the_switch_fails_the_closure_never_runs() {
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    let before = seen();
    let (uid, gid) = (bed.user("alice").uid, bed.user("alice").gid);
    let filters = [
        ("setgroups", Filter::new().deny(call::SETGROUPS, EPERM)),
        ("setresgid", Filter::new().deny(call::SETRESGID, EPERM)),
        ("setresgid", Filter::new().deny_where(call::SETRESGID, 1, gid, EPERM)),
        ("setresuid", Filter::new().deny(call::SETRESUID, EAGAIN)),
        ("setresuid", Filter::new().deny_where(call::SETRESUID, 1, uid, EAGAIN)),
    ];
    for (name, filter) in filters {
        let refused = refused_under(&filter, &alice);
        assert_eq!(refused.kind(), &ErrorKind::System { call: name }, "{refused}");
        assert_eq!(seen(), before);
    }
    // The process goes on as if nothing had been.
    assert_eq!(alice.impersonate(|_| seen()).unwrap(), before.acting_for(bed.user("alice")));
}

#[test]
fn where_a_call_lies_about_its_success_reading_back_finds_it() {
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    let (uid, gid) = (bed.user("alice").uid, bed.user("alice").gid);
    // Errno 0: the call answers success and does nothing.
    let filters = [
        ("groups", Filter::new().deny(call::SETGROUPS, 0)),
        ("gid", Filter::new().deny_where(call::SETRESGID, 1, gid, 0)),
        ("uid", Filter::new().deny_where(call::SETRESUID, 1, uid, 0)),
    ];
    for (name, filter) in filters {
        let refused = refused_under(&filter, &alice);
        assert_eq!(refused.kind(), &ErrorKind::ImpersonationChanged { what: name.into() }, "{refused}");
    }
}

#[test]
fn where_nothing_can_be_read_nothing_is_changed() {
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    for (name, number) in [("getgroups", call::GETGROUPS), ("getresuid", call::GETRESUID)] {
        let refused = refused_under(&Filter::new().deny(number, EPERM), &alice);
        assert_eq!(refused.kind(), &ErrorKind::System { call: name }, "{refused}");
    }
}

/// In a server of its own: after `filter` the way back is barred, and the process must end by SIGABRT.
fn aborts_where_the_way_back_is_barred(test: &str, filter: &Filter) {
    let bed = testbed::require!();
    if !is_another_server() {
        let output = as_another_server(Command::new(bed.this_program()), test);
        skip_with(&output);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(6), "{}: {errors}", output.status);
        assert!(errors.contains("stead: cannot put back the server's own identity"), "{errors}");
        assert!(!errors.contains("went on"), "{errors}");
        return;
    }
    let alice = token(bed, "alice");
    // The filter comes before: one installed in the closure would need the capabilities that are off.
    filter.install_on_this_thread().unwrap();
    alice.impersonate(|_| ()).unwrap();
    eprintln!("went on as {:?}", seen());
}

#[test]
fn a_server_that_cannot_have_its_uid_back_aborts() {
    let filter = Filter::new().deny_where(call::SETRESUID, 1, 0, EPERM);
    aborts_where_the_way_back_is_barred("a_server_that_cannot_have_its_uid_back_aborts", &filter);
}

#[test]
fn a_server_that_cannot_have_its_gid_back_aborts() {
    let filter = Filter::new().deny_where(call::SETRESGID, 1, 0, EPERM);
    aborts_where_the_way_back_is_barred("a_server_that_cannot_have_its_gid_back_aborts", &filter);
}

#[test]
fn a_server_whose_way_back_only_seems_to_work_aborts() {
    let filter = Filter::new().deny_where(call::SETRESUID, 1, 0, 0);
    aborts_where_the_way_back_is_barred("a_server_whose_way_back_only_seems_to_work_aborts", &filter);
}

#[test]
fn a_server_that_cannot_have_its_groups_back_aborts() {
    // By number: alice has more groups than the server.
    let count = u32::try_from(seen().groups.len()).unwrap();
    let filter = Filter::new().deny_where(call::SETGROUPS, 0, count, EPERM);
    aborts_where_the_way_back_is_barred("a_server_that_cannot_have_its_groups_back_aborts", &filter);
}

#[test]
fn a_panic_does_not_save_a_server_that_cannot_have_its_identity_back() {
    const TEST: &str = "a_panic_does_not_save_a_server_that_cannot_have_its_identity_back";
    let bed = testbed::require!();
    if !is_another_server() {
        let output = as_another_server(Command::new(bed.this_program()), TEST);
        skip_with(&output);
        assert_eq!(output.status.signal(), Some(6), "{}", output.status);
        return;
    }
    let alice = token(bed, "alice");
    Filter::new().deny_where(call::SETRESUID, 1, 0, EPERM).install_on_this_thread().unwrap();
    let _ = alice.impersonate(|_| panic!("in the closure"));
}

/// A server of svc, not root, with these capabilities permitted, effective and ambient.
fn capability_server(test: &str, capabilities: &[&str], body: fn(&testbed::Bed)) {
    let bed = testbed::require!();
    if is_another_server() {
        body(bed);
    } else {
        let command = bed.as_user("svc", capabilities, bed.this_program());
        passes_in_another_server(command, test);
    }
}

/// A token of alice's, for a server that may start her processes.
fn tokens_of(bed: &testbed::Bed, name: &str) -> Token<Impersonation> {
    let user = bed.user(name);
    let groups: Vec<String> = user.all_groups().iter().map(u32::to_string).collect();
    token_of(&[
        &format!("--reuid={}", user.uid),
        &format!("--regid={}", user.gid),
        &format!("--groups={}", groups.join(",")),
        "--ambient-caps=-all",
    ])
}

const SERVER: &[&str] =
    &["setuid", "setgid", "setpcap", "kill", "sys_ptrace", "dac_override", "dac_read_search", "sys_admin"];

#[test]
fn a_server_with_capabilities_and_no_root_has_none_in_effect_while_it_impersonates() {
    capability_server(
        "a_server_with_capabilities_and_no_root_has_none_in_effect_while_it_impersonates",
        SERVER,
        |bed| {
            let before = seen();
            assert_eq!(before.uid, [bed.user("svc").uid; 4]);
            assert!(before.effective & CapabilitySet::DAC_OVERRIDE.bits() != 0);
            let secret = bed.scratch("secret").join("secret");
            std::fs::write(&secret, "").unwrap();
            mode(&secret, 0);
            tokens_of(bed, "alice")
                .impersonate(|me| {
                    assert_eq!(seen(), before.acting_for(bed.user("alice")));
                    assert!(me.open("/etc/shadow").is_err());
                    assert!(me.open(&secret).is_err());
                    assert!(std::fs::read(&secret).is_err());
                })
                .unwrap();
            assert_eq!(seen(), before);
            assert!(std::fs::read(&secret).is_ok(), "the server's capabilities are back");
        },
    );
}

#[test]
fn a_server_that_is_not_root_impersonates_root_and_comes_back() {
    // The kernel would take all capabilities of a process whose ids leave 0.
    capability_server("a_server_that_is_not_root_impersonates_root_and_comes_back", SERVER, |_| {
        let before = seen();
        let root = token_of(&["--reuid=0", "--regid=0", "--clear-groups", "--ambient-caps=-all"]);
        for _ in 0..3 {
            root.impersonate(|_| {
                let within = seen();
                assert_eq!(within.uid, [before.uid[0], 0, before.uid[2], 0]);
                assert_eq!((within.effective, within.permitted), (0, before.permitted));
            })
            .unwrap();
            assert_eq!(seen(), before);
        }
    });
}

#[test]
fn a_server_without_the_capabilities_is_told_which_are_missing() {
    capability_server(
        "a_server_without_the_capabilities_is_told_which_are_missing",
        &["setuid", "sys_ptrace"],
        |_| {
            let before = seen();
            let own = Token::current().unwrap();
            let refused = own.impersonate(|_| panic!("it ran")).map(|(): ()| ()).unwrap_err();
            let ErrorKind::PrivilegeMissing { privilege, missing, held, enabled } = refused.kind() else {
                panic!("{refused}");
            };
            assert_eq!(
                (privilege, &**missing, held, enabled),
                (&Privilege::Impersonate, "CAP_SETGID", &false, &false)
            );
            assert_eq!(seen(), before);
        },
    );
}

#[test]
fn a_server_whose_capabilities_are_only_permitted_enables_them_for_one_call() {
    capability_server(
        "a_server_whose_capabilities_are_only_permitted_enables_them_for_one_call",
        SERVER,
        |bed| {
            let alice = tokens_of(bed, "alice");
            let mut sets = rustix::thread::capabilities(None).unwrap();
            sets.effective = CapabilitySet::empty();
            rustix::thread::set_capabilities(None, sets).unwrap();
            let before = seen();
            let refused = alice.impersonate(|_| panic!("it ran")).map(|(): ()| ()).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::PrivilegeMissing { held: true, enabled: false, .. }));
            let within = Privilege::Impersonate.enabled(|| alice.impersonate(|_| seen())).unwrap().unwrap();
            assert_eq!(within, before.acting_for(bed.user("alice")));
            assert_eq!(seen(), before);
        },
    );
}

#[test]
fn capabilities_that_cannot_be_turned_off_keep_the_closure_from_running() {
    capability_server(
        "capabilities_that_cannot_be_turned_off_keep_the_closure_from_running",
        SERVER,
        |bed| {
            let alice = tokens_of(bed, "alice");
            let refused = refused_under(&Filter::new().deny(call::CAPSET, EPERM), &alice);
            assert_eq!(refused.kind(), &ErrorKind::System { call: "capset" }, "{refused}");
            let refused = refused_under(&Filter::new().deny(call::CAPSET, 0), &alice);
            assert_eq!(
                refused.kind(),
                &ErrorKind::ImpersonationChanged { what: "capabilities".into() },
                "{refused}"
            );
        },
    );
}

#[test]
fn in_an_ordinary_container_a_client_is_impersonated_all_the_same() {
    const TEST: &str = "in_an_ordinary_container_a_client_is_impersonated_all_the_same";
    let bed = testbed::require!();
    if !is_another_server() {
        return passes_in_another_server(bed.docker_like(bed.this_program()), TEST);
    }
    let before = seen();
    let path = bed.scratch("socket").join("server");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    mode(&path, 0o777);
    let _process = bed.client("alice").connect(&path);
    let (stream, _) = listener.accept().unwrap();
    // Without CAP_SYS_PTRACE nobody can tell how it is confined.
    let client = stead::Client::with(stead::Confinement::Unknown).of(&stream).unwrap();
    let within = client
        .impersonate(|me| {
            assert!(me.open("/etc/shadow").is_err());
            assert!(me.open("/etc/passwd").is_ok());
            seen()
        })
        .unwrap();
    assert_eq!(within, before.acting_for(bed.user("alice")));
    assert_eq!(seen(), before);
}
