//! Creating the child, and laying out before what it will do.

use std::ffi::{CString, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use stead_trampoline::report::Step;
use stead_trampoline::spec::Spec;
use stead_trampoline::syscall::{capabilities, prctl, process_control};

use super::child_start::{ChildStart, Cloned, Move, clone};
use super::image::image;
use super::known::known;
use super::low_slot::{LOW, Slot};
use super::report::{LaunchFault, prepare, stage_of};
use crate::process::Stage;

/// Everything that a new process is created from.
#[derive(Debug)]
pub(crate) struct Launch {
    /// What the trampoline does.
    pub(crate) spec: Spec,
    /// The program's arguments, at least `argv[0]`.
    pub(crate) argv: Vec<CString>,
    /// The program's environment.
    pub(crate) envp: Vec<CString>,
    /// The descriptors of the process and their numbers there; 0, 1 and 2 must be among them.
    pub(crate) descriptors: Vec<(OwnedFd, u32)>,
    /// The cgroup that the process is created in.
    pub(crate) cgroup: Option<OwnedFd>,
}

impl Launch {
    /// Adds the report pipe's writing end, and the gate's reading end for a suspended start, under
    /// numbers that no other descriptor of the process has, and notes them in the spec.
    pub(crate) fn attach(&mut self, report: OwnedFd, gate: Option<OwnedFd>) {
        self.spec.report = self.free_number();
        self.descriptors.push((report, self.spec.report));
        self.spec.gate = None;
        if let Some(gate) = gate {
            let number = self.free_number();
            self.spec.gate = Some(number);
            self.descriptors.push((gate, number));
        }
    }

    /// The lowest number above the standard ones that is not taken: a small table costs less.
    fn free_number(&self) -> u32 {
        let taken = |number: &u32| self.descriptors.iter().any(|(_, target)| target == number);
        (3..=u32::MAX).find(|number| !taken(number)).expect("fewer descriptors than numbers")
    }
}

/// A process that has been created; whether its program runs is for the report to say.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// Does what is done once, before the first process is to be created. What fails is tried again then, and said.
pub(crate) fn prepare_to_launch() {
    let _ = image();
    let _ = known();
}

/// Creates the process.
///
/// The caller closes the descriptors in `launch` (by dropping it) before it waits for the report, or end
/// of file never comes.
pub(crate) fn launch(launch: &Launch) -> Result<Started, LaunchFault> {
    let image = image()?;
    check(launch).map_err(prepare)?;
    let prefix = launch.spec.encode_knowing(known());
    let argv = pointers(prefix.iter().chain(&launch.argv));
    let envp = pointers(launch.envp.iter());
    let raise = capabilities_to_raise(launch.spec.credentials.is_none()).map_err(prepare)?;
    let placement = Placement::plan(launch, image).map_err(prepare)?;
    let Placement { below, slot, moves, above } = placement;
    let number = slot.as_ref().map_or(-1, Slot::number);
    let mut start = ChildStart { below, slot: number, moves, above, raise, argv, envp, failed: 0, errno: 0 };

    let cloned = clone(&mut start, launch.cgroup.as_ref().map(AsFd::as_fd));
    if let Some(slot) = slot {
        // Where the call failed, or the child was killed too soon, something is left in it.
        let received = start.moves.iter().all(|one| one.source >= 0);
        slot.put_back(received);
    }
    let Cloned { pid, pidfd } = cloned.map_err(|errno| {
        let full = matches!(errno, Errno::AGAIN | Errno::NOMEM);
        let stage = if launch.cgroup.is_some() && !full { Stage::Cgroup } else { Stage::Clone };
        LaunchFault { stage, errno, detail: 0 }
    })?;
    if let Some(step) = Step::from_number(start.failed) {
        collect(pidfd.as_fd());
        let errno = Errno::from_raw_os_error(start.errno);
        return Err(LaunchFault { stage: stage_of(step), errno, detail: 0 });
    }
    Ok(Started { pid, pidfd })
}

/// What would surprise the trampoline.
fn check(launch: &Launch) -> Result<(), Errno> {
    // Without an argument at all the program would read its environment as arguments (CVE-2021-4034).
    if launch.argv.is_empty() {
        return Err(Errno::INVAL);
    }
    // A process without them opens its files there, and writes messages into them.
    let has = |number: u32| launch.descriptors.iter().any(|(_, target)| *target == number);
    if !(has(0) && has(1) && has(2) && has(launch.spec.report)) {
        return Err(Errno::BADF);
    }
    let mut targets: Vec<u32> = launch.descriptors.iter().map(|(_, target)| *target).collect();
    targets.sort_unstable();
    let twice = targets.windows(2).any(|pair| pair[0] == pair[1]);
    if twice { Err(Errno::INVAL) } else { Ok(()) }
}

fn pointers<'a>(strings: impl Iterator<Item = &'a CString>) -> Vec<*const c_char> {
    strings.map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// A server that is not root loses its capabilities when it executes, unless they are ambient. What is
/// enabled goes to a client's process, all that is held to a session worker.
fn capabilities_to_raise(all: bool) -> Result<u64, Errno> {
    const NOROOT: usize = 1;
    let securebits = process_control(prctl::GET_SECUREBITS, 0, 0).map_err(Errno::from_raw_os_error)?;
    if rustix::process::geteuid().is_root() && securebits & NOROOT == 0 {
        return Ok(0);
    }
    let now = capabilities().map_err(Errno::from_raw_os_error)?;
    Ok(if all { now.permitted } else { now.effective })
}

/// How the child's descriptors get where they belong.
struct Placement {
    below: i32,
    slot: Option<Slot>,
    moves: Vec<Move>,
    above: i32,
}

impl Placement {
    fn plan(launch: &Launch, image: BorrowedFd<'_>) -> Result<Self, Errno> {
        let target = |number: u32| i32::try_from(number).map_err(|_| Errno::BADF);
        let mut moves = Vec::with_capacity(launch.descriptors.len() + 1);
        let mut sources = Vec::with_capacity(launch.descriptors.len() + 1);
        for (source, number) in &launch.descriptors {
            moves.push(Move { source: source.as_raw_fd(), target: target(*number)? });
            sources.push(source.as_fd());
        }
        moves.push(Move { source: image.as_raw_fd(), target: -1 });
        sources.push(image);
        let highest = |moves: &[Move], limit: i32| {
            moves.iter().map(|one| one.source).filter(|source| *source < limit).max().unwrap_or(0)
        };
        let above =
            moves.iter().map(|one| one.target).max().unwrap_or(2).checked_add(1).ok_or(Errno::BADF)?;
        let mut below = highest(&moves, i32::MAX) + 1;
        let mut slot = None;
        if below > LOW {
            let candidate = Slot::take()?;
            let cut = LOW.max(candidate.number() + 1);
            if cut < below {
                let high: Vec<BorrowedFd<'_>> =
                    sources.into_iter().filter(|one| one.as_raw_fd() >= cut).collect();
                if let Err(errno) = candidate.send(&high) {
                    candidate.put_back(false);
                    return Err(errno);
                }
                below = highest(&moves, cut).max(candidate.number()) + 1;
                for one in moves.iter_mut().filter(|one| one.source >= cut) {
                    one.source = -1;
                }
                slot = Some(candidate);
            } else {
                candidate.put_back(true); // it is as high as what it should carry
            }
        }
        Ok(Self { below, slot, moves, above })
    }
}

/// Collects a child that ended before it was anybody's. It is on its way out and cannot be stopped; where
/// the server ignores SIGCHLD or another thread reaps everything, there is nothing to collect.
fn collect(pidfd: BorrowedFd<'_>) {
    // The raw flag for children of any kind: harmless for ours, whose exit signal is SIGCHLD.
    let options = WaitIdOptions::EXITED;
    while let Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd), options) {}
}
