//! Every decoder of the project as a function of bytes, by name.
//!
//! Two things call them: `cargo xtask fuzz`, guided by what they cover, and the property tests of this
//! crate, on every machine. The corpora are in `fuzz/corpus`.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod policy;
mod service;

/// A decoder, with what must hold of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Panics when something does not hold; refusing the bytes is no failure.
    pub check: fn(&[u8]),
}

/// Every decoder.
pub fn targets() -> Vec<Target> {
    let all = stead::fuzzing::TARGETS.iter().chain(service::TARGETS).chain(policy::TARGETS);
    let all = all.chain(stead_broker::serve::fuzzing::TARGETS);
    all.map(|&(name, check)| Target { name, check }).collect()
}

/// Gives the bytes to the decoder of this name.
///
/// # Panics
/// When there is no such decoder, and when what must hold of it does not.
pub fn check(name: &str, data: &[u8]) {
    let target = targets().into_iter().find(|target| target.name == name);
    (target.expect("a decoder of this name").check)(data);
}
