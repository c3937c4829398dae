//! What a process may do to whoever waits for it: its parent, and who ends its tree.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod process_support;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use process_support::*;
use stead::os::linux::ChildExt;
use stead::{Child, Command, ErrorKind, Primary, Stdio, Token};
use testbed::{Bed, until};

/// Starts the trick; what it says behind `ready`.
fn played(bed: &Bed, token: &Token<Primary>, trick: &[&str]) -> (Child, String) {
    let mut command = Command::new(bed.bin("testbed-client"));
    command.arg("trick").args(trick).stdout(Stdio::piped());
    let mut child = command.spawn_as(token).unwrap_or_else(|error| panic!("{error}"));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let Some(said) = line.trim().strip_prefix("ready") else {
        testbed::skip_test(format_args!("the kernel does not let a process do this here: {line}"))
    };
    (child, said.trim().to_owned())
}

/// How soon whoever waits has to be told: not after what ends by being given up.
const SOON: Duration = Duration::from_secs(5);

fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Until nothing of it is left, though nobody waits for it.
fn leaves_nothing(pid: u32, token: &Token<Primary>) {
    until("it is reaped", || {
        let _ = Command::new("true").status_as(token);
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
}

#[test]
fn a_process_that_has_its_server_trace_a_thread_of_it_ends_for_whoever_waits() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    // By itself.
    let (mut child, _) = played(bed, &token, &["traced-thread", "ends"]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // Killed.
    let (mut child, _) = played(bed, &token, &["traced-thread", "stays"]);
    assert_eq!(child.wait_timeout(Duration::from_millis(300)).unwrap(), None);
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    assert_eq!(child.wait_timeout(SOON).unwrap().and_then(|status| status.signal()), Some(9));
    // With its tree.
    let (mut child, _) = played(bed, &token, &["traced-thread", "stays"]);
    let begun = Instant::now();
    child.kill_tree().unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(child.wait_timeout(SOON).unwrap().and_then(|status| status.signal()), Some(9));
    // Waited for by nobody.
    let (child, _) = played(bed, &token, &["traced-thread", "stays"]);
    let pid = child.id();
    drop(child);
    kill(&pid.to_string());
    leaves_nothing(pid, &token);
}

#[test]
fn a_tree_whose_first_process_is_traced_by_its_own_is_ended_whole_and_tells_its_status() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("what is said of a status that nobody can have yet");
    let token = token(bed, "alice");
    let (mut child, tracer) = played(bed, &token, &["traced-by-own"]);
    child.kill().unwrap();
    // Its tracer, which does nothing, has the first word.
    assert_eq!(child.try_wait().unwrap(), None);
    let error = child.wait().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlinePassed { .. }), "{error}");
    assert!(alive(tracer.parse().unwrap()));
    child.kill_tree().unwrap();
    assert!(!alive(tracer.parse().unwrap()));
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(zombies().is_empty());
}

#[test]
fn a_process_that_a_stranger_to_its_tree_traces_holds_neither_who_waits_nor_who_ends_the_tree() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("what is said of a status that nobody can have yet");
    let token = token(bed, "alice");
    let (mut child, tracer) = played(bed, &token, &["traced-by-another"]);
    assert!(!child.has_ended());
    let begun = Instant::now();
    child.kill_tree().unwrap();
    assert!(child.has_ended());
    let error = child.wait().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DeadlinePassed { .. }), "{error}");
    assert!(begun.elapsed() < 2 * SOON, "{:?}", begun.elapsed());
    kill(&tracer);
    until(
        "its status can be had",
        || matches!(child.try_wait(), Ok(Some(status)) if status.signal() == Some(9)),
    );
}

#[test]
fn a_process_that_stops_for_its_tracer_has_not_ended() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let (mut child, _) = played(bed, &token, &["traced-stop"]);
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    until("it has stopped", || state().rsplit_once(") ").unwrap().1.starts_with('t'));
    assert_eq!(child.try_wait().unwrap(), None);
    let (other, _) = played(bed, &token, &["traced-stop"]);
    let pid = other.id();
    drop(other);
    for _ in 0..3 {
        Command::new("true").status_as(&token).unwrap();
    }
    kill(&pid.to_string());
    leaves_nothing(pid, &token);
    child.kill().unwrap();
    assert_eq!(child.wait_timeout(SOON).unwrap().and_then(|status| status.signal()), Some(9));
}

#[test]
fn a_tree_of_more_processes_than_the_server_has_descriptors_is_ended_in_one_call() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("the limit is that of the server");
    let test = exact(
        module_path!(),
        "a_tree_of_more_processes_than_the_server_has_descriptors_is_ended_in_one_call",
    );
    if !in_a_server_of_its_own(bed, &test, &["prlimit", "--nofile=64:64", "--"]) {
        return;
    }
    let token = token(bed, "alice");
    let (mut child, _) = played(bed, &token, &["many", "200"]);
    let session = child.id().to_string();
    let living = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let stats = all.filter_map(|one| std::fs::read_to_string(one.path().join("stat")).ok());
        let lives = |stat: &String| {
            let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
            fields.get(3) == Some(&session.as_str()) && !matches!(fields[0], "Z" | "X")
        };
        stats.filter(lives).count()
    };
    assert_eq!(living(), 201);
    child.kill_tree().unwrap();
    assert_eq!(living(), 0);
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn children_that_a_client_makes_for_its_server_are_reaped_and_nobody_elses() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("they are children of the service otherwise");
    let token = token(bed, "alice");
    // Of other code's: one that has ended, and is waited for later; one in a session of its own, as its user.
    let uid = format!("--reuid={}", bed.user("alice").uid);
    let mut others = [
        std::process::Command::new("true").spawn().unwrap(),
        std::process::Command::new("setsid")
            .args(["setpriv", &uid, "--clear-groups", "true"])
            .spawn()
            .unwrap(),
    ];
    let theirs = || zombies().len() == others.len();
    until("other code's children have ended", theirs);
    for waited in [false, true] {
        let (mut child, _) = played(bed, &token, &["siblings", "300"]);
        until("they have ended", || zombies().len() > 300);
        if waited {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        until("they are reaped", || {
            Command::new("true").status_as(&token).unwrap();
            theirs()
        });
        child.kill_tree().unwrap();
        child.wait().unwrap();
    }
    assert!(others.iter_mut().all(|other| other.wait().unwrap().success()));
}

#[test]
fn a_server_that_inherits_orphans_is_left_to_reap_what_it_has_not_made() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("the server inherits orphans");
    let test = exact(module_path!(), "a_server_that_inherits_orphans_is_left_to_reap_what_it_has_not_made");
    if !in_a_server_of_its_own(bed, &test, &["env"]) {
        return;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let token = token(bed, "alice");
    let (mut child, _) = played(bed, &token, &["siblings", "3"]);
    until("they have ended", || zombies().len() == 3);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        Command::new("true").status_as(&token).unwrap();
    }
    assert_eq!(zombies().len(), 3);
    child.kill_tree().unwrap();
    child.wait().unwrap();
}
