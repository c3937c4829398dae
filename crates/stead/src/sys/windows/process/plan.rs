//! From a command and a token to everything that the new process is created from.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::OwnedHandle;
use std::path::PathBuf;
use std::time::Duration;

use super::job::Job;
use super::options::Console;
use super::running::Running;
use super::stdio;
use crate::desktop::Desktop;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Capture, Command, EnvironmentChanges, Program, Stdio};
use crate::sys::desktop::needs_choice;
use crate::sys::logon::own_session;
use crate::sys::token::in_session;
use crate::token::{Primary, Token};

/// What is about to be created; dropping it undoes what was prepared.
#[expect(clippy::struct_excessive_bools, reason = "each is one answer of the builder's")]
pub(crate) struct Plan {
    /// In the session of its desktop.
    pub(super) token: Token<Primary>,
    pub(super) program: OsString,
    pub(super) arguments: Vec<Vec<u16>>,
    pub(super) raw_tail: Option<Vec<u16>>,
    pub(super) changes: EnvironmentChanges,
    pub(super) directory: Option<PathBuf>,
    pub(super) handles: Vec<OwnedHandle>,
    /// Whether the first three handles are the standard streams.
    pub(super) streams: bool,
    pub(super) ends: [Option<OwnedHandle>; 3],
    pub(super) job: Job,
    pub(super) kill_on_close: bool,
    pub(super) priority: u32,
    pub(super) console: Console,
    pub(super) profile: bool,
    pub(super) batch: bool,
    pub(super) desktop: Desktop,
    pub(super) deadline: Duration,
    pub(super) suspended: bool,
    pub(super) doing: String,
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
    ///
    /// What may wait for others (a profile, a helper, the client's directories) is left for the start.
    pub(crate) fn new(command: &Command, token: &Token<Primary>, capture: Capture) -> Result<Self> {
        let Program::Named(program) = &command.program;
        let context = &token.data().context;
        let doing = format!("creating the process {:?} as {}", program.to_string_lossy(), context.user);
        let arguments = check(command, &doing)?;
        let system = |call| {
            let doing = doing.clone();
            move |source: io::Error| Error::system(doing, call, source)
        };
        if !command.desktop_chosen && needs_choice(context)? {
            let what = format!(
                "the token is of somebody who sits before session {}: say with Command::desktop whether the process \
                 is to be on that desktop (Desktop::interactive) or not (Desktop::none)",
                context.session_id
            );
            return Err(Error::new(doing, ErrorKind::InvalidInput { what: what.into() }));
        }
        // One that was named without a session is the server's own session's, for that is whose list is changed.
        let session = command.desktop.place.as_ref().and_then(|place| place.session().or_else(own_session));
        let token = match session {
            Some(session) if session != context.session_id => {
                token.with_context(in_session(context, session, "moving a token to the desktop's session")?)
            }
            _ => token.clone(),
        };
        let (mut handles, mut ends) = (Vec::new(), [None, None, None]);
        let captured = Stdio::piped();
        let set = [&command.stdin, &command.stdout, &command.stderr];
        let native = &command.native;
        // Those of a new console are the console's, which the system knows only where none is given.
        let streams = native.console == Console::NoWindow
            || capture == Capture::Yes
            || set.iter().any(|stream| stream.is_some());
        for (number, stream) in (0..).zip(set).take(if streams { 3 } else { 0 }) {
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
        for handle in &native.handles {
            handles.push(handle.try_clone().map_err(system("DuplicateHandle"))?);
        }
        let job = Job::new(native.limits, native.kill_on_close).map_err(system("CreateJobObjectW"))?;
        Ok(Self {
            token,
            program: program.clone(),
            arguments,
            raw_tail: native.raw_tail.as_ref().map(|tail| tail.encode_wide().collect()),
            changes: command.environment.clone(),
            directory: command.directory.clone(),
            handles,
            streams,
            ends,
            job,
            kill_on_close: native.kill_on_close,
            priority: native.priority.0,
            console: native.console,
            profile: native.profile,
            batch: native.batch,
            desktop: command.desktop.clone(),
            deadline: command.deadline,
            suspended: command.suspended,
            doing,
        })
    }
}

pub(super) fn nul(what: &str) -> ErrorKind {
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
