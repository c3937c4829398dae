//! From a plan to a process: on a thread of its own, so that the server's waits no longer than its deadline.

use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle, RawHandle};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;

use windows_sys::Win32::Foundation::ERROR_ACCESS_DENIED;
use windows_sys::Win32::Security::TOKEN_QUERY;
use windows_sys::Win32::System::IO::CancelSynchronousIo;
use windows_sys::Win32::System::SystemInformation::GetSystemDirectoryW;
use windows_sys::Win32::System::SystemServices::SE_GROUP_INTEGRITY;
use windows_sys::Win32::System::Threading::OpenProcessToken;

use super::create::{Created, Creation, create};
use super::environment::Environment;
use super::job::Job;
use super::leased::Leased;
use super::plan::{Parts, Plan, nul};
use super::profile::Profile;
use super::running::Running;
use super::{quote, search, stdio};
use crate::error::{Error, ErrorKind, ProgramFault, Result};
use crate::process::Stage;
use crate::sys::desktop::Place;
use crate::sys::fault;
use crate::sys::impersonate::thread::with_token;
use crate::sys::thread_token::Identity;
use crate::sys::token::{Group, SecurityContext};
use crate::sys::wide::{narrow, wide};
use crate::token::{ImpersonationLevel, Primary, Token};

impl Plan {
    /// Creates the process and waits for its end; one that is not suspended.
    pub(crate) fn status(self) -> Result<ExitStatus> {
        let lost = || Error::new("waiting for a process", ErrorKind::StatusLost);
        let Parts { mut running, stdin, stdout: _stdout, stderr: _stderr } = self.start()?;
        drop(stdin);
        running.wait(None)?.ok_or_else(lost)
    }

    /// Creates the process suspended, looks at what it became, and lets it run unless it shall stay suspended.
    ///
    /// When the deadline passes, what the system is doing for it (opening a file of the client's on another machine)
    /// is cancelled as far as the system can; a process that comes out of it all the same never runs.
    pub(crate) fn start(mut self) -> Result<Parts> {
        let (deadline, suspended, doing) = (self.deadline, self.suspended, self.doing.clone());
        let ends = std::mem::take(&mut self.ends);
        let (sender, receiver) = sync_channel(1);
        // The thread is the server: threads start with the process's own token, whoever is on this one.
        let thread = std::thread::Builder::new()
            .name("stead-create".into())
            .spawn(move || drop(sender.send(self.create_suspended())))
            .map_err(|source| {
                let limit = "threads".into();
                Error::new(doing.clone(), ErrorKind::LimitReached { limit }).with_source(source)
            })?;
        let mut running = match receiver.recv_timeout(deadline) {
            Ok(outcome) => outcome?,
            Err(RecvTimeoutError::Timeout) => {
                cancel(&thread);
                let waiting_for = "the system to create the process".into();
                return Err(Error::new(doing, ErrorKind::DeadlinePassed { waiting_for }));
            }
            Err(RecvTimeoutError::Disconnected) => {
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
                let source = io::Error::other("no answer came");
                return Err(Error::system(doing, "CreateProcessAsUserW", source));
            }
        };
        if !suspended {
            running.resume()?;
        }
        let [stdin, stdout, stderr] = ends;
        Ok(Parts { running, stdin, stdout, stderr })
    }

    /// Dropping the result ends the process.
    fn create_suspended(self) -> Result<Running> {
        let lease = self.desktop.lease_for(&self.token)?;
        let profile = if self.profile { Some(Profile::load(&self.token, &self.doing)?) } else { None };
        let leased = Leased { lease, profile };
        let context = &self.token.data().context;
        let Created { process, thread, id } = self.create()?;
        let session = self.token.data().session.clone();
        let mut running = Running::new(process, thread, id, self.job, session, self.kill_on_close);
        running
            .keep(leased)
            .map_err(|source| Error::system(self.doing.clone(), "CreateIoCompletionPort", source))?;
        // Whatever goes wrong from here on ends the process: `running` is dropped suspended.
        let found = token_of(&running, &self.token).and_then(|token| read_back(token, context));
        found.map_err(|found| {
            let error = Error::new(self.doing.clone(), ErrorKind::SpawnFailed { stage: Stage::ReadBack });
            error.with_source(found)
        })?;
        Ok(running)
    }

    /// The environment, and the directory: absolute, for the server's own plays no part.
    fn surroundings(&self) -> Result<(Environment, PathBuf)> {
        let invalid =
            |what: String| Error::new(self.doing.clone(), ErrorKind::InvalidInput { what: what.into() });
        let mut environment = Environment::of(self.token.data().context.handle())
            .map_err(|source| Error::system(self.doing.clone(), "CreateEnvironmentBlock", source))?;
        if let Some(session) = &self.token.data().session {
            environment.add(session.additions());
        }
        let home = environment.get("USERPROFILE").map(PathBuf::from);
        environment.change(&self.changes);
        let Some(directory) = self.directory.clone().or(home) else {
            let what = "the token's environment names no profile directory (USERPROFILE): set one with \
                        Command::current_dir, or load the profile (CommandExt::load_profile)";
            return Err(invalid(what.into()));
        };
        if !directory.is_absolute() {
            return Err(invalid(format!("the directory {} is not absolute", directory.display())));
        }
        Ok((environment, directory))
    }

    fn create(&self) -> Result<Created> {
        let fail = |kind| Error::new(self.doing.clone(), kind);
        let (environment, directory) = self.surroundings()?;
        let block = environment.block();
        let wide_directory = wide(&directory).ok_or_else(|| fail(nul("the directory")))?;
        let client = self.token.duplicate(ImpersonationLevel::Impersonation)?;
        let identity = Identity::of(client.as_handle())
            .map_err(|source| Error::system(self.doing.clone(), "GetTokenInformation", source))?;
        // The session's first: a job can only be nested in one that the process is in already.
        let terminal = self.token.data().context.session_id;
        let session = self.token.data().session.as_deref().map(|session| session.job(terminal)).transpose();
        let session =
            session.map_err(|source| Error::system(self.doing.clone(), "CreateJobObjectW", source))?;
        let jobs: Vec<RawHandle> = session.as_deref().into_iter().chain([&self.job]).map(Job::raw).collect();
        let desktop = self.desktop.place.as_ref().map(Place::startup_name).unwrap_or_default();
        let desktop = wide(desktop).ok_or_else(|| fail(nul("the desktop")))?;
        let outcome = with_token(client.as_handle(), &identity, || {
            let found = search::find(&self.program, &directory, &environment, self.batch).map_err(fail)?;
            let (application, command_line) = self.command_line(&found)?;
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
                directory: &wide_directory,
                handles: &inheritable,
                streams: self.streams,
                desktop,
                console: self.console,
                jobs: &jobs,
                priority: self.priority,
            })
            .map_err(|source| self.refused(&found, &directory, source))
        });
        match outcome {
            Ok(result) => result,
            Err(fault) => {
                let what = fault.to_string().into();
                Err(fail(ErrorKind::ImpersonationChanged { what }))
            }
        }
    }

    /// What is executed, and its command line: the program itself, or cmd.exe for a batch file.
    fn command_line(&self, found: &Path) -> Result<(Vec<u16>, Vec<u16>)> {
        let fail = |kind| Error::new(self.doing.clone(), kind);
        let application = wide(found).ok_or_else(|| fail(nul("the program")))?;
        let tail = self.raw_tail.as_deref();
        if !search::is_batch_file(found) {
            let name: Vec<u16> = self.program.encode_wide().collect();
            let arguments = self.arguments.iter().map(Vec::as_slice);
            return Ok((application, quote::command_line(&name, arguments, tail)));
        }
        let invalid = |what: &str| fail(ErrorKind::InvalidInput { what: what.to_owned().into() });
        if !self.arguments.is_empty() {
            // cmd.exe reads them anew, and differently from every program (CVE-2024-24576).
            return Err(invalid(
                "no quoting makes an argument safe for a batch file: give what comes from no client with raw_tail",
            ));
        }
        let batch = &application[..application.len() - 1];
        if batch.contains(&u16::from(b'%')) {
            return Err(invalid(
                "cmd.exe would replace what stands between percent signs in the batch file's path",
            ));
        }
        let cmd = system_directory()
            .map_err(|source| Error::system(self.doing.clone(), "GetSystemDirectoryW", source))?
            .join("cmd.exe");
        let cmd = wide(&cmd).ok_or_else(|| fail(nul("the program")))?;
        let line = quote::batch_line(&cmd[..cmd.len() - 1], batch, tail);
        Ok((cmd, line))
    }

    /// What the system's refusal means.
    fn refused(&self, program: &Path, directory: &Path, source: io::Error) -> Error {
        let code = source.raw_os_error().unwrap_or_default().cast_unsigned();
        let (program, directory) = (program.display().to_string(), directory.display().to_string());
        let kind = fault::of_creation(code, program, directory)
            .unwrap_or(ErrorKind::SpawnFailed { stage: Stage::Clone });
        Error::new(self.doing.clone(), kind).with_source(source)
    }
}

/// Cancels what the thread waits for in the system, if it waits there.
fn cancel(thread: &JoinHandle<()>) {
    // SAFETY: the handle is the thread's own, with all rights to it, and open until it is joined or dropped.
    unsafe { CancelSynchronousIo(thread.as_raw_handle()) };
}

/// Where cmd.exe lies: not what a variable says.
fn system_directory() -> io::Result<PathBuf> {
    let mut units = [0_u16; 512];
    // SAFETY: the buffer is writable for as many characters as is said.
    let length = unsafe { GetSystemDirectoryW(units.as_mut_ptr(), 512) };
    match length as usize {
        0 => Err(io::Error::last_os_error()),
        length if length < units.len() => Ok(narrow(&units).into()),
        _ => Err(io::ErrorKind::InvalidFilename.into()),
    }
}

/// The token of a process that was made of `token`. Its access list is its maker's default one, and that was the client,
/// by which a server that is not the system may not open it: then it is opened as the client, which may.
fn token_of(running: &Running, token: &Token<Primary>) -> io::Result<OwnedHandle> {
    let denied = match process_token(running) {
        Err(error) if error.raw_os_error() == Some(ERROR_ACCESS_DENIED.cast_signed()) => error,
        done => return done,
    };
    let Ok(client) = token.duplicate(ImpersonationLevel::Impersonation) else { return Err(denied) };
    let identity = Identity::of(client.as_handle())?;
    with_token(client.as_handle(), &identity, || process_token(running))
        .map_err(|fault| io::Error::other(fault.to_string()))?
}

fn process_token(running: &Running) -> io::Result<OwnedHandle> {
    let mut raw = std::ptr::null_mut();
    // SAFETY: the process's handle is open and has all rights; `raw` is written only by this call.
    if unsafe { OpenProcessToken(running.handle().as_raw_handle(), TOKEN_QUERY, &raw mut raw) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the handle is new and nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
}

/// Compares what the process is with what it was to be. The calling thread is the server.
fn read_back(token: OwnedHandle, wanted: &SecurityContext) -> io::Result<()> {
    let found = SecurityContext::read(token)?;
    // The integrity level stands among the groups; a program file's own label may lower it.
    let counts = |group: &&Group| group.attributes & SE_GROUP_INTEGRITY.cast_unsigned() == 0;
    let differs = if found.user != wanted.user {
        format!("the process's user is {}", found.user)
    } else if found.logon_id != wanted.logon_id {
        format!("the process's logon session is {:#x}", found.logon_id)
    } else if found.session_id != wanted.session_id {
        format!("the process's session is {}", found.session_id)
    } else if !found.groups.iter().filter(counts).eq(wanted.groups.iter().filter(counts)) {
        "the process's groups are not the token's".to_owned()
    } else if found.restricted != wanted.restricted
        || (wanted.restricted && found.restricting()? != wanted.restricting()?)
    {
        "the process's restrictions are not the token's".to_owned()
    } else if found.container()? != wanted.container()? {
        "the process's AppContainer is not the token's".to_owned()
    } else if found.integrity > wanted.integrity {
        "the process's integrity level is above the token's".to_owned()
    } else {
        return Ok(());
    };
    Err(io::Error::other(differs))
}
