//! The service, or a session's worker, is killed in the middle of calls, again and again, at moments that nobody chose: no
//! process gets a wrong context, every call comes to an end, the service comes back, and nothing is left behind.
//!
//! With `STEAD_LONG=1` two hundred times, else forty times.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use service_support::{Service, call, s4u, shell};
use stead_protocol::client::{CallError, Connection};
use stead_protocol::{
    CreateProcess, GetStatus, KillTree, ListProcesses, ListSessions, OpenSession, TerminateSession,
    WaitProcess,
};
use testbed::until;

const POLICY: &str = r#"
[quotas]
sessions = 1000
processes = 1000
[[allow]]
callers = { users = ["root"] }
clients = { users = ["alice", "bob"] }
privileges = ["tcb", "assign-primary-token"]
programs = "any"
logon-types = ["batch"]
"#;

/// Numbers that nobody chose.
fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).unwrap();
    u64::from_ne_bytes(bytes) % below
}

/// What the callers and whoever kills share.
#[derive(Default)]
struct Shared {
    calls: AtomicU64,
    errors: AtomicU64,
    over: AtomicBool,
}

#[test]
fn no_process_gets_a_wrong_context_when_the_service_or_a_worker_is_killed_at_any_moment() {
    testbed::time_limit!(600);
    let bed = testbed::require!(alone);
    let rounds = if std::env::var_os("STEAD_LONG").is_some() { 200 } else { 40 };
    let from_before = workers();
    let mut service = Service::start(bed, POLICY);
    let seen = bed.scratch("seen");
    std::fs::set_permissions(&seen, PermissionsExt::from_mode(0o1777)).unwrap();
    let shared = Shared::default();
    let socket = service.socket();
    let (mut of_service, mut of_worker) = (0, 0);
    std::thread::scope(|scope| {
        for user in ["alice", "bob", "alice", "bob"] {
            let (shared, socket, seen) = (&shared, &socket, &seen);
            scope.spawn(move || calls_until_it_is_over(shared, socket, seen, user));
        }
        for _ in 0..rounds {
            // In the middle of calls: some were answered since the last time, and then some moment passes.
            let reached = shared.calls.load(Ordering::Relaxed) + random(12);
            until("calls are answered", || shared.calls.load(Ordering::Relaxed) >= reached);
            std::thread::sleep(Duration::from_micros(random(20_000)));
            let worker = workers().into_iter().find(|pid| !from_before.contains(pid));
            if let Some(worker) = worker.filter(|_| random(2) == 0) {
                of_worker += 1;
                // It may have ended just now.
                let _ = kill_process(worker, Signal::KILL);
            } else {
                of_service += 1;
                service.kill();
                service.run(bed);
            }
        }
        shared.over.store(true, Ordering::Relaxed);
    });
    let calls = shared.calls.load(Ordering::Relaxed);
    let errors = shared.errors.load(Ordering::Relaxed);
    println!(
        "killed: the service {of_service} times, a worker {of_worker} times; {calls} calls, {errors} failed"
    );
    assert!(errors > 0, "nothing was killed in the middle of anything");

    let mut processes = 0;
    for entry in std::fs::read_dir(&seen).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let user = bed.user(name.split('.').next().unwrap());
        let found = entry.metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (user.uid, user.gid), "{name}");
        processes += 1;
    }
    assert!(processes > 0, "none was created at all");

    // What is kept can be opened and ended; what is not, is gone. Nothing is between.
    let mut root = service.connect();
    for session in call(&mut root, &ListSessions {}, &[]).0.sessions {
        let opened = root.call(&OpenSession { session: session.id.clone() }, &[]);
        let ended = root.call(&TerminateSession { session: session.id }, &[]);
        for error in [opened.err(), ended.err()].into_iter().flatten() {
            // It has ended by itself meanwhile.
            assert!(matches!(&error, CallError::Failed(_)), "{error}");
        }
    }
    drop(root);
    until("every worker has ended", || workers().iter().all(|pid| from_before.contains(pid)));
    let mut root = service.connect();
    until("no session is known", || call(&mut root, &ListSessions {}, &[]).0.sessions.is_empty());
    for process in call(&mut root, &ListProcesses::default(), &[]).0.processes {
        if process.running {
            let _ = root.call(&KillTree { process: process.id }, &[]);
        }
    }
    until("no process is known to run", || call(&mut root, &GetStatus {}, &[]).0.processes == 0);
}

/// Logs a user on and creates processes, each of which leaves a file that is its user's. After an error anew.
fn calls_until_it_is_over(shared: &Shared, socket: &Path, seen: &Path, user: &str) {
    let script = format!("mktemp -p {} {user}.XXXXXXXX", seen.display());
    while !shared.over.load(Ordering::Relaxed) {
        if let Err(error) = calls_until_one_fails(shared, socket, user, &script) {
            // Said, or seen by the connection's end; an answer to something else is neither.
            assert!(matches!(error, CallError::Failed(_) | CallError::Connection(_)), "{error}");
            shared.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn calls_until_one_fails(shared: &Shared, socket: &Path, user: &str, script: &str) -> Result<(), CallError> {
    let answered = || shared.calls.fetch_add(1, Ordering::Relaxed);
    let Ok(mut service) = Connection::connect(socket) else {
        // It is being started anew.
        std::thread::sleep(Duration::from_millis(1));
        return Ok(());
    };
    let (opened, _) = service.call(&s4u(user), &[])?;
    answered();
    while !shared.over.load(Ordering::Relaxed) {
        let process: CreateProcess = shell(opened.token, script);
        let (created, _) = service.call(&process, &[])?;
        answered();
        service.call(&WaitProcess { process: created.process.id, timeout: None }, &[])?;
        answered();
    }
    Ok(())
}

/// The session workers that live: those that other tests left among them.
fn workers() -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let is_worker = |folder: &PathBuf| {
        let arguments = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        arguments.starts_with(b"stead-session\0")
    };
    let of_workers = entries.map(|entry| entry.path()).filter(is_worker);
    of_workers.filter_map(|folder| Pid::from_raw(folder.file_name()?.to_str()?.parse().ok()?)).collect()
}
