//! The session's processes, as `/proc` tells them.
//!
//! A child of the worker keeps its pid until the worker waits for it, so it can be signalled by pid. A
//! process further down may be reaped by its own parent at any time: it is pinned by pidfd first, and its
//! parentage read again afterwards (CVE-2017-2616).
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};

use crate::sys::proc::children_of;

/// The worker's own children.
pub(super) fn children() -> io::Result<Vec<i32>> {
    children_of(rustix::process::getpid())
}

/// Everything that descends from `roots`, they themselves included.
pub(super) fn descendants(roots: impl IntoIterator<Item = i32>) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut unread: Vec<i32> = roots.into_iter().collect();
    while let Some(raw) = unread.pop() {
        if let Some(pid) = Pid::from_raw(raw)
            && found.insert(raw)
        {
            unread.extend(children_of(pid).unwrap_or_default());
        }
    }
    found
}

/// The session (`setsid(2)`) of a process.
pub(super) fn session_of(pid: i32) -> Option<i32> {
    crate::sys::process::session_of(Pid::from_raw(pid)?).map(|session| session.as_raw_nonzero().get())
}

/// When a process started, in clock ticks since boot.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    crate::sys::process::start_time(Pid::from_raw(pid)?)
}

/// Whether a child of the worker's lives no more; it need not be possible to collect it.
pub(super) fn has_ended(child: i32) -> bool {
    let pinned = Pid::from_raw(child)
        .and_then(|pid| Some((pid, rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?)));
    pinned.is_some_and(|(pid, pidfd)| crate::sys::process::has_ended(pid, pidfd.as_fd()))
}

/// Signals processes of the tree.
pub(super) fn signal(pids: &BTreeSet<i32>, signal: Signal) {
    let own = children().unwrap_or_default();
    for raw in pids {
        let Some(pid) = Pid::from_raw(*raw) else { continue };
        if own.contains(raw) {
            let _ = rustix::process::kill_process(pid, signal);
            continue;
        }
        let Ok(pinned) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if parent(pid).is_some_and(|parent| pids.contains(&parent) || own.contains(&parent)) {
            let _ = rustix::process::pidfd_send_signal(&pinned, signal);
        }
    }
}

fn parent(pid: Pid) -> Option<i32> {
    crate::sys::proc::parse_parent(&fs::read(format!("/proc/{pid}/status")).ok()?)
}

/// Kills the worker's children but those in `spared`; what they leave behind becomes the worker's children
/// and is killed the next time. They cannot create any more processes meanwhile.
pub(super) fn kill_children(spared: &BTreeSet<i32>) {
    for raw in children().unwrap_or_default() {
        if spared.contains(&raw) {
            continue;
        }
        let Some(pid) = Pid::from_raw(raw) else { continue };
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        let _ = rustix::process::prlimit(Some(pid), Resource::Nproc, none);
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}
