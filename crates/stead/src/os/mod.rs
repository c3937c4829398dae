//! What only one platform has.

#[cfg(target_os = "linux")]
pub mod linux;
