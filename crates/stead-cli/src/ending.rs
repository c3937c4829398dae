//! How the command ends: with what the program ended with, or with what it has to say itself.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io;
use std::path::is_separator;
use std::process::ExitCode;

use stead::error::AccountRestriction;
use stead::{Error, ErrorKind, Privilege};

/// What `run` ends with when it is stead that failed, and not the program: as `env` and `timeout` do.
pub const STEAD_FAILED: u8 = 125;
/// The program is there and cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// There is no such program.
pub const NOT_FOUND: u8 = 127;

/// The status that the command leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// An exit code.
    Code(u8),
    /// The end that a signal brings.
    #[cfg(unix)]
    Signal(i32),
    /// A code of the system's own width.
    #[cfg(windows)]
    Wide(i32),
}

impl Ending {
    /// All is well.
    pub const GOOD: Self = Self::Code(0);

    /// What the program's end makes of ours.
    #[cfg(unix)]
    pub fn of(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(u8::try_from(code & 0xff).unwrap_or(STEAD_FAILED)),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Code(STEAD_FAILED),
        }
    }

    /// What the program's end makes of ours.
    #[cfg(windows)]
    pub fn of(status: std::process::ExitStatus) -> Self {
        status.code().map_or(Self::Code(STEAD_FAILED), Self::Wide)
    }

    /// Ends the process so, as far as that takes more than a code.
    pub fn leave(self) -> ExitCode {
        match self {
            Self::Code(code) => ExitCode::from(code),
            #[cfg(unix)]
            Self::Signal(signal) => die_of(signal),
            #[cfg(windows)]
            Self::Wide(code) => std::process::exit(code),
        }
    }
}

/// Dies of the signal that the program died of, so that a shell sees what it would have seen: it stops a loop at
/// Ctrl-C, and says "Terminated". Without a core file, which would be ours. Signals without a name in signal(7)
/// become 128 and their number, as in a shell's `$?`.
#[cfg(unix)]
fn die_of(signal: i32) -> ExitCode {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(STEAD_FAILED))
}

/// Why the command could not do what it was asked to.
pub struct Failure {
    what: String,
    status: u8,
}

impl Failure {
    /// With the exit status 1.
    pub fn new(what: impl fmt::Display) -> Self {
        Self { what: what.to_string(), status: 1 }
    }

    /// With another exit status.
    pub fn with_status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    /// Of one of several things that were asked for.
    #[cfg(unix)]
    pub fn of(mut self, what: &str) -> Self {
        self.what = format!("{what}: {}", self.what);
        self
    }

    /// Of `run`, with the status that `env` would have.
    pub fn of_run(error: &Error) -> Self {
        let status = match error.kind() {
            ErrorKind::ProgramNotFound { .. } => NOT_FOUND,
            ErrorKind::ProgramUnusable { .. } => CANNOT_EXECUTE,
            _ => STEAD_FAILED,
        };
        Self::from(error).with_status(status)
    }

    /// Says it.
    pub fn tell(self) -> Ending {
        crate::output::complain(&self.what);
        Ending::Code(self.status)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self::new(said(error))
    }
}

/// What the library says, with the remedy in the command's own words where the library's is for a program's source.
pub fn said(error: &Error) -> String {
    let kind = match error.kind() {
        ErrorKind::ClientConfined { part } => {
            format!("this process is confined more than the service: {part}")
        }
        ErrorKind::PolicyDenied { .. } => error.kind().to_string().replace("this server", "you"),
        kind => kind.to_string().replace("the client ", "the user "),
    };
    let mut text = format!("{}: {kind}", error.doing());
    let source = error.os_error().filter(|_| !matches!(error.kind(), ErrorKind::ProgramNotFound { .. }));
    // Writing to a String cannot fail.
    let _ = source.map(|source| write!(text, " ({})", system(source)));
    let remedy = remedy(error).map(Cow::Borrowed).or_else(|| error.remedy());
    let _ = remedy.map(|remedy| write!(text, "; {remedy}"));
    // What desktops say of themselves names no more than these.
    let options =
        [("Desktop::by_name", "--desktop"), ("Command::pty", "--pty"), (" (Desktop::grant_to)", "")];
    options.iter().fold(text, |text, (function, option)| text.replace(function, option))
}

/// What the system says, without its number.
pub fn system(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

fn remedy(error: &Error) -> Option<&'static str> {
    Some(match error.kind() {
        ErrorKind::ProgramNotFound { program } if !program.is_empty() && !program.contains(is_separator) => {
            "it was looked for in the PATH of the user's own environment: name it by its path, or set another with \
             --env PATH=.."
        }
        ErrorKind::DirectoryUnusable { .. } => "name one with --cwd that the user may enter",
        ErrorKind::LogonTypeDenied { .. } => {
            "allow the account in that logon type's PAM service, or name another type with --logon"
        }
        ErrorKind::AccountRestriction { restriction: AccountRestriction::PasswordExpired } => {
            "run it on a terminal, where a new one can be given"
        }
        ErrorKind::PrivilegeMissing { .. }
            if error.remedy().is_some_and(|library| library.contains("AmbientCapabilities")) =>
        {
            "run it as root, or through the service"
        }
        ErrorKind::PrivilegeMissing { held: true, .. } => "enable it: it is permitted and not effective",
        ErrorKind::PolicyDenied { .. } if Privilege::AssignPrimaryToken.require().is_ok() => {
            "`stead policy explain` says why; by the privileges that this process holds it can be done with --embedded"
        }
        ErrorKind::ClientConfined { .. } => "run it from outside of that confinement",
        ErrorKind::ConfinementUnknown { .. } => "the service needs CAP_SYS_PTRACE to know it",
        ErrorKind::SessionEnded => "log on again",
        ErrorKind::AccessDenied { .. } => "it must grant that to the user",
        // Where it is not for want of one, the reason says what to do.
        ErrorKind::WorkerUnavailable { .. } if error.remedy().is_some() => {
            "install stead-session in /usr/libexec/stead"
        }
        ErrorKind::StatusLost => "run it without what collects every child's status",
        _ => return None,
    })
}
