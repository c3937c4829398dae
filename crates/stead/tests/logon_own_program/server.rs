//! The server, in its roles.
#![allow(clippy::unwrap_used)]

use std::process::Command as StdCommand;

use stead::{Account, Command, ErrorKind, Logon, LogonType};
use testbed::Bed;

const TESTS: [(&str, fn()); 3] = [
    ("a_program_that_begins_with_init_is_its_own_worker", with_init),
    ("without_worker_and_init_there_is_an_error_and_no_second_server", without_init),
    ("the_worker_is_not_imitated_by_a_name_alone", imitated),
];

pub fn run() {
    let role = std::env::var("STEAD_TEST_ROLE").unwrap_or_default();
    if role == "careless" {
        let error = logon().open().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WorkerUnavailable { .. }), "{error}");
        println!("careless: {error}");
        return;
    }
    stead::init();
    if role == "server" {
        let session = logon().open().unwrap_or_else(|error| panic!("{error}"));
        let worker = std::fs::read_to_string("/proc/thread-self/children").unwrap();
        // The worker is not dumpable: which program it runs is not for a server without CAP_SYS_PTRACE to see.
        if testbed::confine::may("sys_ptrace") {
            let program = std::fs::read_link(format!("/proc/{}/exe", worker.trim())).unwrap();
            assert_eq!(program, std::fs::read_link("/proc/self/exe").unwrap());
        }
        assert!(Command::new("/bin/true").status_as(session.token()).unwrap().success());
        session.close().unwrap();
        println!("server: done");
        return;
    }
    testbed::run_tests(&TESTS);
}

fn logon() -> Logon {
    Logon::s4u(Account::local("alice")).kind(LogonType::Batch)
}

/// A copy of this program where no stead-session is beside it, in a role.
fn copy(bed: &Bed, role: &str) -> StdCommand {
    let mut command = StdCommand::new(bed.this_program());
    command.env("STEAD_TEST_ROLE", role);
    command
}

fn said(command: &mut StdCommand) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn with_init() {
    let bed = testbed::require!();
    assert!(said(&mut copy(bed, "server")).contains("server: done"));
}

fn without_init() {
    let bed = testbed::require!();
    let said = said(&mut copy(bed, "careless"));
    // Once: no second copy of the server's main has run.
    assert_eq!(said.matches("careless:").count(), 1, "{said}");
    assert!(said.contains("stead::init()"), "{said}");
}

fn imitated() {
    use std::os::unix::process::CommandExt;
    let bed = testbed::require!();
    // The name without the socket, and the name with an environment: a program like any other.
    let mut command = copy(bed, "server");
    command.arg0("stead-session");
    assert!(said(&mut command).contains("server: done"));
    let mut command = StdCommand::new(bed.this_program());
    command.env_clear().arg0("stead-session").arg("--list");
    assert!(said(&mut command).contains(": test"));
}
