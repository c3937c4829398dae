//! What the tests of clients share: a server's socket in the bed, and programs of this test's own binary.
#![allow(dead_code, reason = "each test program uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output};

use stead::os::linux::{Capability, TokenExt};
use stead::{Client, Confinement, ErrorKind, Token};
use testbed::Bed;

/// A socket that every user may connect to.
pub struct Server {
    pub listener: UnixListener,
    pub path: PathBuf,
    /// The directory that holds it.
    pub directory: PathBuf,
}

impl Server {
    pub fn new(bed: &Bed, name: &str) -> Self {
        let directory = bed.scratch(name);
        let path = directory.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        Self { listener, path, directory }
    }

    pub fn accept(&self) -> UnixStream {
        self.listener.accept().unwrap().0
    }
}

/// The client at the other end of a connection. The program says by whose privileges: the library's tests by their own,
/// those of the service by the service's.
pub fn take_client(
    stream: &UnixStream,
    _listener: &UnixListener,
    confinement: Confinement,
) -> stead::Result<Client> {
    Client::with(confinement).of(stream)
}

/// This program has what it has.
pub fn without_privileges_of_its_own(_what: &str) {}

/// Whether this server may look at a client of another user.
pub fn may_inspect() -> bool {
    let held = Token::current().unwrap().capabilities().effective;
    held.contains(Capability::SysPtrace) && testbed::confine::blind_to_clients().is_none()
}

/// The kind of the error that asking for the token gives.
pub fn refused(client: &Client) -> ErrorKind {
    client.token().expect_err("the client must be refused").kind().clone()
}

/// Waits until a process's status says so; a client that is told to execute a program takes its time.
pub fn wait_for_status(pid: i32, wanted: impl Fn(&str) -> bool) {
    loop {
        match fs::read_to_string(format!("/proc/{pid}/status")) {
            Ok(status) if wanted(&status) => return,
            Ok(_) => std::thread::yield_now(),
            Err(error) => panic!("process {pid}: {error}"),
        }
    }
}

/// The uids and gids of a status file are these four times over.
pub fn has_uid(status: &str, field: usize, uid: u32) -> bool {
    let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap_or_default();
    line.split_whitespace().nth(field + 1) == Some(&uid.to_string())
}

/// Tells a test which part it plays in a process of its own.
pub const ROLE: &str = "STEAD_TEST_ROLE";

/// What this process is to play, if it is not the test itself.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Runs one test of this binary again, by `command`, to play `role`.
pub fn play(mut command: Command, test: &str, role: &str) -> Output {
    command.args(["--exact", test, "--nocapture"]).env(ROLE, role).output().unwrap()
}

/// The output of a part that must have gone well.
pub fn played(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    testbed::skip_if_skipped(&output.stdout);
    text
}
