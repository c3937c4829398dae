//! Creating a process: the plan, the call, the read-back; and what is done with it while it runs.

#[cfg(feature = "tokio")]
pub(crate) mod asynchronous;
mod create;
pub(crate) mod environment;
mod job;
mod leased;
mod options;
mod plan;
mod profile;
mod quote;
mod running;
mod search;
mod start;
mod stdio;
#[cfg(test)]
mod tests;

pub(crate) use job::Job;
pub use job::JobLimits;
pub use options::Console;
pub(crate) use options::{Options, PriorityClass};
pub(crate) use plan::{Parts, Plan};
pub(crate) use running::{Running, explain, read_both};
