//! From a command and a token to everything that the new process is created from.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle, RawHandle};
use std::path::{Path, PathBuf};

use windows_sys::Win32::Security::TOKEN_QUERY;
use windows_sys::Win32::System::Threading::OpenProcessToken;

use super::create::{Created, Creation, create};
use super::environment::Environment;
use super::job::Job;
use super::running::Running;
use super::{quote, search, stdio};
use crate::error::{Error, ErrorKind, ProgramFault, Result};
use crate::process::{Capture, Command, Program, Stage, Stdio};
use crate::sys::fault;
use crate::sys::impersonate::thread::with_token;
use crate::sys::logon::SessionHandle;
use crate::sys::thread_token::Identity;
use crate::sys::token::SecurityContext;
use crate::sys::wide::wide;
use crate::token::{Impersonation, ImpersonationLevel, Primary, Token};

/// What is about to be created; dropping it undoes what was prepared.
pub(crate) struct Plan {
    token: Token<Primary>,
    /// The same for the thread, while the program is looked for and opened.
    client: Token<Impersonation>,
    program: OsString,
    arguments: Vec<Vec<u16>>,
    raw_tail: Option<Vec<u16>>,
    environment: Environment,
    directory: PathBuf,
    handles: Vec<OwnedHandle>,
    ends: [Option<OwnedHandle>; 3],
    job: Job,
    priority: u32,
    suspended: bool,
    doing: String,
}

/// A process that was created, and the server's ends of its streams.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) running: Running,
    pub(crate) stdin: Option<OwnedHandle>,
    pub(crate) stdout: Option<OwnedHandle>,
    pub(crate) stderr: Option<OwnedHandle>,
}

impl Plan {
    /// Checks everything that can be checked, then opens what the process needs. The caller is the server.
    pub(crate) fn new(command: &Command, token: &Token<Primary>, capture: Capture) -> Result<Self> {
        let Program::Named(program) = &command.program;
        let context = &token.data().context;
        let doing = format!("creating the process {:?} as {}", program.to_string_lossy(), context.user);
        let arguments = check(command, &doing)?;
        let system = |call| {
            let doing = doing.clone();
            move |source: io::Error| Error::system(doing, call, source)
        };
        let mut environment = Environment::of(context.handle()).map_err(system("CreateEnvironmentBlock"))?;
        if let Some(session) = &token.data().session {
            environment.add(session.additions());
        }
        let home = environment.get("USERPROFILE").map(PathBuf::from);
        environment.change(&command.environment);
        let Some(directory) = command.directory.clone().or(home) else {
            let what = "the token's environment names no profile directory (USERPROFILE)".into();
            return Err(Error::new(doing, ErrorKind::InvalidInput { what }));
        };
        if !directory.is_absolute() {
            // Relative to what? The server's own directory plays no part.
            let what = format!("the directory {} is not absolute", directory.display()).into();
            return Err(Error::new(doing, ErrorKind::InvalidInput { what }));
        }
        let (mut handles, mut ends) = (Vec::new(), [None, None, None]);
        let captured = Stdio::piped();
        let set = [&command.stdin, &command.stdout, &command.stderr];
        for (number, stream) in (0..).zip(set) {
            let null = Stdio::null();
            let stream = match stream {
                Some(stream) => stream,
                None if capture == Capture::Yes && number > 0 => &captured,
                None => &null,
            };
            let (ours, theirs) =
                stdio::open(&stream.0, number).map_err(system("opening a standard stream"))?;
            ends[number as usize] = ours;
            handles.push(theirs);
        }
        for handle in &command.native.handles {
            handles.push(handle.try_clone().map_err(system("DuplicateHandle"))?);
        }
        let job = Job::new(command.native.limits, command.native.kill_on_close)
            .map_err(system("CreateJobObjectW"))?;
        Ok(Self {
            client: token.duplicate(ImpersonationLevel::Impersonation)?,
            token: token.clone(),
            program: program.clone(),
            arguments,
            raw_tail: command.native.raw_tail.as_ref().map(|tail| tail.encode_wide().collect()),
            environment,
            directory,
            handles,
            ends,
            job,
            priority: command.native.priority.0,
            suspended: command.suspended,
            doing,
        })
    }

    /// Creates the process suspended, looks at what it became, and lets it run unless it shall stay suspended.
    pub(crate) fn start(self) -> Result<Parts> {
        let mut running = {
            let Created { process, thread, id } = self.create()?;
            Running::new(process, thread, id, self.job, self.token.data().session.clone())
        };
        // Whatever goes wrong from here on ends the process: `running` is dropped suspended.
        read_back(&running, &self.token.data().context).map_err(|found| {
            let error = Error::new(self.doing.clone(), ErrorKind::SpawnFailed { stage: Stage::ReadBack });
            error.with_source(found)
        })?;
        if !self.suspended {
            running.resume()?;
        }
        let [stdin, stdout, stderr] = self.ends;
        Ok(Parts { running, stdin, stdout, stderr })
    }

    fn create(&self) -> Result<Created> {
        let fail = |kind| Error::new(self.doing.clone(), kind);
        let block = self.environment.block();
        let directory = wide(&self.directory).ok_or_else(|| fail(nul("the directory")))?;
        let identity = Identity::of(self.client.as_handle())
            .map_err(|source| Error::system(self.doing.clone(), "GetTokenInformation", source))?;
        // The session's first: a job can only be nested in one that the process is in already.
        let session = self.token.data().session.as_deref().map(SessionHandle::job);
        let jobs: Vec<RawHandle> = session.into_iter().chain([&self.job]).map(Job::raw).collect();
        let outcome = with_token(self.client.as_handle(), &identity, || {
            let found = search::find(&self.program, &self.directory, &self.environment).map_err(fail)?;
            let application = wide(&found).ok_or_else(|| fail(nul("the program")))?;
            let name: Vec<u16> = self.program.encode_wide().collect();
            let arguments = self.arguments.iter().map(Vec::as_slice);
            let command_line = quote::command_line(&name, arguments, self.raw_tail.as_deref());
            if command_line.len() > quote::LONGEST {
                let program = found.display().to_string();
                return Err(fail(ErrorKind::ProgramUnusable {
                    program,
                    why: ProgramFault::ArgumentsTooLong,
                }));
            }
            let inheritable: Vec<OwnedHandle> = self
                .handles
                .iter()
                .map(|handle| stdio::inheritable(handle.as_handle()))
                .collect::<io::Result<_>>()
                .map_err(|source| Error::system(self.doing.clone(), "DuplicateHandle", source))?;
            create(Creation {
                token: self.token.data().context.handle(),
                application: &application,
                command_line,
                environment: &block,
                directory: &directory,
                handles: &inheritable,
                jobs: &jobs,
                priority: self.priority,
            })
            .map_err(|source| self.refused(&found, source))
        });
        match outcome {
            Ok(result) => result,
            Err(fault) => {
                let what = fault.to_string().into();
                Err(fail(ErrorKind::ImpersonationChanged { what }))
            }
        }
    }

    /// What the system's refusal means.
    fn refused(&self, program: &Path, source: io::Error) -> Error {
        let code = source.raw_os_error().unwrap_or_default().cast_unsigned();
        let (program, directory) = (program.display().to_string(), self.directory.display().to_string());
        let kind = fault::of_creation(code, program, directory)
            .unwrap_or(ErrorKind::SpawnFailed { stage: Stage::Clone });
        Error::new(self.doing.clone(), kind).with_source(source)
    }
}

fn nul(what: &str) -> ErrorKind {
    ErrorKind::InvalidInput { what: format!("{what} holds a NUL").into() }
}

/// Finds what is wrong with a command before anything is done; the arguments as Windows takes them.
fn check(command: &Command, doing: &str) -> Result<Vec<Vec<u16>>> {
    let fail = |kind| Error::new(doing.to_owned(), kind);
    let has_nul = |text: &OsStr| text.encode_wide().any(|unit| unit == 0);
    let mut arguments = Vec::with_capacity(command.arguments.len());
    for argument in &command.arguments {
        if has_nul(argument) {
            return Err(fail(nul("an argument")));
        }
        arguments.push(argument.encode_wide().collect());
    }
    for (name, value) in &command.environment.variables {
        let units: Vec<u16> = name.encode_wide().collect();
        if units.is_empty() || units.contains(&0) || units[1..].contains(&u16::from(b'=')) {
            let what = format!("{:?} is no name of a variable", name.to_string_lossy()).into();
            return Err(fail(ErrorKind::InvalidInput { what }));
        }
        if value.as_ref().is_some_and(|value| has_nul(value)) {
            return Err(fail(nul("a variable")));
        }
    }
    if command.native.raw_tail.as_ref().is_some_and(|tail| has_nul(tail)) {
        return Err(fail(nul("the end of the command line")));
    }
    if command.directory.as_ref().is_some_and(|directory| has_nul(directory.as_os_str())) {
        return Err(fail(nul("the directory")));
    }
    Ok(arguments)
}

/// Compares what the process is with what it was to be. The calling thread is the server.
fn read_back(running: &Running, wanted: &SecurityContext) -> io::Result<()> {
    let mut raw = std::ptr::null_mut();
    // SAFETY: the process's handle is open and has all rights; `raw` is written only by this call.
    if unsafe { OpenProcessToken(running.handle().as_raw_handle(), TOKEN_QUERY, &raw mut raw) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the handle is new and nobody else's.
    let token = unsafe { OwnedHandle::from_raw_handle(raw) };
    let found = SecurityContext::read(token)?;
    let differs = if found.user != wanted.user {
        format!("the process's user is {}", found.user)
    } else if found.logon_id != wanted.logon_id {
        format!("the process's logon session is {:#x}", found.logon_id)
    } else if found.session_id != wanted.session_id {
        format!("the process's session is {}", found.session_id)
    } else if found.groups != wanted.groups {
        "the process's groups are not the token's".to_owned()
    } else if found.restricted != wanted.restricted {
        "the process's restrictions are not the token's".to_owned()
    } else if found.integrity > wanted.integrity {
        "the process's integrity level is above the token's".to_owned()
    } else {
        return Ok(());
    };
    Err(io::Error::other(differs))
}
