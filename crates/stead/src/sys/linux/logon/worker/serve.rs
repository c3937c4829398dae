//! The worker's loop: requests, ended children, a lost server, an attaching one; then the end in order.
//!
//! What it asks of the system is in modules beside it: this file is also compiled against a model (`model`).
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, Uid};
use stead_trampoline::spec::Spec;

use super::log_on::{Closed, Session};
use super::watch::Trees;
use super::{host, send, tree};
use crate::sys::logon::message::{Failure, LaunchRequest, Phase, Reply, Request, Snapshot, Why};
use crate::sys::logon::step_number;
use crate::sys::process::{Launch, LaunchFault, Started};

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
    /// Nothing of its tree is left: the session has been empty since, or its number is a later one's.
    gone: bool,
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
    /// The processes' limits, where they are not the worker's.
    limits: Vec<(u32, u64, u64)>,
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
    let of_pam: BTreeSet<i32> = session.of_pam.iter().copied().collect();
    let opened = send(&socket, &Reply::Opened(Box::new(snapshot.clone())), &[]);
    let mut worker = Worker {
        snapshot,
        of_pam,
        limits: session.limits.clone(),
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
    let whole = catch_unwind(AssertUnwindSafe(|| {
        if opened.is_err() {
            worker.server_is_lost();
        }
        worker.run(&signals);
    }));
    if whole.is_err() {
        // Nobody answers for the processes any more, and none may outlive its PAM session.
        worker.kill_everything();
    }

    if let Some(path) = &session.socket {
        host::unlink(path, server_uid);
    }
    // Modules, and the programs that they start, see signals as they were before.
    host::give_signals_back();
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
    host::become_subreaper().map_err(|error| fault("prctl(PR_SET_CHILD_SUBREAPER)", error))?;
    let signals = host::signals().map_err(|error| fault("signalfd", error))?;
    host::fix_ignored_signals();
    let listener = match &session.socket {
        None => None,
        Some(path) => Some(host::listen(path, server_uid).map_err(|error| fault("listen", error))?),
    };
    Ok((signals, listener))
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
                self.processes.values_mut().for_each(|process| process.gone = true);
                if std::mem::take(&mut self.terminating) {
                    self.reply(&Reply::Done, None);
                }
                if self.is_over() {
                    return;
                }
            }
            let of_pam = &self.of_pam;
            self.trees.tell(|| {
                Some(tree::children().ok()?.into_iter().filter(|pid| !of_pam.contains(pid)).collect())
            });
            let timeout = self.push(empty);
            let idle = timeout.is_none() && !slim;
            let ready = self.wait(signals, timeout.or(idle.then_some(IDLE)));
            slim = !ready.contains(&true);
            if slim && idle {
                host::slim();
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
        let sources =
            [self.server.as_deref(), self.server_process.as_ref(), self.listener.as_ref(), Some(signals)];
        host::wait(sources.map(|source| source.map(AsFd::as_fd)), timeout)
    }

    /// Pushes an end on; gives the time until the next push.
    fn push(&mut self, empty: bool) -> Option<Duration> {
        if empty {
            return None;
        }
        if let Ending::Asked(when) = self.ending {
            let left = when.saturating_duration_since(host::now());
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

    /// The end without the loop, when something in it has panicked.
    fn kill_everything(&mut self) {
        self.ending = Ending::Killing;
        loop {
            while let Some((pid, _)) = collect() {
                self.of_pam.remove(&pid);
            }
            if self.has_no_child() {
                return;
            }
            tree::kill_children(&self.of_pam);
            host::pause(KILL_ROUND);
        }
    }

    /// Collects every child that has ended.
    fn reap(&mut self) {
        while let Some((pid, status)) = collect() {
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
        let mut unended = self.processes.values().filter(|process| process.ended.is_none());
        unended.all(|process| self.is_given_up(process.pid)) && self.has_no_child()
    }

    /// Whether this process has no child but those of PAM's modules, and such as are given up.
    fn has_no_child(&self) -> bool {
        // The kernel itself knows best; /proc is only asked to tell PAM's own children apart, and the dead.
        if !host::has_children() {
            return true;
        }
        if self.of_pam.is_empty() && !self.ends() {
            return false;
        }
        let Ok(children) = self.own_children() else { return false };
        // What one of them leaves becomes a child when it ends, and may not have been one yet.
        let no_more = |now: Vec<i32>| now.iter().all(|pid| children.contains(pid));
        children.iter().all(|pid| self.is_given_up(*pid)) && self.own_children().is_ok_and(no_more)
    }

    /// Whether the session is to end, or all that runs in it.
    fn ends(&self) -> bool {
        self.terminating || self.is_over()
    }

    /// Whether the session may end before this child of it is collected: when that has ended, a process that traces it
    /// decides how long it stays, and may be the user's of another session.
    fn is_given_up(&self, pid: i32) -> bool {
        self.ends() && tree::has_ended(pid)
    }

    fn take_signals(&mut self, signals: &OwnedFd) {
        while let Some(signal) = host::next_signal(signals) {
            if signal != libc::SIGCHLD {
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
            // Where they cannot be listed now they are not asked: they are killed when the time is over.
            let tree = tree::descendants(self.own_children().unwrap_or_default());
            tree::signal(&tree, Signal::HUP);
            tree::signal(&tree, Signal::CONT);
            self.ending = Ending::Asked(host::now() + GRACE);
        }
    }

    /// A list that cannot be read is no empty one.
    fn own_children(&self) -> io::Result<Vec<i32>> {
        let mut children = tree::children()?;
        children.retain(|pid| !self.of_pam.contains(pid));
        Ok(children)
    }

    /// One request of the server.
    fn hear(&mut self) {
        let Some(socket) = self.server.clone() else { return };
        let Ok(Some(frame)) = host::receive(&socket) else { return self.server_is_lost() };
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
                // Nobody asks for it again; `trees` knows one that still runs until it has been collected.
                self.processes.remove(&id);
            }
            Request::Processes => {
                let list = |children| Reply::Processes(tree::descendants(children).into_iter().collect());
                let reply = self.own_children().map_or(Reply::Unknown, list);
                self.reply(&reply, None);
            }
            Request::Terminate => {
                self.terminating = true;
            }
            Request::Release => self.released = true,
            Request::Prepare(_)
            | Request::Check
            | Request::Open(_)
            | Request::Answer(_)
            | Request::Attach => {
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
        let Some((mut spec, length)) = Spec::decode(&whole) else { return malformed };
        if length != request.spec.len() || sent.len() != request.targets.len() {
            return malformed;
        }
        // One without credentials would be what this process is; that is for starting workers.
        let account = self.snapshot.context.uid.as_raw();
        if spec.credentials.as_ref().is_none_or(|credentials| credentials.uid != account) {
            return (Reply::NotLaunched { step: 0, errno: libc::EPERM, detail: 0 }, None);
        }
        let of_pam =
            self.limits.iter().filter(|(limit, ..)| !spec.limits.iter().any(|(one, ..)| one == limit));
        spec.limits = of_pam.chain(&spec.limits).copied().collect();
        let descriptors = sent.into_iter().zip(request.targets.iter().copied()).collect();
        let what =
            Launch { spec, argv: request.argv.clone(), envp: request.envp.clone(), descriptors, cgroup };
        match host::launch(&what) {
            Ok(Started { pid, pidfd }) => {
                let id = self.next;
                self.next = self.next.wrapping_add(1).max(1);
                self.since_idle = self.since_idle.saturating_add(1);
                // The kernel gives no number again while a session has it (`alloc_pid`, `struct pid`).
                self.processes.values_mut().filter(|one| one.pid == pid).for_each(|one| one.gone = true);
                self.processes.insert(id, Process { pid, ended: None, gone: false });
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
        let Some(Process { pid: root, gone, .. }) = self.processes.get(&id) else { return Reply::Unknown };
        // The number may be another's by now (CVE-2017-2616), and so may all that is left.
        if *gone {
            return Reply::Done;
        }
        let (root, alone) = (*root, self.since_idle == 1);
        let mut known = BTreeSet::from([root]);
        let mut members = |worker: &mut Self| {
            worker.reap();
            let lives = worker.lives(id);
            // What cannot be listed now may well be there.
            let Ok(children) = worker.own_children() else { return (BTreeSet::new(), true) };
            let of_tree = children.iter().copied().filter(|pid| {
                (lives && *pid == root)
                    || (!worker.trees.has_root(*pid)
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
            let (found, more) = members(self);
            if found.is_empty() && !more {
                break;
            }
            tree::signal(&found, Signal::KILL);
            host::pause(Duration::from_millis(1));
        }
        Reply::Done
    }

    fn lives(&self, id: u32) -> bool {
        self.processes.get(&id).is_some_and(|one| one.ended.is_none())
    }

    /// A server that attaches to the detached session: one with the worker's own uid, one at a time.
    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let Ok((socket, uid)) = host::accept(listener) else { return };
        if uid != self.server_uid || host::be_patient(&socket, Some(ATTACH_PATIENCE)).is_err() {
            return;
        }
        let Ok(Some(frame)) = host::receive_or_tell(&socket) else { return };
        let Some(Request::Attach) = Request::decode(frame.kind, &frame.body) else { return };
        if self.server.is_some() {
            let text = "another server is attached to the session";
            let failure = Failure { phase: Phase::Listen, why: Why::Stated, code: 0, text: text.to_owned() };
            let _ = send(&socket, &Reply::Failed(failure), &[]);
            return;
        }
        let Some(process) = frame.descriptors.into_iter().next() else { return };
        if host::be_patient(&socket, None).is_err() {
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

/// Collects a child that has ended. By PTRACE_TRACEME a child makes this process its tracer, and the kernel tells a tracer
/// of stops, too, whatever it asks for (`wait_task_stopped`, kernel/exit.c).
fn collect() -> Option<(i32, i32)> {
    let is_end = |(_, status): &(i32, i32)| libc::WIFEXITED(*status) || libc::WIFSIGNALED(*status);
    std::iter::from_fn(host::collect_any).find(is_end)
}
