//! What PAM's modules set reaches the session's processes, and only them.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod logon_support;

use logon_support::*;
use stead::os::linux::{LogonExt, LogonSessionExt, TokenExt};
use stead::{Account, Command, Logon, LogonType, Stdio};
use testbed::Probe;

#[test]
fn the_process_equals_the_controls_in_ids_groups_and_capabilities() {
    let bed = testbed::require!();
    for name in ["alice", "bob", "0day"] {
        let session = logon(bed, name).kind(LogonType::Network).opened().unwrap();
        let ours = seen(bed, &session);
        for control in [bed.control_setpriv(name), bed.control_runuser(name)] {
            assert_eq!(ours.uid, control.uid, "{name}");
            assert_eq!(ours.gid, control.gid, "{name}");
            assert_eq!(ours.effective_groups(), control.effective_groups(), "{name}");
            assert_eq!(ours.capabilities, control.capabilities, "{name}");
            assert_eq!(ours.securebits, control.securebits, "{name}");
            assert_eq!(ours.no_new_privs, control.no_new_privs, "{name}");
        }
        assert_eq!(ours.signals.blocked, 0, "{name}");
        assert_eq!(ours.signals.ignored, 0, "{name}");
        assert_eq!(ours.terminal, 0, "{name}");
        assert_eq!(ours.session, ours.pid, "{name}");
        assert_eq!(ours.descriptors.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "{name}");
        let token: Vec<u32> = session.token().groups().as_slice().iter().map(|gid| gid.as_raw()).collect();
        assert_eq!(ours.groups, token, "{name}");
    }
}

/// This thread: the main one may be in the middle of something.
fn own() -> Probe {
    Probe::of(rustix::thread::gettid().as_raw_nonzero().get()).unwrap()
}

#[test]
fn limits_umask_nice_environment_and_groups_of_pam_reach_the_process() {
    let bed = testbed::require!();
    let before = own();
    for (kind, service) in [
        (LogonType::Interactive, "stead-interactive"),
        (LogonType::Batch, "stead-batch"),
        (LogonType::Service, "stead-service"),
    ] {
        for name in ["alice", "bob"] {
            let session = logon(bed, name).kind(kind).opened().unwrap();
            let ours = seen(bed, &session);
            for (limit, soft, hard) in bed.pam_limits(name) {
                let seen = ours.limits[limit];
                assert_eq!((seen.soft, seen.hard), (Some(soft), Some(hard)), "{name} {limit}");
            }
            assert_eq!(ours.umask, bed.pam_umask(service), "{name} {service}");
            assert_eq!(session.umask(), bed.pam_umask(service), "{name} {service}");
            assert_eq!(ours.nice, bed.pam_nice(name), "{name}");
            for (variable, value) in bed.pam_environment(service) {
                assert_eq!(ours.variable(&variable), Some(value.as_str()), "{name} {service}");
            }
            let granted = name == "alice" && service == "stead-interactive";
            assert_eq!(ours.groups.contains(&bed.granted_group()), granted, "{name} {service}");
            let mut expected = bed.user(name).all_groups();
            expected.extend(granted.then(|| bed.granted_group()));
            expected.sort_unstable();
            assert_eq!(ours.effective_groups(), expected, "{name} {service}");
        }
    }
    let mut after = own();
    after.descriptors.clone_from(&before.descriptors);
    assert_eq!(after, before, "nothing of the server changed");
}

#[test]
fn the_limits_that_pam_sets_end_no_worker() {
    let bed = testbed::require!();
    if !testbed::confine::may("sys_resource") {
        testbed::skip!("a worker that may not raise limits keeps those that PAM lowered");
    }
    let session = session(bed, "alice");
    let worker = children().into_iter().find(|pid| lives(*pid)).expect("the worker is a child");
    let limits = |process: &str| {
        let text = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        // What it may receive for its processes is bounded as they are.
        text.lines().filter(|line| !line.starts_with("Max open files")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limits(&worker.to_string()), limits("self"));
    let ours = seen(bed, &session);
    let cpu = bed.pam_limits("alice").into_iter().find(|(name, ..)| *name == "Max cpu time").unwrap();
    assert_eq!((ours.limits[cpu.0].soft, ours.limits[cpu.0].hard), (Some(cpu.1), Some(cpu.2)));
    session.close().unwrap();
}

#[test]
fn each_session_has_its_own_keyring_login_uid_and_audit_session() {
    let bed = testbed::require!();
    let own = Probe::of_self().unwrap();
    let (first, second) = (session(bed, "alice"), session(bed, "alice"));
    let (one, two, again) = (seen(bed, &first), seen(bed, &second), seen(bed, &first));
    assert_ne!(first.id(), second.id());
    assert_eq!(one.keyring, again.keyring);
    if let (Some(one), Some(two)) = (&one.keyring, &two.keyring) {
        assert_ne!(one.id, two.id);
        assert_ne!(Some(one.id), own.keyring.as_ref().map(|keyring| keyring.id));
        let owner = format!(";{};", bed.user("alice").uid);
        assert!(one.description.contains(&owner), "{one:?}");
    }
    if bed.can_set_login_uid() {
        assert_eq!(one.login_uid, Some(bed.user("alice").uid));
        assert_eq!(two.login_uid, one.login_uid);
        assert_ne!(one.audit_session, two.audit_session);
        assert_eq!(first.audit_session(), one.audit_session);
        assert_eq!(Probe::of_self().unwrap().login_uid, own.login_uid);
    }
}

#[test]
fn without_pam_keyinit_a_session_has_a_keyring_of_its_own_all_the_same() {
    let bed = testbed::require!();
    let open = || logon(bed, "alice").pam_service("stead-fail-close").opened().unwrap();
    let (first, second) = (open(), open());
    let (one, two) = (seen(bed, &first).keyring, seen(bed, &second).keyring);
    if let (Some(one), Some(two)) = (&one, &two) {
        assert_ne!(one.id, two.id);
        let owner = format!("keyring;{};", bed.user("alice").uid);
        assert!(one.description.starts_with(&owner), "{one:?}");
    }
}

#[test]
fn the_environment_is_the_accounts_and_pams_and_never_the_servers() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("variables of its choosing at a logon");
    let session =
        logon(bed, "alice").env("XDG_SESSION_CLASS", "user").env("STEAD_OWN", "a b=c").opened().unwrap();
    let ours = seen(bed, &session);
    assert_eq!(ours.variable("XDG_SESSION_CLASS"), Some("user"));
    assert_eq!(ours.variable("STEAD_OWN"), Some("a b=c"));
    assert_eq!(ours.variable("USER"), Some("alice"));
    assert_eq!(ours.variable("HOME"), bed.user("alice").home.to_str());
    let mut block: Vec<String> = session
        .environment()
        .into_iter()
        .map(|(name, value)| format!("{}={}", name.to_str().unwrap(), value.to_str().unwrap()))
        .collect();
    let mut environment = ours.environment.clone();
    block.sort_unstable();
    environment.sort_unstable();
    assert_eq!(block, environment);
    assert_eq!(ours.variable("CARGO_TARGET_DIR"), None);
}

#[test]
fn an_environment_of_two_mebibytes_reaches_a_process_of_the_session() {
    let bed = testbed::require!();
    let session = logon(bed, "bob").opened().unwrap();
    let value = "v".repeat(100 * 1024);
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg("env | wc -c").stdout(Stdio::piped());
    for number in 0..19 {
        command.env(format!("BIG_{number}"), &value);
    }
    // The kernel's bound is a quarter of the stack limit, which is 8 MiB where nobody changed it.
    let output = command.output_as(session.token()).unwrap();
    let length: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(length > 19 * value.len(), "{length}");
    // And the worker is as small as before.
    assert_eq!(seen(bed, &session).variable("BIG_0"), None);
}

#[test]
fn what_an_account_is_called_is_never_taken_for_a_path() {
    let bed = testbed::require!();
    for name in ["../alice", "/etc/passwd", "alice/../bob"] {
        let refused = refused(Logon::s4u(Account::local(name)).pam_service("stead-s4u"));
        assert!(matches!(refused.kind(), stead::ErrorKind::AccountUnknown { .. }), "{refused}");
    }
    let _ = bed;
}

#[test]
fn an_idle_worker_takes_less_than_700_kibibytes_of_its_own() {
    let bed = testbed::require!();
    if !testbed::confine::may("sys_ptrace") {
        testbed::skip!("measuring the worker, which is not dumpable, needs CAP_SYS_PTRACE");
    }
    // Two, because what is the first one's own is what a second one does not share with it: the program's text is
    // not, whether it was built for debugging or not.
    let sessions = [session(bed, "alice"), session(bed, "bob")];
    for session in &sessions {
        seen(bed, session);
    }
    let worker = children().into_iter().find(|pid| lives(*pid)).expect("the worker is a child");
    let kib = |name: &str| -> u64 {
        let rollup = std::fs::read_to_string(format!("/proc/{worker}/smaps_rollup")).unwrap();
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let private = || kib("Private_Dirty:") + kib("Private_Clean:");
    for _ in 0..1000 {
        if private() < 700 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{} KiB\n{}", private(), std::fs::read_to_string(format!("/proc/{worker}/smaps")).unwrap());
}
