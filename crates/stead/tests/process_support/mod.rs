//! What the tests of processes share.
#![forbid(unsafe_code)]
#![allow(dead_code, missing_docs, clippy::unwrap_used)] // each test program uses a part of it
#![allow(unused_qualifications, reason = "`crate::` is not this module where the service's tests take it in")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use stead::{Command, Confinement, Logon, LogonSession, Primary, Token};
use testbed::{Bed, Probe};

/// How long anything may take before the test fails; never measured.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The token of a process that `setpriv` made for the user: exactly its ids and groups, and the server's
/// bounding set.
pub fn token(bed: &Bed, name: &str) -> Token<Primary> {
    let user = bed.user(name);
    token_of(&[&format!("--reuid={}", user.uid), &format!("--regid={}", user.gid), "--init-groups"])
}

/// The token of a process that `setpriv` makes. The program says whence: its own tests read the process, those of the
/// service are given it by the service.
pub fn token_of(setpriv: &[&str]) -> Token<Primary> {
    crate::minted(setpriv)
}

/// Opens a logon; the same.
pub fn opened(logon: Logon) -> LogonSession {
    crate::open_logon(logon).unwrap_or_else(|error| panic!("{error}"))
}

/// What this program's own privileges open.
pub fn open_logon(logon: Logon) -> stead::Result<LogonSession> {
    logon.open()
}

/// Ends a test as skipped where the program has its tokens from the service, and the test is about what only a server
/// with privileges of its own can do.
pub fn needs_privileges_of_its_own(what: &str) {
    crate::without_privileges_of_its_own(what);
}

/// This program has what it has.
pub fn without_privileges_of_its_own(_what: &str) {}

/// The token of a process that `setpriv` made, read by this program itself.
pub fn minted(setpriv: &[&str]) -> Token<Primary> {
    let mut process = std::process::Command::new("setpriv")
        .args(setpriv)
        .args(["--inh-caps=-all", "--", "cat"])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("setpriv runs");
    let mut stdin = process.stdin.take().unwrap();
    let mut answer = [0];
    stdin.write_all(b"x").unwrap();
    process.stdout.take().unwrap().read_exact(&mut answer).expect("cat runs as the user");
    let pid = Pid::from_child(&process);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    // In a container without the right to look how the process is confined cannot be read; it is ours, and confined
    // as we are. Anywhere else not to know is a failure.
    let blind = testbed::confine::is_out_of_reach("sys_ptrace");
    let choice = if blind { Confinement::Unknown } else { Confinement::Refuse };
    let token =
        Token::of_process_with(&pidfd, choice).expect("the process has a token").to_primary().unwrap();
    drop(stdin);
    // A server that ignores SIGCHLD cannot wait for it.
    let _ = process.wait();
    token
}

/// A command that runs the probe.
pub fn probe(bed: &Bed) -> Command {
    Command::new(bed.bin("probe"))
}

/// What the probe says.
pub fn seen(command: &Command, token: &Token<Primary>) -> Probe {
    let output = command.output_as(token).unwrap_or_else(|error| panic!("{error}"));
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Probe::parse(&output.stdout)
}

/// A shell with this script.
pub fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script);
    command
}

/// What the shell script prints.
pub fn printed(script: &str, token: &Token<Primary>) -> String {
    text(shell(script).output_as(token).unwrap_or_else(|error| panic!("{error}")))
}

/// The standard output of a process that ended well.
pub fn text(output: std::process::Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Whether a process with this number lives (a zombie does not).
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with(['Z', 'X'])))
        .unwrap_or(false)
}

/// The children of this process that have ended and were not collected.
pub fn zombies() -> Vec<i32> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        if fields.first() == Some(&"Z") && fields.get(1) == Some(&own.as_str()) {
            found.push(pid);
        }
    }
    found
}

/// The numbers of this process's open descriptors and what they are.
pub fn descriptors() -> Vec<(String, String)> {
    let mut open: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let to = std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            // The directory being read.
            (!to.ends_with("/fd")).then(|| (entry.file_name().to_string_lossy().into_owned(), to))
        })
        .collect();
    open.sort();
    open
}

/// An executable file with this content.
pub fn executable(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    // Written under another name: a file that was open for writing in this process may still be so in a
    // child of another thread.
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The name that libtest knows the test of a module (`module_path!()`) by.
pub fn exact(module: &str, test: &str) -> String {
    match module.split_once("::") {
        Some((_, inner)) => format!("{inner}::{test}"),
        None => test.to_owned(),
    }
}

/// Runs one test of this test program again as a server of its own, under `prefix` (such as `env
/// --ignore-signal=CHLD`). True in the server itself, which goes on with the test; false when the server
/// has passed it.
pub fn in_a_server_of_its_own(bed: &Bed, test: &str, prefix: &[&str]) -> bool {
    const MARK: &str = "STEAD_TEST_SERVER";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut command = prefix.iter().map(|one| (*one).to_owned()).collect::<Vec<String>>();
    command.push(bed.this_program().to_str().unwrap().to_owned());
    command.extend(["--exact", test, "--nocapture", "--test-threads=1"].map(str::to_owned));
    let output = std::process::Command::new(&command[0]).args(&command[1..]).env(MARK, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}{errors}", output.status);
    testbed::skip_if_skipped(&output.stdout);
    false
}
