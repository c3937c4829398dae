//! What the service reads of the kernel as functions of bytes, for fuzzers and property tests; and a call that fails as
//! only an error in the service itself can.

use std::sync::LazyLock;

use stead_protocol::Request;

use super::{diag, limits};

/// Names the method whose calls panic.
const PANIC: &str = "STEAD_TEST_PANIC";

pub(super) fn panic_if_asked(request: &Request) {
    static METHOD: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(PANIC).ok());
    assert_ne!(METHOD.as_deref(), Some(request.method()), "a panic that a test asked for");
}

/// A decoder's name, and the decoder with what must hold of it.
pub type Target = (&'static str, fn(&[u8]));

/// The decoders.
pub const TARGETS: &[Target] = &[("socket_diagnostics", diag::fuzz), ("proc_limits", limits::fuzz)];
