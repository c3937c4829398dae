//! A server that is its own session worker, and one that forgot to be.
//!
//! Without libtest's harness, because `stead::init()` must be the first thing in `main`. Windows has no session
//! workers, and nothing to test here.
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod server;

fn main() {
    #[cfg(target_os = "linux")]
    server::run();
}
