//! Servers as they are: many threads, foreign reapers, ignored signals, sudden death; and nothing of the
//! server's changes.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod process_support;

use std::sync::atomic::{AtomicBool, Ordering};

use process_support::*;
use stead::os::linux::{Capability, LogonExt};
use stead::{Command, ErrorKind, Stdio};
use testbed::{Probe, until};

/// What of the server must never change.
fn state() -> (Probe, Vec<u8>) {
    let mut probe = Probe::of_self().unwrap();
    // What the test itself changes meanwhile.
    probe.descriptors.clear();
    let environment = std::env::vars_os().flat_map(|(name, value)| [name, value]).collect::<Vec<_>>();
    let environment = environment.iter().flat_map(|one| one.as_encoded_bytes().to_vec()).collect();
    (probe, environment)
}

#[test]
fn sixty_four_threads_create_processes_of_different_users_and_the_server_stays_itself() {
    let bed = testbed::require!();
    testbed::time_limit!(300);
    let users = ["alice", "bob", "0day", "mallory"];
    let tokens = users.map(|name| token(bed, name));
    let controls = users.map(|name| bed.control_setpriv(name));
    let before = state();
    std::thread::scope(|scope| {
        for thread in 0..64 {
            let (tokens, controls) = (&tokens, &controls);
            scope.spawn(move || {
                for round in 0..4 {
                    let which = (thread + round) % users.len();
                    let ours = seen(&probe(bed), &tokens[which]);
                    assert_eq!(ours.uid, controls[which].uid);
                    assert_eq!(ours.gid, controls[which].gid);
                    assert_eq!(ours.groups, controls[which].groups);
                    assert_eq!(ours.capabilities, controls[which].capabilities);
                    assert_eq!(ours.signals.blocked, 0);
                    let own = Probe::of(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
                    assert_eq!((own.uid.effective, own.uid.filesystem, own.groups), (0, 0, Vec::new()));
                }
            });
        }
    });
    assert_eq!(state(), before);
    assert!(zombies().is_empty());
}

#[test]
fn a_thousand_processes_leave_neither_descriptors_nor_zombies() {
    let bed = testbed::require!();
    testbed::time_limit!(300);
    let token = token(bed, "alice");
    let run = |number: usize| {
        for round in 0..number {
            match round % 4 {
                0 => assert!(Command::new("true").status_as(&token).unwrap().success()),
                1 => drop(Command::new("true").output_as(&token).unwrap()),
                // Dropped at once: what is left of them is collected by those that follow.
                2 => drop(Command::new("true").stdin(Stdio::piped()).spawn_as(&token).unwrap()),
                _ => drop(Command::new("/nowhere").spawn_as(&token).unwrap_err()),
            }
        }
    };
    run(8);
    settle(&token);
    let before = descriptors();
    run(1000);
    settle(&token);
    assert_eq!(descriptors(), before);
    assert!(zombies().is_empty());
}

/// Waits until what was abandoned has ended and was collected.
fn settle(token: &stead::Token<stead::Primary>) {
    until("abandoned children are collected", || {
        Command::new("true").status_as(token).unwrap();
        zombies().is_empty() && !descriptors().iter().any(|(_, to)| to.contains("pidfd"))
    });
}

#[test]
fn a_server_that_ignores_sigchld_still_learns_how_its_processes_end() {
    let bed = testbed::require!();
    let test = "a_server_that_ignores_sigchld_still_learns_how_its_processes_end";
    if !in_a_server_of_its_own(bed, test, &["env", "--ignore-signal=CHLD"]) {
        return;
    }
    let ignored = Probe::of_self().unwrap().signals.ignored;
    assert_ne!(ignored & (1 << 16), 0, "SIGCHLD is ignored");
    let token = token(bed, "alice");
    for code in [0, 1, 42] {
        match shell(&format!("exit {code}")).status_as(&token) {
            Ok(status) => assert_eq!(status.code(), Some(code)),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::StatusLost), "{error}");
                testbed::skip!("this kernel does not keep the status of a reaped process (Linux 6.15)");
            }
        }
    }
    let mut child = Command::new("sleep").arg("1000").spawn_as(&token).unwrap();
    child.kill().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    child.kill_tree().unwrap();

    // When its first process was reaped nobody knows, and so neither whether its number still means the tree.
    let mut command = shell("sleep 1000 & echo $!");
    let mut child = command.stdout(Stdio::piped()).spawn_as(&token).unwrap();
    let mut rest = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut rest)
        .unwrap();
    assert!(child.wait().unwrap().success());
    let unsure = child.kill_tree().unwrap_err();
    assert!(matches!(unsure.kind(), ErrorKind::StatusLost), "{unsure}");
    let rest = rustix::process::Pid::from_raw(rest.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(rest, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_server_that_reaps_everything_still_learns_how_its_processes_end() {
    let bed = testbed::require!();
    let test = "a_server_that_reaps_everything_still_learns_how_its_processes_end";
    if !in_a_server_of_its_own(bed, test, &["env"]) {
        return;
    }
    let token = token(bed, "alice");
    let stop = AtomicBool::new(false);
    let lost = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
            }
        });
        let mut lost = false;
        for code in (0..200).map(|round| round % 7) {
            match shell(&format!("exit {code}")).status_as(&token) {
                Ok(status) => assert_eq!(status.code(), Some(code)),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::StatusLost), "{error}");
                    lost = true;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        lost
    });
    if lost {
        testbed::skip!("this kernel does not keep the status of a reaped process (Linux 6.15)");
    }
}

#[test]
fn a_server_that_is_not_root_but_has_the_capabilities_creates_the_same_processes() {
    let bed = testbed::require!();
    let test = "a_server_that_is_not_root_but_has_the_capabilities_creates_the_same_processes";
    let svc = bed.user("svc");
    // As far as this machine's root has them: an ordinary container's lacks some, and still can do this.
    let held = stead::os::linux::CapabilitySet::from_bits(Probe::of_self().unwrap().capabilities.bounding);
    let wanted = [
        Capability::Setuid,
        Capability::Setgid,
        Capability::Setpcap,
        Capability::Kill,
        Capability::SysPtrace,
        Capability::DacReadSearch,
        Capability::AuditControl,
        Capability::Chown,
    ];
    let capabilities: Vec<String> = wanted
        .into_iter()
        .filter(|one| held.contains(*one))
        .map(|one| one.name().replace("CAP_", "+").to_lowercase())
        .collect();
    let capabilities = capabilities.join(",");
    let reuid = format!("--reuid={}", svc.uid);
    let regid = format!("--regid={}", svc.gid);
    let inheritable = format!("--inh-caps={capabilities}");
    let ambient = format!("--ambient-caps={capabilities}");
    let prefix = ["setpriv", &reuid, &regid, "--init-groups", &inheritable, &ambient, "--"];
    if !in_a_server_of_its_own(bed, test, &prefix) {
        return;
    }
    assert_eq!(rustix::process::geteuid().as_raw(), svc.uid);
    for name in ["alice", "bob"] {
        let token = token(bed, name);
        let ours = seen(&probe(bed), &token);
        let user = bed.user(name);
        assert_eq!((ours.uid.real, ours.uid.saved, ours.gid.real), (user.uid, user.uid, user.gid));
        assert_eq!(ours.groups, user.all_groups());
        let held = ours.capabilities;
        assert_eq!((held.permitted, held.effective, held.inheritable, held.ambient), (0, 0, 0, 0));
        assert_eq!(ours.descriptors.len(), 3);
        // It can also end what it created.
        let mut child = Command::new("sleep").arg("1000").spawn_as(&token).unwrap();
        child.kill_tree().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    }
    assert!(zombies().is_empty());
}

#[test]
fn nothing_that_the_server_has_of_its_own_reaches_the_process() {
    let bed = testbed::require!();
    let test = "nothing_that_the_server_has_of_its_own_reaches_the_process";
    // What a service manager, a shell or a careless start script may leave on a server.
    let odd = "umask 077; echo 500 > /proc/$$/oom_score_adj; echo 0x7f > /proc/$$/coredump_filter; \
               echo 123456 > /proc/$$/timerslack_ns 2> /dev/null; exec \"$@\"";
    let prefix = [
        "env",
        "--ignore-signal=PIPE",
        "--ignore-signal=USR1",
        "--block-signal=TERM",
        "LD_LIBRARY_PATH=/tmp/evil",
        "BASH_ENV=/tmp/evil",
        "ENV=/tmp/evil",
        "F=() { :; }; echo evil",
        "XDG_SEAT=seat0",
        "KRB5CCNAME=FILE:/etc/passwd",
        "DISPLAY=:0",
        "nice",
        "-n7",
        "ionice",
        "-c3",
        "chrt",
        "--batch",
        "0",
        "setarch",
        "-R",
        "taskset",
        "-c",
        "0",
        "sh",
        "-c",
        odd,
        "sh",
    ];
    if !in_a_server_of_its_own(bed, test, &prefix) {
        return;
    }
    testbed::take_odd_attributes();
    let own = Probe::of_self().unwrap();
    assert_eq!((own.umask, own.nice, own.oom_score_adj, own.core_filter), (0o077, 7, 500, 0x7f));
    assert!([1, -1].contains(&own.memory_merge) && [1, -1].contains(&own.machine_checks), "{own:?}");
    assert!(own.io_flusher == 1 || !testbed::confine::may("sys_resource"), "{own:?}");
    assert_ne!((own.personality, own.scheduling.policy, own.io_priority), (0, 0, 0));
    let alice = token(bed, "alice");
    if !testbed::confine::may("sys_nice") {
        let error = probe(bed).output_as(&alice).unwrap_err();
        let named = testbed::confine::missing_name("sys_nice");
        assert!(
            matches!(error.kind(), ErrorKind::PrivilegeMissing { missing, .. } if *missing == named),
            "{error}"
        );
        testbed::skip!(
            "without CAP_SYS_NICE a server that is nice itself cannot undo it; its error was tested"
        );
    }
    let ours = seen(&probe(bed), &alice);
    let names: Vec<&str> = ours.environment.iter().filter_map(|one| Some(one.split_once('=')?.0)).collect();
    assert_eq!(names, ["HOME", "LOGNAME", "PATH", "SHELL", "USER"]);
    assert_eq!((ours.signals.blocked, ours.signals.ignored), (0, 0));
    assert_eq!((ours.umask, ours.nice, ours.oom_score_adj, ours.core_filter), (0o022, 0, 0, 0x33));
    assert_eq!((ours.personality, ours.scheduling.policy, ours.timer_slack), (0, 0, 50_000));
    // Not the class that the server has (idle is 3); the kernel tells none, or best effort by the nice value.
    assert_ne!(ours.io_priority >> 13, 3);
    assert_ne!(ours.affinity, own.affinity);
    assert_eq!((ours.dumpable, ours.parent_death_signal), (1, 0));
    assert!([0, -1].contains(&ours.memory_merge) && [2, -1].contains(&ours.machine_checks), "{ours:?}");
    // Only root may ask.
    let root = Command::new(bed.bin("probe")).output_as(&stead::Token::current().unwrap()).unwrap();
    assert_ne!(Probe::parse(&root.stdout).io_flusher, 1);
}

#[test]
fn the_slice_that_the_server_chose_for_itself_is_not_its_clients() {
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    let control = Probe::of_self().unwrap().scheduling.slice;
    if control == 0 {
        testbed::skip!("needs slices of one's own (Linux 6.12)");
    }
    testbed::take_slice(50_000_000).unwrap();
    let own = Probe::of(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
    assert_eq!(own.scheduling.slice, 50_000_000);
    assert_eq!(seen(&probe(bed), &alice).scheduling.slice, control);
}

#[test]
fn a_thread_under_deadlines_is_told_that_it_can_create_nothing() {
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    let under_deadlines = || {
        testbed::take_deadlines()?;
        Ok::<_, std::io::Error>(probe(bed).output_as(&alice).unwrap_err())
    };
    let error = match std::thread::scope(|scope| scope.spawn(under_deadlines).join().unwrap()) {
        Ok(error) => error,
        Err(reason) => testbed::skip!("no thread can have deadlines here: {reason}"),
    };
    let ErrorKind::LimitReached { limit } = error.kind() else { panic!("{error}") };
    assert!(limit.contains("SCHED_DEADLINE"), "{error}");
    assert_eq!(seen(&probe(bed), &alice).scheduling.policy, 0, "by another thread of the server");
}

#[test]
fn a_nice_server_that_may_not_undo_that_is_told_so_by_a_logon_as_well() {
    let bed = testbed::require!();
    let test = "a_nice_server_that_may_not_undo_that_is_told_so_by_a_logon_as_well";
    let without = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice", "--"];
    if !in_a_server_of_its_own(bed, test, &[&["nice", "-n5"][..], &without].concat()) {
        return;
    }
    let alice = token(bed, "alice");
    let logon = stead::Logon::s4u(stead::Account::local("alice")).worker(bed.bin("stead-session"));
    for error in [probe(bed).output_as(&alice).unwrap_err(), logon.open().unwrap_err()] {
        let named = testbed::confine::missing_name("sys_nice");
        let ErrorKind::PrivilegeMissing { missing, .. } = error.kind() else { panic!("{error}") };
        assert_eq!(*missing, named);
        let said = error.to_string();
        assert!(said.contains("nice value") && !said.contains("stead-session"), "{said}");
    }
}

/// Ends the process also when the test fails: it would torment all other tests.
struct Ended(stead::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill_tree();
    }
}

#[test]
fn a_client_that_stops_its_own_processes_cannot_hold_the_server() {
    let bed = testbed::require!(alone);
    testbed::time_limit!(300);
    let mallory = token(bed, "mallory");
    // kill(-1) reaches all that mallory may signal, but for the caller: whatever becomes hers is stopped at
    // once.
    let mut attacker =
        Ended(shell("trap '' CONT; while :; do kill -STOP -1; done").spawn_as(&mallory).unwrap());
    let (mut started, mut refused) = (0, 0);
    for _ in 0..200 {
        let mut command = Command::new("true");
        match command.deadline(std::time::Duration::from_millis(300)).spawn_as(&mallory) {
            Ok(mut child) => {
                started += 1;
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::DeadlinePassed { .. }), "{error}");
                refused += 1;
            }
        }
    }
    attacker.0.kill_tree().unwrap();
    attacker.0.wait().unwrap();
    println!("{started} started, {refused} stopped on the way and ended");
    assert!(zombies().is_empty());
    assert!(Command::new("true").status_as(&mallory).unwrap().success());
}

/// CVE-2024-21626: the directory is a descriptor of the server's that is still open.
#[test]
fn a_directory_named_by_one_of_the_servers_descriptors_cannot_be_entered() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let open: Vec<_> = (0..10).map(|_| std::fs::File::open("/").unwrap()).collect();
    for number in 3..30 {
        for by in ["self", "thread-self"] {
            let mut command = Command::new("true");
            let error = command.current_dir(format!("/proc/{by}/fd/{number}")).status_as(&token).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::DirectoryUnusable { .. }), "{error}");
        }
    }
    drop(open);
}

#[test]
fn an_ordinary_container_creates_the_same_processes() {
    let bed = testbed::require!();
    let test = "an_ordinary_container_creates_the_same_processes";
    // Docker's capabilities and seccomp profile: no clone3, no keyctl, no ptrace of others.
    let confine = bed.bin("testbed-client");
    let prefix = [confine.to_str().unwrap(), "confine", "--docker", "--"];
    // A bed in a container has no need to imitate one.
    let in_one = bed.mode() == testbed::Mode::Container;
    if !in_one && !in_a_server_of_its_own(bed, test, &prefix) {
        return;
    }
    let own = Probe::of_self().unwrap();
    assert!(in_one || own.seccomp == 2);
    for name in ["alice", "bob"] {
        let token = token(bed, name);
        let ours = seen(&probe(bed), &token);
        let user = bed.user(name);
        assert_eq!((ours.uid.real, ours.uid.saved, ours.gid.real), (user.uid, user.uid, user.gid));
        assert_eq!(ours.groups, user.all_groups());
        let held = ours.capabilities;
        assert_eq!((held.permitted, held.effective, held.inheritable, held.ambient), (0, 0, 0, 0));
        assert_eq!(held.bounding, own.capabilities.bounding);
        assert_eq!((ours.descriptors.len(), ours.session), (3, ours.pid));
        let mut child = Command::new("sleep").arg("1000").spawn_as(&token).unwrap();
        child.kill_tree().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
        let mut child = shell("stat -c %u $(tty)").pty(stead::PtySize::default()).spawn_as(&token).unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(child.pty.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(said.trim(), user.uid.to_string());
        child.wait().unwrap();
    }
    assert!(zombies().is_empty());
}

#[test]
fn a_process_outlives_the_thread_that_created_it() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let mut child =
        std::thread::spawn(move || Command::new("cat").stdin(Stdio::piped()).spawn_as(&token).unwrap())
            .join()
            .unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_server_with_thousands_of_descriptors_hands_on_the_newest() {
    let bed = testbed::require!();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(4096);
    let many: Vec<_> =
        (0..limit.saturating_sub(200).min(5000)).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let ours = seen(&probe(bed), &token(bed, "alice"));
    assert_eq!(ours.descriptors.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    drop(many);
}

#[test]
fn a_server_killed_in_the_middle_of_creating_leaves_no_process_that_is_half_the_clients() {
    const MARK: &str = "STEAD_TEST_SERVER";
    if std::env::var_os(MARK).is_some() {
        // The bed is the parent's alone.
        let token = token(testbed::Bed::current().unwrap(), "alice");
        println!("creating");
        loop {
            let _ = Command::new("sleep").arg("100047").spawn_as(&token);
        }
    }
    let bed = testbed::require!(alone);
    let test = "a_server_killed_in_the_middle_of_creating_leaves_no_process_that_is_half_the_clients";
    let alice = bed.user("alice").uid;
    for round in 0..20_u64 {
        let mut server = std::process::Command::new(bed.this_program())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(MARK, "1")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(server.stdout.take().unwrap()));
        assert!(lines.any(|line| line.unwrap().contains("creating")));
        std::thread::sleep(std::time::Duration::from_micros(500 * round));
        server.kill().unwrap();
        server.wait().unwrap();
        // Whatever it had begun becomes a complete process of alice's, or ends.
        until("nobody is on the way any more", || {
            everyone()
                .iter()
                .all(|probe| probe.arguments.first().is_none_or(|name| name != "stead-trampoline"))
        });
        for process in everyone() {
            if process.arguments == ["sleep", "100047"] {
                assert_eq!(
                    (process.uid.real, process.uid.effective, process.uid.saved),
                    (alice, alice, alice)
                );
                assert_eq!(process.groups, bed.user("alice").all_groups());
                let pid = rustix::process::Pid::from_raw(process.pid).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        }
    }
}

fn everyone() -> Vec<Probe> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| Probe::of(entry.file_name().to_str()?.parse().ok()?).ok())
        .collect()
}
