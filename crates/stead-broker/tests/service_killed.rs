//! The service, or a session's worker, is killed in the middle of calls, again and again, at moments that nobody chose: no
//! process gets a wrong context, every call comes to an end, the service comes back, and nothing is left behind.
//!
//! With `STEAD_LONG=1` two hundred times, else forty times.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use service_support::{Service, Unit, alive, call, everything, s4u, shell};
use stead_protocol::client::{CallError, Connection};
use stead_protocol::{
    CreateProcess, GetStatus, KillTree, ListProcesses, ListSessions, OpenSession, Process, TerminateSession,
    Text, WaitProcess,
};
use testbed::until;

fn policy() -> String {
    "[quotas]\nsessions = 1000\nprocesses = 1000\n".to_owned() + &everything(&["root"], &["alice", "bob"])
}

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
    let mut service = Service::start_without_ready_workers(bed, &policy());
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

#[test]
fn no_process_lives_that_nobody_knows_when_the_service_was_killed_at_any_moment() {
    testbed::time_limit!(600);
    let bed = testbed::require!(alone);
    let rounds = if std::env::var_os("STEAD_LONG").is_some() { 300 } else { 40 };
    let unit = Unit::delegated(bed);
    // In groups of their own, and without.
    let places = unit.as_ref().map(|unit| Some(unit.service())).into_iter().chain([None]);
    for (number, place) in places.enumerate() {
        // Nobody else's processes sleep for so long, and for so little more.
        let mark = format!("0.{number}{}", std::process::id());
        let mut service = Service::start_in(bed, &policy(), place);
        let (shared, calls) = (Shared::default(), RwLock::new(()));
        let socket = service.socket();
        let mut created = 0;
        std::thread::scope(|scope| {
            for user in [None, Some("alice"), None, Some("bob")] {
                let (shared, calls, socket, mark) = (&shared, &calls, &socket, &mark);
                scope.spawn(move || {
                    while !shared.over.load(Ordering::Relaxed) {
                        let _ = creates_until_one_fails(shared, calls, socket, user, mark);
                    }
                });
            }
            for _ in 0..rounds {
                let reached = shared.calls.load(Ordering::Relaxed) + random(6);
                until("processes are created", || shared.calls.load(Ordering::Relaxed) >= reached);
                std::thread::sleep(Duration::from_micros(random(3_000)));
                service.kill();
                service.run(bed);
                // No call is under way from here on.
                let nobody_calls = calls.write().unwrap();
                let mut root = service.connect();
                let known: Vec<Process> = call(&mut root, &ListProcesses::default(), &[]).0.processes;
                let unknown = || {
                    let mut living = marked(&mark);
                    living.retain(|pid| !known.iter().any(|one| one.pid == *pid));
                    living
                };
                until("nothing lives that is not known", || unknown().is_empty());
                for process in known.iter().filter(|process| process.running) {
                    created += 1;
                    call(&mut root, &KillTree { process: process.id.clone() }, &[]);
                }
                until("what was known has ended", || marked(&mark).is_empty());
                drop(nobody_calls);
            }
            shared.over.store(true, Ordering::Relaxed);
        });
        println!(
            "{} calls answered, {created} processes known after {rounds} restarts",
            shared.calls.into_inner()
        );
        assert!(created > 0, "nothing was created at all");
        let mut root = service.connect();
        for process in call(&mut root, &ListProcesses::default(), &[]).0.processes {
            let _ = root.call(&KillTree { process: process.id }, &[]);
        }
        until("nothing is left", || marked(&mark).is_empty());
    }
}

/// Creates processes that stay, as oneself or in a session of that user.
fn creates_until_one_fails(
    shared: &Shared,
    calls: &RwLock<()>,
    socket: &Path,
    user: Option<&str>,
    mark: &str,
) -> Result<(), CallError> {
    let Ok(mut service) = Connection::connect(socket) else {
        std::thread::sleep(Duration::from_millis(1));
        return Ok(());
    };
    let token = match user {
        None => service.call(&stead_protocol::OwnToken {}, &[])?.0.token,
        Some(user) => service.call(&s4u(user), &[])?.0.token,
    };
    while !shared.over.load(Ordering::Relaxed) {
        let _calling = calls.read().unwrap();
        let process = CreateProcess {
            token,
            program: Some(Text::from("/bin/sleep")),
            arguments: vec![Text::from("100000"), Text::from(mark)],
            ..CreateProcess::default()
        };
        service.call(&process, &[])?;
        shared.calls.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The living processes with this argument.
fn marked(mark: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_marked = |pid: &u32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes()) && alive(*pid)
    };
    pids.filter(is_marked).collect()
}
