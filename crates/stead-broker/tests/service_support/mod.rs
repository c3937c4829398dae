//! What the service's tests share: a service as root, and callers that are real users.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test program uses a part of it

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use stead_protocol::client::{CallError, Connection, Descriptors};
use stead_protocol::{
    Account, CreateProcess, CreatedProcess, FailureKind, LogOn, LogonType, Method, OpenedToken, OwnToken,
    Process, Text, WaitProcess,
};
use testbed::{Bed, until};

/// The variable that tells a role where the service listens.
pub const SOCKET: &str = "STEAD_TEST_SERVICE_SOCKET";

/// A service of the test's own.
pub struct Service {
    child: Option<Child>,
    pub folder: PathBuf,
    /// The control group that it is started in; the test's own where there is none.
    pub group: Option<PathBuf>,
    /// Of its environment.
    pub variables: Vec<(&'static str, &'static str)>,
    /// Whether it keeps workers ready. Without, all of its workers are sessions'.
    pub ready_workers: bool,
    /// As on a kernel before 6.5.
    pub without_peerpidfd: bool,
}

impl Service {
    /// Starts one with this policy.
    pub fn start(bed: &Bed, policy: &str) -> Self {
        Self::start_in(bed, policy, None)
    }

    /// The same in a control group.
    pub fn start_in(bed: &Bed, policy: &str, group: Option<PathBuf>) -> Self {
        let mut service = Self::prepare(bed, policy, group);
        service.run(bed);
        service
    }

    /// One whose only children are session workers and helpers.
    pub fn start_without_ready_workers(bed: &Bed, policy: &str) -> Self {
        let mut service = Self::prepare(bed, policy, None);
        service.ready_workers = false;
        service.run(bed);
        service
    }

    /// The same, not started yet.
    pub fn prepare(bed: &Bed, policy: &str, group: Option<PathBuf>) -> Self {
        let folder = bed.scratch("service");
        std::fs::create_dir(folder.join("policy")).unwrap();
        let (variables, ready_workers, without_peerpidfd) = (Vec::new(), true, false);
        let service = Self { child: None, folder, group, variables, ready_workers, without_peerpidfd };
        service.write_policy(policy);
        service
    }

    pub fn write_policy(&self, policy: &str) {
        std::fs::write(self.folder.join("policy/policy.toml"), policy).unwrap();
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("service.sock")
    }

    /// The program, with its arguments.
    pub fn command(&self, bed: &Bed) -> Command {
        let program = bed.bin("serve_alone");
        let mut command = Command::new(if self.group.is_some() { Path::new("/bin/sh") } else { &program });
        if let Some(group) = &self.group {
            command.args(["-c", r#"echo 0 > "$0/cgroup.procs" && exec "$@""#]).args([group, &program]);
        }
        let [policy, state, audit] = ["policy", "state", "audit.json"].map(|name| self.folder.join(name));
        command.arg(self.socket()).args([policy, state, audit]);
        command.args((!self.ready_workers).then_some("no-ready-workers"));
        command.env_clear().env("PATH", "/usr/bin:/bin").envs(self.variables.iter().copied());
        command.stdin(Stdio::null());
        if self.without_peerpidfd {
            if testbed::confine::is_out_of_reach("sys_admin") {
                testbed::skip_test("needs CAP_SYS_ADMIN for a seccomp filter, which this container lacks");
            }
            testbed::confine::Filter::without_peerpidfd().install_on(&mut command);
        }
        command
    }

    /// Starts it, and does not wait.
    pub fn begin(&mut self, bed: &Bed) {
        self.child = Some(self.command(bed).spawn().unwrap());
    }

    /// Starts it, or starts it anew.
    pub fn run(&mut self, bed: &Bed) {
        self.begin(bed);
        let (socket, pid) = (self.socket(), self.pid());
        // Itself: what a killed one was just creating has that one's listener for a moment.
        let listens = |stream: UnixStream| {
            let by = rustix::net::sockopt::socket_peercred(&stream).unwrap().pid;
            by.as_raw_nonzero().get().cast_unsigned() == pid
        };
        until("the service listens", || UnixStream::connect(&socket).is_ok_and(listens));
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }

    /// Ends it without a chance to do anything.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Runs a role of the test's own program as a user, and sees it succeed.
    pub fn caller(&self, bed: &Bed, user: &str, role: &str) {
        self.caller_with(bed, user, role, &[]);
    }

    pub fn caller_with(&self, bed: &Bed, user: &str, role: &str, variables: &[(&str, &str)]) {
        self.succeed(bed.as_user(user, &[], bed.this_program()), role, variables);
    }

    /// The same by a command that ends with the program.
    pub fn succeed(&self, mut command: Command, role: &str, variables: &[(&str, &str)]) {
        command.args(["--exact", role, "--nocapture", "--test-threads=1"]).current_dir("/");
        command.env(SOCKET, self.socket()).envs(variables.iter().copied());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{role}: {said}{}", String::from_utf8_lossy(&output.stderr));
        testbed::skip_if_skipped(&output.stdout);
        assert!(said.contains("1 passed"), "{role} is no role: {said}");
    }

    /// A part of the test's own program, played by another process of the test's user.
    pub fn part(&self, bed: &Bed, role: &str, variables: &[(&str, &str)]) -> Part {
        self.part_by(Command::new(bed.this_program()), role, variables)
    }

    /// The same by a command that ends with the program.
    pub fn part_by(&self, mut command: Command, role: &str, variables: &[(&str, &str)]) -> Part {
        command.args(["--exact", role, "--nocapture", "--test-threads=1"]);
        command.env(SOCKET, self.socket()).envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Part { child, said }
    }

    /// A connection of the test's own: root's.
    pub fn connect(&self) -> Connection {
        Connection::connect(self.socket()).unwrap()
    }

    /// The audit records so far.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.folder.join("audit.json")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A process that plays a part; it ends with the test.
pub struct Part {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Part {
    /// The next thing that it says.
    pub fn says(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "the part ended");
            testbed::skip_if_skipped(line.as_bytes());
            if let Some(said) = line.trim_end().strip_prefix("said: ") {
                return said.to_owned();
            }
        }
    }

    /// Lets it go on that waits to be told.
    pub fn tell(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Ends it without a chance to do anything.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end, which must be a good one.
    pub fn wait(&mut self) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line of what a part says.
pub fn say(line: impl std::fmt::Display) {
    println!("\nsaid: {line}");
}

/// Waits until the part is told to go on, or its test has ended.
pub fn be_told() {
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// The part that a role plays: a connection to the service; none where the role was not asked for.
pub fn part() -> Option<Connection> {
    let path = std::env::var_os(SOCKET)?;
    let connection = Connection::connect(Path::new(&path)).unwrap();
    Some(connection)
}

/// One more connection of a role.
pub fn another() -> Connection {
    Connection::connect(Path::new(&std::env::var_os(SOCKET).unwrap())).unwrap()
}

/// The same, of which the role has the socket as well.
pub fn stream() -> UnixStream {
    UnixStream::connect(std::env::var_os(SOCKET).unwrap()).unwrap()
}

/// A call that must succeed.
pub fn call<M: Method>(
    service: &mut Connection,
    call: &M,
    descriptors: &[BorrowedFd<'_>],
) -> (M::Reply, Descriptors) {
    service.call(call, descriptors).unwrap_or_else(|error| {
        if let CallError::Failed(failure) = &error {
            skip_if_unseen(&failure.kind);
        }
        panic!("{}: {error}", M::NAME)
    })
}

/// Ends the test as skipped where the service refused a caller whom it can never see, as in an ordinary container.
pub fn skip_if_unseen(kind: &FailureKind) {
    let unseen = matches!(kind, FailureKind::ConfinementUnknown { .. } | FailureKind::KernelTooOld { .. });
    if let Some(what) = testbed::confine::blind_to_clients().filter(|_| unseen) {
        testbed::skip_test(format_args!(
            "the service serves nobody whose confinement it cannot read: needs {what}"
        ));
    }
}

/// A call that must be refused.
pub fn refusal<M: Method>(service: &mut Connection, call: &M, descriptors: &[BorrowedFd<'_>]) -> FailureKind {
    match service.call(call, descriptors) {
        Ok(_) => panic!("{} was not refused", M::NAME),
        Err(CallError::Failed(failure)) => failure.kind,
        Err(error) => panic!("{}: {error}", M::NAME),
    }
}

/// The caller's own token, as a primary one.
pub fn own(service: &mut Connection) -> OpenedToken {
    call(service, &OwnToken {}, &[]).0
}

/// A logon of this account of the machine's, with nothing else said.
pub fn log_on(name: &str, logon_type: LogonType) -> LogOn {
    LogOn {
        account: Account { name: Text::from(name), local: true },
        logon_type,
        secret: None,
        conversation: None,
        s4u: false,
        environment: Vec::new(),
        tty: None,
        remote_host: None,
        remote_user: None,
        logon_gid: false,
        lifetime: stead_protocol::Lifetime::default(),
        deadline: None,
    }
}

/// A batch logon without a secret.
pub fn s4u(name: &str) -> LogOn {
    LogOn { s4u: true, ..log_on(name, LogonType::Batch) }
}

/// A process of a token: a shell with this script.
pub fn shell(token: u64, script: &str) -> CreateProcess {
    CreateProcess {
        token,
        program: Some(Text::from("/bin/sh")),
        arguments: vec![Text::from("-c"), Text::from(script)],
        ..CreateProcess::default()
    }
}

/// A process of a token that lives until somebody ends it.
pub fn sleeper(token: u64) -> CreateProcess {
    CreateProcess {
        arguments: vec!["600".into()],
        program: Some("sleep".into()),
        token,
        ..CreateProcess::default()
    }
}

/// Creates the process, and gives what it printed and its exit code.
pub fn output(service: &mut Connection, mut process: CreateProcess) -> (String, Option<i32>) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    process.stdout = Some(0);
    process.stderr = Some(0);
    let (created, _) = call(service, &process, &[writer.as_fd()]);
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (text, exit_code(service, &created))
}

/// Waits for the process.
pub fn exit_code(service: &mut Connection, created: &CreatedProcess) -> Option<i32> {
    let (waited, _) = call(service, &WaitProcess { process: created.process.id.clone(), timeout: None }, &[]);
    waited.status.unwrap().code
}

/// A policy by which these callers may do everything as these clients.
pub fn everything(callers: &[&str], clients: &[&str]) -> String {
    format!(
        "[[allow]]\ncallers = {{ users = {callers:?} }}\nclients = {{ users = {clients:?} }}\n\
         privileges = [\"tcb\", \"assign-primary-token\"]\nprograms = \"any\"\nlogon-types = [\"batch\"]\n"
    )
}

/// The delegated group of a unit, as systemd makes one.
pub struct Unit(pub PathBuf);

impl Unit {
    /// One that nobody delegated.
    pub fn make(bed: &Bed) -> Option<Self> {
        let (path, _) = bed.cgroup("unit")?;
        let unit = Self(path);
        std::fs::create_dir(unit.service()).unwrap();
        Some(unit)
    }

    /// One for a test that is about nothing else.
    pub fn require(bed: &Bed) -> Self {
        Self::delegated(bed).unwrap_or_else(|| {
            testbed::skip_test("no writable cgroup of version 2 here, or none that can be marked")
        })
    }

    pub fn delegated(bed: &Bed) -> Option<Self> {
        let unit = Self::make(bed)?;
        rustix::fs::setxattr(&unit.0, "user.delegate", b"1", rustix::fs::XattrFlags::empty()).ok()?;
        Some(unit)
    }

    /// Where the service is.
    pub fn service(&self) -> PathBuf {
        self.0.join("service")
    }

    /// The group of a process.
    pub fn of(&self, process: &Process) -> PathBuf {
        self.0.join("clients").join(&process.id)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
    }
}

/// Who is in a group.
pub fn members(group: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Whether a process with this number lives (a zombie does not).
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with(['Z', 'X'])))
        .unwrap_or(false)
}
