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
    pub(crate) console: Console,
    pub(crate) profile: bool,
    pub(crate) batch: bool,
}

/// Which console a process has; never the server's, whose input whoever holds it could write.
///
/// Reference: [Creation of a Console](https://learn.microsoft.com/windows/console/creation-of-a-console).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[doc(alias = "CREATE_NO_WINDOW")]
#[doc(alias = "CREATE_NEW_CONSOLE")]
#[non_exhaustive]
pub enum Console {
    /// One of its own without a window.
    #[default]
    NoWindow,
    /// One of its own, with a window on the process's desktop. Where the command sets no standard stream, they are
    /// the console's; where it sets one, the others are null.
    New,
    /// The same, its window hidden until the program shows it.
    Hidden,
}

/// `*_PRIORITY_CLASS`; without one a process would inherit a low one of its creator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PriorityClass(pub(crate) u32);

impl Default for PriorityClass {
    fn default() -> Self {
        Self(windows_sys::Win32::System::Threading::NORMAL_PRIORITY_CLASS)
    }
}
