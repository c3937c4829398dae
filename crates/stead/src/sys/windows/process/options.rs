//! What only Windows has of a command.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::windows::io::OwnedHandle;

use super::JobLimits;

/// The settings of [`CommandExt`](crate::os::windows::CommandExt).
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) raw_tail: Option<OsString>,
    pub(crate) priority: PriorityClass,
    pub(crate) limits: JobLimits,
    pub(crate) kill_on_close: bool,
    pub(crate) handles: Vec<OwnedHandle>,
}

/// `*_PRIORITY_CLASS`; without one a process would inherit a low one of its creator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PriorityClass(pub(crate) u32);

impl Default for PriorityClass {
    fn default() -> Self {
        Self(windows_sys::Win32::System::Threading::NORMAL_PRIORITY_CLASS)
    }
}
