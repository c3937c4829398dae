//! The library's own tests of logons, with sessions that come from the service: what a program does with them is the same
//! code, to the letter.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::duplicate_mod, reason = "each file of tests has its support with it")]

mod through_support;

#[path = "../../stead/tests/logon.rs"]
mod logon;
#[path = "../../stead/tests/logon_context.rs"]
mod logon_context;
#[path = "../../stead/tests/logon_gid.rs"]
mod logon_gid;
#[path = "../../stead/tests/logon_lifetime.rs"]
mod logon_lifetime;
#[path = "../../stead/tests/logon_tricks.rs"]
mod logon_tricks;
#[path = "../../stead/tests/common/server.rs"]
mod server;

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use server::StartedServer;
use stead::error::ProgramFault;
use stead::os::linux::{LogonExt, TokenExt};
use stead::{
    Account, Command, ErrorKind, Lifetime, Logon, LogonSession, LogonType, Service, SessionId, Stdio,
};
use testbed::{Bed, until};
use through_support::{PORTAL, TheService, alive, without_privileges_of_its_own};

/// Where another server of a test finds the service of the test.
const PID: &str = "STEAD_TEST_SERVICE_PID";
const SOCKET: &str = "STEAD_SERVICE";

/// The service of a test; as many wrong passwords as a test likes.
fn the_service() -> &'static TheService {
    static SERVICE: OnceLock<TheService> = OnceLock::new();
    let policy = format!("[failed-logons]\nfree-attempts = 1000\n{PORTAL}");
    SERVICE.get_or_init(|| TheService::start(Bed::current().unwrap(), &policy))
}

/// What the service does not take from its callers is what the test needs privileges for.
fn open_logon(logon: Logon) -> stead::Result<LogonSession> {
    let service = match std::env::var_os(SOCKET) {
        Some(_) => Service::connect().unwrap(),
        None => the_service().connect(),
    };
    let opened = logon.open_through(&service);
    if let Err(error) = &opened
        && let ErrorKind::NotThroughService { what } = error.kind()
    {
        without_privileges_of_its_own(what);
    }
    opened
}

#[test]
fn what_pam_says_to_the_end_of_a_session_is_told_through_the_service() {
    let bed = testbed::require!();
    let host = "refuses-to-close.example";
    for lifetime in [Lifetime::TiedToServer, Lifetime::Detached] {
        // Again and again: nobody else's letting go of it comes first, and loses the answer.
        for _ in 0..10 {
            let logon = Logon::password(Account::local("alice"), bed.user("alice").password.as_str());
            let logon = logon.kind(LogonType::Service).remote_host(host).lifetime(lifetime);
            let session = open_logon(logon).unwrap();
            let token = session.token().clone();
            assert_eq!(Command::new("true").status_as(&token).unwrap().code(), Some(0));
            let other = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                drop(token);
            });
            let error = session.close().unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::System { call: "pam_close_session" }, "{error}");
            assert_eq!(error.os_error().unwrap().to_string(), "System error", "as PAM calls it");
            other.join().unwrap();
        }
    }
}

#[test]
fn what_pam_says_is_told_to_who_waits_while_a_process_of_the_session_lives() {
    let bed = testbed::require!();
    let logon = Logon::password(Account::local("alice"), bed.user("alice").password.as_str());
    let logon = logon.kind(LogonType::Service).remote_host("refuses-to-close.example");
    let session = open_logon(logon).unwrap();
    let mut child = Command::new("sleep").arg("600").spawn_as(session.token()).unwrap();
    let pid = child.id();
    let closing = std::thread::spawn(move || session.close());
    std::thread::sleep(Duration::from_millis(100));
    assert!(!closing.is_finished(), "the session has a process");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(child);
    let error = closing.join().unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::System { call: "pam_close_session" }, "{error}");
    assert!(!alive(pid));
}

/// The arguments of a command that prints how many bytes of arguments and variables it has.
fn counts(command: &mut Command) -> &mut Command {
    let script = "cat /proc/$$/cmdline /proc/$$/environ | wc -c";
    command.args(["-c", script, "sh"]).stdout(Stdio::piped()).stderr(Stdio::null())
}

#[test]
fn the_kernels_limits_of_arguments_and_environment_are_met_through_the_service_as_without_it() {
    let bed = testbed::require!();
    let logon = || Logon::password(Account::local("bob"), bed.user("bob").password.as_str());
    let (direct, through) = (logon().open().unwrap(), open_logon(logon()).unwrap());
    let kibibytes = |number: usize| "x".repeat(number << 10);
    // Each argument, and each variable's value; how many of them.
    let cases = [
        (0, 0, 0),
        (1, 0, 1),
        (64, 1, 0),
        (64, 0, 4),
        (100, 9, 9),
        (100, 19, 0),
        // The kernel takes no string of 128 KiB (MAX_ARG_STRLEN), and no more than a quarter of the stack's limit.
        (127, 1, 1),
        (128, 1, 0),
        (128, 0, 1),
        (100, 30, 0),
        (100, 15, 15),
        (100, 70, 0),
    ];
    for (size, arguments, variables) in cases {
        let [of_direct, of_through] = [&direct, &through].map(|session| {
            let mut command = Command::new("/bin/sh");
            counts(&mut command).args((0..arguments).map(|_| kibibytes(size)));
            for number in 0..variables {
                command.env(format!("BIG_{number}"), kibibytes(size));
            }
            let output = command.output_as(session.token());
            output
                .map(|output| String::from_utf8(output.stdout).unwrap())
                .map_err(|error| error.kind().clone())
        });
        let what = format!("{arguments} arguments and {variables} variables of {size} KiB");
        assert_eq!(of_direct, of_through, "{what}");
        if size * (arguments + variables) > 2048 || size == 128 {
            let why = ProgramFault::ArgumentsTooLong;
            let program = "/bin/sh".to_owned();
            assert_eq!(of_through, Err(ErrorKind::ProgramUnusable { program, why }), "{what}");
        } else {
            let counted: usize = of_through.unwrap().trim().parse().unwrap();
            assert!(counted >= (size * (arguments + variables)) << 10, "{what}");
        }
    }
}

#[test]
fn bytes_that_are_no_characters_arrive_as_they_are_however_long_they_are() {
    let bed = testbed::require!();
    let logon = Logon::password(Account::local("bob"), bed.user("bob").password.as_str());
    let session = open_logon(logon).unwrap();
    for repeated in [1, 4_000, 30_000] {
        let argument = OsStr::from_bytes(&b"\xff\x01\n'".repeat(repeated)).to_owned();
        let mut command = Command::new("/usr/bin/printf");
        command.arg("%s|%s|%s").arg(&argument).arg("").arg(&argument).stdout(Stdio::piped());
        let output = command.output_as(session.token()).unwrap();
        let expected = [argument.as_bytes(), b"||", argument.as_bytes()].concat();
        assert_eq!(output.stdout, expected);
    }
}

/// The counter is the service's own.
fn asking_for_a_gid(logon: Logon, _counter: &Path) -> Logon {
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap();
    if !map.split_ascii_whitespace().eq(["0", "0", "4294967295"]) {
        testbed::skip_test("the service's logon gids are not mapped in this user namespace");
    }
    logon.logon_sid()
}

/// What `LogonGid::default()` has.
fn gids() -> RangeInclusive<u32> {
    0x7000_0000..=0x7fff_fffe
}

/// Session workers are children of the service.
fn keeper_of_sessions() -> u32 {
    std::env::var(PID).map_or_else(|_| the_service().pid(), |pid| pid.parse().unwrap())
}

fn variables_of_a_server() -> Vec<(&'static str, String)> {
    let service = the_service();
    vec![(SOCKET, service.socket.to_str().unwrap().to_owned()), (PID, service.pid().to_string())]
}

#[test]
fn a_killed_servers_detached_session_is_found_by_the_next_server_through_the_service() {
    let bed = testbed::require!();
    let mut variables = variables_of_a_server();
    variables.push(("STEAD_TEST_SERVER", "detached".to_owned()));
    variables.push(("STEAD_TEST_HOST", "found-again.example".to_owned()));
    let mut server = StartedServer::start("logon_lifetime::role_server_that_is_killed", variables);
    let (id, child): (SessionId, u32) = (server.said[1].parse().unwrap(), server.said[2].parse().unwrap());
    server.kill();
    let service = the_service().connect();
    let is_there = || service.sessions().unwrap().iter().any(|session| session.id() == id);
    assert!(is_there());
    let session = service.reattach(id).unwrap();
    assert_eq!(session.account(), "alice");
    assert!(session.processes().unwrap().contains(&child) && alive(child));
    assert_eq!(session.token().uid().as_raw(), bed.user("alice").uid);
    session.terminate().unwrap();
    session.close().unwrap();
    assert!(!alive(child));
    until("the session is over", || !is_there());
}
