//! The desktop helper: a window station that is not the server's own, reached by the same program once more.
//!
//! Without libtest's harness, because `stead::init()` must be the first thing in `main`.
#![forbid(unsafe_code)]

#[cfg(windows)]
mod server;

fn main() {
    #[cfg(windows)]
    server::run();
}
