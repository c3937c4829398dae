//! Creating a process: the plan, the child, the trampoline's report.

pub(crate) mod launch;
pub(crate) mod report;

#[allow(unused_imports)] // the face of this directory
pub(crate) use launch::{Launch, Started, launch};
#[allow(unused_imports)]
pub(crate) use report::{LaunchFault, ReportOutcome, await_report};
