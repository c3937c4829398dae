//! Processes on Windows: whose they are, what they were given, and what they leave in the server.
#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod windows_support;

use proptest::prelude::{Strategy, prop, proptest};
use proptest::test_runner::Config;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stead::error::ProgramFault;
use stead::token::Restriction;
use stead::{Command, ErrorKind, Primary, Stdio, Token};
use testbed::windows::{LOGON, Seen, USER, WinProbe, fresh_handle, program};
use windows_support::{minted, own};

fn probe(command: &Command, token: &Token<Primary>) -> WinProbe {
    let output = command.output_as(token).unwrap_or_else(|error| panic!("{error}"));
    assert!(output.status.success(), "{output:?}");
    WinProbe::parse(&output.stdout)
}

#[test]
fn a_process_is_the_users_whose_token_it_is_created_from() {
    let token = testbed::minted!(minted());
    // A user without a profile has no directory to begin in.
    let seen = probe(Command::new(program("winprobe")).current_dir("C:\\"), &token);
    assert_eq!((seen.user.as_str(), seen.logon.as_deref()), (USER, Some(LOGON)));
    assert!(seen.groups.iter().all(|group| group != "S-1-5-32-544"), "{seen:?}");
}

/// On Windows a server without SeAssignPrimaryTokenPrivilege too, which an administrator lacks.
#[test]
fn a_process_is_created_from_a_restricted_token_of_the_servers_own() {
    let least = own().restrict(&Restriction::new().without_privileges()).unwrap();
    let seen = probe(&Command::new(program("winprobe")), &least);
    assert_eq!(seen.user, Seen::own().unwrap().user);
}

/// Not by what it says of itself: by what another process sees.
#[test]
fn a_running_process_is_seen_to_be_the_users() {
    let token = testbed::minted!(minted());
    let mut command = Command::new(program("winprobe"));
    let mut child = command.arg("--hold").current_dir("C:\\").stdin(Stdio::piped()).spawn_as(&token).unwrap();
    assert_eq!(Seen::process(child.id()).unwrap().user, USER);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn streams_directory_variables_and_exit_code_are_as_asked_for() {
    let directory = std::env::temp_dir().canonicalize().unwrap();
    let mut command = Command::new(program("winprobe"));
    command.args(["--exit", "7", "--", "a b"]).env("MARK", "set").current_dir(&directory);
    let output = command.output_as(&own()).unwrap();
    assert_eq!(output.status.code(), Some(7));
    let seen = WinProbe::parse(&output.stdout);
    assert_eq!(seen.environment["MARK"], "set");
    assert_eq!(seen.directory.canonicalize().unwrap(), directory);
    assert_eq!(seen.std_arguments.last().unwrap(), "a b");
}

#[test]
fn a_variable_of_the_servers_own_does_not_reach_the_process() {
    const NAME: &str = "STEAD_ONLY_THE_SERVERS";
    if std::env::var_os(NAME).is_some() {
        let seen = probe(&Command::new(program("winprobe")), &own());
        assert!(!seen.environment.contains_key(NAME), "{seen:?}");
        return;
    }
    // A server that has it: this test again.
    let mut server = std::process::Command::new(std::env::current_exe().unwrap());
    server.args(["--exact", "a_variable_of_the_servers_own_does_not_reach_the_process", "--nocapture"]);
    assert!(server.env(NAME, "1").status().unwrap().success());
}

#[test]
fn a_process_is_waited_for_no_longer_than_asked_and_can_be_killed() {
    let mut command = Command::new(program("winprobe"));
    let mut child = command.arg("--hold").stdin(Stdio::piped()).spawn_as(&own()).unwrap();
    assert!(child.wait_timeout(Duration::from_millis(50)).unwrap().is_none());
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let error = Command::new("no-such-program-4711").spawn_as(&own()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ProgramNotFound { .. }), "{error}");
    assert!(error.to_string().contains("no-such-program-4711"), "{error}");
}

/// CVE-2024-24576, CVE-2024-43402.
#[test]
fn a_batch_file_is_refused_however_it_is_written() {
    let directory = std::env::temp_dir().join(format!("stead-batch-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    for name in ["x.bat", "x.cmd", "x.BAT"] {
        std::fs::write(directory.join(name), "@echo off\r\n").unwrap();
    }
    for name in ["x.bat", "x.cmd", "x.BaT", "x.bat.", "x.cmd ", "x.bat. ."] {
        let mut path = directory.clone().into_os_string();
        path.push("\\");
        path.push(name);
        let error = Command::new(&path).arg("\"&calc").spawn_as(&own()).unwrap_err();
        let refused = ProgramFault::BatchFile;
        assert!(
            matches!(error.kind(), ErrorKind::ProgramUnusable { why, .. } if *why == refused),
            "{name}: {error}"
        );
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

proptest! {
    #![proptest_config(Config { cases: 40, failure_persistence: None, ..Config::default() })]

    /// The three readings that programs have: std's, CommandLineToArgvW's and the C runtime's.
    #[test]
    fn arguments_arrive_as_they_were_given(arguments in prop::collection::vec(argument(), 0..12)) {
        let mut command = Command::new(program("winprobe"));
        command.arg("--").args(&arguments);
        let seen = probe(&command, &own());
        for read in [&seen.std_arguments, &seen.shell_arguments, &seen.crt_arguments] {
            assert_eq!(read[2..], arguments, "{}", seen.command_line);
        }
    }
}

/// A `main` of the C runtime itself, as gcc of MinGW starts it.
#[test]
fn a_program_in_c_reads_the_arguments_as_they_were_given() {
    let Some(program) = testbed::windows::c_program() else {
        testbed::skip!("the program in C is not built: cargo xtask test --windows does it");
    };
    let hexadecimal = |text: &String| {
        let digits: Vec<String> = text.encode_utf16().map(|unit| format!("{unit:04x}")).collect();
        digits.concat()
    };
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    proptest!(config, |(arguments in prop::collection::vec(argument(), 0..12))| {
        let output = Command::new(&program).args(&arguments).output_as(&own()).unwrap();
        let read = String::from_utf8(output.stdout).unwrap();
        let read: Vec<&str> = read.lines().collect();
        assert_eq!(read, arguments.iter().map(hexadecimal).collect::<Vec<_>>());
    });
}

/// Much of what quoting is about. No wildcards: the C runtime would be asked to expand them.
fn argument() -> impl Strategy<Value = String> {
    prop::string::string_regex("[a \t\"\\\\'^%&|<>!()=;,ä€/-]{0,12}").unwrap()
}

/// GetProcessHandleCount is always 0 under Wine; the value of a fresh handle rises when handles leak.
#[test]
fn many_processes_leave_no_handle_in_the_server() {
    testbed::time_limit!(2700);
    let token = own();
    let mut command = Command::new(program("winquick"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let run = |count: usize| {
        for _ in 0..count {
            let mut child = command.spawn_as(&token).unwrap();
            assert!(child.wait().unwrap().success());
        }
    };
    // Two at a time, as a machine of two processors runs them; the first ones make what is made once.
    let all = |count: usize| {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| run(count / 2));
            }
        });
    };
    all(20);
    let before = fresh_handle().unwrap();
    // Ten thousand take Wine ten minutes and more, for which `STEAD_LONG=1` has the time.
    all(if std::env::var_os("STEAD_LONG").is_some() { 10_000 } else { 500 });
    // The threads may have closed theirs in another order: one that leaked a handle for each process would be far off.
    let after = fresh_handle().unwrap();
    assert!(after <= before + 64, "{before} {after}");
}

/// std inherits every inheritable handle there is; ours get a list.
#[test]
fn a_process_created_while_std_creates_others_gets_its_own_handles_only() {
    // Values that no new process has of itself.
    let filling: Vec<_> = (0..3000).map(|_| std::fs::File::open(program("winprobe")).unwrap()).collect();
    let inheritable = testbed::windows::inheritable_event().unwrap();
    let value = testbed::windows::value(&inheritable).to_string();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let std_one = scope.spawn(|| {
            let mut got_it = 0;
            while !done.load(Ordering::Relaxed) {
                let output = std::process::Command::new(program("winprobe"))
                    .args(["--handles", &value])
                    .output()
                    .unwrap();
                got_it += WinProbe::parse(&output.stdout).open_handles.len();
            }
            got_it
        });
        let mut command = Command::new(program("winprobe"));
        command.args(["--handles", &value]);
        for _ in 0..20 {
            let seen = probe(&command, &own());
            assert_eq!(seen.open_handles, [0_usize; 0], "a handle of the server's own came along");
        }
        done.store(true, Ordering::Relaxed);
        assert!(std_one.join().unwrap() > 0, "std's children get it, so the test sees what it looks for");
    });
    drop(filling);
}
