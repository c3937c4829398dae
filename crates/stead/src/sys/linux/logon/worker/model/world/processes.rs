//! The processes: which there are, and how they come and go.

use stead_trampoline::spec::Credentials;

use super::{ASKED_FOR, Asked, INIT, WORKER, World};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Whose {
    /// Of the session's processes that were asked for, this one, or what descends from it.
    Tree(u32),
    Pam,
    Outsider,
}

#[derive(Clone)]
pub(in super::super) struct Process {
    pub(in super::super) parent: i32,
    pub(in super::super) session: i32,
    pub(in super::super) started: u64,
    pub(in super::super) whose: Whose,
    pub(super) ended: Option<i32>,
    stopped: bool,
    /// A stop that its tracer, the worker, has not been told of.
    untold: bool,
    /// A process outside of the session traces it, and does not let go of it when it has ended.
    held: bool,
}

impl World {
    pub(super) fn add(&mut self, pid: i32, parent: i32, session: i32, whose: Whose) {
        self.ticks += 1;
        let process = Process {
            parent,
            session,
            started: self.ticks,
            whose,
            ended: None,
            stopped: false,
            untold: false,
            held: false,
        };
        assert!(self.processes.insert(pid, process).is_none(), "{pid} is taken");
    }

    pub(super) fn free_number(&self, first: i32) -> i32 {
        let taken = |number: i32| {
            self.processes.iter().any(|(pid, process)| *pid == number || process.session == number)
        };
        (first..i32::MAX).find(|number| !taken(*number)).unwrap()
    }

    /// The session's processes that run, the oldest first.
    pub(in super::super) fn living(&self) -> Vec<i32> {
        let of_session = |one: &Process| matches!(one.whose, Whose::Tree(_)) && one.ended.is_none();
        let mut found: Vec<(u64, i32)> = self
            .processes
            .iter()
            .filter(|(_, one)| of_session(one))
            .map(|(pid, one)| (one.started, *pid))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, pid)| pid).collect()
    }

    pub(super) fn oldest_exits(&mut self) {
        if let Some(pid) = self.living().first() {
            self.ends(*pid, 0);
        }
    }

    /// The kernel tells its parent, which is its tracer now.
    pub(super) fn oldest_stops(&mut self) {
        let Some(pid) = self.living().first().copied() else { return };
        let process = self.processes.get_mut(&pid).unwrap();
        process.stopped = true;
        process.untold = process.parent == WORKER;
        self.child_ended |= process.untold;
    }

    pub(super) fn oldest_is_held(&mut self) {
        if let Some(process) = self.living().first().and_then(|pid| self.processes.get_mut(pid)) {
            process.held = true;
        }
    }

    /// Whoever holds one that has ended lets go of it; whether there was one.
    pub(super) fn one_is_let_go(&mut self) -> bool {
        let let_go = |one: &mut Process| one.ended.is_some() && std::mem::take(&mut one.held);
        let any = self.processes.values_mut().any(let_go);
        self.child_ended |= any;
        any
    }

    pub(in super::super) fn has_ended(&self, pid: i32) -> bool {
        self.processes.get(&pid).is_some_and(|one| one.ended.is_some())
    }

    pub(super) fn newest_forks(&mut self, leaves: bool) {
        let Some(parent) = self.living().last().copied().filter(|pid| !self.processes[pid].stopped) else {
            return;
        };
        self.last_child += 1;
        let pid = self.free_number(self.last_child);
        let Process { session, whose, .. } = self.processes[&parent];
        self.add(pid, parent, if leaves { pid } else { session }, whose);
        if leaves {
            self.ends(parent, 0);
        }
    }

    /// A process ends; its children become the subreaper's. One whose parent is not the worker is collected at once.
    fn ends(&mut self, pid: i32, status: i32) {
        let reaper = if self.subreaper { WORKER } else { INIT };
        let mut orphaned = Vec::new();
        for (child, process) in &mut self.processes {
            if process.parent == pid {
                process.parent = reaper;
                orphaned.push(*child);
            }
        }
        let process = self.processes.get_mut(&pid).unwrap();
        process.ended = Some(status);
        if process.parent == WORKER || process.held {
            // Its tracer is told first.
            self.child_ended |= !process.held;
        } else {
            self.processes.remove(&pid);
        }
    }

    /// The kernel's side of a process that is created for the worker.
    pub(in super::super) fn launches(&mut self, credentials: Option<Credentials>, dies: bool) -> i32 {
        assert!(self.left_at_close.is_none(), "a program starts in a session that is closed");
        let pid = self.free_number(ASKED_FOR);
        self.launched.push((pid, credentials));
        let number = u32::try_from(self.launched.len()).unwrap();
        self.watches.extend(self.next_watch.take().map(|watch| (number, watch)));
        self.add(pid, WORKER, pid, Whose::Tree(number));
        if dies {
            self.ends(pid, 9);
        }
        pid
    }

    /// A signal of the worker's arrives.
    pub(in super::super) fn deliver(&mut self, pid: i32, signal: i32) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        match (process.whose, self.asked) {
            (Whose::Pam, _) => panic!("{signal} for the daemon of a PAM module"),
            (Whose::Outsider, _) => panic!("{signal} for somebody else's process {pid}"),
            (Whose::Tree(tree), Some(Asked::Kill(wanted))) if tree != wanted => {
                panic!("{signal} for {pid} of tree {tree}, and {wanted} was to be killed")
            }
            (Whose::Tree(_), _) => {}
        }
        if process.ended.is_some() {
            return;
        }
        match signal {
            libc::SIGSTOP => process.stopped = true,
            libc::SIGCONT => process.stopped = false,
            // Every other process has a handler.
            libc::SIGHUP if pid % 2 == 1 => {}
            _ => self.ends(pid, signal),
        }
    }

    pub(in super::super) fn children(&self) -> Vec<i32> {
        self.processes.iter().filter(|(_, one)| one.parent == WORKER).map(|(pid, _)| *pid).collect()
    }

    /// The next child that has ended, and is gone then; or one that has stopped, if it is traced.
    pub(in super::super) fn collect(&mut self) -> Option<(i32, i32)> {
        const STOPPED_BY_USR1: i32 = 0x0a7f;
        let stopped = |one: &Process| one.untold && one.ended.is_none();
        if let Some((pid, process)) = self.processes.iter_mut().find(|(_, one)| stopped(one)) {
            process.untold = false;
            return Some((*pid, STOPPED_BY_USR1));
        }
        let ended = |(pid, one): (&i32, &Process)| {
            one.ended.filter(|_| one.parent == WORKER && !one.held).map(|status| (*pid, status))
        };
        let (pid, status) = self.processes.iter().find_map(ended)?;
        self.processes.remove(&pid);
        Some((pid, status))
    }
}
