//! Where the session worker's program is, and starting it.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use stead_trampoline::spec::{Keyring, NewSession, ProcessDefaults, ProgramSearch, Spec};

use super::worker;
use crate::error::{Error, ErrorKind, Result};
use crate::process::Stage;
use crate::sys::process::{Awaited, Launch, LaunchFault, ReportOutcome, await_report, launch, reap_within};

/// What an error says, first of all, where there is no worker at all.
pub(crate) const NO_WORKER: &str = "there is no stead-session, and the program did not call stead::init()";

/// Whether this program becomes a worker when it is executed again.
static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Becomes a session worker and never returns, if that is what the process was started for.
pub(crate) fn init() {
    if worker::was_asked_for() {
        std::process::exit(worker::run().into());
    }
    INITIALISED.store(true, Ordering::Relaxed);
}

/// A worker that waits for its first request.
pub(super) struct NewWorker {
    pub(super) socket: OwnedFd,
    pub(super) process: OwnedFd,
    /// Its program.
    pub(super) path: PathBuf,
}

/// Starts a worker.
pub(super) fn start(configured: Option<&Path>, deadline: Instant) -> Result<NewWorker> {
    const DOING: &str = "starting the session worker";
    let program = find(configured)?;
    let system = |call| move |error: io::Error| Error::system(DOING, call, error);
    let (socket, of_worker) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|errno| system("socketpair")(errno.into()))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| system("open /dev/null")(errno.into()))?;
    let again = |descriptor: &OwnedFd| descriptor.try_clone().map_err(system("dup"));
    let number = worker::SOCKET + 1;
    let descriptors = vec![
        (again(&null)?, 0),
        (again(&null)?, 1),
        (null, 2),
        (of_worker, worker::SOCKET),
        (program.file, number),
    ];
    let mut what = Launch {
        spec: Spec {
            report: 0,
            gate: None,
            keep: vec![worker::SOCKET],
            // Out of the server's process group: its terminal's Ctrl-C is not for the sessions.
            session: NewSession::Setsid,
            defaults: ProcessDefaults::Fixed,
            umask: Some(0o022),
            nice: None,
            oom_score_adj: None,
            limits: Vec::new(),
            // PAM modules shall not put a user's keys into the server's keyring.
            keyring: Keyring::JoinNew,
            login_uid: None,
            credentials: None,
            exec_label: None,
            directory: c"/".to_owned(),
            program: ProgramSearch::Descriptor(number),
        },
        argv: vec![CString::new(worker::NAME).expect("a name without NUL")],
        envp: Vec::new(),
        descriptors,
        cgroup: None,
    };
    let fault = |fault: LaunchFault| {
        let LaunchFault { stage, errno, .. } = fault;
        let path = program.path.display();
        let error = fault.into_error(DOING, &path.to_string(), "/");
        match error.kind() {
            ErrorKind::DeadlinePassed { .. } => {
                let waiting_for = "the worker to start".into();
                Error::new(DOING, ErrorKind::DeadlinePassed { waiting_for })
            }
            // What is in the way of every new process, and no worker in another place would mend.
            ErrorKind::PrivilegeMissing { .. }
            | ErrorKind::LimitReached { .. }
            | ErrorKind::KernelTooOld { .. }
            | ErrorKind::TrampolineUnavailable => error,
            _ => {
                let why = format!("{path} could not be started ({stage})").into();
                Error::new(DOING, ErrorKind::WorkerUnavailable { why }).with_source(errno)
            }
        }
    };
    let (report, of_trampoline) =
        crate::sys::process::report::pipe().map_err(|errno| system("pipe2")(errno.into()))?;
    what.attach(of_trampoline, None);
    let started = launch(&what).map_err(fault)?;
    drop(what);
    match await_report(report, started.pidfd.as_fd(), deadline, Awaited::Execution) {
        Ok(ReportOutcome::Executed) => {
            Ok(NewWorker { socket, process: started.pidfd, path: program.path.clone() })
        }
        Ok(ReportOutcome::Ready(_)) => {
            Err(fault(LaunchFault { stage: Stage::Gate, errno: rustix::io::Errno::PROTO, detail: 0 }))
        }
        Err(why) => {
            // It has said its last word, or none in time.
            reap_within(started.pidfd, Duration::ZERO);
            Err(fault(why))
        }
    }
}

/// Where the program is that a session's worker would be.
pub(crate) fn worker_program() -> Result<PathBuf> {
    crate::sys::impersonate::as_server(|| find(None).map(|program| program.path))
}

struct Program {
    path: PathBuf,
    file: OwnedFd,
}

/// The configured one, or the first that is there: beside the server's program, one folder up (where cargo
/// keeps tests and examples a folder down), in the libexec of the server's own prefix and of the system; then
/// the server's program itself.
fn find(configured: Option<&Path>) -> Result<Program> {
    let missing = |why: String| {
        Error::new("looking for the session worker", ErrorKind::WorkerUnavailable { why: why.into() })
    };
    let own = open(Path::new("/proc/self/exe"))
        .map_err(|error| missing(format!("/proc/self/exe cannot be opened: {error}")))?;
    let owner = rustix::fs::fstat(&own).map_err(|error| missing(error.to_string()))?.st_uid;
    if let Some(path) = configured {
        let file = open(path).map_err(|error| missing(format!("{}: {error}", path.display())))?;
        trustworthy(&file, owner).map_err(|why| missing(format!("{} {why}", path.display())))?;
        return Ok(Program { path: path.to_owned(), file });
    }
    let server = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let beside = server.parent();
    let libexec = beside.and_then(Path::parent).map(|prefix| prefix.join("libexec/stead"));
    let folders = [
        beside,
        beside.and_then(Path::parent),
        libexec.as_deref(),
        Some(Path::new("/usr/libexec/stead")),
        Some(Path::new("/usr/lib/stead")),
    ];
    let mut passed_over = String::new();
    for folder in folders.into_iter().flatten().filter(|folder| folder.is_absolute()) {
        // Where others can put a name, they can put a link to any program of root's.
        match open(folder).map(|opened| closed_to_others(&opened, owner)) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                passed_over = format!(" ({} was passed over: it {why})", folder.display());
                continue;
            }
            Err(_) => continue,
        }
        let path = folder.join(worker::NAME);
        match open(&path) {
            Ok(file) => {
                trustworthy(&file, owner).map_err(|why| missing(format!("{} {why}", path.display())))?;
                return Ok(Program { path, file });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(missing(format!("{}: {error}", path.display()))),
        }
    }
    if INITIALISED.load(Ordering::Relaxed) {
        return Ok(Program { path: server, file: own });
    }
    Err(missing(format!("{NO_WORKER}{passed_over}")))
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path.as_os_str().as_bytes(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// It will run with the server's rights, so only those may be able to write it who can write the server.
fn trustworthy(file: &OwnedFd, owner: u32) -> Result<(), String> {
    let status = rustix::fs::fstat(file).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err("is no regular file".to_owned());
    }
    closed_to_others(file, owner)
}

/// Whether nobody but root and the owner of the server's program can write it.
fn closed_to_others(file: &OwnedFd, owner: u32) -> Result<(), String> {
    let status = rustix::fs::fstat(file).map_err(|error| error.to_string())?;
    if status.st_uid != 0 && status.st_uid != owner {
        return Err(format!(
            "belongs to uid {}, not to root or the owner of the server's program",
            status.st_uid
        ));
    }
    if status.st_mode & 0o022 != 0 {
        return Err("can be written by its group or by others".to_owned());
    }
    Ok(())
}
