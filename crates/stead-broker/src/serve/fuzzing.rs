//! What the service reads of the kernel as functions of bytes, for fuzzers and property tests.

use super::{diag, limits};

/// A decoder's name, and the decoder with what must hold of it.
pub type Target = (&'static str, fn(&[u8]));

/// The decoders.
pub const TARGETS: &[Target] = &[("socket_diagnostics", diag::fuzz), ("proc_limits", limits::fuzz)];
