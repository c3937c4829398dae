//! How the command ends: with what the program ended with, or with what it has to say itself.

use std::fmt;
use std::process::ExitCode;

use stead::{Error, ErrorKind};

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

    /// Of `run`, with the status that `env` would have.
    pub fn of_run(error: &Error) -> Self {
        let status = match error.kind() {
            ErrorKind::ProgramNotFound { .. } => NOT_FOUND,
            ErrorKind::ProgramUnusable { .. } => CANNOT_EXECUTE,
            _ => STEAD_FAILED,
        };
        Self::new(error).with_status(status)
    }

    /// Says it.
    pub fn tell(self) -> Ending {
        crate::output::complain(&self.what);
        Ending::Code(self.status)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error)
    }
}
