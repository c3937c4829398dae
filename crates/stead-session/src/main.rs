//! The session worker as a small program of its own: see `stead::Logon`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    stead::init();
    eprintln!("stead-session is started by servers that log accounts on, and does nothing by itself");
    ExitCode::FAILURE
}
