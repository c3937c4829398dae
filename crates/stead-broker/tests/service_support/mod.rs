//! What the service's tests share: a service as root, and callers that are real users.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test program uses a part of it

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use stead_protocol::client::{CallError, Connection, Descriptors};
use stead_protocol::{
    Account, CreateProcess, CreatedProcess, FailureKind, LogOn, LogonType, Method, OpenedToken, OwnToken,
    Text, WaitProcess,
};
use testbed::{Bed, until};

/// The variable that tells a role where the service listens.
const SOCKET: &str = "STEAD_TEST_SERVICE_SOCKET";

/// A service of the test's own.
pub struct Service {
    child: Option<Child>,
    pub folder: PathBuf,
    /// The control group that it is started in; the test's own where there is none.
    pub group: Option<PathBuf>,
}

impl Service {
    /// Starts one with this policy.
    pub fn start(bed: &Bed, policy: &str) -> Self {
        Self::start_in(bed, policy, None)
    }

    /// The same in a control group.
    pub fn start_in(bed: &Bed, policy: &str, group: Option<PathBuf>) -> Self {
        let folder = bed.scratch("service");
        std::fs::create_dir(folder.join("policy")).unwrap();
        let mut service = Self { child: None, folder, group };
        service.write_policy(policy);
        service.run(bed);
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
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command
    }

    /// Starts it, or starts it anew.
    pub fn run(&mut self, bed: &Bed) {
        self.child = Some(self.command(bed).spawn().unwrap());
        let socket = self.socket();
        until("the service listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
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

/// A call that must succeed.
pub fn call<M: Method>(
    service: &mut Connection,
    call: &M,
    descriptors: &[BorrowedFd<'_>],
) -> (M::Reply, Descriptors) {
    service.call(call, descriptors).unwrap_or_else(|error| panic!("{}: {error}", M::NAME))
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

/// Creates the process, and gives what it printed and its exit code.
pub fn output(service: &mut Connection, mut process: CreateProcess) -> (String, Option<i32>) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    process.stdout = Some(0);
    process.stderr = Some(0);
    let (created, _) = call(service, &process, &[writer.as_fd()]);
    drop(writer);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    (text, exit_code(service, &created))
}

/// Waits for the process.
pub fn exit_code(service: &mut Connection, created: &CreatedProcess) -> Option<i32> {
    let (waited, _) = call(service, &WaitProcess { process: created.process.id.clone(), timeout: None }, &[]);
    waited.status.unwrap().code
}

/// Whether a process with this number lives (a zombie does not).
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with(['Z', 'X'])))
        .unwrap_or(false)
}
