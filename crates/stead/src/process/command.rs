//! The builder of a process.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::Duration;

#[cfg(unix)]
use super::stdio::PtySize;
use super::stdio::Stdio;
use super::{Child, spawn};
use crate::desktop::Desktop;
use crate::error::Result;
use crate::token::{Primary, Token};

/// How long a program may take to start unless the server says otherwise.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// A process to be created in a client's security context, in the manner of [`std::process::Command`].
///
/// What it does not say comes from the *token*, or has a fixed value; nothing comes from the server:
///
/// | | default |
/// |---|---|
/// | standard streams | null; [`output_as`](Self::output_as) captures the last two |
/// | other descriptors | none |
/// | environment | the account's (`HOME`, `USER`, `LOGNAME`, `SHELL`, `PATH`), then PAM's |
/// | directory | the account's home |
/// | umask | the logon session's; 022 for a token without one |
/// | terminal, session | a session of its own without a terminal |
/// | desktop | none: non-interactive |
/// | signals | all at their defaults, none blocked |
///
/// The program is looked for, its directory entered and its file opened by the new process itself, after it
/// has irrevocably become the client: what the client cannot reach does not start.
///
/// A builder can be used any number of times, from any number of threads.
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::{Account, Command, Logon};
/// let session = Logon::password(Account::local("alice"), "her password").open()?;
/// let output = Command::new("report").arg("--today").output_as(session.token())?;
/// println!("{}", String::from_utf8_lossy(&output.stdout));
/// # Ok(()) }
/// ```
///
/// Reference:
/// [CreateProcessAsUser](https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-createprocessasuserw),
/// [execve(2)](https://man7.org/linux/man-pages/man2/execve.2.html).
#[doc(alias = "CreateProcessAsUser")]
#[doc(alias = "CreateProcessAsUserA")]
#[doc(alias = "CreateProcessAsUserW")]
#[doc(alias = "CreateProcessWithTokenW")]
#[doc(alias = "CreateProcessWithLogonW")]
#[doc(alias = "STARTUPINFO")]
#[doc(alias = "STARTUPINFOEX")]
pub struct Command {
    pub(crate) program: Program,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: EnvironmentChanges,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) stdin: Option<Stdio>,
    pub(crate) stdout: Option<Stdio>,
    pub(crate) stderr: Option<Stdio>,
    #[cfg(unix)]
    pub(crate) pty: Option<PtySize>,
    pub(crate) desktop: Desktop,
    /// Whether anybody said which.
    #[cfg_attr(unix, allow(dead_code))]
    pub(crate) desktop_chosen: bool,
    pub(crate) suspended: bool,
    pub(crate) deadline: Duration,
    /// What only this platform has.
    pub(crate) native: crate::sys::process::Options,
}

/// What is to be executed.
#[derive(Debug)]
pub(crate) enum Program {
    /// Looked for by name, or found by path, by the new process.
    Named(OsString),
    /// An open file.
    #[cfg(unix)]
    Pinned(std::os::fd::OwnedFd),
}

/// What the server adds to the token's environment, or takes away.
#[derive(Debug, Clone, Default)]
pub(crate) struct EnvironmentChanges {
    pub(crate) clear: bool,
    pub(crate) variables: BTreeMap<OsString, Option<OsString>>,
}

impl EnvironmentChanges {
    pub(crate) fn set(&mut self, name: OsString, value: OsString) {
        self.variables.insert(name, Some(value));
    }

    pub(crate) fn remove(&mut self, name: impl Into<OsString>) {
        self.variables.insert(name.into(), None);
    }

    pub(crate) fn clear(&mut self) {
        self.clear = true;
        self.variables.clear();
    }
}

impl Command {
    /// A command that runs `program`.
    ///
    /// A name without a slash is looked for in the absolute directories of the *new process's* `PATH`; a
    /// path is taken relative to its directory. Both happen in the new process. A script needs a `#!` line:
    /// no shell is put in between.
    #[doc(alias = "lpApplicationName")]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self::with(Program::Named(program.as_ref().to_owned()))
    }

    pub(crate) fn with(program: Program) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            environment: EnvironmentChanges::default(),
            directory: None,
            stdin: None,
            stdout: None,
            stderr: None,
            #[cfg(unix)]
            pty: None,
            desktop: Desktop::none(),
            desktop_chosen: false,
            suspended: false,
            deadline: DEFAULT_DEADLINE,
            native: crate::sys::process::Options::default(),
        }
    }

    /// Adds one argument; it reaches the program as it is, through no shell.
    #[doc(alias = "lpCommandLine")]
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    pub fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable in the token's environment.
    #[doc(alias = "CreateEnvironmentBlock")]
    #[doc(alias = "lpEnvironment")]
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.environment.set(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets several variables in the token's environment.
    pub fn envs(
        &mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Self {
        for (name, value) in variables {
            self.env(name, value);
        }
        self
    }

    /// Takes a variable out of the token's environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.environment.remove(name.as_ref());
        self
    }

    /// Empties the token's environment, the account's variables and PAM's included.
    pub fn env_clear(&mut self) -> &mut Self {
        self.environment.clear();
        self
    }

    /// The directory in which the process starts; it enters it as the client.
    ///
    /// The default is the account's home. When the client cannot enter it nothing is started.
    #[doc(alias = "lpCurrentDirectory")]
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Where the standard input comes from.
    pub fn stdin(&mut self, stream: impl Into<Stdio>) -> &mut Self {
        self.stdin = Some(stream.into());
        self
    }

    /// Where the standard output goes.
    pub fn stdout(&mut self, stream: impl Into<Stdio>) -> &mut Self {
        self.stdout = Some(stream.into());
        self
    }

    /// Where the standard error goes.
    pub fn stderr(&mut self, stream: impl Into<Stdio>) -> &mut Self {
        self.stderr = Some(stream.into());
        self
    }

    /// Gives the process a new terminal of its own: its standard streams and its controlling terminal.
    ///
    /// The terminal belongs to the client, who can open it again by its name. The server's end is
    /// [`Child::pty`](crate::Child::pty). [`stdin`](Self::stdin), [`stdout`](Self::stdout) and
    /// [`stderr`](Self::stderr) may still lead elsewhere, two of the three at most. What kind of terminal the other end
    /// shows it as is for the server to say, in `TERM`: nothing sets it, and full-screen programs refuse to run without.
    ///
    /// ```no_run
    /// # fn example(token: stead::Token<stead::Primary>) -> stead::Result<()> {
    /// use stead::{Command, PtySize};
    /// let size = PtySize { rows: 50, columns: 132, ..PtySize::default() };
    /// let child = Command::new("top").env("TERM", "xterm-256color").pty(size).spawn_as(&token)?;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "CreatePseudoConsole")]
    #[doc(alias = "CREATE_NEW_CONSOLE")]
    #[doc(alias = "openpty")]
    #[doc(alias = "forkpty")]
    #[cfg(unix)]
    pub fn pty(&mut self, size: PtySize) -> &mut Self {
        self.pty = Some(size);
        self
    }

    /// Makes the process interactive: it may use this desktop, and finds it by its environment (Windows: is on it).
    ///
    /// Its logon session is granted access before it starts, and loses it when the last process of its tree has
    /// ended (as far as [`Child::containment`](crate::Child::containment) reaches), unless another process of the
    /// session still needs it. Without this call, or with [`Desktop::none`], it is non-interactive.
    ///
    /// On Windows a token of somebody who sits before a screen takes this call, if only with [`Desktop::none`]: the
    /// system connects its processes to that screen, where no desktop is named.
    ///
    /// ```no_run
    /// # fn example(token: stead::Token<stead::Primary>) -> stead::Result<()> {
    /// use stead::{Command, Desktop};
    /// let child = Command::new("editor").desktop(Desktop::by_name(":1")?).spawn_as(&token)?;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "lpDesktop")]
    #[doc(alias = "STARTUPINFO")]
    pub fn desktop(&mut self, desktop: Desktop) -> &mut Self {
        self.desktop = desktop;
        self.desktop_chosen = true;
        self
    }

    /// Stops short of executing the program until [`Child::resume`](crate::Child::resume).
    ///
    /// The process is already the client's, with its id and its pidfd: the server can prepare what it needs
    /// to know them for. That the program cannot be executed shows at `resume`.
    #[doc(alias = "CREATE_SUSPENDED")]
    pub fn suspended(&mut self, suspended: bool) -> &mut Self {
        self.suspended = suspended;
        self
    }

    /// How long the program may take to start (30 seconds unless said otherwise).
    ///
    /// The client can delay its own process, by a directory on a file system of its own, or by a signal.
    /// When the time is over the process is killed and `DeadlinePassed` returned: the server's thread is
    /// never held for longer. On Windows a thread of this library's then waits on for what the system does not
    /// cancel, and ends the process if there is one in the end.
    pub fn deadline(&mut self, deadline: Duration) -> &mut Self {
        self.deadline = deadline;
        self
    }

    /// Creates the process in the security context of `token`.
    ///
    /// It works the same on any thread, also on one that impersonates: what takes the server's privileges is
    /// done as the server, the rest as the client, and the thread is left as it was found.
    ///
    /// # Errors
    /// When it returns an error nothing runs: the process has exactly the token's context, or is not
    /// created at all. `InvalidInput` for what the builder was given, before anything is done; `NoLogonSid` and
    /// `DesktopAccess` when it cannot be let onto its [desktop](Self::desktop);
    /// `PrivilegeMissing` when the server may not do this; `ProgramNotFound`, `ProgramUnusable`,
    /// `DirectoryUnusable`, `LimitReached` for what the client may not; `DeadlinePassed`; `SpawnFailed`
    /// with the step and the system's error for the rest.
    #[doc(alias = "CreateProcessAsUser")]
    #[doc(alias = "CreateProcessAsUserW")]
    pub fn spawn_as(&self, token: &Token<Primary>) -> Result<Child> {
        spawn::spawn(self, token, spawn::Capture::No)
    }

    /// Creates the process, collects what it writes, and waits for its end.
    ///
    /// Standard output and standard error are captured unless they were set.
    ///
    /// # Errors
    /// Those of [`spawn_as`](Self::spawn_as) and [`Child::wait_with_output`]; `InvalidInput` with a
    /// terminal or a suspended start, which need a `Child`.
    pub fn output_as(&self, token: &Token<Primary>) -> Result<Output> {
        spawn::no_child(self)?;
        spawn::spawn(self, token, spawn::Capture::Yes)?.wait_with_output()
    }

    /// Creates the process and waits for its end.
    ///
    /// # Errors
    /// Those of [`spawn_as`](Self::spawn_as) and [`Child::wait`]; `InvalidInput` with a terminal or a
    /// suspended start.
    pub fn status_as(&self, token: &Token<Primary>) -> Result<ExitStatus> {
        spawn::no_child(self)?;
        spawn::status(self, token)
    }

    /// The program as it was named; empty for a pinned one.
    pub fn get_program(&self) -> &OsStr {
        match &self.program {
            Program::Named(name) => name,
            #[cfg(unix)]
            Program::Pinned(_) => OsStr::new(""),
        }
    }

    /// The arguments, without the program's own name.
    pub fn get_args(&self) -> impl Iterator<Item = &OsStr> {
        self.arguments.iter().map(OsString::as_os_str)
    }

    /// What was set (`Some`) or taken away (`None`) in the token's environment.
    pub fn get_envs(&self) -> impl Iterator<Item = (&OsStr, Option<&OsStr>)> {
        self.environment.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_deref()))
    }

    /// The directory, where one was set.
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.directory.as_deref()
    }
}

impl fmt::Debug for Command {
    /// The variables' names without their values, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Command");
        #[cfg(unix)]
        shown.field("pty", &self.pty);
        shown
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .field("environment", &self.environment.variables.keys())
            .field("directory", &self.directory)
            .field("stdin", &self.stdin)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .field("desktop", &self.desktop)
            .field("suspended", &self.suspended)
            .finish_non_exhaustive()
    }
}
