//! The worker's loop: requests, ended children, a lost server, an attaching one; then the end in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Signal, Uid, WaitId, WaitIdOptions};
use stead_trampoline::spec::Spec;

use super::log_on::{Closed, Session, path_of};
use super::watch::Trees;
use super::{send, signals, tree};
use crate::sys::logon::message::{Failure, LaunchRequest, Phase, Reply, Request, Snapshot, Why};
use crate::sys::logon::{step_number, wire};
use crate::sys::process::{Launch, LaunchFault, Started, launch, only_ignores};

/// How long processes have to end by themselves when the server is lost.
const GRACE: Duration = Duration::from_millis(500);
/// How often the rest is looked at while it is being killed.
const KILL_ROUND: Duration = Duration::from_millis(5);
/// After this long without an event the worker gives back what it does not need.
const IDLE: Duration = Duration::from_millis(500);
/// An attaching server says so at once.
const ATTACH_PATIENCE: Duration = Duration::from_secs(2);

/// One process that the server asked for.
struct Process {
    pid: i32,
    /// The wait status, once it has ended.
    ended: Option<i32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// Asked to end; killed at this time.
    Asked(Instant),
    Killing,
}

struct Worker {
    snapshot: Snapshot,
    of_pam: BTreeSet<i32>,
    processes: BTreeMap<u32, Process>,
    trees: Trees,
    next: u32,
    /// How many were started since the session last had no process.
    since_idle: u32,
    server: Option<Rc<OwnedFd>>,
    server_process: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    /// Whose servers may attach.
    server_uid: Uid,
    released: bool,
    /// Somebody waits for the end of every process.
    terminating: bool,
    ending: Ending,
}

/// Serves until the session's end; gives the program's exit status.
pub(super) fn serve(session: Session, socket: Rc<OwnedFd>, server_process: OwnedFd, server_uid: Uid) -> u8 {
    let snapshot = session.snapshot.clone();
    let prepared = prepare(&session, server_uid);
    let (signals, listener) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            session.close();
            let _ = send(&socket, &Reply::Failed(failure), &[]);
            return 0;
        }
    };
    let opened = send(&socket, &Reply::Opened(Box::new(snapshot.clone())), &[]);
    let mut worker = Worker {
        snapshot,
        of_pam: session.of_pam.iter().copied().collect(),
        processes: BTreeMap::new(),
        trees: Trees::default(),
        next: 1,
        since_idle: 0,
        server: Some(socket),
        server_process: Some(server_process),
        listener,
        server_uid,
        released: false,
        terminating: false,
        ending: Ending::No,
    };
    if opened.is_err() {
        worker.server_is_lost();
    }
    worker.run(&signals);

    if let Some(path) = &session.socket {
        let _ = super::as_user(server_uid, || std::fs::remove_file(path_of(path)));
    }
    // Modules, and the programs that they start, see signals as they were before.
    signals::unblock();
    let Closed { close, delete, text } = session.close();
    if let Some(server) = worker.server {
        let _ = send(&server, &Reply::Ended { close, delete, text }, &[]);
    }
    0
}

/// Becomes subreaper, takes signals by descriptor, and listens if the session is detached.
fn prepare(session: &Session, server_uid: Uid) -> Result<(OwnedFd, Option<OwnedFd>), Failure> {
    let fault = |call: &str, error: io::Error| super::system(Phase::Listen, call, &error);
    // Only now: a daemon that a PAM module started belongs to the system, not to the session.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| fault("prctl(PR_SET_CHILD_SUBREAPER)", errno.into()))?;
    let signals = signals::descriptor().map_err(|error| fault("signalfd", error))?;
    // Unless a module started a thread that goes on.
    if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1) {
        only_ignores(signals::ignored());
    }
    let listener = match &session.socket {
        None => None,
        Some(path) => Some(listen(path, server_uid).map_err(|error| fault("listen", error))?),
    };
    Ok((signals, listener))
}

/// As the server: the folder and the socket in it are the server's own.
fn listen(path: &std::ffi::CStr, server_uid: Uid) -> io::Result<OwnedFd> {
    super::as_user(server_uid, || listen_as_server(path))?
}

fn listen_as_server(path: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 4)?;
    Ok(socket)
}

impl Worker {
    fn run(&mut self, signals: &OwnedFd) {
        let mut slim = false;
        loop {
            self.reap();
            let empty = self.is_empty();
            if empty {
                self.since_idle = 0;
                self.trees.all_ended();
                if std::mem::take(&mut self.terminating) {
                    self.reply(&Reply::Done, None);
                }
                if self.is_over() {
                    return;
                }
            }
            let of_pam = &self.of_pam;
            self.trees.tell(|| tree::children().into_iter().filter(|pid| !of_pam.contains(pid)).collect());
            let timeout = self.push(empty);
            let idle = timeout.is_none() && !slim;
            let ready = self.wait(signals, timeout.or(idle.then_some(IDLE)));
            slim = !ready.contains(&true);
            if slim && idle {
                super::slim::slim();
            }
            let [server, process, listener, signal] = ready;
            if signal {
                self.take_signals(signals);
            }
            if server {
                self.hear();
            }
            if process {
                self.server_process = None;
                self.released = false;
                self.server_is_lost();
            }
            if listener {
                self.accept();
            }
        }
    }

    /// Whether nothing keeps the session but its processes.
    fn is_over(&self) -> bool {
        let nobody = self.listener.is_some() && self.server.is_none();
        self.released || nobody || self.ending != Ending::No
    }

    /// What readable descriptors there are: server, server's pidfd, listener, signals.
    fn wait(&self, signals: &OwnedFd, timeout: Option<Duration>) -> [bool; 4] {
        let nothing = PollFlags::empty();
        let mut polled = std::array::from_fn::<_, 4, _>(|_| PollFd::new(signals, nothing));
        let sources =
            [self.server.as_deref(), self.server_process.as_ref(), self.listener.as_ref(), Some(signals)];
        for (slot, source) in polled.iter_mut().zip(sources) {
            if let Some(source) = source {
                *slot = PollFd::new(source, PollFlags::IN);
            }
        }
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        if poll(&mut polled, timeout.as_ref()).is_err() {
            return [false; 4];
        }
        let mut ready = [false; 4];
        for ((ready, slot), source) in ready.iter_mut().zip(&polled).zip(sources) {
            *ready = source.is_some() && !slot.revents().is_empty();
        }
        ready
    }

    /// Pushes an end on; gives the time until the next push.
    fn push(&mut self, empty: bool) -> Option<Duration> {
        if empty {
            return None;
        }
        if let Ending::Asked(when) = self.ending {
            let left = when.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Some(left);
            }
            self.ending = Ending::Killing;
        }
        if self.terminating || self.ending == Ending::Killing {
            tree::kill_children(&self.of_pam);
            return Some(KILL_ROUND);
        }
        None
    }

    /// Collects every child that has ended.
    fn reap(&mut self) {
        while let Some((pid, status)) = collect_any() {
            self.of_pam.remove(&pid);
            self.trees.collected(pid);
            let process = self.processes.values_mut().find(|one| one.pid == pid && one.ended.is_none());
            if let Some(process) = process {
                process.ended = Some(status);
            }
        }
    }

    /// Whether the session has no process.
    fn is_empty(&self) -> bool {
        if self.processes.values().any(|process| process.ended.is_none()) {
            return false;
        }
        // The kernel itself knows best; /proc is only asked to tell PAM's own children apart.
        !has_children()
            || (!self.of_pam.is_empty() && tree::children().iter().all(|pid| self.of_pam.contains(pid)))
    }

    fn take_signals(&mut self, signals: &OwnedFd) {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(signals, &mut info).is_ok_and(|length| length == info.len()) {
            let signal = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
            if signal != libc::SIGCHLD.cast_unsigned() {
                // The system is going down, or an administrator ends the session.
                self.end();
            }
        }
    }

    /// The server ended, or closed its end: the session goes with it, or goes on alone.
    fn server_is_lost(&mut self) {
        self.server = None;
        if self.listener.is_some() {
            self.server_process = None;
            // Nobody answers for the processes of that server any more; their statuses wait.
            self.released = false;
            self.terminating = false;
        } else if !self.released {
            self.end();
        }
    }

    fn end(&mut self) {
        if self.ending == Ending::No {
            let tree = tree::descendants(self.own_children());
            tree::signal(&tree, Signal::HUP);
            tree::signal(&tree, Signal::CONT);
            self.ending = Ending::Asked(Instant::now() + GRACE);
        }
    }

    fn own_children(&self) -> impl Iterator<Item = i32> + '_ {
        tree::children().into_iter().filter(|pid| !self.of_pam.contains(pid))
    }

    /// One request of the server.
    fn hear(&mut self) {
        let Some(socket) = self.server.clone() else { return };
        let Ok(Some(frame)) = wire::receive(&*socket) else { return self.server_is_lost() };
        let Some(request) = Request::decode(frame.kind, &frame.body) else {
            return self.server_is_lost();
        };
        match request {
            // The session's own limit, as pam_limits set it, and not the server's, counts here.
            Request::Launch(_) if frame.truncated => {
                self.reply(&Reply::NotLaunched { step: 0, errno: libc::EMFILE, detail: 0 }, None);
            }
            Request::Launch(request) => {
                let (reply, started) = self.launch(&request, frame.descriptors);
                self.reply(&reply, started.as_ref());
            }
            Request::ExitStatus(id) => {
                self.reap();
                let reply = self.processes.get(&id).map_or(Reply::Unknown, |one| Reply::Status(one.ended));
                self.reply(&reply, None);
            }
            Request::KillTree(id) => {
                let reply = self.kill_tree(id);
                self.reply(&reply, None);
            }
            Request::Forget(id) => {
                // One that still runs stays known until it has been collected; nobody asks for it again.
                self.processes.remove(&id);
            }
            Request::Processes => {
                let pids = tree::descendants(self.own_children()).into_iter().collect();
                self.reply(&Reply::Processes(pids), None);
            }
            Request::Terminate => {
                self.terminating = true;
            }
            Request::Release => self.released = true,
            Request::Prepare(_) | Request::Open(_) | Request::Answer(_) | Request::Attach => {
                self.server_is_lost();
            }
        }
    }

    fn reply(&mut self, reply: &Reply, descriptor: Option<&OwnedFd>) {
        let Some(socket) = self.server.clone() else { return };
        let descriptors: Vec<_> = descriptor.into_iter().map(AsFd::as_fd).collect();
        if send(&socket, reply, &descriptors).is_err() {
            self.server_is_lost();
        }
    }

    fn launch(&mut self, request: &LaunchRequest, mut sent: Vec<OwnedFd>) -> (Reply, Option<OwnedFd>) {
        let malformed = (Reply::NotLaunched { step: 0, errno: libc::EBADMSG, detail: 0 }, None);
        if self.ending != Ending::No {
            return (Reply::NotLaunched { step: 0, errno: libc::ESHUTDOWN, detail: 0 }, None);
        }
        let told = if request.watched { sent.pop() } else { None };
        let cgroup = if request.cgroup { sent.pop() } else { None };
        // The trampoline's arguments only make sense with the program's behind them.
        let whole: Vec<_> = request.spec.iter().chain(&request.argv).cloned().collect();
        let Some((spec, length)) = Spec::decode(&whole) else { return malformed };
        if length != request.spec.len() || sent.len() != request.targets.len() {
            return malformed;
        }
        let descriptors = sent.into_iter().zip(request.targets.iter().copied()).collect();
        let what =
            Launch { spec, argv: request.argv.clone(), envp: request.envp.clone(), descriptors, cgroup };
        match launch(&what) {
            Ok(Started { pid, pidfd }) => {
                let id = self.next;
                self.next = self.next.wrapping_add(1).max(1);
                self.since_idle = self.since_idle.saturating_add(1);
                self.processes.insert(id, Process { pid, ended: None });
                self.trees.started(pid, told);
                (Reply::Launched { id, pid }, Some(pidfd))
            }
            Err(LaunchFault { stage, errno, detail }) => {
                let step = step_number(stage);
                (Reply::NotLaunched { step, errno: errno.raw_os_error(), detail }, None)
            }
        }
    }

    /// Kills a process and what descends from it.
    ///
    /// What was orphaned is known by its session (`setsid(2)`): every process here starts with one of its
    /// own. What left that session *and* was orphaned is nobody's in particular; it is killed too where the
    /// session has had no other process meanwhile.
    fn kill_tree(&mut self, id: u32) -> Reply {
        self.reap();
        let Some((root, lives)) = self.processes.get(&id).map(|one| (one.pid, one.ended.is_none())) else {
            return Reply::Unknown;
        };
        // The number of one that was reaped may be another's by now (CVE-2017-2616).
        let launched: BTreeSet<i32> =
            self.processes.values().filter(|one| one.ended.is_none()).map(|one| one.pid).collect();
        let alone = self.since_idle == 1;
        let mut known = BTreeSet::new();
        if lives || !launched.contains(&root) {
            known.insert(root);
        }
        let mut members = |worker: &mut Self| {
            worker.reap();
            let children: BTreeSet<i32> = worker.own_children().collect();
            let of_tree = children.iter().copied().filter(|pid| {
                (lives && *pid == root)
                    || (!launched.contains(pid)
                        && (alone || tree::session_of(*pid).is_some_and(|sid| known.contains(&sid))))
            });
            let members = tree::descendants(of_tree);
            let grown = members.iter().any(|pid| !known.contains(pid));
            known.extend(&members);
            (members, grown)
        };
        // Stopped first, until nothing new appears, for what is stopped creates nothing; then killed, until
        // none is left (or what is left does not die: then it is for the caller to see).
        for _pass in 0..16 {
            let (found, grown) = members(self);
            tree::signal(&found, Signal::STOP);
            if !grown {
                break;
            }
        }
        for _pass in 0..50 {
            let (found, _) = members(self);
            if found.is_empty() {
                break;
            }
            tree::signal(&found, Signal::KILL);
            std::thread::sleep(Duration::from_millis(1));
        }
        Reply::Done
    }

    /// A server that attaches to the detached session: one with the worker's own uid, one at a time.
    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let Ok(socket) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) else { return };
        let same =
            rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == self.server_uid);
        if !same {
            return;
        }
        let patience = |time| {
            rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, time)
        };
        if patience(Some(ATTACH_PATIENCE)).is_err() {
            return;
        }
        let Ok(Some(frame)) = wire::receive_or_tell(&socket) else { return };
        let Some(Request::Attach) = Request::decode(frame.kind, &frame.body) else { return };
        if self.server.is_some() {
            let text = "another server is attached to the session";
            let failure = Failure { phase: Phase::Listen, why: Why::Stated, code: 0, text: text.to_owned() };
            let _ = send(&socket, &Reply::Failed(failure), &[]);
            return;
        }
        let Some(process) = frame.descriptors.into_iter().next() else { return };
        if patience(None).is_err() {
            return;
        }
        let mut snapshot = self.snapshot.clone();
        snapshot.processes = self.processes.iter().map(|(id, process)| (*id, process.pid)).collect();
        let socket = Rc::new(socket);
        if send(&socket, &Reply::Opened(Box::new(snapshot)), &[]).is_ok() {
            self.server = Some(socket);
            self.server_process = Some(process);
            self.released = false;
        }
    }
}

fn has_children() -> bool {
    let flags = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(WaitId::All, flags), Err(rustix::io::Errno::CHILD))
}

/// Collects any child that has ended: its pid and wait status.
fn collect_any() -> Option<(i32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: status is valid for the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid > 0 {
            return Some((pid, status));
        }
        if pid == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
}
