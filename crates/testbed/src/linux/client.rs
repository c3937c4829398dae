//! Real client processes.

use crate::linux::accounts::User;
use crate::linux::bed::Bed;
use crate::linux::confine;
use crate::linux::probe::Probe;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

/// A client process to be: who it is, how it is confined, what it does after connecting.
///
/// ```no_run
/// # let bed = testbed::Bed::current().unwrap();
/// # let listener = std::os::unix::net::UnixListener::bind("/run/stead-testbed/tmp/s").unwrap();
/// let mut client = bed.client("alice").no_new_privs().connect("/run/stead-testbed/tmp/s");
/// let (stream, _) = listener.accept().unwrap();
/// client.confine(&["--seccomp"]);
/// ```
#[derive(Debug)]
pub struct ClientBuilder {
    command: Vec<OsString>,
    user: User,
    capabilities: Vec<&'static str>,
    arguments: Vec<OsString>,
}

/// A client process that has connected. It ends when this is dropped.
#[derive(Debug)]
pub struct RunningClient {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pid: i32,
}

impl Bed {
    /// A client of this user, not confined in any way until asked for.
    ///
    /// # Panics
    ///
    /// If there is no such user.
    pub fn client(&self, user: &str) -> ClientBuilder {
        ClientBuilder {
            command: vec![self.bin("testbed-client").into()],
            user: self.user(user).clone(),
            capabilities: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// A program to be run as a user, by `setpriv`, with these capabilities (`"setuid"`, ..) in every set but the
    /// bounding one, which stays as it is. Where this process lacks one of them itself, the test ends as skipped.
    ///
    /// # Panics
    ///
    /// If there is no such user.
    pub fn as_user(&self, user: &str, capabilities: &[&str], program: impl AsRef<OsStr>) -> Command {
        if let Some(lacking) = confine::lacking(capabilities) {
            crate::skip_test(format_args!("needs CAP_{}", lacking.to_ascii_uppercase()));
        }
        as_user(self.user(user), capabilities, program.as_ref())
    }

    /// A program to be run as in an ordinary container: Docker's capabilities and seccomp profile, but this bed's
    /// users and directories. In such a container it is simply run.
    ///
    /// # Panics
    ///
    /// If the bed was entered without its programs.
    pub fn docker_like(&self, program: impl AsRef<OsStr>) -> Command {
        let privileged = ["sys_admin", "sys_ptrace", "sys_resource"].map(confine::may);
        if self.mode() == crate::Mode::Container && privileged == [false; 3] {
            return Command::new(program);
        }
        self.confined(&["--docker"], program)
    }

    /// A program to be run in an ordinary container with account files of its own, none of this bed's users, and
    /// nothing in /run but the helper programs, in `/run/programs`.
    ///
    /// # Panics
    ///
    /// If the bed was entered without its programs.
    pub fn container(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.confined(&["--fresh-files", "--docker"], program);
        // As its manager says it (systemd's "Container Interface").
        command.env("container", "stead");
        command
    }

    /// A program to be run by the caller itself, confined: the options are those of `testbed-client`.
    ///
    /// # Panics
    ///
    /// If the bed was entered without its programs.
    pub fn confined(&self, options: &[&str], program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(self.bin("testbed-client"));
        command.arg("confine").args(options).arg("--").arg(program);
        command
    }
}

fn as_user(user: &User, capabilities: &[&str], program: &OsStr) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid)).arg("--init-groups");
    if capabilities.is_empty() {
        command.arg("--inh-caps=-all");
    } else {
        let list: Vec<String> = capabilities.iter().map(|capability| format!("+{capability}")).collect();
        command
            .arg(format!("--inh-caps={}", list.join(",")))
            .arg(format!("--ambient-caps={}", list.join(",")));
    }
    command.arg("--").arg(program);
    command
}

impl ClientBuilder {
    fn option(mut self, option: &str) -> Self {
        self.arguments.push(option.into());
        self
    }

    /// It needs this capability to confine itself, and gives it up before it connects.
    fn with_capability(mut self, capability: &'static str) -> Self {
        if !self.capabilities.contains(&capability) {
            self.capabilities.push(capability);
        }
        self
    }

    /// With no_new_privs, on every thread.
    #[must_use]
    pub fn no_new_privs(self) -> Self {
        self.option("--no-new-privs")
    }

    /// With no_new_privs on another thread only.
    #[must_use]
    pub fn no_new_privs_on_a_thread(self) -> Self {
        self.option("--no-new-privs-thread")
    }

    /// With a seccomp filter, and without no_new_privs.
    #[must_use]
    pub fn seccomp(self) -> Self {
        self.with_capability("sys_admin").option("--seccomp")
    }

    /// With a seccomp filter, on another thread only, and without no_new_privs.
    #[must_use]
    pub fn seccomp_on_a_thread(self) -> Self {
        self.with_capability("sys_admin").option("--seccomp-thread")
    }

    /// In a user namespace of its own, in which the same ids mean the same.
    #[must_use]
    pub fn user_namespace(self) -> Self {
        self.option("--userns")
    }

    /// In another namespace of its own: `mnt`, `pid`, `net`, `ipc`, `uts`, `cgroup`, `time`.
    ///
    /// In `pid` and `time` it is a child that connects.
    #[must_use]
    pub fn namespace(self, kind: &str) -> Self {
        self.with_capability("sys_admin").option(&format!("--{kind}ns"))
    }

    /// With another root directory, in the same mount namespace. The socket's path must lie below it.
    #[must_use]
    pub fn chroot(self, directory: impl AsRef<Path>) -> Self {
        let mut client = self.with_capability("sys_chroot").option("--chroot");
        client.arguments.push(directory.as_ref().into());
        client
    }

    /// Without CAP_NET_RAW in its bounding set.
    #[must_use]
    pub fn smaller_bounding_set(self) -> Self {
        self.with_capability("setpcap").option("--drop-bounding")
    }

    /// Holding these capabilities when it connects, and afterwards.
    #[must_use]
    pub fn holding(mut self, capabilities: &[&'static str]) -> Self {
        for capability in capabilities {
            self = self.with_capability(capability);
        }
        self.option("--keep-capabilities")
    }

    /// Executes this program after connecting, with the socket open: for instance [`Bed::setuid_program`].
    #[must_use]
    pub fn exec_after(self, program: impl AsRef<Path>) -> Self {
        let mut client = self.option("--exec-after");
        client.arguments.push(program.as_ref().into());
        client
    }

    /// Ends right after connecting.
    #[must_use]
    pub fn exit_after(self) -> Self {
        self.option("--exit-after")
    }

    /// Ends right after connecting, and leaves the connection to a child of its own.
    #[must_use]
    pub fn leave_to_child(self) -> Self {
        self.option("--fork-after")
    }

    /// Sends nothing by itself, instead of one line.
    #[must_use]
    pub fn silent(self) -> Self {
        self.option("--silent")
    }

    /// Starts it, and waits until it has connected to the socket at this path. Where this process lacks the capability
    /// that a confinement takes, the test ends as skipped.
    ///
    /// # Panics
    ///
    /// If it cannot be started, confined or connected.
    pub fn connect(self, path: impl AsRef<Path>) -> RunningClient {
        if let Some(lacking) = confine::lacking(&self.capabilities) {
            crate::skip_test(format_args!("needs CAP_{}", lacking.to_ascii_uppercase()));
        }
        self.try_connect(path).unwrap_or_else(|error| panic!("the client could not connect: {error}"))
    }

    /// The same, with what went wrong (where unprivileged user namespaces are turned off, for instance).
    ///
    /// # Errors
    ///
    /// What the client said about the step that failed.
    ///
    /// # Panics
    ///
    /// If it cannot be started at all.
    pub fn try_connect(self, path: impl AsRef<Path>) -> Result<RunningClient, String> {
        let mut command = as_user(&self.user, &self.capabilities, &self.command[0]);
        #[allow(clippy::zombie_processes, reason = "RunningClient waits when it is dropped")]
        let mut child = command
            .arg("connect")
            .arg(path.as_ref())
            .args(&self.arguments)
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.user.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("it was piped"));
        let mut line = String::new();
        // An error reads as an empty line.
        let _ = output.read_line(&mut line);
        let mut client = RunningClient { child, input, output, pid: 0 };
        match line.trim_end().strip_prefix("connected ").and_then(|pid| pid.parse().ok()) {
            Some(pid) => client.pid = pid,
            None => return Err(line.trim_end().to_owned()),
        }
        Ok(client)
    }
}

impl RunningClient {
    /// The process that connected, as this process sees it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Tells it one of its commands, and gives its answer: see `testbed-client --help`.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn tell(&mut self, command: &str) -> String {
        let input = self.input.as_mut().expect("the client still listens");
        writeln!(input, "{command}").expect("the client is still there");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the client answers");
        answer.trim_end().to_owned()
    }

    /// Sends a line over the socket.
    ///
    /// # Panics
    ///
    /// If it cannot.
    pub fn send(&mut self, text: &str) {
        assert_eq!(self.tell(&format!("send {text}")), "ok");
    }

    /// Receives a line over the socket.
    ///
    /// # Panics
    ///
    /// If it cannot.
    pub fn receive(&mut self) -> String {
        let answer = self.tell("receive");
        answer.strip_prefix("received ").unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Confines itself further, now that it has connected, by options of `testbed-client`.
    ///
    /// # Panics
    ///
    /// If it cannot.
    pub fn confine(&mut self, options: &[&str]) {
        assert_eq!(self.tell(&format!("confine {}", options.join(" "))), "ok");
    }

    /// What it is now, by its own account.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn probe(&mut self) -> Probe {
        let answer = self.tell("probe");
        Probe::parse(answer.as_bytes())
    }

    /// Ends it by closing its standard input, and waits.
    ///
    /// # Panics
    ///
    /// If it cannot be waited for.
    pub fn finish(mut self) -> ExitStatus {
        drop(self.input.take());
        self.child.wait().expect("the client is a child of this process")
    }
}

impl Drop for RunningClient {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
