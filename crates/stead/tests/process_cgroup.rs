//! Control groups: one that a later run of the server finds again by its name, and what the kernel forbids whoever is in
//! one with limits.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod process_support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use process_support::*;
use stead::os::linux::{Cgroup, CommandExt};
use stead::{Child, Stdio};
use testbed::{Bed, until};

const GROUPS: &str = "STEAD_TEST_GROUPS";

/// Starts a script in the group, and gives the ids that it prints, `number` of them.
fn started(script: &str, group: Cgroup, bed: &Bed, number: usize) -> (Child, Vec<u32>) {
    let mut command = shell(script);
    command.cgroup(group).stdout(Stdio::piped());
    let mut child = command.spawn_as(&token(bed, "alice")).unwrap_or_else(|error| panic!("{error}"));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.take(number).map(|line| line.unwrap().parse().unwrap()).collect();
    (child, said)
}

fn members(group: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Ends all that is in a named group, and the group: it goes with its process only where nobody else is in it by then.
fn ended(child: &mut Child, group: &Cgroup) {
    assert!(group.kill_tree().unwrap());
    child.wait().unwrap();
}

/// The value of a line `NAME VALUE`.
fn value(group: &Path, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(group.join(file)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{file} has no {name}: {text}")).parse().unwrap()
}

/// Not a test: the server that the next one starts and kills.
#[test]
fn role_server_that_names_a_group() {
    let Some(groups) = std::env::var_os(GROUPS) else { return };
    let bed = Bed::current().expect("inside the bed");
    let group = |name: &str| Cgroup::delegated(&groups).unwrap().named(name);
    let (_job, job) = started(
        "setsid -f sh -c 'echo $$; exec sleep 1000'; echo $$; exec sleep 1000",
        group("job-7"),
        bed,
        2,
    );
    let (_ended, left) =
        started("echo $$; exec setsid -f sh -c 'echo $$; exec sleep 1000'", group("job-8"), bed, 2);
    println!("\nserver: {} {} {}", job[0], job[1], left[1]);
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_named_group_is_found_again_when_its_server_was_killed_and_its_tree_is_ended_through_it() {
    let bed = testbed::require!();
    let Some((path, _)) = bed.cgroup("named") else { testbed::skip!("no writable cgroup of version 2 here") };
    if !path.join("cgroup.kill").exists() {
        testbed::skip!("this kernel has no cgroup.kill (Linux 5.14)");
    }
    let mut server = std::process::Command::new(bed.this_program())
        .args(["--exact", "role_server_that_names_a_group", "--nocapture", "--test-threads=1"])
        .env(GROUPS, &path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said =
        lines.find_map(|line| line.strip_prefix("server: ").map(str::to_owned)).expect("it started both");
    let pids: Vec<u32> = said.split(' ').map(|pid| pid.parse().unwrap()).collect();
    server.kill().unwrap();
    server.wait().unwrap();

    let groups = Cgroup::delegated(&path).unwrap();
    let mut names = groups.names().unwrap();
    names.sort();
    assert_eq!(names, ["job-7", "job-8"]);
    let group = |name: &str| groups.clone().named(name);
    assert!(group("job-7").is_populated().unwrap() && group("job-8").is_populated().unwrap());
    assert!(pids.iter().all(|pid| alive(*pid)), "they outlive the server");
    let mut both = members(&path.join("job-7"));
    both.sort_unstable();
    let mut expected = pids[..2].to_vec();
    expected.sort_unstable();
    assert_eq!(both, expected);
    // Whoever is in it is somebody's: the name is not given to a second process.
    let second = shell("true").cgroup(group("job-7")).spawn_as(&token(bed, "alice")).unwrap_err();
    assert_eq!(second.os_error().unwrap().kind(), std::io::ErrorKind::AlreadyExists, "{second}");
    assert!(!group("job-7").remove().unwrap(), "somebody is in it");
    assert!(!group("job-9").is_populated().unwrap() && !group("job-9").kill_tree().unwrap());

    assert!(group("job-7").kill_tree().unwrap());
    assert!(!alive(pids[0]) && !alive(pids[1]) && alive(pids[2]));
    assert_eq!(groups.names().unwrap(), ["job-8"]);
    assert!(!group("job-7").kill_tree().unwrap(), "it is gone");
    assert!(group("job-8").kill_tree().unwrap());
    assert!(!alive(pids[2]));
    assert_eq!(groups.names().unwrap(), Vec::<String>::new());
    std::fs::remove_dir(path).unwrap();
}

#[test]
fn what_is_above_the_limits_of_a_group_the_kernel_kills_refuses_or_makes_wait() {
    let bed = testbed::require!();
    let Some((path, controllers)) = bed.cgroup("enforced") else {
        testbed::skip!("no writable cgroup of version 2 here")
    };
    let has = |name: &str| controllers.iter().any(|one| one == name);
    let named = |name: &str| Cgroup::delegated(&path).unwrap().named(name);
    let mut missing = Vec::new();

    // What is asked for is held in memory by the last of the pipe.
    let fill = "head -c 100M /dev/zero | tail > /dev/null; echo $?; exec sleep 1000";
    if has("memory") {
        for (name, most, status) in [("small", 32 << 20, 128 + 9), ("large", 512 << 20, 0)] {
            let (mut child, said) = started(fill, named(name).memory_max(most), bed, 1);
            assert_eq!(said, [status], "{name}");
            let killed = value(&path.join(name), "memory.events", "oom_kill");
            assert_eq!(killed, u64::from(status != 0), "{name}");
            assert!(members(&path.join(name)).contains(&child.id()), "one process is killed, not the tree");
            ended(&mut child, &named(name));
        }
    } else {
        missing.push("memory");
    }
    let many =
        "sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done' 2> /dev/null; echo $?; exec sleep 1000";
    if has("pids") {
        for (name, most, running) in [("few", 5, 4), ("many", 50, 9)] {
            let (mut child, said) = started(many, named(name).pids_max(most), bed, 1);
            assert_eq!(said[0] == 0, running == 9, "{name}");
            // Itself and what the shell began: a shell that cannot fork ends, and leaves its place.
            assert_eq!(members(&path.join(name)).len(), running, "{name}");
            assert_eq!(value(&path.join(name), "pids.events", "max") > 0, running != 9, "{name}");
            ended(&mut child, &named(name));
        }
    } else {
        missing.push("pids");
    }
    if has("cpu") {
        // Not less: what is made to wait while it holds a lock of the kernel's makes others wait.
        let group = named("slow").cpu_max(Duration::from_millis(50), Duration::from_millis(100));
        let (mut child, _) = started("echo 1; while :; do :; done", group, bed, 1);
        until("it was made to wait", || value(&path.join("slow"), "cpu.stat", "nr_throttled") > 2);
        ended(&mut child, &named("slow"));
    } else {
        missing.push("cpu");
    }
    std::fs::remove_dir(path).unwrap();
    if !missing.is_empty() {
        testbed::skip!("cgroup controllers {} are not to be had here", missing.join(", "));
    }
}
