//! The system around the worker's loop: processes that come and go, servers that speak and end, and what goes wrong.
//!
//! A process that is asked for gets the lowest number that the kernel could give: one that is no process's and no
//! session's, and was often an earlier one's. What processes create themselves gets numbers of its own: where one of
//! those had the number of an earlier root, and a session by it, nobody could tell its orphans from that root's.

mod processes;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use stead_trampoline::spec::Credentials;

use crate::sys::logon::message::{Reply, Request};
use processes::{Process, Whose};

/// The worker's own number, and that of the system's first process.
pub(super) const WORKER: i32 = 50;
const INIT: i32 = 1;
/// A daemon that a PAM module left.
pub(super) const DAEMON: i32 = 60;
/// The first numbers of processes that are asked for, and of those that they create.
const ASKED_FOR: i32 = 100;
const CREATED: i32 = 1000;
/// The server's uid, and that of somebody else who connects to its socket.
pub(super) const SERVER: u32 = 0;
pub(super) const STRANGER: u32 = 1001;

/// What a panic of the worker's says.
pub(super) const PANIC: &str = "the worker panics";

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The call fails.
    Fails,
    /// It says that it succeeded, and has done nothing; a message is garbage.
    Lies,
    /// The worker's own code panics.
    Panics,
    /// The oldest process of the session ends.
    Exits,
    /// The newest one has a child.
    Forks,
    /// The newest one has a child with a session of its own, and ends.
    Leaves,
    /// The oldest one has the worker trace it, and stops.
    Stops,
    /// A process outside of the session traces the oldest one, and does not let go of it when it has ended.
    Held,
    /// Somebody else gets the next number.
    Outsider,
    /// The server is killed, or closes its end.
    ServerEnds,
    ServerHangsUp,
    /// The worker gets SIGTERM.
    Terminated,
}

pub(super) const EVENTS: [Event; 12] = [
    Event::Fails,
    Event::Lies,
    Event::Panics,
    Event::Exits,
    Event::Forks,
    Event::Leaves,
    Event::Stops,
    Event::Held,
    Event::Outsider,
    Event::ServerEnds,
    Event::ServerHangsUp,
    Event::Terminated,
];

/// What a server does next.
#[derive(Clone)]
pub(super) enum Say {
    Request(fn() -> Request),
    /// It waits, for as long as there is a process.
    Wait,
}

/// A server that connects: whose it is and what it says.
pub(super) type Server = (u32, Vec<Say>);

/// A connection's other end.
struct Connection {
    says: VecDeque<Say>,
    hung_up: bool,
    /// Which descriptor stands for the process behind it.
    process: Option<RawFd>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a state of its own")]
pub(super) struct World {
    events: BTreeMap<usize, Event>,
    pub(super) calls: usize,
    pub(super) processes: BTreeMap<i32, Process>,
    /// What was launched, in the order of the worker's own numbers: the process, and its credentials.
    pub(super) launched: Vec<(i32, Option<Credentials>)>,
    pub(super) listening: bool,
    pub(super) told: Vec<Reply>,
    /// Which of the session's processes ran when PAM closed the session.
    pub(super) left_at_close: Option<Vec<i32>>,
    pub(super) clock: Duration,
    /// Who is told of a tree's end, by its number: the other end of what the worker holds.
    watches: BTreeMap<u32, OwnedFd>,
    /// That of the process that is to be launched next.
    next_watch: Option<OwnedFd>,
    connections: BTreeMap<RawFd, Connection>,
    /// The processes of servers: those that have ended.
    ended_servers: BTreeSet<RawFd>,
    /// Which descriptor the present server is.
    present: Option<RawFd>,
    next_servers: VecDeque<Server>,
    subreaper: bool,
    /// Orphans go to the system's first process, and the worker was told otherwise.
    pub(super) lied_about_orphans: bool,
    terminated: bool,
    child_ended: bool,
    /// The worker did what it must not.
    pub(super) at_fault: bool,
    /// What the server wants to know of, while the worker answers it.
    asked: Option<Asked>,
    ticks: u64,
    last_child: i32,
}

/// A request that is about one process.
#[derive(Clone, Copy)]
enum Asked {
    Kill(u32),
    Status(u32),
    Other,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Does something with the world. Where that finds the worker at fault, the loop takes it for a panic of its own.
pub(super) fn world<R>(act: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(|world| {
        let world = world.as_mut().expect("a session is on");
        catch_unwind(AssertUnwindSafe(|| act(world))).unwrap_or_else(|panic| {
            world.at_fault |= panic.downcast_ref::<&str>() != Some(&PANIC);
            resume_unwind(panic)
        })
    })
}

pub(super) fn is_on() -> bool {
    WORLD.with_borrow(Option::is_some)
}

/// PAM closes the session, where one is on.
pub(super) fn pam_closes() {
    WORLD.with_borrow_mut(|world| {
        if let Some(world) = world {
            world.left_at_close = Some(world.living());
        }
    });
}

pub(super) fn begin(events: BTreeMap<usize, Event>, daemon: bool, later: &[Server]) {
    let mut world = World {
        events,
        calls: 0,
        processes: BTreeMap::new(),
        launched: Vec::new(),
        listening: false,
        told: Vec::new(),
        left_at_close: None,
        clock: Duration::ZERO,
        watches: BTreeMap::new(),
        next_watch: None,
        connections: BTreeMap::new(),
        ended_servers: BTreeSet::new(),
        present: None,
        next_servers: later.iter().cloned().collect(),
        subreaper: false,
        lied_about_orphans: true,
        terminated: false,
        child_ended: false,
        at_fault: false,
        asked: None,
        ticks: 0,
        last_child: CREATED,
    };
    if daemon {
        world.add(DAEMON, WORKER, DAEMON, Whose::Pam);
    }
    WORLD.set(Some(world));
}

pub(super) fn end() -> World {
    WORLD.take().expect("it was set")
}

/// A descriptor that stands for something of the model's.
pub(super) fn descriptor() -> OwnedFd {
    OwnedFd::from(File::open("/dev/null").unwrap())
}

impl World {
    /// One more call: what happens meanwhile, and whether it fails or lies.
    pub(super) fn turn(&mut self) -> Option<Event> {
        let event = self.events.get(&self.calls).copied();
        self.calls += 1;
        assert!(self.calls < 4000, "the loop does not end: {:?}", self.told);
        match event? {
            // Not by `panic!`: nobody is to be told of it.
            Event::Panics if !std::thread::panicking() => {
                self.done();
                resume_unwind(Box::new(PANIC))
            }
            event @ (Event::Fails | Event::Lies) => return Some(event),
            Event::Exits => self.oldest_exits(),
            Event::Forks => self.newest_forks(false),
            Event::Leaves => self.newest_forks(true),
            Event::Stops => self.oldest_stops(),
            Event::Held => self.oldest_is_held(),
            Event::Outsider => {
                let pid = self.free_number(ASKED_FOR);
                self.add(pid, INIT, pid, Whose::Outsider);
            }
            Event::ServerEnds => self.server_goes(true),
            Event::ServerHangsUp => self.server_goes(false),
            Event::Terminated => self.terminated = true,
            Event::Panics => {}
        }
        None
    }

    pub(super) fn becomes_subreaper(&mut self) {
        self.subreaper = true;
        self.lied_about_orphans = false;
    }

    pub(super) fn next_signal(&mut self) -> Option<i32> {
        if std::mem::take(&mut self.terminated) {
            return Some(libc::SIGTERM);
        }
        std::mem::take(&mut self.child_ended).then_some(libc::SIGCHLD)
    }

    /// The first server, or one that has been accepted.
    pub(super) fn connect(&mut self, socket: RawFd, says: Vec<Say>, process: Option<RawFd>) {
        self.ended_servers.remove(&socket);
        if let Some(process) = process {
            self.ended_servers.remove(&process);
        }
        self.connections.insert(socket, Connection { says: says.into(), hung_up: false, process });
        self.present = Some(socket);
    }

    /// What attaches says which process it is.
    pub(super) fn has_process(&mut self, socket: RawFd, process: RawFd) {
        self.ended_servers.remove(&process);
        if let Some(connection) = self.connections.get_mut(&socket) {
            connection.process = Some(process);
        }
    }

    fn server_goes(&mut self, ends: bool) {
        let Some(connection) = self.present.and_then(|one| self.connections.get_mut(&one)) else { return };
        connection.hung_up = true;
        connection.says.clear();
        if ends && let Some(process) = connection.process {
            self.ended_servers.insert(process);
        }
    }

    /// The next who connects, once the one before has gone.
    pub(super) fn accept(&mut self) -> Option<Server> {
        self.next_servers.pop_front()
    }

    pub(super) fn is_hung_up(&self, socket: RawFd) -> bool {
        self.connections.get(&socket).is_none_or(|one| one.hung_up)
    }

    /// Which of the server's socket, its process, the listener and the signals have something to say.
    pub(super) fn ready(&mut self, sources: [Option<RawFd>; 4]) -> [bool; 4] {
        let [server, process, listener, signals] = sources;
        let speaks = |one: &Connection| one.hung_up || !matches!(one.says.front(), Some(Say::Wait));
        [
            server.is_some_and(|one| self.connections.get(&one).is_none_or(speaks)),
            process.is_some_and(|one| self.ended_servers.contains(&one)),
            listener.is_some() && server.is_none() && !self.next_servers.is_empty(),
            signals.is_some() && (self.terminated || self.child_ended),
        ]
    }

    /// Nothing happens by itself, and the worker would wait for ever: a process ends, is let go of, or a server has waited
    /// enough.
    pub(super) fn goes_on(&mut self) {
        if !self.living().is_empty() {
            return self.oldest_exits();
        }
        if self.one_is_let_go() {
            return;
        }
        let waits = self.present.and_then(|one| self.connections.get_mut(&one));
        let waits = waits.and_then(|one| one.says.pop_front());
        assert!(waits.is_some(), "the loop waits for what never comes: {:?}", self.told);
    }

    /// What the server says next; none where it has nothing more to say, and closes its end.
    pub(super) fn hears(&mut self, socket: RawFd) -> Option<Request> {
        let connection = self.connections.get_mut(&socket)?;
        let next = connection.says.pop_front().filter(|_| !connection.hung_up);
        let Some(Say::Request(request)) = next else {
            connection.hung_up = true;
            return None;
        };
        let request = request();
        Some(request)
    }

    /// The worker has understood what the server says.
    pub(super) fn understood(&mut self, request: &Request) {
        self.asked = Some(match request {
            Request::KillTree(id) => Asked::Kill(*id),
            Request::ExitStatus(id) => Asked::Status(*id),
            _ => Asked::Other,
        });
    }

    /// The worker has done whatever it did for the server.
    pub(super) fn done(&mut self) {
        self.asked = None;
    }

    /// Somebody is told of the end of the tree that is asked for next: what the worker is given for it.
    pub(super) fn watch(&mut self) -> OwnedFd {
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (reader, writer) = rustix::pipe::pipe_with(flags).unwrap();
        self.next_watch = Some(reader);
        writer
    }

    /// Whoever was told that a tree has ended was told the truth.
    pub(super) fn nobody_was_told_too_early(&self) {
        for (tree, reader) in &self.watches {
            let ended = rustix::io::read(reader, &mut [0]) == Ok(0);
            let lives = |one: &Process| one.whose == Whose::Tree(*tree) && one.ended.is_none();
            assert!(!ended || !self.processes.values().any(lives), "tree {tree} lives: {:?}", self.told);
        }
    }

    /// The worker says something.
    pub(super) fn told(&mut self, reply: Reply) {
        let root = |id: u32| {
            let index = usize::try_from(id).unwrap() - 1;
            let process = self.processes.get(&self.launched.get(index)?.0);
            process.filter(|one| one.whose == Whose::Tree(id))
        };
        match (&reply, self.asked) {
            (Reply::Status(Some(_)), Some(Asked::Status(id))) => {
                assert!(root(id).is_none(), "{id} is said to have ended, and runs");
            }
            (Reply::Launched { id, pid }, _) => {
                let last = self.launched.last().map(|(pid, _)| *pid);
                assert_eq!((usize::try_from(*id).unwrap(), Some(*pid)), (self.launched.len(), last));
            }
            _ => {}
        }
        self.told.push(reply);
        self.done();
    }
}

/// The number of a descriptor.
pub(super) fn raw(descriptor: &OwnedFd) -> RawFd {
    descriptor.as_raw_fd()
}
