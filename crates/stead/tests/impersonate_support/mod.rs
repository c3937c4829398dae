//! What the tests of impersonation share.
#![forbid(unsafe_code)]
#![allow(dead_code, missing_docs, clippy::unwrap_used)] // each test program uses a part of it
#![allow(unused_qualifications, reason = "`crate::` is not this module where the service's tests take it in")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use stead::{Client, Confinement, Impersonation, Token};
use testbed::{Bed, RunningClient};

/// A connected client: a real process of that user.
pub fn client(bed: &Bed, name: &str) -> (RunningClient, Client) {
    let path = bed.scratch("socket").join("server");
    let listener = UnixListener::bind(&path).unwrap();
    mode(&path, 0o777);
    let process = bed.client(name).connect(&path);
    let (stream, _) = listener.accept().unwrap();
    (process, Client::with(confinement()).of(&stream).unwrap())
}

/// In a container without the right to look, and before Linux 6.5, nobody can tell how a process is confined, and the tests' own are confined
/// as they are themselves; anywhere else not to know is a failure.
pub fn confinement() -> Confinement {
    if testbed::confine::blind_to_clients().is_some() { Confinement::Unknown } else { Confinement::Refuse }
}

/// The token of a connected client. The program says whence: the library's tests read the process themselves, those of
/// the service are given it by the service.
pub fn token(bed: &Bed, name: &str) -> Token<Impersonation> {
    crate::token_of_user(bed, name)
}

/// The token of a process that `setpriv` makes with these options; the same.
pub fn token_of(setpriv: &[&str]) -> Token<Impersonation> {
    crate::minted(setpriv)
}

/// Ends a test as skipped where the program has its tokens from the service, and the test goes on with what only a server
/// with privileges of its own can do.
pub fn needs_privileges_of_its_own(what: &str) {
    crate::without_privileges_of_its_own(what);
}

/// This program has what it has.
pub fn without_privileges_of_its_own(_what: &str) {}

/// The token of a connected client, read by this program itself.
pub fn token_of_user(bed: &Bed, name: &str) -> Token<Impersonation> {
    let (process, client) = client(bed, name);
    let token = client.token().unwrap_or_else(|error| panic!("{error}"));
    drop(process);
    token
}

/// The token of a process that `setpriv` makes, read by this program itself.
pub fn minted(setpriv: &[&str]) -> Token<Impersonation> {
    let mut process = Command::new("setpriv")
        .args(setpriv)
        .args(["--inh-caps=-all", "--", "cat"])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut [0]).expect("cat runs as the user");
    let pid = rustix::process::Pid::from_child(&process);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let token = Token::of_process_with(&pidfd, confinement()).unwrap_or_else(|error| panic!("{error}"));
    drop(process.stdin.take());
    process.wait().unwrap();
    token
}

pub fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A fresh directory that belongs to nobody's home and lets everybody write.
pub fn open_directory(bed: &Bed) -> PathBuf {
    let path = bed.scratch("open");
    mode(&path, 0o777);
    path
}

/// What the kernel says of a thread's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Real, effective, saved, file system.
    pub uid: [u32; 4],
    pub gid: [u32; 4],
    pub groups: Vec<u32>,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
    pub bounding: u64,
}

/// The calling thread.
pub fn seen() -> Seen {
    seen_in("/proc/thread-self/status")
}

/// Any thread or process.
pub fn seen_in(path: &str) -> Seen {
    seen_as(&fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}")))
}

/// What a `/proc/PID/status` says.
pub fn seen_as(text: &str) -> Seen {
    let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
    let numbers = |name: &str| -> Vec<u32> {
        fields[name].split_whitespace().map(|number| number.parse().unwrap()).collect()
    };
    let set = |name: &str| u64::from_str_radix(fields[name].trim(), 16).unwrap();
    let mut groups = numbers("Groups");
    groups.sort_unstable();
    Seen {
        uid: numbers("Uid").try_into().unwrap(),
        gid: numbers("Gid").try_into().unwrap(),
        groups,
        effective: set("CapEff"),
        permitted: set("CapPrm"),
        inheritable: set("CapInh"),
        ambient: set("CapAmb"),
        bounding: set("CapBnd"),
    }
}

impl Seen {
    /// The server with this user's effective ids and no capability enabled.
    pub fn acting_for(&self, user: &testbed::User) -> Self {
        let mut acting = self.clone();
        acting.uid = [self.uid[0], user.uid, self.uid[2], user.uid];
        acting.gid = [self.gid[0], user.gid, self.gid[2], user.gid];
        acting.groups = user.all_groups();
        acting.effective = 0;
        acting
    }
}

const MARK: &str = "STEAD_TEST_SERVER";

/// Whether this process is the server that [`as_another_server`] started.
pub fn is_another_server() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs one test of this program again, as `command` makes a process of it.
pub fn as_another_server(mut command: Command, test: &str) -> Output {
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .current_dir("/")
        .output()
        .unwrap()
}

/// Ends this test as skipped where that server said so and ended well.
pub fn skip_with(server: &Output) {
    if server.status.success() {
        testbed::skip_if_skipped(&server.stdout);
    }
}

/// The same, and it must pass.
pub fn passes_in_another_server(command: Command, test: &str) {
    let output = as_another_server(command, test);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    testbed::skip_if_skipped(&output.stdout);
}
