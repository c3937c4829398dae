//! Failure injected into every step: the program starts exactly right, or never.

use rustix::io::Errno;
use rustix::process::Signal;
use stead_trampoline::report::part;
use stead_trampoline::syscall::prctl;
use testbed::confine::Filter;

use super::*;
use crate::process::Stage;

/// Launches under a filter, on a thread of its own that ends with it; the program must not have run.
fn refused(filter: Filter, what: Spec) -> LaunchFault {
    let (launch, mut output) = prepared(what, &["echo", "ran"]);
    let outcome = std::thread::spawn(move || {
        filter.install_on_this_thread().unwrap();
        start(launch).map(|started| collect(&started))
    })
    .join()
    .unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "", "the program ran");
    outcome.expect_err("it says that it started")
}

fn plain() -> Spec {
    spec("/bin/echo")
}

/// A spec that takes every step.
fn everything() -> Spec {
    let mut what = plain();
    what.limits = vec![(7, 64, 64)];
    what.umask = Some(0o077);
    what.credentials = Some(Credentials {
        permitted: 1 << 5,
        effective: 1 << 5,
        inheritable: 1 << 5,
        ambient: 1 << 5,
        bounding: bounding() & !(1 << 21),
        last_capability: last_capability(),
        securebits: 1,
        no_new_privs: true,
        ..credentials()
    });
    what
}

/// What the trampoline calls for every process, and the server's thread not between filter and report.
const CALLS: &[(libc::c_long, Stage)] = &[
    (libc::SYS_setsid, Stage::Session),
    (libc::SYS_sched_getattr, Stage::Defaults),
    (libc::SYS_sched_setaffinity, Stage::Defaults),
    (libc::SYS_ioprio_get, Stage::Defaults),
    (libc::SYS_personality, Stage::Defaults),
    (libc::SYS_getresuid, Stage::UserId),
    (libc::SYS_getresgid, Stage::GroupId),
    (libc::SYS_setgroups, Stage::Groups),
    (libc::SYS_setresgid, Stage::GroupId),
    (libc::SYS_setresuid, Stage::UserId),
    (libc::SYS_capset, Stage::Capabilities),
    (libc::SYS_getgroups, Stage::ReadBack),
    (libc::SYS_chdir, Stage::Directory),
    (libc::SYS_rt_sigaction, Stage::Signals),
    (libc::SYS_execve, Stage::Execute),
];

#[test]
fn a_call_that_fails_ends_the_launch_at_its_stage() {
    require_root!();
    // The first process of a server also tries which out-of-memory score it could have, for which it gives up a right.
    assert_eq!(output(plain(), &["echo", "ran"]).unwrap(), "ran\n");
    for (call, stage) in CALLS {
        let fault = refused(Filter::new().deny(*call, libc::EPERM), plain());
        assert_eq!(fault.stage, *stage, "call {call}: {fault:?}");
        assert_eq!(fault.errno, Errno::PERM, "call {call}: {fault:?}");
    }
}

#[test]
fn every_prctl_of_the_switch_that_fails_ends_the_launch() {
    require_root!();
    let of = |operation: usize, stage: Stage| {
        let operation = u32::try_from(operation).unwrap();
        let filter = Filter::new().deny_where(libc::SYS_prctl, 0, operation, libc::EPERM);
        let fault = refused(filter, everything());
        assert_eq!(fault.stage, stage, "prctl {operation}: {fault:?}");
    };
    of(prctl::GET_TIMERSLACK, Stage::Defaults);
    of(prctl::SET_DUMPABLE, Stage::Shield);
    of(prctl::CAPBSET_READ, Stage::BoundingSet);
    of(prctl::CAPBSET_DROP, Stage::BoundingSet);
    of(prctl::SET_KEEPCAPS, Stage::SecureBits);
    of(prctl::SET_SECUREBITS, Stage::SecureBits);
    of(prctl::CAP_AMBIENT, Stage::Ambient);
    of(prctl::SET_NO_NEW_PRIVS, Stage::NoNewPrivileges);
    of(prctl::GET_NO_NEW_PRIVS, Stage::ReadBack);
}

/// As a system call that lies: it says yes and does nothing. (JupyterHub's set_user_setuid and others
/// believed it.)
#[test]
fn a_call_that_succeeds_without_doing_it_is_found_out() {
    require_root!();
    let lie = |call: libc::c_long| refused(Filter::new().deny(call, 0), plain());
    for (call, part) in [
        (libc::SYS_setresuid, part::USER_ID),
        (libc::SYS_setresgid, part::GROUP_ID),
        (libc::SYS_setgroups, part::GROUPS),
    ] {
        let fault = lie(call);
        assert_eq!((fault.stage, fault.detail), (Stage::ReadBack, part), "call {call}: {fault:?}");
    }
    // The change of uid has cleared the capabilities as well; that regaining them "succeeds" gives it away.
    let fault = lie(libc::SYS_capset);
    assert_eq!((fault.stage, fault.detail), (Stage::Regain, part::CAPABILITIES), "{fault:?}");
    for call in [libc::SYS_getresuid, libc::SYS_getresgid, libc::SYS_getgroups, libc::SYS_capget] {
        let _ = lie(call);
    }
    for operation in [
        prctl::CAPBSET_DROP,
        prctl::SET_SECUREBITS,
        prctl::CAP_AMBIENT,
        prctl::SET_NO_NEW_PRIVS,
        prctl::SET_KEEPCAPS,
    ] {
        let operation = u32::try_from(operation).unwrap();
        let _ = refused(Filter::new().deny_where(libc::SYS_prctl, 0, operation, 0), everything());
    }
}

#[test]
fn a_process_that_is_killed_at_any_step_never_runs_the_program() {
    require_root!();
    // At execve itself it cannot be told from a program that is killed at its first instruction.
    for (call, _) in CALLS.iter().filter(|(call, _)| *call != libc::SYS_execve) {
        let fault = refused(Filter::new().kill(*call), plain());
        assert_eq!(fault.stage, Stage::Ended, "call {call}: {fault:?}");
    }
}

#[test]
fn a_client_that_stops_the_process_holds_nobody_up() {
    require_root!();
    let (mut what, mut output) = prepared(plain(), &["echo", "ran"]);
    let (report, writer) = pipe().unwrap();
    let (gate, opener) = std::io::pipe().unwrap();
    what.attach(writer, Some(gate.into()));
    let started = launch(&what).unwrap();
    drop(what);
    let outcome = await_report(report, started.pidfd.as_fd(), soon(), Awaited::Gate).unwrap();
    let ReportOutcome::Ready(report) = outcome else { panic!("{outcome:?}") };
    // It is the client's now, so the client may do this.
    let stop = std::process::Command::new("setpriv")
        .args(["--reuid=50001", "--regid=50002", "--clear-groups", "kill", "-STOP", &started.pid.to_string()])
        .status();
    assert!(stop.unwrap().success());
    assert_eq!(rustix::io::write(&opener, b"!"), Ok(1));
    let deadline = Instant::now() + Duration::from_millis(200);
    let fault = await_report(report, started.pidfd.as_fd(), deadline, Awaited::Execution).unwrap_err();
    assert_eq!(fault.stage, Stage::Deadline);
    collect(&started); // it has been killed, or this would not come back
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "");
}

#[test]
fn a_suspended_process_ends_with_its_gate() {
    require_root!();
    let (mut what, _output) = prepared(plain(), &["echo", "ran"]);
    let (report, writer) = pipe().unwrap();
    let (gate, opener) = std::io::pipe().unwrap();
    what.attach(writer, Some(gate.into()));
    let started = launch(&what).unwrap();
    drop(what);
    let outcome = await_report(report, started.pidfd.as_fd(), soon(), Awaited::Gate).unwrap();
    let ReportOutcome::Ready(report) = outcome else { panic!("{outcome:?}") };
    drop(opener);
    let fault = await_report(report, started.pidfd.as_fd(), soon(), Awaited::Execution).unwrap_err();
    assert_eq!((fault.stage, fault.errno), (Stage::Gate, Errno::PIPE));
    collect(&started);
}

#[test]
fn a_process_killed_while_suspended_is_not_said_to_run() {
    require_root!();
    let (mut what, _output) = prepared(plain(), &["echo", "ran"]);
    let (report, writer) = pipe().unwrap();
    let (gate, _opener) = std::io::pipe().unwrap();
    what.attach(writer, Some(gate.into()));
    let started = launch(&what).unwrap();
    drop(what);
    let outcome = await_report(report, started.pidfd.as_fd(), soon(), Awaited::Gate).unwrap();
    let ReportOutcome::Ready(report) = outcome else { panic!("{outcome:?}") };
    rustix::process::pidfd_send_signal(&started.pidfd, Signal::KILL).unwrap();
    let fault = await_report(report, started.pidfd.as_fd(), soon(), Awaited::Execution).unwrap_err();
    assert_eq!(fault.stage, Stage::Ended);
    collect(&started);
}

#[test]
fn a_container_without_keyrings_is_no_obstacle_and_one_that_denies_joining_is() {
    require_root!();
    let all = Filter::new()
        .deny(libc::SYS_keyctl, libc::EPERM)
        .deny(libc::SYS_add_key, libc::EPERM)
        .deny(libc::SYS_request_key, libc::EPERM);
    let status = std::thread::spawn(move || {
        all.install_on_this_thread().unwrap();
        seen(plain())
    });
    assert!(status.join().unwrap().is_ok());
    let joining = Filter::new().deny_where(libc::SYS_keyctl, 0, 1, libc::EPERM);
    let fault = refused(joining, plain());
    assert_eq!((fault.stage, fault.errno), (Stage::Keyring, Errno::PERM));
    let fault = refused(Filter::new().deny(libc::SYS_keyctl, libc::EPERM), plain());
    assert_eq!(fault.stage, Stage::Keyring, "add_key is still there");
}

#[test]
fn ids_that_mean_unchanged_are_refused() {
    require_root!();
    for change in 0..3 {
        let mut what = plain();
        let mut bad = credentials();
        match change {
            0 => bad.uid = u32::MAX,
            1 => bad.gid = u32::MAX,
            _ => bad.groups.push(u32::MAX),
        }
        what.credentials = Some(bad);
        let fault = refused(Filter::new(), what);
        assert_eq!((fault.stage, fault.errno), (Stage::Arguments, Errno::INVAL));
    }
}

#[test]
fn a_bounding_set_larger_than_the_servers_is_an_error() {
    require_root!();
    let mut what = plain();
    what.credentials = Some(Credentials { bounding: u64::MAX, ..credentials() });
    let fault = refused(Filter::new(), what);
    assert_eq!(fault.stage, Stage::BoundingSet);
}

/// Whatever the server's own bounding set is, also where it is full.
#[test]
fn a_capability_that_the_kernel_does_not_know_is_never_passed_over() {
    require_root!();
    let known: u32 =
        std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    for unknown in known + 1..64 {
        let mut what = plain();
        what.credentials = Some(Credentials { bounding: bounding() | 1 << unknown, ..credentials() });
        let fault = refused(Filter::new(), what);
        assert_eq!((fault.stage, fault.errno), (Stage::BoundingSet, Errno::INVAL), "{fault:?}");
    }
}

#[test]
fn a_capability_that_only_the_servers_bounding_set_lacks_is_an_error() {
    require_root!();
    let all = bounding();
    for lacking in (0..64).filter(|bit| all >> bit & 1 != 0 && *bit != 8) {
        let mut what = plain();
        what.credentials = Some(Credentials { bounding: all, ..credentials() });
        let (launch, mut output) = prepared(what, &["echo", "ran"]);
        // The bounding set is this thread's alone, and ends with it.
        let fault = std::thread::spawn(move || {
            let capability = rustix::thread::CapabilitySet::from_bits_retain(1 << lacking);
            rustix::thread::remove_capability_from_bounding_set(capability).unwrap();
            start(launch).map(|started| collect(&started)).unwrap_err()
        });
        let fault = fault.join().unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
        assert_eq!((fault.stage, fault.errno, fault.detail), (Stage::BoundingSet, Errno::PERM, lacking));
    }
}
