//! What only Linux logons have.

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Result;
use crate::logon::{Logon, LogonSession, LogonType};
use crate::sys::token::Gid;

/// The PAM side of a logon.
///
/// Reference: [pam_set_item(3)](https://man7.org/linux/man-pages/man3/pam_set_item.3.html).
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::os::linux::{LogonExt, LogonGid};
/// use stead::{Account, Logon};
/// let session = Logon::s4u(Account::local("alice"))
///     .pam_service("login")
///     .remote_host("192.0.2.7")
///     .logon_gid(LogonGid::default())
///     .open()?;
/// # Ok(()) }
/// ```
pub trait LogonExt: Sized {
    /// The PAM service, instead of the logon type's.
    #[must_use]
    fn pam_service(self, service: impl AsRef<OsStr>) -> Self;

    /// The terminal (`PAM_TTY`).
    #[must_use]
    fn tty(self, tty: impl AsRef<OsStr>) -> Self;

    /// The machine that the request came from (`PAM_RHOST`).
    #[must_use]
    fn remote_host(self, host: impl AsRef<OsStr>) -> Self;

    /// The user there who made the request (`PAM_RUSER`).
    #[must_use]
    fn remote_user(self, user: impl AsRef<OsStr>) -> Self;

    /// A gid of its own for the session, in its supplementary groups.
    #[doc(alias = "TokenLogonSid")]
    #[must_use]
    fn logon_gid(self, gid: LogonGid) -> Self;

    /// Where the session worker's program is, instead of looking for it.
    #[must_use]
    fn worker(self, program: impl AsRef<Path>) -> Self;

    /// A worker that was started before, if one waits for this logon's PAM service.
    #[must_use]
    fn ready(self, workers: &ReadyWorkers) -> Self;
}

impl LogonExt for Logon {
    fn pam_service(mut self, service: impl AsRef<OsStr>) -> Self {
        self.native.service = Some(service.as_ref().to_owned());
        self
    }

    fn tty(mut self, tty: impl AsRef<OsStr>) -> Self {
        self.native.tty = Some(tty.as_ref().to_owned());
        self
    }

    fn remote_host(mut self, host: impl AsRef<OsStr>) -> Self {
        self.native.remote_host = Some(host.as_ref().to_owned());
        self
    }

    fn remote_user(mut self, user: impl AsRef<OsStr>) -> Self {
        self.native.remote_user = Some(user.as_ref().to_owned());
        self
    }

    fn logon_gid(mut self, gid: LogonGid) -> Self {
        self.native.logon_gid = Some(gid);
        self
    }

    fn worker(mut self, program: impl AsRef<Path>) -> Self {
        self.native.worker = Some(program.as_ref().to_owned());
        self
    }

    fn ready(mut self, workers: &ReadyWorkers) -> Self {
        self.native.ready = Some(workers.workers.clone());
        self
    }
}

/// Session workers that are started before anybody logs on: a logon then waits neither for its worker to start nor for
/// PAM's modules to be loaded, which is about half of what it takes.
///
/// One waits for each PAM service that [`keep`](Self::keep) was called for, and is used up by the next logon that is
/// given these workers ([`LogonExt::ready`]). What changed meanwhile holds: where a file of PAM's configuration, a module
/// or the worker's program is another by then, the logon starts a worker of its own, as it does where none waits. A
/// clone has the same workers; they end with the last one.
///
/// A worker that waits knows nothing of any user. It has what the server's thread had when it was started: limits,
/// namespaces, capabilities, confinement, cgroup. A server that gives up any of these later must not keep workers of before:
/// it drops them, or calls [`let_go_after`](Self::let_go_after) with no time at all.
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::os::linux::{LogonExt, ReadyWorkers};
/// use stead::{Account, Logon, LogonType};
/// let ready = ReadyWorkers::new(); // once
/// ready.keep(LogonType::Batch)?;   // at the start, and after each logon
/// let session = Logon::s4u(Account::local("alice")).kind(LogonType::Batch).ready(&ready).open()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ReadyWorkers {
    workers: crate::sys::logon::ReadyWorkers,
    program: Option<PathBuf>,
}

impl ReadyWorkers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the workers' program is, instead of looking for it. They are for logons that name
    /// [the same](LogonExt::worker).
    #[must_use]
    pub fn worker(mut self, program: impl AsRef<Path>) -> Self {
        self.program = Some(program.as_ref().to_owned());
        self
    }

    /// Starts a worker for the next logon of this type, unless one waits for it already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PrivilegeMissing`](crate::ErrorKind::PrivilegeMissing) and
    /// [`ErrorKind::WorkerUnavailable`](crate::ErrorKind::WorkerUnavailable), as of the logon. That PAM does not know the
    /// service is the logon's to say.
    pub fn keep(&self, kind: LogonType) -> Result<()> {
        self.keep_for(crate::sys::logon::service(kind))
    }

    /// The same for logons by a [PAM service](LogonExt::pam_service) of another name.
    ///
    /// # Errors
    ///
    /// As [`keep`](Self::keep).
    pub fn keep_for(&self, pam_service: impl AsRef<OsStr>) -> Result<()> {
        self.workers.keep(pam_service.as_ref(), self.program.as_deref())
    }

    /// Lets those end that have waited for this long.
    pub fn let_go_after(&self, longest: Duration) {
        self.workers.let_go_after(longest);
    }
}

/// A gid of its own for each logon session: what the logon SID is on Windows, so that ordinary POSIX ACLs can
/// name one logon session.
///
/// It is never given out twice, because a user can keep it alive in a set-group-ID file. Between *users* it is
/// a boundary; between sessions of one user it guards against accident, not against that user's own code.
///
/// The default range is unused in
/// [systemd's table of ids](https://systemd.io/UIDS-GIDS/); in a user namespace, set one that is mapped.
#[doc(alias = "SE_GROUP_LOGON_ID")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogonGid {
    pub(crate) range: RangeInclusive<u32>,
    pub(crate) directory: Option<PathBuf>,
}

impl Default for LogonGid {
    fn default() -> Self {
        Self { range: 0x7000_0000..=0x7fff_fffe, directory: None }
    }
}

impl LogonGid {
    /// From this range; what an earlier, lower range gave out is not given out again.
    pub fn range(range: RangeInclusive<u32>) -> Self {
        Self { range, directory: None }
    }

    /// With the counter in this directory, instead of `/var/lib/stead`.
    #[must_use]
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }
}

/// Where the program is that the next logon's session worker would be: `stead-session`, or the server's own.
///
/// # Errors
///
/// [`ErrorKind::WorkerUnavailable`](crate::ErrorKind::WorkerUnavailable), as [`Logon::open`] would meet it.
///
/// ```
/// # fn main() -> stead::Result<()> {
/// stead::init();
/// println!("{}", stead::os::linux::session_worker()?.display());
/// # Ok(()) }
/// ```
pub fn session_worker() -> Result<PathBuf> {
    crate::sys::logon::worker_program()
}

/// What only Linux logon sessions have.
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::os::linux::LogonSessionExt;
/// use stead::{Account, Logon};
/// let session = Logon::s4u(Account::local("alice")).open()?;
/// println!("files get the mode 666 without {:o}", session.umask());
/// # Ok(()) }
/// ```
pub trait LogonSessionExt {
    /// The session's own gid, if one was asked for.
    #[doc(alias = "TokenLogonSid")]
    fn logon_gid(&self) -> Option<Gid>;

    /// The kernel's audit session (`/proc/PID/sessionid`), where it keeps one.
    #[doc(alias = "TokenSessionId")]
    fn audit_session(&self) -> Option<u32>;

    /// The umask that PAM left for the session's processes.
    fn umask(&self) -> u32;

    /// A pidfd of the session's worker, readable once the session has ended; `None` where the worker is no child of this
    /// process: an earlier server started it, or the service.
    ///
    /// A server that waits for it can reap the worker at once. Without that it is reaped when the library next creates a
    /// process or logs somebody on. [`close`](LogonSession::close) and [`log_off`](LogonSession::log_off) of a session whose
    /// worker was asked for leave it to the server, and come back as soon as PAM has closed the session.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`](crate::ErrorKind::System): there is no room for one more descriptor.
    fn worker(&self) -> Result<Option<OwnedFd>>;

    /// The control group (version 2) that the session's processes are in, as `/proc/PID/cgroup` has it: a scope of their
    /// own where pam_systemd made one, else the server's. `None` where there is no such hierarchy.
    ///
    /// # Errors
    /// `SessionEnded`; `NotThroughService` for a session that the service keeps.
    fn cgroup(&self) -> Result<Option<PathBuf>>;
}

impl LogonSessionExt for LogonSession {
    fn logon_gid(&self) -> Option<Gid> {
        self.handle().logon_gid().and_then(Gid::new)
    }

    fn audit_session(&self) -> Option<u32> {
        self.handle().audit_session()
    }

    fn umask(&self) -> u32 {
        self.handle().umask()
    }

    fn worker(&self) -> Result<Option<OwnedFd>> {
        self.handle().worker()
    }

    fn cgroup(&self) -> Result<Option<PathBuf>> {
        self.handle().cgroup()
    }
}
