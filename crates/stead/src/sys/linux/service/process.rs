//! Processes that the service creates.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::Pid;
use stead_protocol::client::CallError;
use stead_protocol::frame::Malformed;
use stead_protocol::{
    CreateProcess, Descriptor, Environment, Index, KillTree, Process, ProcessLimit, ResumeProcess,
    SignalProcess, Strings, TerminalSize, Text, Variable, WaitProcess,
};

use super::connection::{PATIENCE, Service};
use super::error::{error, not_through, protocol};
use super::token::Held;
use crate::desktop::{Desktop, GrantTo, InteractiveSession};
use crate::error::{Error, ErrorKind, ProgramFault, Result};
use crate::process::{Command, Containment, Program};
use crate::sys::elsewhere::{Creation, Order, ProcessElsewhere, Spawned};
use crate::sys::process::Limit;
use crate::sys::token::Uid;

/// The call, and the descriptors that travel with it, ready to be sent.
pub(super) fn prepare(token: &Held, order: Order<'_>) -> Result<Creation> {
    let Order { command, streams, names, user } = order;
    let doing = names.doing.clone();
    refuse_what_stays_here(command, user, &doing)?;
    let mut sent = Sent { descriptors: Vec::new(), doing: &doing };
    let [stdin, stdout, stderr] = streams.map(|stream| stream.map(|stream| sent.push(stream)));
    let (program, pinned) = match &command.program {
        Program::Named(name) => (Some(name.as_os_str().into()), None),
        Program::Pinned(file) => (None, Some(sent.copy(file.as_fd())?)),
    };
    let mut descriptors = Vec::new();
    for (descriptor, target) in &command.native.descriptors {
        descriptors.push(Descriptor { descriptor: sent.copy(descriptor.as_fd())?, target: *target });
    }
    let native = &command.native;
    let mut call = CreateProcess {
        token: token.number,
        program,
        pinned,
        argument_zero: native.arg0.as_deref().map(Text::from),
        arguments: command.arguments.iter().map(|argument| argument.as_os_str().into()).collect(),
        environment: environment(command),
        strings: None,
        directory: command.directory.as_deref().map(|directory| directory.as_os_str().into()),
        stdin,
        stdout,
        stderr,
        descriptors,
        limits: native.limits.iter().map(|(limit, soft, hard)| process_limit(*limit, *soft, *hard)).collect(),
        nice: native.nice,
        oom_score_adj: native.oom_score_adj,
        umask: native.umask,
        no_new_privs: native.no_new_privs,
        terminal: command.pty.map(|size| TerminalSize {
            rows: size.rows,
            columns: size.columns,
            pixel_width: size.pixel_width,
            pixel_height: size.pixel_height,
        }),
        job_control: native.job_control,
        suspended: command.suspended,
        desktop: (!command.desktop.is_none()).then(|| {
            found(&command.desktop, user).map_or_else(|| command.desktop.to_string().into(), Text::from)
        }),
        desktop_for_user: command.desktop.to == GrantTo::User,
        deadline: Some(milliseconds(command.deadline)),
    };
    // A byte of a string takes eight of a message at most.
    if Strings::length(&call) > stead_protocol::LARGEST_MESSAGE / 16 {
        let strings = Strings::take(&mut call).encode().map_err(|malformed| match malformed {
            Malformed::TooLong => too_long(&doing, &names.program),
            malformed => error(doing.clone().into(), CallError::Malformed(malformed)),
        })?;
        call.strings = Some(sent.push(memory_file(&strings, &doing)?));
    }
    let descriptors = sent.descriptors;
    let patience = command.deadline.saturating_add(PATIENCE);
    let line = Arc::clone(&token.line);
    let program = names.program.clone();
    Ok(Box::new(move || {
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let (created, mut received) = match line.ask(&call, &borrowed, Some(patience)) {
            Err(CallError::Malformed(Malformed::TooLong)) => {
                return Err(too_long(&doing, &program));
            }
            answer => answer.map_err(|fault| error(doing.clone().into(), fault))?,
        };
        let malformed = |source| protocol(doing.clone(), source);
        // From here on an error ends it: nothing would hold it.
        let process = Remote::new(&line.service, created.process, patience);
        let pidfd = received.take(created.pidfd);
        let pty = created.terminal.map(|index| received.take(index)).transpose();
        match (pidfd, pty, process.pid()) {
            (Ok(pidfd), Ok(pty), Ok(pid)) => Ok(Spawned { pid, pidfd, process: Box::new(process), pty }),
            (pidfd, pty, pid) => {
                process.kill_tree()?;
                pidfd.map_err(malformed)?;
                pty.map_err(malformed)?;
                pid.map_err(malformed).map(|_| unreachable!("one of the three is an error"))
            }
        }
    }))
}

/// What the kernel says of more than it takes.
fn too_long(doing: &str, program: &str) -> Error {
    let (program, why) = (program.to_owned(), ProgramFault::ArgumentsTooLong);
    Error::new(doing.to_owned(), ErrorKind::ProgramUnusable { program, why })
}

/// A memory file that nobody can change any more.
fn memory_file(bytes: &[u8], doing: &str) -> Result<OwnedFd> {
    let system = |call| move |source| Error::system(doing.to_owned(), call, source);
    let file = memfd_create("stead-strings", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(|errno| system("memfd_create")(errno.into()))?;
    let mut file = File::from(file);
    file.write_all(bytes).map_err(system("write"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(|errno| system("fcntl")(errno.into()))?;
    Ok(file.into())
}

/// What only this process could give, and has no right to.
fn refuse_what_stays_here(command: &Command, user: Uid, doing: &str) -> Result<()> {
    let native = &command.native;
    let what = if native.cgroup.is_some() {
        "a control group of this server's (the service has its own)"
    } else if !native.ambient.is_empty() {
        "capabilities of this server's"
    } else if native.exec_label.is_some() {
        "a security label that this server chooses"
    } else if command
        .desktop
        .place
        .as_ref()
        .is_some_and(|place| place.is_chosen(found(&command.desktop, user).is_some()))
    {
        "how a display is entered (its authority file, owner, host list, trusted programs)"
    } else {
        return Ok(());
    };
    Err(not_through(doing.to_owned(), what))
}

/// The name of a desktop that the service finds itself; its policy knows it by the same.
fn found(desktop: &Desktop, user: Uid) -> Option<&'static str> {
    match desktop.session.as_ref()? {
        InteractiveSession::Console => Some("console"),
        InteractiveSession::Active => Some("active"),
        InteractiveSession::OfUser(uid) if *uid == user => Some("interactive"),
        _ => None,
    }
}

fn environment(command: &Command) -> Environment {
    let changes = &command.environment;
    let mut environment = Environment { clear: changes.clear, ..Environment::default() };
    for (name, value) in &changes.variables {
        let name = name.as_os_str().into();
        match value {
            Some(value) => environment.set.push(Variable { name, value: value.as_os_str().into() }),
            None => environment.remove.push(name),
        }
    }
    environment
}

fn process_limit(limit: Limit, soft: u64, hard: u64) -> ProcessLimit {
    let value = |value| (value != Limit::UNLIMITED).then_some(value);
    ProcessLimit { name: limit.name().to_owned(), soft: value(soft), hard: value(hard) }
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The descriptors of a call.
struct Sent<'a> {
    descriptors: Vec<OwnedFd>,
    doing: &'a str,
}

impl Sent<'_> {
    fn push(&mut self, descriptor: OwnedFd) -> Index {
        self.descriptors.push(descriptor);
        Index::try_from(self.descriptors.len() - 1).unwrap_or(Index::MAX)
    }

    /// The builder keeps its own and can be used again.
    fn copy(&mut self, descriptor: BorrowedFd<'_>) -> Result<Index> {
        let copy = descriptor
            .try_clone_to_owned()
            .map_err(|source| Error::system(self.doing.to_owned(), "fcntl", source))?;
        Ok(self.push(copy))
    }
}

/// A process of the service's, by the name that it keeps also when the service is started anew.
struct Remote {
    service: Arc<Service>,
    process: Process,
    /// How long it may take to execute its program once it is resumed.
    patience: Duration,
}

impl Remote {
    fn new(service: &Arc<Service>, process: Process, patience: Duration) -> Self {
        Self { service: Arc::clone(service), process, patience }
    }

    fn pid(&self) -> std::io::Result<Pid> {
        let pid = i32::try_from(self.process.pid).ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "a process without a number"))
    }

    fn name(&self) -> String {
        self.process.id.clone()
    }
}

impl ProcessElsewhere for Remote {
    fn status(&self) -> Result<Option<i32>> {
        status(&self.service, self.name())
    }

    fn signal(&self, signal: i32, group: bool) -> Result<()> {
        let call = SignalProcess { process: self.name(), signal, group };
        self.service.call("signalling a process through the service", &call, PATIENCE).map(drop)
    }

    fn kill_tree(&self) -> Result<()> {
        kill_tree(&self.service, self.name())
    }

    fn resume(&self) -> Result<()> {
        let call = ResumeProcess { process: self.name() };
        self.service.call("resuming a process through the service", &call, self.patience).map(drop)
    }

    fn containment(&self) -> Containment {
        match self.process.containment.as_str() {
            "cgroup" => Containment::Cgroup,
            "session_worker" => Containment::SessionWorker,
            _ => Containment::PosixSession,
        }
    }
}

/// How a process ended, if it has: its pidfd may say so a moment before the service knows.
pub(super) fn status(service: &Service, process: String) -> Result<Option<i32>> {
    let call = WaitProcess { process, timeout: Some(milliseconds(REAPING)) };
    let waited = service.call("asking the service for an exit status", &call, REAPING + PATIENCE)?;
    Ok(waited.status.map(|status| status.raw))
}

/// How long the service may take to collect the status of a process that has ended.
const REAPING: Duration = Duration::from_secs(1);

pub(super) fn kill_tree(service: &Service, process: String) -> Result<()> {
    service.call("killing a tree of processes through the service", &KillTree { process }, PATIENCE).map(drop)
}
