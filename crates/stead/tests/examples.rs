//! The examples, run as their own first lines say.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process_support;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use process_support::*;
use testbed::{Bed, until};

/// A server that ends with the test.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, socket: &Path) -> Self {
        let server = Self(command.current_dir("/").stdin(Stdio::null()).spawn().unwrap());
        until("the server listens", || socket.exists());
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn log_on(bed: &Bed, name: &str, password: &str, command: &[&str]) -> Output {
    let mut process = Command::new(bed.bin("logon_run"))
        .arg(name)
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(process.stdin.take().unwrap(), "{password}").unwrap();
    process.wait_with_output().unwrap()
}

#[test]
fn the_logon_example_runs_a_program_as_who_logged_on() {
    let bed = testbed::require!();
    let bob = bed.user("bob");
    let output = log_on(bed, "bob", &bob.password, &["id", "-u"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", bob.uid));
    let output = log_on(bed, "bob", "not his", &["id", "-u"]);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(text(&output).contains("the credentials were not accepted"), "{}", text(&output));
}

#[test]
fn the_impersonation_example_reads_as_its_client_and_runs_a_program_as_it() {
    let bed = testbed::require!();
    if !stead::Privilege::InspectClient.status().unwrap().enabled {
        testbed::skip!("the example serves nobody whose confinement it cannot read: needs CAP_SYS_PTRACE");
    }
    let socket = bed.scratch("example").join("socket");
    let program = bed.bin("impersonate_run");
    let _server =
        Server::start(Command::new(&program).arg("serve").arg(&socket).args(["id", "-un"]), &socket);
    for name in ["alice", "bob"] {
        let mut client = bed.as_user(name, &[], &program);
        let output = client.arg("connect").arg(&socket).arg("notes.txt").output().unwrap();
        assert_eq!(text(&output), format!("{name}\n"));
    }
}

#[test]
fn the_http_example_runs_its_callers_command_as_the_caller() {
    let bed = testbed::require!();
    if !Path::new("/usr/bin/curl").exists() {
        testbed::skip!("curl is not installed");
    }
    if !stead::Privilege::InspectClient.status().unwrap().enabled {
        testbed::skip!("the example serves nobody whose confinement it cannot read: needs CAP_SYS_PTRACE");
    }
    let socket = bed.scratch("example").join("socket");
    let _server = Server::start(Command::new(bed.bin("http_run")).arg(&socket), &socket);
    let ask = |name: &str, confinement: &[&str], body: &str| {
        let mut curl = bed.as_user(name, &[], "setpriv");
        let output = curl
            .args(confinement)
            .args(["--", "curl", "-sS", "--unix-socket"])
            .arg(&socket)
            .args(["-d", body, "http://server/"])
            .output();
        text(&output.unwrap())
    };
    // As it is already: setpriv wants to be told something.
    let free = &["--inh-caps=-all"];
    assert_eq!(ask("alice", free, "id -un"), "alice\n");
    assert_eq!(ask("bob", free, "id -un"), "bob\n");
    assert!(ask("bob", free, "no-such-program").contains("there is no program"));
    assert!(ask("bob", &["--no-new-privs"], "id -un").contains("no_new_privs"));
}

#[test]
fn the_interactive_example_starts_a_program_on_the_desktop_and_leaves_no_grant_behind() {
    let bed = testbed::require!();
    let gids = std::fs::read_to_string("/proc/self/gid_map").unwrap();
    if !gids.split_ascii_whitespace().eq(["0", "0", "4294967295"]) {
        testbed::skip!("the range that logon gids are taken from is not in this user namespace");
    }
    let display = testbed::display::Display::start(bed, &testbed::display::Options::default());
    let alice = bed.user("alice");
    let run = |program: &[&std::ffi::OsStr]| {
        let mut process = Command::new(bed.bin("interactive_run"))
            .args(["alice", &display.name()])
            .args(program)
            .env("XAUTHORITY", display.authority())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(process.stdin.take().unwrap(), "{}", alice.password).unwrap();
        process.wait_with_output().unwrap()
    };
    let shown = run(&[bed.bin("testbed-xclient").as_os_str(), "show".as_ref(), "3366cc".as_ref()]);
    assert!(shown.status.success(), "{}", text(&shown));
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "shown\n");
    let said = text(&shown);
    let granted = said.split("while it runs:\n").nth(1).and_then(|rest| rest.split("after:\n").next());
    let expected = format!("{} allows logon session ", display.name());
    assert!(granted.unwrap().starts_with(&expected) && said.ends_with("after:\n\n"), "{said}");
    // What refuses is told by the program itself.
    let nowhere = run(&["/nowhere".as_ref()]);
    assert!(
        !nowhere.status.success() && text(&nowhere).contains("there is no program"),
        "{}",
        text(&nowhere)
    );
}
