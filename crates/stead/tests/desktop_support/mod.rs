//! What the tests of desktops share.
#![forbid(unsafe_code)]
#![allow(dead_code, missing_docs, clippy::unwrap_used)] // each test program uses a part of it
#![allow(unused_qualifications, reason = "`crate::` is not this module where the service's tests take it in")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use stead::os::linux::{LogonExt, LogonGid};
use stead::{Account, Child, Command, Desktop, Logon, LogonSession, LogonType, Stdio};
use testbed::{Bed, until};

/// A logon session that access lists can name.
pub fn session(bed: &Bed, user: &str) -> LogonSession {
    let logon = Logon::password(Account::local(user), bed.user(user).password.as_str());
    crate::open_logon_with_gid(logon.kind(LogonType::Interactive)).unwrap_or_else(|error| panic!("{error}"))
}

/// A logon that access lists can name. The program says by whose privileges: the library's tests by their own, those of
/// the service by the service's.
pub fn open_logon_with_gid(logon: Logon) -> stead::Result<LogonSession> {
    let gids = std::fs::read_to_string("/proc/self/gid_map").unwrap();
    let all = gids.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    // In a user namespace only the ids that it has; every test program draws from the same counter.
    let range = if all { 0x7000_0000..=0x7000_0fff } else { 61_000..=61_999 };
    with_worker(logon.logon_gid(LogonGid::range(range))).open()
}

/// Any other logon; the same.
pub fn open_logon(logon: Logon) -> stead::Result<LogonSession> {
    with_worker(logon).open()
}

/// Ends a test as skipped where the program has its sessions from the service, and the test is about what only a server
/// with privileges of its own can do.
pub fn needs_privileges_of_its_own(what: &str) {
    crate::without_privileges_of_its_own(what);
}

/// This program has what it has.
pub fn without_privileges_of_its_own(_what: &str) {}

/// The name that libtest knows the test of a module (`module_path!()`) by.
pub fn exact(module: &str, test: &str) -> String {
    match module.split_once("::") {
        Some((_, inner)) => format!("{inner}::{test}"),
        None => test.to_owned(),
    }
}

/// The same logon, by a test program that was copied and has no session worker beside it.
pub fn with_worker(logon: Logon) -> Logon {
    match std::env::var_os(WORKER) {
        Some(worker) => logon.worker(worker),
        None => logon,
    }
}

/// Where a copy of the test program, which is not beside it, finds the session worker.
const WORKER: &str = "STEAD_TEST_WORKER";

/// Another process of this test program, which plays a part; `prefix` starts it.
pub fn role(bed: &Bed, prefix: &[&str], name: &str) -> std::process::Command {
    let program = bed.this_program();
    let mut words = prefix.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
    let mut command = std::process::Command::new(words.next().unwrap());
    command
        .args(words)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(WORKER, bed.bin("stead-session"));
    command
}

/// A process that runs until it is told to end, and its first line.
pub struct Running {
    pub child: Child,
    pub said: String,
    out: BufReader<std::process::ChildStdout>,
}

impl Running {
    pub fn start(command: &mut Command, session: &LogonSession) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn_as(session.token()).unwrap_or_else(|error| panic!("{error}"));
        let mut running =
            Self { out: BufReader::new(child.stdout.take().unwrap()), child, said: String::new() };
        running.said = running.line();
        running
    }

    /// The next line.
    pub fn line(&mut self) -> String {
        let mut said = String::new();
        self.out.read_line(&mut said).unwrap();
        said.trim_end().to_owned()
    }

    /// Ends it by the end of its standard input.
    pub fn end(mut self) {
        self.child.stdin = None;
        self.child.wait().unwrap();
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

/// What a program of the session prints, whether it ends well or not.
pub fn printed(command: &mut Command, session: &LogonSession) -> String {
    let output = command.output_as(session.token()).unwrap_or_else(|error| panic!("{error}"));
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

/// A shell with this script.
pub fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script);
    command
}

/// Waits until the desktop's access list is what it was.
pub fn until_as_before(desktop: &Desktop, before: &stead::desktop::AccessList) {
    until("the access list is what it was", || desktop.access().unwrap() == *before);
}

/// The access list as getfacl prints it, and the mode.
pub fn getfacl(path: &Path) -> String {
    let run = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).arg(path).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run("getfacl", &["--numeric", "--absolute-names"]) + &run("stat", &["-c", "%a %u %g"])
}

/// Changes an access list, as an administrator would.
pub fn setfacl(entry: &str, path: &Path) {
    let status = std::process::Command::new("setfacl").args(["-m", entry]).arg(path).status().unwrap();
    assert!(status.success(), "setfacl -m {entry}");
}

/// The folders of grants that there are.
pub fn grants() -> Vec<String> {
    let entries = std::fs::read_dir("/run/stead/desktops").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| !name.starts_with('.')).collect()
}
