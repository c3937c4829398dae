//! The service that creates processes in a client's security context for servers that have no privileges.
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
pub mod audit;
#[cfg(target_os = "linux")]
pub mod policy;
#[cfg(target_os = "linux")]
pub mod serve;
#[cfg(target_os = "linux")]
pub mod throttle;
