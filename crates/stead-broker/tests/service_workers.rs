//! Session workers are the service's children: it reaps them when they end, whether anything else happens or not.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use service_support::{Service, call, everything, refusal, s4u, shell};
use stead_protocol::{FailureKind, TerminateSession};
use testbed::until;

/// The children of the service, by the kernel's word, zombies among them.
fn children(service: &Service) -> Vec<u32> {
    let tasks = PathBuf::from(format!("/proc/{}/task", service.pid()));
    let of_task = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).ok();
    let lists: Vec<String> = std::fs::read_dir(tasks).unwrap().flatten().filter_map(of_task).collect();
    lists.iter().flat_map(|list| list.split_ascii_whitespace()).map(|pid| pid.parse().unwrap()).collect()
}

/// From here on nobody calls the service: what it does, it does by itself.
fn until_none_is_left(service: &Service, of: &str) {
    until(&format!("no child of the service is left after {of}"), || children(service).is_empty());
}

#[test]
fn a_worker_is_reaped_when_it_ends_though_nobody_calls_the_service() {
    let bed = testbed::require!();
    let service = Service::start_without_ready_workers(bed, &everything(&["root"], &["alice", "mallory"]));

    let mut root = service.connect();
    call(&mut root, &s4u("alice"), &[]);
    assert_eq!(children(&service).len(), 1);
    drop(root);
    until_none_is_left(&service, "a caller that went away");

    let mut root = service.connect();
    let opened = call(&mut root, &s4u("alice"), &[]).0;
    call(&mut root, &shell(opened.token, "sleep 600"), &[]);
    call(&mut root, &TerminateSession { session: opened.session.id }, &[]);
    until_none_is_left(&service, "a session whose processes were ended");

    // The connection holds the session's token still.
    let opened = call(&mut root, &s4u("alice"), &[]).0;
    let [worker] = children(&service)[..] else { panic!("one session, and other children") };
    let worker = rustix::process::Pid::from_raw(worker.cast_signed()).unwrap();
    rustix::process::kill_process(worker, rustix::process::Signal::KILL).unwrap();
    until_none_is_left(&service, "a worker that was killed");
    let refused = refusal(&mut root, &shell(opened.token, "true"), &[]);
    assert!(
        matches!(refused, FailureKind::SessionEnded {} | FailureKind::WorkerUnavailable { .. }),
        "{refused:?}"
    );
}

#[test]
fn the_next_logon_of_a_type_gets_the_worker_that_waited_for_it() {
    // Others change what PAM is configured with.
    let bed = testbed::require!(alone);
    if !testbed::confine::may("sys_ptrace") {
        testbed::skip!("looking into the worker, which is not dumpable, needs CAP_SYS_PTRACE");
    }
    let service = Service::start(bed, &everything(&["root"], &["alice", "mallory"]));
    let mut root = service.connect();
    let first = call(&mut root, &s4u("alice"), &[]).0;
    let has_pam = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains("/pam_unix.so"))
    };
    until("a worker waits beside that of the session", || {
        children(&service).iter().filter(|pid| has_pam(pid)).count() == 2
    });
    let session = call(&mut root, &shell(first.token, "exit 0"), &[]).0;
    let waiting = children(&service);

    let second = call(&mut root, &s4u("mallory"), &[]).0;
    let now = children(&service);
    assert!(waiting.iter().all(|pid| now.contains(pid)), "{waiting:?}, then {now:?}");
    // Whose it became is seen of a process that it created.
    let process = call(&mut root, &shell(second.token, "sleep 600"), &[]).0.process;
    let uid = |pid: u32| std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert_eq!(uid(process.pid), bed.user("mallory").uid);
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let parent: u32 = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap().parse().unwrap();
    assert!(waiting.contains(&parent), "{parent} was started for it: {waiting:?} waited");
    drop(session);
}
