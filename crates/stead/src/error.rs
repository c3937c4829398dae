//! The one error type: what was being done, what stood in the way, what would mend it.

use std::borrow::Cow;
use std::fmt;
use std::io;

use crate::ImpersonationLevel;
use crate::privilege::Privilege;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was being done, which precondition failed, and what would mend it.
///
/// The same [kinds](ErrorKind) arise on every platform. `Display` is one line for an operator:
/// the operation, the obstacle, the remedy. `Debug` is that line too, and the parts with `{:#?}`.
///
/// ```
/// # fn main() -> stead::Result<()> {
/// use stead::{Account, ErrorKind, Logon};
/// let refused = Logon::password(Account::local("no-such-user"), "secret").open();
/// if let Err(error) = refused {
///     eprintln!("{error}");
///     assert!(!matches!(error.kind(), ErrorKind::DeadlinePassed { .. }));
/// }
/// # Ok(()) }
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    doing: Cow<'static, str>,
    kind: ErrorKind,
    source: Option<io::Error>,
}

impl Error {
    /// An error of `kind` met while `doing` (a phrase such as "logging on alice").
    pub(crate) fn new(doing: impl Into<Cow<'static, str>>, kind: ErrorKind) -> Self {
        Self(Box::new(Inner { doing: doing.into(), kind, source: None }))
    }

    /// The same, with what the system said.
    pub(crate) fn with_source(mut self, source: impl Into<io::Error>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// A call of the system that failed for a reason no other kind names.
    pub(crate) fn system(
        doing: impl Into<Cow<'static, str>>,
        call: &'static str,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::new(doing, ErrorKind::System { call }).with_source(source)
    }

    /// What stood in the way.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What was being done, as a phrase: "creating a process as alice".
    pub fn doing(&self) -> &str {
        &self.0.doing
    }

    /// The system's own error, where it gave one.
    pub fn os_error(&self) -> Option<&io::Error> {
        self.0.source.as_ref()
    }

    /// What would mend it, where that can be said.
    pub fn remedy(&self) -> Option<Cow<'static, str>> {
        self.0.kind.remedy()
    }
}

/// What stood in the way of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A privilege of the server's own is not held, or held and not enabled (Win32 error 1314).
    PrivilegeMissing {
        /// The privilege.
        privilege: Privilege,
        /// What of it is missing, in the platform's words (`CAP_SETUID`).
        missing: Cow<'static, str>,
        /// Whether the server could enable it.
        held: bool,
        /// Whether it is enabled on the calling thread.
        enabled: bool,
    },
    /// The client granted less than the operation needs (Win32 errors 1346, 1347).
    LevelTooLow {
        /// What the client granted.
        granted: ImpersonationLevel,
        /// What the operation needs.
        needed: ImpersonationLevel,
    },
    /// The credentials were not accepted; which part was wrong is not said (Win32 error 1326).
    LogonFailed,
    /// The account may not log on in this way (Win32 error 1385).
    LogonTypeDenied {
        /// The logon type's configured service, or its Win32 name.
        logon_type: Cow<'static, str>,
    },
    /// The account exists and the credentials may be right, but it may not log on now
    /// (Win32 errors 1327 to 1331, 1793, 1907, 1909).
    AccountRestriction {
        /// Which restriction.
        restriction: AccountRestriction,
    },
    /// No such account; names are never parsed as numbers.
    AccountUnknown {
        /// The name that was looked up.
        name: String,
    },
    /// An object refused the identity that touched it (Win32 error 5).
    AccessDenied {
        /// The object, as the server named it.
        object: String,
    },
    /// No such object at the path given (Win32 errors 2, 3).
    NotFound {
        /// The object, as the server named it.
        object: String,
    },
    /// No such program: not at the path given, or nowhere on the token's PATH (Win32 error 2).
    ProgramNotFound {
        /// The program as it was named.
        program: String,
    },
    /// The program is there, but it cannot be executed (Win32 error 193).
    ProgramUnusable {
        /// The program as it was named.
        program: String,
        /// Why.
        why: ProgramFault,
    },
    /// The process's directory cannot be entered by the client.
    DirectoryUnusable {
        /// The directory.
        directory: String,
    },
    /// The calling thread impersonates nobody (Win32 error 1008).
    NotImpersonating,
    /// The thread's identity in the kernel is not the one that was put on it.
    ImpersonationChanged {
        /// What differs.
        what: Cow<'static, str>,
    },
    /// The client is confined more than the server, so that acting for it would set it free.
    ClientConfined {
        /// Which confinement.
        part: ConfinedPart,
    },
    /// How the client is confined cannot be read.
    ConfinementUnknown {
        /// What could not be read.
        part: ConfinedPart,
    },
    /// The client is gone, or is not any more what it was when it connected.
    ClientChanged {
        /// What differs.
        what: Cow<'static, str>,
    },
    /// The kernel tells no usable identity: no peer, the overflow id, or -1.
    NoIdentity {
        /// What was found instead.
        what: Cow<'static, str>,
    },
    /// The kernel is older than this needs.
    KernelTooOld {
        /// What is missing, and since when it is there: "SO_PEERPIDFD (Linux 6.5)".
        needs: Cow<'static, str>,
    },
    /// The service that holds the privileges for this server cannot be reached, or is not to be trusted.
    ServiceUnavailable {
        /// What is wrong with it.
        why: Cow<'static, str>,
    },
    /// The service's policy does not entitle this server to it; which accounts exist is not told by it.
    PolicyDenied {
        /// The privilege that it takes, in the reference page's own terms.
        privilege: Cow<'static, str>,
        /// The client, as it was named; empty for that of a connection.
        client: String,
    },
    /// After failed logons, or more than the service's audit log has room for, the next is not tried before some time has
    /// passed.
    TryLater {
        /// When it may be tried, from now.
        after: std::time::Duration,
    },
    /// It takes privileges of this process's own, and cannot be done through the service.
    NotThroughService {
        /// What it is, and what can be done instead.
        what: Cow<'static, str>,
    },
    /// The session worker could not be found, started or reached.
    WorkerUnavailable {
        /// What is wrong with it.
        why: Cow<'static, str>,
    },
    /// There is no trampoline that the system would execute.
    TrampolineUnavailable,
    /// No server that could check the credentials can be reached (Win32 error 1311).
    LogonServerUnavailable,
    /// The token has no SID of its logon session: it comes from a network logon, from S4U, or is the system's.
    NoLogonSid,
    /// A desktop does not let the server or the client in (Win32 error 5), or its access list cannot be changed.
    DesktopAccess {
        /// The object that refuses: the window station, the desktop, the display, the socket, the terminal.
        object: String,
        /// Why.
        why: Cow<'static, str>,
        /// What would mend it, where that can be said.
        mend: Option<Cow<'static, str>>,
    },
    /// The logon session has ended, and nothing more can be done in it (Win32 error 1312).
    SessionEnded,
    /// Somebody else collected the exit status of the process.
    StatusLost,
    /// The deadline passed.
    DeadlinePassed {
        /// What was waited for.
        waiting_for: Cow<'static, str>,
    },
    /// A value that cannot be used, found before anything was done (Win32 error 87).
    InvalidInput {
        /// Which value, and what is wrong with it.
        what: Cow<'static, str>,
    },
    /// A limit of the system was reached.
    LimitReached {
        /// Which: "processes of the user (RLIMIT_NPROC)".
        limit: Cow<'static, str>,
    },
    /// One step on the way to the new process failed; nothing was started.
    SpawnFailed {
        /// The step.
        stage: crate::process::Stage,
    },
    /// A call of the system failed for a reason that no other kind names.
    System {
        /// The call.
        call: &'static str,
    },
}

/// Why an account may not log on though it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AccountRestriction {
    /// The account itself has expired (Win32 error 1793).
    AccountExpired,
    /// The account is disabled (Win32 error 1331).
    AccountDisabled,
    /// Too many failures have locked it for now (Win32 error 1909).
    AccountLocked,
    /// The password has expired and must be changed (Win32 errors 1330, 1907).
    PasswordExpired,
    /// Not at this hour, from this place, or under this service's rules (Win32 errors 1327 to 1329).
    PolicyForbids,
}

/// Why a program that is there cannot be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProgramFault {
    /// The client may not execute it, or may not search a directory on the way.
    NotPermitted,
    /// It is a directory.
    IsDirectory,
    /// It is no regular file.
    NotRegular,
    /// The kernel knows no such format; a script needs its `#!` line.
    BadFormat,
    /// The interpreter that it names is missing, or cannot be executed by the client.
    InterpreterUnusable,
    /// It is open for writing.
    Busy,
    /// Arguments and environment together are larger than the kernel takes.
    ArgumentsTooLong,
    /// It asks for an elevated token, which this one is not (Win32 error 740).
    ElevationRequired,
    /// A batch file: cmd.exe reads it, for which no quoting of arguments is safe.
    BatchFile,
    /// A script cannot be pinned by descriptor: its interpreter would open another file.
    PinnedScript,
    /// An alias of a packaged program, which leads nowhere for another user's token (Win32 error 1920).
    AppAlias,
}

/// What confines a client more than its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ConfinedPart {
    /// no_new_privs; also all that Landlock shows of itself.
    NoNewPrivileges,
    /// More seccomp filters than the server has.
    Seccomp,
    /// A user namespace unlike the server's.
    UserNamespace,
    /// A mount namespace unlike the server's.
    MountNamespace,
    /// A PID namespace unlike the server's.
    PidNamespace,
    /// A network namespace unlike the server's.
    NetworkNamespace,
    /// An IPC namespace unlike the server's.
    IpcNamespace,
    /// A UTS namespace unlike the server's.
    UtsNamespace,
    /// A cgroup namespace unlike the server's.
    CgroupNamespace,
    /// A time namespace unlike the server's.
    TimeNamespace,
    /// A root directory unlike the server's.
    RootDirectory,
    /// A capability bounding set that lacks what the server's has.
    BoundingSet,
    /// A security label (SELinux, AppArmor, Smack) unlike the server's.
    Label,
}

impl fmt::Display for ConfinedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNewPrivileges => "no_new_privs",
            Self::Seccomp => "seccomp",
            Self::UserNamespace => "user namespace",
            Self::MountNamespace => "mount namespace",
            Self::PidNamespace => "PID namespace",
            Self::NetworkNamespace => "network namespace",
            Self::IpcNamespace => "IPC namespace",
            Self::UtsNamespace => "UTS namespace",
            Self::CgroupNamespace => "cgroup namespace",
            Self::TimeNamespace => "time namespace",
            Self::RootDirectory => "root directory",
            Self::BoundingSet => "capability bounding set",
            Self::Label => "security label",
        })
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrivilegeMissing { privilege, missing, held, enabled } => write!(
                f,
                "privilege {privilege} is missing ({missing}: {}, {})",
                if *held { "held" } else { "not held" },
                if *enabled { "enabled" } else { "not enabled" },
            ),
            Self::LevelTooLow { granted, needed } => {
                write!(f, "the client granted {granted}, {needed} is needed")
            }
            Self::LogonFailed => f.write_str("the credentials were not accepted"),
            Self::LogonTypeDenied { logon_type } => {
                write!(f, "the account may not log on by {logon_type}")
            }
            Self::AccountRestriction { restriction } => f.write_str(match restriction {
                AccountRestriction::AccountExpired => "the account has expired",
                AccountRestriction::AccountDisabled => "the account is disabled",
                AccountRestriction::AccountLocked => "the account is locked after too many failures",
                AccountRestriction::PasswordExpired => "the password has expired and must be changed",
                AccountRestriction::PolicyForbids => "the account may not log on now or from here",
            }),
            Self::AccountUnknown { name } => write!(f, "there is no account {name:?}"),
            Self::AccessDenied { object } => write!(f, "access to {object:?} was denied"),
            Self::NotFound { object } => write!(f, "there is no {object:?}"),
            Self::ProgramNotFound { program } => write!(f, "there is no program {program:?}"),
            Self::ProgramUnusable { program, why } => {
                write!(f, "{program:?} cannot be executed: ")?;
                f.write_str(match why {
                    ProgramFault::NotPermitted => "the client may not execute it",
                    ProgramFault::IsDirectory => "it is a directory",
                    ProgramFault::NotRegular => "it is no regular file",
                    ProgramFault::BadFormat => "the kernel does not know its format",
                    ProgramFault::InterpreterUnusable => {
                        "its interpreter is missing or not executable for the client"
                    }
                    ProgramFault::Busy => "it is open for writing",
                    ProgramFault::ArgumentsTooLong => "arguments and environment are too large",
                    ProgramFault::ElevationRequired => "it asks for an elevated token",
                    ProgramFault::BatchFile => "it is a batch file",
                    ProgramFault::PinnedScript => "a script cannot be pinned by descriptor",
                    ProgramFault::AppAlias => "it is the alias of a packaged program",
                })
            }
            Self::DirectoryUnusable { directory } => {
                write!(f, "the client cannot enter the directory {directory:?}")
            }
            Self::NotImpersonating => f.write_str("the thread impersonates nobody"),
            Self::ImpersonationChanged { what } => {
                write!(f, "the thread's identity is not the one put on it: {what}")
            }
            Self::ClientConfined { part } => {
                write!(f, "the client is confined more than the server: {part}")
            }
            Self::ConfinementUnknown { part } => {
                write!(f, "how the client is confined cannot be read: {part}")
            }
            Self::ClientChanged { what } => {
                write!(f, "the client is not what it was when it connected: {what}")
            }
            Self::NoIdentity { what } => write!(f, "the kernel tells no usable identity: {what}"),
            Self::KernelTooOld { needs } => write!(f, "the kernel lacks {needs}"),
            Self::ServiceUnavailable { why } => write!(f, "the service is not available: {why}"),
            Self::PolicyDenied { privilege, client } if client.is_empty() => {
                write!(f, "the service's policy does not give this server {privilege} over its client")
            }
            Self::PolicyDenied { privilege, client } => {
                write!(f, "the service's policy does not give this server {privilege} over {client:?}")
            }
            Self::TryLater { after } => {
                let after = after.as_millis();
                write!(f, "after so much that failed, or is to be recorded, the next is tried in {after} ms at the earliest")
            }
            Self::NotThroughService { what } => write!(f, "not through the service: {what}"),
            Self::WorkerUnavailable { why } => write!(f, "the session worker is not available: {why}"),
            Self::TrampolineUnavailable => {
                f.write_str("the system executes no memfd (vm.memfd_noexec), and no trampoline of this version is installed")
            }
            Self::LogonServerUnavailable => {
                f.write_str("no server that could check the credentials can be reached")
            }
            Self::NoLogonSid => f.write_str("the token has no SID of its logon session"),
            Self::DesktopAccess { object, why, .. } => {
                write!(f, "the desktop {object:?} cannot be used: {why}")
            }
            Self::SessionEnded => f.write_str("the logon session has ended"),
            Self::StatusLost => f.write_str("somebody else collected the exit status"),
            Self::DeadlinePassed { waiting_for } => {
                write!(f, "the deadline passed while waiting for {waiting_for}")
            }
            Self::InvalidInput { what } => f.write_str(what),
            Self::LimitReached { limit } => write!(f, "a limit was reached: {limit}"),
            Self::SpawnFailed { stage } => write!(f, "the step \"{stage}\" failed; nothing was started"),
            Self::System { call } => write!(f, "{call} failed"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        let f = &mut Printable(f);
        write!(f, "{}: {}", self.0.doing, self.0.kind)?;
        if let Some(source) = &self.0.source {
            write!(f, " ({source})")?;
        }
        if let Some(remedy) = self.remedy() {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

/// Writes control characters as escapes: names of users and files are a client's to choose, and an error is
/// one line of a log, or is shown on a terminal (CWE-117, CWE-150).
struct Printable<'f, 'buffer>(&'f mut fmt::Formatter<'buffer>);

impl fmt::Write for Printable<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let Some(last) = part.chars().next_back().filter(|last| last.is_control()) else {
                return self.0.write_str(part);
            };
            self.0.write_str(&part[..part.len() - last.len_utf8()])?;
            write!(self.0, "{}", last.escape_default())?;
        }
        Ok(())
    }
}

/// The same line as `Display`, because that is what a `main` that returns it and a failed `expect` print;
/// its parts with `{:#?}`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("Error")
            .field("doing", &self.0.doing)
            .field("kind", &self.0.kind)
            .field("source", &self.0.source)
            .finish()
    }
}

/// Without a source: what the system said is part of the line already ([`Error::os_error`] has it), and who
/// prints a chain of sources would say it twice.
impl std::error::Error for Error {}

mod remedy;
#[cfg(test)]
mod tests;
