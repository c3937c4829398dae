//! Creating a process: the plan, the child, the trampoline's report; and what is done with it while it runs.

mod abandoned;
#[cfg(feature = "tokio")]
pub(crate) mod asynchronous;
mod capture;
mod cgroup;
mod check;
mod environment;
mod leased;
mod options;
mod parent;
mod plan;
mod posix_session;
pub(crate) mod pty;
mod running;
mod status;
mod strays;
mod traced;

mod child_start;
mod image;
mod kept;
mod known;
pub(crate) mod launch;
#[cfg(test)]
mod launch_tests;
pub(crate) mod low_slot;
pub(crate) mod report;

pub use crate::sys::limit::Limit;
pub(crate) use abandoned::{Remains, leave, reap_within, sweep};
pub(crate) use capture::read_both;
pub use cgroup::Cgroup;
pub(crate) use cgroup::{is_populated, of_process as cgroup_of};
pub(crate) use image::occupy_low_descriptors;
pub(crate) use known::only_ignores;
pub(crate) use options::Options;
pub(crate) use plan::{Parts, Plan};
pub(crate) use posix_session::{living_member, session_of, start_time};
pub(crate) use running::{Names, Running, send_signal, send_signal_to_group};
pub(crate) use traced::has_ended;

#[allow(unused_imports)] // the face of this directory
pub(crate) use launch::{Launch, Started, launch, prepare_to_launch};
#[allow(unused_imports)]
pub(crate) use report::{Awaited, LaunchFault, ReportOutcome, await_report, raw as told_errno};

/// The environment of a logon session's processes, before a server adds to it.
pub(crate) fn environment_block(
    account: &super::account::AccountEntry,
    pam: &[std::ffi::CString],
) -> Vec<std::ffi::CString> {
    environment::Environment::of(account.uid, Some(account), pam).into_block()
}
