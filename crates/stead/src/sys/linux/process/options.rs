//! What only Linux has of a command.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use super::cgroup::Cgroup;
use crate::sys::limit::Limit;
use crate::sys::token::CapabilitySet;

/// The settings of [`CommandExt`](crate::os::linux::CommandExt).
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) arg0: Option<OsString>,
    pub(crate) descriptors: Vec<(OwnedFd, u32)>,
    pub(crate) umask: Option<u32>,
    pub(crate) nice: Option<i32>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) limits: Vec<(Limit, u64, u64)>,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) no_new_privs: bool,
    pub(crate) ambient: CapabilitySet,
    pub(crate) exec_label: Option<Vec<u8>>,
    pub(crate) job_control: bool,
}
