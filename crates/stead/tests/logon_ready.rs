//! Session workers that are started before anybody logs on.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod logon_support;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use logon_support::*;
use stead::os::linux::{LogonExt, LogonSessionExt, ReadyWorkers};
use stead::{Account, ErrorKind, Logon, LogonSession, LogonType};
use testbed::{Bed, until};

/// The one worker that waits.
fn waiting() -> u32 {
    let [worker] = children()[..] else {
        panic!("one worker waits, and no session is open: {:?}", children())
    };
    worker
}

/// The process that a session's worker is.
fn worker_of(session: &LogonSession) -> u32 {
    let pidfd = session.worker().unwrap().expect("its server is its parent");
    let fdinfo = std::os::fd::AsRawFd::as_raw_fd(&pidfd);
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fdinfo}")).unwrap();
    info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().parse().unwrap()
}

/// Closes a session whose worker was asked for: then its end is the server's to wait for.
fn close(session: LogonSession) {
    let worker = session.worker().unwrap().expect("its server is its parent");
    session.close().unwrap();
    let exited = rustix::process::WaitIdOptions::EXITED;
    // The library may have been first.
    let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(worker.as_fd()), exited);
}

/// Until it waits for its logon in a read, everything being loaded; what it waits in is the kernel's word.
fn until_it_waits(worker: u32) {
    until("the worker has PAM in its memory, and reads", || {
        let maps = std::fs::read_to_string(format!("/proc/{worker}/maps")).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap_or_default();
        maps.contains("/pam_unix.so") && status.contains("State:\tS")
    });
}

/// A PAM service of the test's own, that can be changed.
fn service(name: &str) -> PathBuf {
    let path = PathBuf::from(format!("/etc/pam.d/{name}"));
    std::fs::copy("/etc/pam.d/stead-interactive", &path).unwrap();
    path
}

fn of(bed: &Bed, service: &str, ready: &ReadyWorkers) -> Logon {
    logon(bed, "alice").pam_service(service).ready(ready)
}

#[test]
fn the_next_logon_of_its_type_gets_the_worker_that_waits_and_the_process_is_the_users() {
    // Others change what PAM is configured with.
    let bed = testbed::require!(alone);
    if !testbed::confine::may("sys_ptrace") {
        testbed::skip!("looking into the worker, which is not dumpable, needs CAP_SYS_PTRACE");
    }
    let ready = ReadyWorkers::new();
    ready.keep(LogonType::Interactive).unwrap();
    let waits = waiting();
    until_it_waits(waits);
    ready.keep(LogonType::Interactive).unwrap();
    assert_eq!(waiting(), waits, "one is enough");

    // Another type's logon leaves it where it is.
    let other = logon(bed, "bob").kind(LogonType::Batch).ready(&ready).open().unwrap();
    assert_ne!(worker_of(&other), waits);
    assert_eq!(seen(bed, &other).uid.real, bed.user("bob").uid);

    let host = "ready.example";
    let session = from(logon(bed, "alice"), host).ready(&ready).open().unwrap();
    assert_eq!(worker_of(&session), waits);
    let (alice, without) = (bed.user("alice"), from(logon(bed, "alice"), "cold.example").open().unwrap());
    assert_eq!(seen(bed, &session).uid.real, alice.uid);
    // Nothing tells the two apart: PAM was asked the same, and the process has the same.
    assert_eq!(phases(bed, host), phases(bed, "cold.example"));
    let (one, two) = (seen(bed, &session), seen(bed, &without));
    assert_eq!((one.groups, one.capabilities, one.limits), (two.groups, two.capabilities, two.limits));
    assert_eq!((one.umask, one.environment), (two.umask, two.environment));
    session.close().unwrap();
    assert!(phases(bed, host).contains(&"close_session".to_owned()));
}

#[test]
fn it_is_no_other_for_a_wrong_password_and_is_used_up_by_it() {
    let bed = testbed::require!();
    if !testbed::confine::may("sys_ptrace") {
        testbed::skip!("looking into the worker, which is not dumpable, needs CAP_SYS_PTRACE");
    }
    let ready = ReadyWorkers::new();
    ready.keep(LogonType::Interactive).unwrap();
    until_it_waits(waiting());
    let host = "wrong.example";
    let wrong = Logon::password(Account::local("alice"), "not hers").kind(LogonType::Interactive);
    assert_eq!(*from(wrong.ready(&ready), host).open().unwrap_err().kind(), ErrorKind::LogonFailed);
    until("its worker has ended", || children().iter().all(|pid| !lives(*pid)));
    let session = logon(bed, "alice").ready(&ready).open().unwrap();
    assert_eq!(seen(bed, &session).uid.real, bed.user("alice").uid);
}

#[test]
fn what_the_administrator_changes_meanwhile_holds_from_the_next_logon_on() {
    // Others change what PAM is configured with.
    let bed = testbed::require!(alone);
    if !testbed::confine::may("sys_ptrace") {
        testbed::skip!("looking into the worker, which is not dumpable, needs CAP_SYS_PTRACE");
    }
    let ready = ReadyWorkers::new();
    let path = service("stead-changes");
    let keep = || {
        ready.keep_for("stead-changes").unwrap();
        until_it_waits(waiting());
        waiting()
    };

    // In the file itself.
    keep();
    let before = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, "auth required pam_permit.so\naccount required pam_deny.so\n").unwrap();
    let refused = of(bed, "stead-changes", &ready).open().unwrap_err();
    assert!(!matches!(refused.kind(), ErrorKind::WorkerUnavailable { .. }), "{refused}");
    until("nobody waits any more", || children().iter().all(|pid| !lives(*pid)));

    // In a file that stands beside it, which any service may include; by another in its place, as editors do.
    std::fs::write(&path, &before).unwrap();
    let beside = PathBuf::from("/etc/pam.d/stead-beside");
    std::fs::write(&beside, "# one\n").unwrap();
    let waited = keep();
    std::fs::write("/etc/pam.d/.stead-beside", "# two\n").unwrap();
    std::fs::rename("/etc/pam.d/.stead-beside", &beside).unwrap();
    let session = of(bed, "stead-changes", &ready).open().unwrap();
    assert_ne!(worker_of(&session), waited);
    close(session);
    until("the one that waited has ended", || !lives(waited));

    // A service that is new.
    let waited = keep();
    std::fs::remove_file(&beside).unwrap();
    let session = of(bed, "stead-changes", &ready).open().unwrap();
    assert_ne!(worker_of(&session), waited);
    close(session);

    // And without any change it is the one that waited.
    let waited = keep();
    let session = of(bed, "stead-changes", &ready).open().unwrap();
    assert_eq!(worker_of(&session), waited);
    close(session);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_worker_that_was_killed_while_it_waited_is_missed_by_nobody() {
    let bed = testbed::require!();
    let ready = ReadyWorkers::new();
    ready.keep(LogonType::Interactive).unwrap();
    let process = rustix::process::Pid::from_raw(waiting().cast_signed()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    until("it has ended", || children().iter().all(|pid| !lives(*pid)));
    let session = logon(bed, "alice").ready(&ready).open().unwrap();
    assert_eq!(seen(bed, &session).uid.real, bed.user("alice").uid);
    session.close().unwrap();
    assert!(children().is_empty(), "it was reaped: {:?}", children());
}

#[test]
fn what_pam_does_not_know_is_said_by_the_logon() {
    let bed = testbed::require!();
    let ready = ReadyWorkers::new();
    let path = service("stead-garbled");
    std::fs::write(&path, "auth nonsense\n").unwrap();
    ready.keep_for("stead-garbled").unwrap();
    let with = of(bed, "stead-garbled", &ready).open().unwrap_err();
    let without = logon(bed, "alice").pam_service("stead-garbled").open().unwrap_err();
    assert_eq!(with.kind(), without.kind(), "{with}");
    std::fs::remove_file(&path).unwrap();

    let error = ready.keep_for("with\0nul").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
}

#[test]
fn workers_that_wait_end_when_they_have_waited_long_enough_and_with_the_last_of_their_owners() {
    let _bed = testbed::require!();
    let ready = ReadyWorkers::new();
    ready.keep(LogonType::Interactive).unwrap();
    ready.keep(LogonType::Batch).unwrap();
    assert_eq!(children().len(), 2);
    ready.let_go_after(Duration::from_secs(3600));
    assert_eq!(children().len(), 2);
    ready.let_go_after(Duration::ZERO);
    assert!(children().is_empty(), "{:?}", children());

    ready.keep(LogonType::Interactive).unwrap();
    let same = ready.clone();
    drop(ready);
    let waits = waiting();
    assert!(lives(waits));
    drop(same);
    assert!(children().is_empty(), "{:?}", children());
}
