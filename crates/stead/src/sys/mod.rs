//! The native backends. All of the crate's unsafe code is here.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(windows)]
pub(crate) use windows::*;

// Pure code of the Windows backend, whose properties are tested everywhere.
#[cfg(all(any(test, feature = "fuzzing"), not(windows)))]
#[allow(dead_code)]
#[path = "windows/dacl/mod.rs"]
mod dacl;
#[cfg(all(any(test, feature = "fuzzing"), not(windows)))]
#[allow(dead_code)]
#[path = "windows/sid.rs"]
mod sid;
