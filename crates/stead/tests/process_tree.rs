//! Ending whole process trees, by what holds them together.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod process_support;

use std::io::{BufRead, BufReader};

use process_support::*;
use stead::os::linux::{Cgroup, CommandExt};
use stead::process::Containment;
use stead::{Child, ErrorKind, Stdio};
use testbed::until;

/// Starts a script that prints the ids of its processes, one a line, `number` of them.
fn tree(
    command: &mut stead::Command,
    token: &stead::Token<stead::Primary>,
    number: usize,
) -> (Child, Vec<u32>) {
    let mut child = command.stdout(Stdio::piped()).spawn_as(token).unwrap_or_else(|error| panic!("{error}"));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let pids = lines.take(number).map(|line| line.unwrap().parse().unwrap()).collect();
    (child, pids)
}

const THREE: &str = "sleep 1000 & echo $!; (sleep 1000 & echo $!); echo $$; wait";

#[test]
fn without_cgroup_or_worker_the_posix_session_is_ended() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let (mut child, pids) = tree(&mut shell(THREE), &token, 3);
    assert_eq!(child.containment(), Containment::PosixSession);
    // A process of the same user that is not of the tree.
    let (mut other, others) = tree(&mut shell("echo $$; exec sleep 1000"), &token, 1);
    assert!(pids.iter().all(|pid| alive(*pid)));
    child.kill_tree().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    until("the tree is gone", || !pids.iter().any(|pid| alive(*pid)));
    assert!(others.iter().all(|pid| alive(*pid)));
    other.kill().unwrap();
    other.wait().unwrap();
    // Nobody is left, and nobody else has the number by accident.
    child.kill_tree().unwrap();
}

#[test]
fn the_rest_of_a_tree_is_ended_after_its_first_process_was_waited_for() {
    let bed = testbed::require!();
    let (mut child, pids) =
        tree(&mut shell("sleep 1000 & echo $!; sleep 1000 & echo $!"), &token(bed, "alice"), 2);
    assert!(child.wait().unwrap().success());
    assert!(pids.iter().all(|pid| alive(*pid)));
    child.kill_tree().unwrap();
    until("the tree is gone", || !pids.iter().any(|pid| alive(*pid)));
}

#[test]
fn a_tree_that_keeps_creating_processes_is_ended() {
    let bed = testbed::require!();
    let token = token(bed, "bob");
    let script = "trap '' TERM HUP; echo $$; while :; do sleep 1000 & sleep 0.01; done";
    let (mut child, _) = tree(&mut shell(script), &token, 1);
    let session = child.id();
    let members = || {
        printed(
            "ps -A -o sid=,stat= | awk -v s=$S '$1 == s && $2 !~ /Z/' | wc -l"
                .replace("$S", &session.to_string())
                .as_str(),
            &token,
        )
    };
    until("it has many processes", || members().parse::<u32>().unwrap() > 5);
    child.kill_tree().unwrap();
    child.wait().unwrap();
    until("the tree is gone", || members() == "0");
}

#[test]
fn killing_one_process_leaves_its_descendants() {
    let bed = testbed::require!();
    let (mut child, pids) = tree(&mut shell(THREE), &token(bed, "alice"), 3);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(alive(pids[0]) && alive(pids[1]) && !alive(pids[2]));
    child.kill_tree().unwrap();
    until("the tree is gone", || !pids.iter().any(|pid| alive(*pid)));
}

#[test]
fn a_cgroup_holds_even_what_began_a_session_of_its_own() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a control group of its own");
    let Some((path, _)) = bed.cgroup("tree") else { testbed::skip!("no writable cgroup of version 2 here") };
    let token = token(bed, "alice");
    let script = "setsid sleep 1000 & echo $!; setsid -f sh -c 'echo $$; exec sleep 1000'; cat /proc/self/cgroup >&2; wait";
    let groups = || std::fs::read_dir(&path).unwrap().flatten().filter(|e| e.path().is_dir()).count();
    let mut command = shell(script);
    command.cgroup(Cgroup::delegated(&path).unwrap()).stderr(Stdio::piped());
    let (mut child, pids) = tree(&mut command, &token, 2);
    assert_eq!(child.containment(), Containment::Cgroup);
    let mut line = String::new();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    while !line.contains("0::") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "the process told no cgroup");
    }
    assert!(line.contains("/stead-"), "{line}");
    assert_eq!(groups(), 1);
    child.kill_tree().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    until("the tree is gone", || !pids.iter().any(|pid| alive(*pid)));
    drop(child);
    // Removed when the last has gone, which is noticed when the library is used next.
    until("the cgroup is gone", || {
        let _ = shell(":").status_as(&token);
        groups() == 0
    });
    std::fs::remove_dir(path).unwrap();
}

#[test]
fn a_cgroup_that_a_crashed_server_left_is_swept() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a control group of its own");
    let Some((path, _)) = bed.cgroup("swept") else { testbed::skip!("no writable cgroup of version 2 here") };
    std::fs::create_dir(path.join("stead-999999999-7")).unwrap();
    std::fs::create_dir(path.join("another")).unwrap();
    Cgroup::delegated(&path).unwrap();
    assert!(!path.join("stead-999999999-7").exists());
    assert!(path.join("another").exists());
    std::fs::remove_dir(path.join("another")).unwrap();
    std::fs::remove_dir(path).unwrap();
}

#[test]
fn limits_of_a_cgroup_are_set_or_the_missing_controller_is_named() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a control group of its own");
    let Some((path, controllers)) = bed.cgroup("limits") else {
        testbed::skip!("no writable cgroup of version 2 here")
    };
    let token = token(bed, "alice");
    let second = std::time::Duration::from_millis(100);
    let delegated = || Cgroup::delegated(&path).unwrap();
    let cases = [
        ("memory", "memory.max", "67108864", delegated().memory_max(64 << 20)),
        ("pids", "pids.max", "20", delegated().pids_max(20)),
        ("cpu", "cpu.max", "50000 100000", delegated().cpu_max(second / 2, second)),
    ];
    let mut missing = Vec::new();
    for (controller, file, expected, cgroup) in cases {
        let mut command = shell("sleep 1000");
        let spawned = command.cgroup(cgroup).spawn_as(&token);
        if controllers.iter().any(|one| one == controller) {
            let mut child = spawned.unwrap_or_else(|error| panic!("{error}"));
            let group = std::fs::read_dir(&path).unwrap().flatten().find(|e| e.path().is_dir()).unwrap();
            assert_eq!(std::fs::read_to_string(group.path().join(file)).unwrap().trim(), expected);
            child.kill_tree().unwrap();
            child.wait().unwrap();
        } else {
            let error = spawned.unwrap_err();
            let ErrorKind::InvalidInput { what } = error.kind() else { panic!("{error}") };
            assert!(what.contains(&format!("without the {controller} controller")), "{what}");
            missing.push(controller);
        }
    }
    assert_eq!(std::fs::read_dir(&path).unwrap().flatten().filter(|e| e.path().is_dir()).count(), 0);
    std::fs::remove_dir(path).unwrap();
    if !missing.is_empty() {
        testbed::skip!(
            "cgroup controllers {} are not to be had here; their errors were tested",
            missing.join(", ")
        );
    }
}
