//! The server's hold on a session worker.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::message::{LaunchRequest, Reply, Request, Snapshot};
use super::{pam_code, step_from_number, wire};
use crate::error::{Error, ErrorKind, Result};
use crate::process::Stage;
use crate::sys::account::AccountEntry;
use crate::sys::elsewhere::SessionElsewhere;
use crate::sys::impersonate::as_server;
use crate::sys::process::{
    Launch, LaunchFault, Names, Remains, Started, cgroup_of, leave, sweep, told_errno,
};
use crate::sys::token::SecurityContext;

/// A worker answers at once; one that does not for this long is stuck or stopped.
const PATIENCE: Duration = Duration::from_secs(30);

/// The server's hold on a session worker: shared by the session's tokens and children. When the last
/// one is dropped the worker is told, and the session ends after its last process.
pub(crate) struct SessionHandle {
    keeper: Keeper,
    snapshot: Snapshot,
    /// A forked copy of the server has no say.
    owner: u32,
}

/// Who keeps the session.
#[cfg_attr(not(feature = "service"), allow(dead_code, reason = "nothing is elsewhere without it"))]
enum Keeper {
    /// A session worker that this process is connected to.
    Worker(Arc<Link>),
    /// Another process, for this one.
    Elsewhere(Box<dyn SessionElsewhere>),
}

/// A process that the worker created for the server.
#[derive(Debug)]
pub(crate) struct SessionProcess {
    pub(crate) started: Started,
    /// The worker's name for it.
    pub(crate) id: u32,
}

/// The connection itself, which outlives the handle for whoever waits for the session's end.
pub(crate) struct Link {
    /// None once the worker is lost.
    socket: Mutex<Option<OwnedFd>>,
    /// The worker's process; none for a session that was attached to, or once it was collected.
    worker: Mutex<Option<OwnedFd>>,
    /// The server itself waits for the worker's end, and reaps it.
    watched: AtomicBool,
    released: Mutex<bool>,
    when_released: Condvar,
}

impl SessionHandle {
    pub(super) fn new(socket: OwnedFd, worker: Option<OwnedFd>, snapshot: Snapshot) -> Self {
        let link = Link {
            socket: Mutex::new(Some(socket)),
            worker: Mutex::new(worker),
            watched: AtomicBool::new(false),
            released: Mutex::new(false),
            when_released: Condvar::new(),
        };
        Self { keeper: Keeper::Worker(Arc::new(link)), snapshot, owner: std::process::id() }
    }

    #[cfg_attr(not(feature = "service"), allow(dead_code, reason = "nothing is elsewhere without it"))]
    /// A session that another process keeps, as it describes it.
    pub(crate) fn elsewhere(keeper: Box<dyn SessionElsewhere>, snapshot: Snapshot) -> Self {
        Self { keeper: Keeper::Elsewhere(keeper), snapshot, owner: std::process::id() }
    }

    /// The worker; a session that another process keeps has none here.
    fn link(&self, doing: &'static str) -> Result<&Arc<Link>> {
        match &self.keeper {
            Keeper::Worker(link) => Ok(link),
            Keeper::Elsewhere(_) => {
                let what = "the service creates the processes of its sessions itself".into();
                Err(Error::new(doing, ErrorKind::NotThroughService { what }))
            }
        }
    }

    /// Creates a process in the session. What the report pipe says of it is the caller's to wait for, after
    /// dropping `launch` with its descriptors.
    ///
    /// The worker closes `watch` when the last process of the tree has ended.
    pub(crate) fn launch(
        &self,
        launch: &Launch,
        watch: Option<&OwnedFd>,
        names: &Names,
    ) -> Result<SessionProcess> {
        const DOING: &str = "creating a process in the logon session";
        let request = Request::Launch(LaunchRequest {
            spec: launch.spec.encode(),
            argv: launch.argv.clone(),
            envp: launch.envp.clone(),
            targets: launch.descriptors.iter().map(|(_, target)| *target).collect(),
            cgroup: launch.cgroup.is_some(),
            watched: watch.is_some(),
        });
        let descriptors: Vec<BorrowedFd<'_>> = launch
            .descriptors
            .iter()
            .map(|(source, _)| source)
            .chain(&launch.cgroup)
            .chain(watch)
            .map(AsFd::as_fd)
            .collect();
        let link = self.link(DOING)?;
        match link.ask(DOING, &request, &descriptors)? {
            (Reply::Launched { id, pid }, Some(pidfd)) => {
                Ok(SessionProcess { started: Started { pid, pidfd }, id })
            }
            // It runs, and the server has no room for the descriptor that would hold it (a client can see to
            // that by opening connections): an error must not leave a process behind.
            (Reply::Launched { id, .. }, None) => {
                self.kill_tree(id)?;
                self.forget(id);
                Err(names.error(LaunchFault { stage: Stage::Clone, errno: Errno::MFILE, detail: 0 }))
            }
            (Reply::NotLaunched { errno: libc::ESHUTDOWN, .. }, _) => {
                Err(Error::new(names.doing.clone(), ErrorKind::SessionEnded))
            }
            // Of the same protocol, and yet it does not understand what the trampoline is told.
            (Reply::NotLaunched { step: 0, errno: libc::EBADMSG, .. }, _) => {
                let why = "it is of another version, and does not understand what it is asked: reinstall \
                           stead-session together with this program, and log on anew"
                    .into();
                Err(Error::new(names.doing.clone(), ErrorKind::WorkerUnavailable { why }))
            }
            (Reply::NotLaunched { step, errno, detail }, _) => {
                let errno = told_errno(errno);
                Err(names.error(LaunchFault { stage: step_from_number(step), errno, detail }))
            }
            _ => Err(link.confused(DOING)),
        }
    }

    /// The wait status of the process `id`, if it has ended: asked once its pidfd is readable.
    pub(crate) fn exit_status(&self, id: u32) -> Result<Option<i32>> {
        const DOING: &str = "asking the session worker for an exit status";
        let link = match &self.keeper {
            Keeper::Worker(link) => link,
            Keeper::Elsewhere(keeper) => return keeper.exit_status(id),
        };
        match link.ask(DOING, &Request::ExitStatus(id), &[])? {
            (Reply::Status(status), _) => Ok(status),
            (Reply::Unknown, _) => Err(Error::new(DOING, ErrorKind::StatusLost)),
            _ => Err(link.confused(DOING)),
        }
    }

    /// How an earlier server's process ended.
    pub(crate) fn earlier_status(&self, id: u32) -> Result<Option<ExitStatus>> {
        Ok(self.exit_status(id)?.map(ExitStatus::from_raw))
    }

    /// Kills the process `id` and everything that descends from it.
    pub(crate) fn kill_tree(&self, id: u32) -> Result<()> {
        const DOING: &str = "killing a tree of processes";
        let link = match &self.keeper {
            Keeper::Worker(link) => link,
            Keeper::Elsewhere(keeper) => return keeper.kill_tree(id),
        };
        match link.ask(DOING, &Request::KillTree(id), &[])? {
            (Reply::Done | Reply::Unknown, _) => Ok(()),
            _ => Err(link.confused(DOING)),
        }
    }

    /// Nobody will ask for the status of process `id`.
    pub(crate) fn forget(&self, id: u32) {
        if let Keeper::Worker(link) = &self.keeper {
            link.tell(&Request::Forget(id));
        }
    }

    /// The environment of the session's processes: the account's variables, then PAM's.
    pub(crate) fn variables(&self) -> Vec<(OsString, OsString)> {
        let block = crate::sys::process::environment_block(self.account(), self.environment());
        let split = |variable: Vec<u8>| {
            let equals = variable.iter().position(|byte| *byte == b'=')?;
            let value = variable[equals + 1..].to_vec();
            Some((OsString::from_vec(variable[..equals].to_vec()), OsString::from_vec(value)))
        };
        block.into_iter().filter_map(|variable| split(variable.into_bytes())).collect()
    }

    /// The control group that the worker is in, and so its processes.
    pub(crate) fn cgroup(&self) -> Result<Option<PathBuf>> {
        const DOING: &str = "looking for the logon session's control group";
        let link = self.link(DOING)?;
        let ended = || Error::new(DOING, ErrorKind::SessionEnded);
        let pid =
            as_server(|| link.worker_pid()).map_err(|error| Error::system(DOING, "getsockopt", error))?;
        // Were the worker gone and its number another's, then nothing could be created in the session anyway.
        as_server(|| cgroup_of(pid.ok_or_else(ended)?).map_err(|_| ended()))
    }

    /// Every process of the session.
    pub(crate) fn processes(&self) -> Result<Vec<u32>> {
        const DOING: &str = "listing the processes of the logon session";
        let link = match &self.keeper {
            Keeper::Worker(link) => link,
            Keeper::Elsewhere(keeper) => return keeper.processes(),
        };
        match link.ask(DOING, &Request::Processes, &[])? {
            (Reply::Processes(pids), _) => {
                Ok(pids.into_iter().filter_map(|pid| u32::try_from(pid).ok()).collect())
            }
            _ => Err(link.confused(DOING)),
        }
    }

    /// Kills every process of the session, and waits until they have ended.
    pub(crate) fn terminate(&self) -> Result<()> {
        const DOING: &str = "ending the processes of the logon session";
        let link = match &self.keeper {
            Keeper::Worker(link) => link,
            Keeper::Elsewhere(keeper) => return keeper.terminate(),
        };
        match link.ask(DOING, &Request::Terminate, &[])? {
            (Reply::Done, _) => Ok(()),
            _ => Err(link.confused(DOING)),
        }
    }

    /// The session's number.
    pub(crate) fn id(&self) -> u64 {
        self.snapshot.id
    }

    /// Who logged on.
    pub(crate) fn account(&self) -> &AccountEntry {
        &self.snapshot.account
    }

    /// The context that the session's processes get.
    pub(crate) fn context(&self) -> &SecurityContext {
        &self.snapshot.context
    }

    /// The session's own gid, where one was asked for.
    pub(crate) fn logon_gid(&self) -> Option<u32> {
        self.snapshot.logon_gid
    }

    /// The kernel's audit session, where there is one.
    pub(crate) fn audit_session(&self) -> Option<u32> {
        self.snapshot.audit_session
    }

    /// Processes that an earlier server started in the session.
    pub(crate) fn earlier_processes(&self) -> &[(u32, i32)] {
        &self.snapshot.processes
    }

    /// The environment that PAM gave the session, `NAME=value` each.
    pub(crate) fn environment(&self) -> &[CString] {
        &self.snapshot.environment
    }

    /// The session's umask, as PAM left it.
    pub(crate) fn umask(&self) -> u32 {
        self.snapshot.umask
    }

    /// The security label that PAM chose for the session's programs.
    pub(crate) fn exec_label(&self) -> Option<&[u8]> {
        self.snapshot.exec_label.as_deref()
    }

    /// The worker, where it is a child of this process.
    pub(crate) fn worker(&self) -> Result<Option<OwnedFd>> {
        let Keeper::Worker(link) = &self.keeper else { return Ok(None) };
        let copied = lock(&link.worker).as_ref().map(OwnedFd::try_clone).transpose();
        link.watched.store(true, Ordering::Relaxed);
        copied.map_err(|error| Error::system("watching a session worker", "fcntl", error))
    }

    /// What waits for the session's end.
    pub(crate) fn ending(&self) -> Ending {
        match &self.keeper {
            Keeper::Worker(link) => {
                Ending::Worker { link: Arc::clone(link), worker: lock(&link.worker).take() }
            }
            Keeper::Elsewhere(keeper) => Ending::Elsewhere(keeper.ending(false)),
        }
    }

    /// Kills every process of the session, which nobody else holds, gives it back, and waits until it is closed.
    pub(crate) fn log_off(self) -> Result<()> {
        let ending = match &self.keeper {
            Keeper::Worker(link) => {
                // What it answers to that is read with what it says in the end: nobody else asks it anything any more.
                link.tell(&Request::Terminate);
                self.ending()
            }
            Keeper::Elsewhere(keeper) => Ending::Elsewhere(keeper.ending(true)),
        };
        drop(self);
        ending.wait(Some(PATIENCE))
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            return;
        }
        let Keeper::Worker(link) = &self.keeper else { return };
        link.tell(&Request::Release);
        if let Some(worker) = lock(&link.worker).take() {
            leave(Remains::of_server(worker));
        }
        *lock(&link.released) = true;
        link.when_released.notify_all();
    }
}

impl Link {
    /// What the worker is called, if it lives.
    fn worker_pid(&self) -> std::io::Result<Option<u32>> {
        if let Some(worker) = &*lock(&self.worker) {
            return Ok(crate::sys::client::ids(worker.as_fd())?.map(|ids| ids.pid));
        }
        let socket = lock(&self.socket);
        let Some(socket) = &*socket else { return Ok(None) };
        // One that was attached to: it listened.
        let peer = rustix::net::sockopt::socket_peercred(socket)?;
        Ok(Some(peer.pid.as_raw_nonzero().get().cast_unsigned()))
    }

    /// One request and its reply.
    fn ask(
        &self,
        doing: &'static str,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Option<OwnedFd>)> {
        let mut held = lock(&self.socket);
        let Some(socket) = &*held else { return Err(Error::new(doing, ErrorKind::SessionEnded)) };
        let (kind, body) = request.encode();
        let answer = wire::send(socket, kind, &body, descriptors)
            .and_then(|()| within(socket, PATIENCE))
            .and_then(|()| wire::receive(socket));
        match answer {
            Ok(Some(frame)) => match Reply::decode(frame.kind, &frame.body) {
                Some(Reply::Ended { .. }) => {}
                Some(reply) => return Ok((reply, frame.descriptors.into_iter().next())),
                None => {
                    *held = None;
                    drop(held);
                    return Err(self.confused(doing));
                }
            },
            // Found before a byte was sent; the connection is as good as before.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                let what = error.to_string().into();
                return Err(Error::new(doing, ErrorKind::InvalidInput { what }));
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                *held = None;
                let why = "it does not answer".into();
                return Err(Error::new(doing, ErrorKind::WorkerUnavailable { why }));
            }
            Ok(None) | Err(_) => {}
        }
        *held = None;
        Err(Error::new(doing, ErrorKind::SessionEnded))
    }

    /// A request without a reply; if the worker is gone there is nothing to tell.
    fn tell(&self, request: &Request) {
        if let Some(socket) = &*lock(&self.socket) {
            let (kind, body) = request.encode();
            let _ = wire::send(socket, kind, &body, &[]);
        }
    }

    #[expect(clippy::unused_self, reason = "reads as what the link is")]
    fn confused(&self, doing: &'static str) -> Error {
        let why = "it answered what was not asked".into();
        Error::new(doing, ErrorKind::WorkerUnavailable { why })
    }
}

/// Waits for the end of a session whose handle is on its way out.
pub(crate) enum Ending {
    /// The worker tells.
    Worker { link: Arc<Link>, worker: Option<OwnedFd> },
    /// Who keeps the session does.
    Elsewhere(Box<dyn FnOnce() -> Result<()> + Send>),
}

impl Ending {
    /// Waits until the last token and child are dropped, the last process has ended and PAM has closed the
    /// session; what PAM returned then. With `patience`, no longer than that after the tokens and children.
    pub(crate) fn wait(self, patience: Option<Duration>) -> Result<()> {
        const DOING: &str = "ending the logon session";
        let (link, worker) = match self {
            Self::Worker { link, worker } => (link, worker),
            Self::Elsewhere(wait) => return wait(),
        };
        let mut released = lock(&link.released);
        while !*released {
            released = link.when_released.wait(released).unwrap_or_else(PoisonError::into_inner);
        }
        drop(released);
        let socket = lock(&link.socket).take();
        let mut ended = None;
        let until = patience.map(|patience| Instant::now() + patience);
        while let Some(socket) = &socket {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| within(socket, left).is_err()) {
                // One that waits for a file system ends when that answers.
                let waiting_for = "the processes of the session to end, and PAM to close it".into();
                return Err(Error::new(DOING, ErrorKind::DeadlinePassed { waiting_for }));
            }
            let Ok(Some(frame)) = wire::receive(socket) else { break };
            if let Some(Reply::Ended { close, delete, text }) = Reply::decode(frame.kind, &frame.body) {
                ended = Some((close, delete, text));
                break;
            }
        }
        if let Some(worker) = worker {
            // It has nothing left to do but to exit.
            if !link.watched.load(Ordering::Relaxed) {
                let mut one = [PollFd::new(&worker, PollFlags::IN)];
                let _ = poll(&mut one, Some(&Timespec { tv_sec: 5, tv_nsec: 0 }));
            }
            leave(Remains::of_server(worker));
        }
        sweep();
        match ended {
            Some((pam_code::SUCCESS, pam_code::SUCCESS, _)) => Ok(()),
            Some((close, _, text)) => {
                tracing::warn!(%text, "PAM could not close the session in order");
                let call = if close == pam_code::SUCCESS { "pam_setcred" } else { "pam_close_session" };
                Err(Error::system(DOING, call, std::io::Error::other(text)))
            }
            None => Err(Error::new(DOING, ErrorKind::SessionEnded)),
        }
    }
}

/// Waits until there is something to read.
pub(super) fn within(socket: &OwnedFd, patience: Duration) -> std::io::Result<()> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let mut one = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut one, Some(&timeout)) {
            Ok(0) => return Err(std::io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The bytes of a request that may hold a secret.
pub(super) fn send(
    socket: &OwnedFd,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> std::io::Result<()> {
    let (kind, body): (u8, Zeroizing<Vec<u8>>) = request.encode();
    wire::send(socket, kind, &body, descriptors)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
