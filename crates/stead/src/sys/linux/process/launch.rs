//! Creating the child.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use stead_trampoline::spec::Spec;

use super::report::LaunchFault;
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
        (3..).find(|number| !taken(number)).expect("fewer descriptors than numbers")
    }
}

/// A process that has been created; whether its program runs is for the report to say.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// Creates the process.
///
/// The caller closes the descriptors in `launch` (by dropping it) before it waits for the report, or end
/// of file never comes.
pub(crate) fn launch(_launch: &Launch) -> Result<Started, LaunchFault> {
    Err(LaunchFault { stage: Stage::Clone, errno: Errno::NOSYS, detail: 0 })
}
