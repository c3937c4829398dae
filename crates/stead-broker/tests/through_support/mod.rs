//! The real service in the testbed, and servers without privileges that use it.
#![allow(dead_code, missing_docs, clippy::unwrap_used, reason = "each test program uses its own part of it")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use stead::Service;
use stead_protocol::client::{CallError, Connection};
use stead_protocol::{ClientToken, FailureKind};
use testbed::{Bed, User, until};

/// What lets svc have processes of the bed's people created, in every way.
pub const PORTAL: &str = r#"
[[allow]]
callers = { users = ["svc", "root"] }
clients = "everyone"
privileges = ["assign-primary-token", "impersonate", "logon", "tcb"]
programs = "any"
logon-types = ["interactive", "network", "network-cleartext", "batch", "service"]
"#;

/// The service, which ends with the test.
pub struct TheService {
    process: Child,
    pub socket: PathBuf,
    pub folder: PathBuf,
    variables: Vec<(String, PathBuf)>,
}

impl TheService {
    /// Starts it with this policy.
    pub fn start(bed: &Bed, policy: &str) -> Self {
        Self::start_with(bed, policy, Vec::new())
    }

    /// The same, with variables of its own.
    pub fn start_with(bed: &Bed, policy: &str, variables: Vec<(String, PathBuf)>) -> Self {
        if !stead::Privilege::InspectClient.status().unwrap().enabled {
            testbed::skip_test(
                "the service serves nobody whose confinement it cannot read: needs CAP_SYS_PTRACE",
            );
        }
        testbed::confine::need_pinned_clients();
        let folder = bed.scratch("service");
        Self::write_policy(&folder, policy);
        Self::in_folder(folder, variables)
    }

    /// Starts it anew where it was killed.
    pub fn start_again(before: &Self) -> Self {
        Self::in_folder(before.folder.clone(), before.variables.clone())
    }

    fn write_policy(folder: &Path, policy: &str) {
        let policies = folder.join("policy");
        fs::create_dir_all(&policies).unwrap();
        fs::set_permissions(&policies, fs::Permissions::from_mode(0o755)).unwrap();
        let file = policies.join("policy.toml");
        fs::write(&file, policy).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn in_folder(folder: PathBuf, variables: Vec<(String, PathBuf)>) -> Self {
        let socket = folder.join("service.sock");
        let mut process = Command::new("setpriv")
            // It ends with the test at the latest.
            .args(["--pdeathsig", "KILL", "--"])
            .arg(Bed::current().unwrap().bin("serve_alone"))
            .args([&socket, &folder.join("policy"), &folder.join("state"), &folder.join("audit")])
            // Its children are the sessions', which tests count.
            .arg("no-ready-workers")
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        until("the service listens", || {
            assert!(process.try_wait().unwrap().is_none(), "the service ended");
            UnixStream::connect(&socket).is_ok()
        });
        Self { process, socket, folder, variables }
    }

    /// A connection of this process to it.
    pub fn connect(&self) -> Service {
        Service::connect_to(&self.socket).unwrap_or_else(|error| panic!("{error}"))
    }

    /// `program`, to be run by this user without any capability, with the service's address.
    pub fn as_user(&self, bed: &Bed, user: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = bed.as_user(user, &[], program);
        command.env("STEAD_SERVICE", &self.socket);
        command
    }

    /// Plays a part of this test program as that user.
    pub fn play(&self, bed: &Bed, user: &str, role: &str, words: &[&str]) -> String {
        played(&self.part(bed, user, role, words).output().unwrap())
    }

    /// The same, before it is started.
    pub fn part(&self, bed: &Bed, user: &str, role: &str, words: &[&str]) -> Command {
        let mut command = self.as_user(bed, user, bed.this_program());
        command.args(["--exact", role, "--nocapture", "--test-threads=1"]).env(WORDS, words.join("\n"));
        command.stdin(Stdio::null()).current_dir("/");
        command
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for TheService {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const WORDS: &str = "STEAD_TEST_WORDS";

/// What a part is told, if it is played.
pub fn words() -> Option<Vec<String>> {
    std::env::var(WORDS).ok().map(|words| words.lines().map(str::to_owned).collect())
}

/// What a part that went well printed, without what libtest prints around it.
pub fn played(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
    testbed::skip_if_skipped(&output.stdout);
    text.lines().filter_map(|line| line.strip_prefix("said: ")).flat_map(|line| [line, "\n"]).collect()
}

/// One line of what a part says.
pub fn say(line: impl std::fmt::Display) {
    println!("\nsaid: {line}");
}

/// Whether a process with this number lives (a zombie does not).
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with(['Z', 'X'])))
        .unwrap_or(false)
}

/// A folder of this user's own.
pub fn folder_of(bed: &Bed, user: &User) -> PathBuf {
    let folder = bed.scratch("own");
    std::os::unix::fs::chown(&folder, Some(user.uid), Some(user.gid)).unwrap();
    folder
}

/// A listener that everybody may connect to.
pub fn listener(folder: &Path) -> (UnixListener, PathBuf) {
    let path = folder.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    (listener, path)
}

/// A process that connected to the listener of a test, and stays until it is dropped.
pub struct Connected {
    process: Child,
    pub stream: UnixStream,
}

impl Connected {
    /// `prefix` is what runs this test program, such as setpriv and what it is told.
    pub fn by(prefix: &[&str], bed: &Bed, listener: &UnixListener, path: &Path) -> Self {
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).arg(bed.this_program());
        let mut process = command
            .args(["--exact", "role_that_connects", "--nocapture", "--test-threads=1"])
            .env(TO, path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let connected = output.lines().map_while(Result::ok).any(|line| line == "connected");
        assert!(connected, "the client connects");
        let stream = listener.accept().unwrap().0;
        Self { process, stream }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const TO: &str = "STEAD_TEST_CONNECT_TO";

/// A client: it connects and stays until its standard input ends.
pub fn connect_and_stay() {
    let Some(path) = std::env::var_os(TO) else { return };
    let _stream = UnixStream::connect(path).unwrap();
    println!("\nconnected");
    let _ = std::io::stdin().read(&mut [0]);
}

/// The library's tests of what only a server with privileges of its own can do end as skipped.
pub fn without_privileges_of_its_own(what: &str) {
    testbed::skip_test(format_args!("only a server with privileges of its own does this: {what}"));
}

/// The service of the program's tests that need no particular policy: one for each test's process.
pub fn the_service(bed: &Bed) -> &'static TheService {
    static SERVICE: OnceLock<TheService> = OnceLock::new();
    SERVICE.get_or_init(|| TheService::start(bed, PORTAL))
}

/// What the service says of these two descriptors as a client's socket and its listener.
pub fn judged(service: &TheService, socket: impl AsFd, listener: impl AsFd) -> Result<u32, FailureKind> {
    let mut connection = Connection::connect(&service.socket).unwrap();
    let call = ClientToken { socket: 0, listener: 1, level: None };
    match connection.call(&call, &[socket.as_fd(), listener.as_fd()]) {
        Ok((opened, _)) => Ok(opened.context.uid),
        Err(CallError::Failed(failure)) => Err(failure.kind),
        Err(error) => panic!("{error}"),
    }
}

/// A policy under which svc and root may be everybody's portal: only what a connection is can refuse.
pub fn trusting(bed: &Bed) -> TheService {
    TheService::start(bed, PORTAL)
}
