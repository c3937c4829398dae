//! The session's processes, as the model has them.

use std::collections::BTreeSet;
use std::io;

use rustix::process::Signal;

use super::host;
use super::world::{Event, WORKER, World, is_on, world};

fn read(world: &mut World) -> io::Result<Vec<i32>> {
    if world.turn() == Some(Event::Fails) { Err(host::fails()) } else { Ok(world.children()) }
}

pub(super) fn children() -> io::Result<Vec<i32>> {
    // A logon alone has none.
    if is_on() { world(read) } else { Ok(Vec::new()) }
}

pub(super) fn descendants(roots: impl IntoIterator<Item = i32>) -> BTreeSet<i32> {
    let mut unread: Vec<i32> = roots.into_iter().collect();
    let mut found = BTreeSet::new();
    world(|world| {
        while let Some(pid) = unread.pop() {
            if found.insert(pid) {
                unread
                    .extend(world.processes.iter().filter(|(_, one)| one.parent == pid).map(|(pid, _)| *pid));
            }
        }
    });
    found
}

pub(super) fn session_of(pid: i32) -> Option<i32> {
    world(|world| {
        let failed = world.turn() == Some(Event::Fails);
        world.processes.get(&pid).filter(|_| !failed).map(|one| one.session)
    })
}

pub(super) fn start_time(pid: i32) -> Option<u64> {
    world(|world| {
        let failed = world.turn() == Some(Event::Fails);
        world.processes.get(&pid).filter(|_| !failed).map(|one| one.started)
    })
}

pub(super) fn has_ended(child: i32) -> bool {
    world(|world| world.turn() != Some(Event::Fails) && world.has_ended(child))
}

pub(super) fn signal(pids: &BTreeSet<i32>, signal: Signal) {
    for pid in pids {
        world(|world| {
            let event = world.turn();
            // As the real one: what is further down is pinned, and its parent looked at again.
            let parent = world.processes.get(pid).map(|one| one.parent);
            let known = parent.is_some_and(|parent| parent == WORKER || pids.contains(&parent));
            if known && event != Some(Event::Fails) && event != Some(Event::Lies) {
                world.deliver(*pid, signal.as_raw());
            }
        });
    }
}

pub(super) fn kill_children(spared: &BTreeSet<i32>) {
    for pid in children().unwrap_or_default() {
        if !spared.contains(&pid) {
            world(|world| {
                let event = world.turn();
                if event != Some(Event::Fails) && event != Some(Event::Lies) {
                    world.deliver(pid, libc::SIGKILL);
                }
            });
        }
    }
}
