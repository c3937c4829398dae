//! From a command and a token to everything that the new process is created from.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, fchmod, fchown, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use stead_trampoline::spec::{Credentials, Keyring, NewSession, On, ProcessDefaults, ProgramSearch, Spec};

use super::abandoned;
use super::cgroup::ProcessCgroup;
use super::check::{check, check_command};
use super::environment::{Environment, home};
use super::launch::{Launch, Started, launch};
use super::leased::Leased;
use super::parent::{Parent, WorkerChild};
use super::pty;
use super::report;
use super::running::{Names, Running};
use crate::desktop::AccessLease;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Capture, Command, Program, Stdio, Stream};
use crate::sys::desktop;
use crate::sys::elsewhere::{Creation, Order, TokenElsewhere};
use crate::sys::logon::SessionHandle;
use crate::sys::token::{SecurityContext, Uid, label_as_written, last_capability};
use crate::token::{Primary, Token, TokenData};

/// The umask of a process whose token has no logon session to say another.
const DEFAULT_UMASK: u32 = 0o022;

/// What is about to be created; dropping it undoes what was prepared.
pub(crate) enum Plan {
    /// By this process, or a session worker of its own.
    Here(Box<Here>),
    /// By the process that holds the token.
    Elsewhere(Elsewhere),
}

/// What this process creates a process from.
pub(crate) struct Here {
    launch: Launch,
    report: OwnedFd,
    gate: Option<OwnedFd>,
    ends: Ends,
    session: Option<Arc<SessionHandle>>,
    cgroup: Option<ProcessCgroup>,
    lease: Option<AccessLease>,
    deadline: Duration,
    names: Names,
}

/// What the process that holds the token creates a process from.
pub(crate) struct Elsewhere {
    create: Creation,
    session: Option<Arc<SessionHandle>>,
    ends: Ends,
    suspended: bool,
    names: Names,
}

/// The server's ends of the standard streams.
#[derive(Debug, Default)]
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    pty: Option<OwnedFd>,
}

/// A process that was created, and the server's ends of its streams.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) running: Running,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) pty: Option<OwnedFd>,
}

impl Plan {
    /// Checks everything that can be checked, then opens what the process needs.
    pub(crate) fn new(command: &Command, token: &Token<Primary>, capture: Capture) -> Result<Self> {
        match &token.data().elsewhere.0 {
            None => Here::new(command, token, capture).map(Box::new).map(Self::Here),
            Some(holder) => {
                Elsewhere::new(command, token.data(), holder.as_ref(), capture).map(Self::Elsewhere)
            }
        }
    }

    /// Creates the process, and waits until its program runs or it is suspended.
    pub(crate) fn start(self) -> Result<Parts> {
        match self {
            Self::Here(plan) => plan.start(),
            Self::Elsewhere(plan) => plan.start(),
        }
    }

    /// Creates the process and waits for its end; one that is not suspended.
    pub(crate) fn status(self) -> Result<ExitStatus> {
        match self {
            Self::Here(plan) => plan.status(),
            Self::Elsewhere(plan) => plan.start()?.wait(),
        }
    }
}

impl Parts {
    /// Waits for the end, the process's standard input closed.
    fn wait(mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        let lost = || Error::new("waiting for a process", ErrorKind::StatusLost);
        self.running.wait(None)?.ok_or_else(lost)
    }
}

impl Elsewhere {
    /// What the command asks for is checked as ever; whether it may, where it is done.
    fn new(
        command: &Command,
        data: &TokenData,
        holder: &dyn TokenElsewhere,
        capture: Capture,
    ) -> Result<Self> {
        abandoned::sweep();
        let context = &data.context;
        let names = names(command, context);
        check_command(command, &names.doing)?;
        let mut streams = Streams::of(context.uid, &names);
        let terminal = command.pty.is_some() || existing_terminal(command).is_some();
        let terminal = terminal.then_some(Terminal::Elsewhere);
        streams.open(command, capture, terminal)?;
        let Streams { descriptors, ends, .. } = streams;
        let mut streams = [None, None, None];
        for (descriptor, number) in descriptors {
            if let Some(stream) = usize::try_from(number).ok().and_then(|number| streams.get_mut(number)) {
                *stream = Some(descriptor);
            }
        }
        let create = holder.prepare(Order { command, streams, names: &names, user: context.uid })?;
        Ok(Self { create, session: data.session.clone(), ends, suspended: command.suspended, names })
    }

    fn start(self) -> Result<Parts> {
        let mut spawned = (self.create)()?;
        let Ends { stdin, stdout, stderr, .. } = self.ends;
        let pty = spawned.pty.take();
        let running = Running::elsewhere(spawned, self.session, self.suspended, self.names);
        Ok(Parts { running, stdin, stdout, stderr, pty })
    }
}

impl Here {
    fn new(command: &Command, token: &Token<Primary>, capture: Capture) -> Result<Self> {
        let data = token.data();
        let context = &data.context;
        let mut names = names(command, context);
        let checked = check(command, context, data.session.is_some(), &names.doing)?;
        abandoned::sweep();

        let account = token.account()?;
        let mut environment = Environment::of(
            context.uid,
            account,
            data.session.as_ref().map_or(&[], |session| session.environment()),
        );
        // Before anything else that is undone only by the process's end: the grant may wait for the desktop.
        let lease = command.desktop.lease_for(token)?;
        lead_to_desktop(&mut environment, command, context.uid, lease.as_ref());
        environment.change(&command.environment);
        let directory = match checked.directory {
            Some(directory) => directory,
            None => c_string(home(account)),
        };
        names.directory = directory.to_string_lossy().into_owned();

        let mut streams = Streams::of(context.uid, &names);
        let terminal = terminal_of(command, context.uid, &names)?;
        streams.open(command, capture, terminal)?;
        let Streams { mut descriptors, ends, .. } = streams;
        for (descriptor, number) in &command.native.descriptors {
            descriptors.push((duplicate(descriptor, &names)?, *number));
        }
        let mut keep: Vec<u32> = command.native.descriptors.iter().map(|(_, number)| *number).collect();
        keep.sort_unstable();

        let program = match &command.program {
            Program::Named(name) => {
                let candidates = environment.candidates(name).iter().map(c_string).collect();
                ProgramSearch::Candidates(candidates)
            }
            Program::Pinned(descriptor) => {
                let number =
                    (3..u32::MAX).find(|n| !keep.contains(n)).expect("fewer descriptors than numbers");
                descriptors.push((duplicate(descriptor, &names)?, number));
                ProgramSearch::Descriptor(number)
            }
        };

        let session = data.session.clone();
        let in_session = session.is_some();
        let label = command.native.exec_label.as_deref().or_else(|| session.as_ref()?.exec_label());
        let exec_label =
            label.or(checked.label.as_deref()).map(label_as_written).transpose().map_err(|error| {
                Error::system(names.doing.clone(), "read of AppArmor's parameters", error)
            })?;
        let spec = Spec {
            report: 0, // attach() decides
            gate: None,
            keep,
            session: new_session(command),
            defaults: if in_session { ProcessDefaults::Session } else { ProcessDefaults::Fixed },
            umask: Some(
                command
                    .native
                    .umask
                    .unwrap_or_else(|| session.as_ref().map_or(DEFAULT_UMASK, |session| session.umask())),
            ),
            nice: command.native.nice,
            oom_score_adj: command.native.oom_score_adj,
            limits: data.limits.with(&command.native.limits),
            keyring: if in_session { Keyring::Inherit } else { Keyring::JoinNew },
            login_uid: checked.login_uid,
            credentials: Some(credentials(command, context)),
            exec_label,
            directory,
            program,
        };
        let doing = &names.doing;
        let system = |call| move |errno: Errno| Error::system(doing.clone(), call, errno);
        let cgroup = command.native.cgroup.as_ref().map(|cgroup| cgroup.create(&names.doing)).transpose()?;
        let cgroup_directory = cgroup
            .as_ref()
            .and_then(ProcessCgroup::directory)
            .map(|directory| directory.try_clone_to_owned())
            .transpose()
            .map_err(|error| Error::system(names.doing.clone(), "fcntl", error))?;
        let mut launch = Launch {
            spec,
            argv: checked.argv,
            envp: environment.into_block(),
            descriptors,
            cgroup: cgroup_directory,
        };
        let (report, report_end) = report::pipe().map_err(system("pipe"))?;
        let (gate, gate_end) = if command.suspended {
            let (gate, end) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(system("socketpair"))?;
            (Some(gate), Some(end))
        } else {
            (None, None)
        };
        launch.attach(report_end, gate_end);
        Ok(Self { launch, report, gate, ends, session, cgroup, lease, deadline: command.deadline, names })
    }

    fn start(self) -> Result<Parts> {
        let Created { mut running, report, gate, ends, deadline } = self.create()?;
        running.await_start(report, gate, deadline)?;
        let Ends { stdin, stdout, stderr, pty } = ends;
        Ok(Parts { running, stdin, stdout, stderr, pty })
    }

    /// The start is not waited for apart from the end: it would wake this thread once more.
    fn status(self) -> Result<ExitStatus> {
        let Created { running, report, ends, deadline, .. } = self.create()?;
        // Nobody will write to it; what the process writes can still be written until it ends.
        let Ends { stdin, stdout: _stdout, stderr: _stderr, pty: _pty } = ends;
        drop(stdin);
        running.run_to_end(report, deadline)
    }

    fn create(self) -> Result<Created> {
        let Self { launch: what, report, gate, ends, session, cgroup, lease, deadline, names } = self;
        let lease = lease
            .map(|lease| Leased::prepare(lease, cgroup.as_ref(), session.is_some(), &names))
            .transpose()?;
        let (Started { pid, pidfd }, parent) = match session {
            None => (launch(&what).map_err(|fault| names.error(fault))?, Parent::Server),
            Some(session) => {
                let watch = lease.as_ref().and_then(Leased::worker_end);
                let process = session.launch(&what, watch, &names)?;
                (process.started, Parent::Worker(WorkerChild::new(session, process.id)))
            }
        };
        // Our copies of the child's descriptors: with them open the report would have no end.
        drop(what);
        let pid = Pid::from_raw(pid).expect("the kernel gives no process the number 0");
        if let Some(lease) = lease {
            lease.hold(pid, &pidfd);
        }
        let running = Running::new(pid, pidfd, parent, cgroup, names);
        Ok(Created { running, report, gate, ends, deadline })
    }
}

/// A process that has been created, and has not yet said how its start went.
struct Created {
    running: Running,
    report: OwnedFd,
    gate: Option<OwnedFd>,
    ends: Ends,
    deadline: Duration,
}

fn new_session(command: &Command) -> NewSession {
    let streams = [(On::Input, &command.stdin), (On::Output, &command.stdout), (On::Error, &command.stderr)];
    // The first of the standard streams that is the terminal which is to control the process.
    let candidates = match (command.pty, existing_terminal(command)) {
        (Some(_), _) => 3,
        (None, Some(_)) => 1,
        (None, None) => 0,
    };
    let terminal = streams.iter().take(candidates).find(|(_, given)| given.is_none()).map(|(on, _)| *on);
    match terminal {
        None => NewSession::Setsid,
        Some(terminal) if command.native.job_control => {
            // Others may read the terminal that this one stands for: whom its streams lead to, or come from.
            let behind = streams.iter().any(|(_, given)| given.is_some());
            NewSession::SetsidSupervised { terminal, behind }
        }
        Some(terminal) => NewSession::SetsidWithTerminal(terminal),
    }
}

fn names(command: &Command, context: &SecurityContext) -> Names {
    let program = match &command.program {
        Program::Named(name) => name.to_string_lossy().into_owned(),
        Program::Pinned(_) => "the pinned program".to_owned(),
    };
    let doing = format!("creating the process {program:?} as uid {}", context.uid);
    Names { doing, program, directory: String::new() }
}

/// The token's context, and what of it the command changes.
fn credentials(command: &Command, context: &SecurityContext) -> Credentials {
    let sets = &context.capabilities;
    // Only what is permitted and inheritable can be ambient, and only what is effective counts before execve.
    let granted = command.native.ambient.bits();
    Credentials {
        uid: context.uid.as_raw(),
        gid: context.gid.as_raw(),
        groups: context.groups.as_slice().iter().map(|gid| gid.as_raw()).collect(),
        permitted: sets.permitted.bits() | granted,
        effective: sets.effective.bits() | granted,
        inheritable: sets.inheritable.bits() | granted,
        ambient: sets.ambient.bits() | granted,
        bounding: sets.bounding.bits(),
        last_capability: last_capability(),
        securebits: context.securebits.0,
        no_new_privs: context.no_new_privs || command.native.no_new_privs,
    }
}

/// Puts into the environment what leads to the desktop or the terminal of the process, and nothing that leads elsewhere.
fn lead_to_desktop(environment: &mut Environment, command: &Command, uid: Uid, lease: Option<&AccessLease>) {
    let terminal = [(OsStr::new("XDG_SESSION_TYPE"), OsStr::new("tty"))];
    match lease {
        Some(lease) => environment.interactive(uid, lease.environment()),
        None if command.pty.is_some() => environment.interactive(uid, terminal),
        None => environment.non_interactive(),
    }
}

/// The terminal of the process: a new one, or the one that its desktop is.
fn terminal_of(command: &Command, uid: Uid, names: &Names) -> Result<Option<Terminal>> {
    Ok(match (command.pty, existing_terminal(command)) {
        (Some(size), _) => Some(Terminal::Here(pty::open(size, uid, &names.doing)?)),
        (None, Some(existing)) => Some(Terminal::Existing(existing.stream()?)),
        (None, None) => None,
    })
}

/// The terminal that the command's desktop is, if it is one.
fn existing_terminal(command: &Command) -> Option<&desktop::terminal::Terminal> {
    command.desktop.place.as_ref().and_then(desktop::Place::terminal)
}

/// The standard streams, as they are being opened.
struct Streams<'a> {
    uid: Uid,
    names: &'a Names,
    descriptors: Vec<(OwnedFd, u32)>,
    /// Which of them is the null device, once one is.
    null: Option<usize>,
    ends: Ends,
}

/// A terminal of the process's own.
enum Terminal {
    Here(pty::Pair),
    /// One that was there before: the desktop that the process is on.
    Existing(OwnedFd),
    /// Who creates the process opens it.
    Elsewhere,
}

impl<'a> Streams<'a> {
    fn of(uid: Uid, names: &'a Names) -> Self {
        Self { uid, names, descriptors: Vec::new(), null: None, ends: Ends::default() }
    }

    fn open(&mut self, command: &Command, capture: Capture, terminal: Option<Terminal>) -> Result<()> {
        let captured = Stdio::piped();
        let set = [&command.stdin, &command.stdout, &command.stderr];
        for (number, stream) in (0..).zip(set) {
            let (ours, theirs) = match (stream, &terminal) {
                (Some(stream), _) => self.stream(stream, number)?,
                (None, Some(Terminal::Here(pair))) => (None, duplicate(&pair.slave, self.names)?),
                (None, Some(Terminal::Existing(_) | Terminal::Elsewhere))
                    if capture == Capture::Yes && number > 0 =>
                {
                    self.stream(&captured, number)?
                }
                (None, Some(Terminal::Existing(device))) => (None, duplicate(device, self.names)?),
                (None, Some(Terminal::Elsewhere)) => continue,
                (None, None) if capture == Capture::Yes && number > 0 => self.stream(&captured, number)?,
                (None, None) => self.stream(&Stdio::null(), number)?,
            };
            self.descriptors.push((theirs, number));
            match number {
                0 => self.ends.stdin = ours,
                1 => self.ends.stdout = ours,
                _ => self.ends.stderr = ours,
            }
        }
        if let Some(Terminal::Here(pair)) = terminal {
            self.ends.pty = Some(pair.master);
        }
        Ok(())
    }

    /// Our end, where there is one, and the process's.
    fn stream(&mut self, stream: &Stdio, number: u32) -> Result<(Option<OwnedFd>, OwnedFd)> {
        let doing = &self.names.doing;
        let system = |call| move |errno: Errno| Error::system(doing.clone(), call, errno);
        match &stream.0 {
            Stream::Null => {
                // Opened once for all: a copy costs a sixth of that.
                let null = match self.null {
                    Some(opened) => duplicate(&self.descriptors[opened].0, self.names)?,
                    None => openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                        .map_err(system("open /dev/null"))?,
                };
                self.null.get_or_insert(self.descriptors.len());
                Ok((None, null))
            }
            Stream::Piped => {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(system("pipe"))?;
                let (ours, theirs) = if number == 0 { (writer, reader) } else { (reader, writer) };
                // A pipe belongs to whoever made it, and the client could not open /dev/stdout. Without CAP_CHOWN
                // everybody may who can reach it at all: it has no name but those below /proc/PID/fd, which are
                // for the processes' own users.
                let owner = rustix::fs::Uid::from_raw(self.uid.as_raw());
                if fchown(&theirs, Some(owner), None).is_err() {
                    let _ = fchmod(&theirs, Mode::from_raw_mode(0o666));
                }
                Ok((Some(ours), theirs))
            }
            Stream::Inherit => {
                let own = match number {
                    0 => std::io::stdin().as_fd().try_clone_to_owned(),
                    1 => std::io::stdout().as_fd().try_clone_to_owned(),
                    _ => std::io::stderr().as_fd().try_clone_to_owned(),
                };
                let own = own.map_err(|error| Error::system(self.names.doing.clone(), "fcntl", error))?;
                Ok((None, own))
            }
            Stream::Given(file) => Ok((None, duplicate(file, self.names)?)),
        }
    }
}

/// A copy, for the builder keeps its own and can be used again.
fn duplicate(descriptor: impl AsFd, names: &Names) -> Result<OwnedFd> {
    descriptor
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Error::system(names.doing.clone(), "fcntl", error))
}

/// A string that is known to hold no NUL: it was checked, or came from one.
fn c_string(bytes: impl AsRef<[u8]>) -> CString {
    let bytes = bytes.as_ref();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    CString::new(OsStr::from_bytes(&bytes[..end]).as_bytes()).expect("cut at the first NUL")
}
