//! What the logon tests share.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

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
    logon(bed, user).open().unwrap_or_else(|error| panic!("{error}"))
}

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

/// What PAM's modules logged of logons from `host`: a name that only one test uses.
pub fn events(bed: &Bed, host: &str) -> Vec<PamEvent> {
    bed.pam_log().into_iter().filter(|event| event.rhost == host).collect()
}

/// The phases only.
pub fn phases(bed: &Bed, host: &str) -> Vec<String> {
    events(bed, host).into_iter().map(|event| event.phase).collect()
}

/// A logon whose log can be told apart.
pub fn from(logon: Logon, host: &str) -> Logon {
    logon.remote_host(host)
}

/// The error of a logon that must not succeed.
pub fn refused(logon: Logon) -> stead::Error {
    match logon.open() {
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

/// The pids of the children of this process, zombies too.
pub fn children() -> Vec<u32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
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
