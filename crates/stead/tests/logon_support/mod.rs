//! What the logon tests share.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]
#![allow(unused_qualifications, reason = "`crate::` is not this module where the service's tests take it in")]

use std::path::Path;

use stead::os::linux::LogonExt;
use stead::{Account, Child, Command, ErrorKind, Logon, LogonSession, LogonType, Stdio};
use testbed::{Bed, PamEvent, Probe};

/// Logs a user of the bed on by its password.
pub fn logon(bed: &Bed, user: &str) -> Logon {
    Logon::password(Account::local(user), bed.user(user).password.as_str()).kind(LogonType::Interactive)
}

/// The same, open.
pub fn session(bed: &Bed, user: &str) -> LogonSession {
    logon(bed, user).opened().unwrap_or_else(|error| panic!("{error}"))
}

/// How a test opens a logon. The program says by whose privileges: the library's tests by their own, those of the
/// service by the service's.
pub trait Opened {
    /// In place of [`Logon::open`].
    fn opened(self) -> stead::Result<LogonSession>;
}

impl Opened for Logon {
    fn opened(self) -> stead::Result<LogonSession> {
        crate::open_logon(self)
    }
}

/// What this program's own privileges open.
pub fn open_logon(logon: Logon) -> stead::Result<LogonSession> {
    logon.open()
}

/// Ends a test as skipped where the program has its sessions from the service, and the test is about what only a server
/// with privileges of its own can do.
pub fn needs_privileges_of_its_own(what: &str) {
    crate::without_privileges_of_its_own(what);
}

/// What another server of a test must be told, to have its sessions from where this one has them.
pub fn variables_of_a_server() -> Vec<(&'static str, String)> {
    Vec::new()
}

/// The same, as the program has it.
pub fn told_to_a_server() -> Vec<(&'static str, String)> {
    crate::variables_of_a_server()
}

/// The name that libtest knows the test of a module (`module_path!()`) by.
pub fn exact(module: &str, test: &str) -> String {
    match module.split_once("::") {
        Some((_, inner)) => format!("{inner}::{test}"),
        None => test.to_owned(),
    }
}

/// This program has what it has.
pub fn without_privileges_of_its_own(_what: &str) {}

/// What a process of the session tells about itself.
pub fn seen(bed: &Bed, session: &LogonSession) -> Probe {
    let output = Command::new(bed.bin("probe"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output_as(session.token())
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Probe::parse(&output.stdout)
}

/// A process of the session that lives until it is killed.
pub fn sleeper(session: &LogonSession) -> Child {
    Command::new("/bin/sleep").arg("600").spawn_as(session.token()).unwrap_or_else(|error| panic!("{error}"))
}

/// What PAM's modules logged of this program's logons from `host`: a name that only one of its tests uses.
pub fn events(bed: &Bed, host: &str) -> Vec<PamEvent> {
    let host = of_this_program(host);
    bed.pam_log().into_iter().filter(|event| event.rhost == host).collect()
}

/// The same test may be another program's, too.
fn of_this_program(host: &str) -> String {
    let program = std::env::current_exe().unwrap();
    format!("{host}.{}", program.file_name().unwrap().to_string_lossy())
}

/// The phases only.
pub fn phases(bed: &Bed, host: &str) -> Vec<String> {
    events(bed, host).into_iter().map(|event| event.phase).collect()
}

/// A logon whose log can be told apart.
pub fn from(logon: Logon, host: &str) -> Logon {
    logon.remote_host(of_this_program(host))
}

/// The error of a logon that must not succeed.
pub fn refused(logon: Logon) -> stead::Error {
    match logon.opened() {
        Ok(session) => panic!("{session:?} was opened"),
        Err(error) => error,
    }
}

/// The same, as its kind.
pub fn refusal(logon: Logon) -> ErrorKind {
    refused(logon).kind().clone()
}

/// Whether a process is there and no zombie.
pub fn lives(pid: u32) -> bool {
    std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))
        .is_ok_and(|status| !status.contains("\nState:\tZ"))
}

/// The process whose children session workers are.
pub fn keeper_of_sessions() -> u32 {
    std::process::id()
}

/// The pids of the children of the process that keeps the sessions, zombies too.
pub fn children() -> Vec<u32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", crate::keeper_of_sessions())).unwrap().flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_ascii_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
    }
    found
}

/// How many descriptors this process has open.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The session worker's program as cargo built it.
pub fn worker_program() -> std::path::PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("stead-session")
}
