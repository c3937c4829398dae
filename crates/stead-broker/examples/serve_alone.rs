//! The service without the command: what its tests start, and what `stead serve` does.
//!
//! `serve_alone SOCKET POLICY STATE AUDIT` listens at SOCKET with the policy in the folder POLICY. A further
//! `no-ready-workers` lets it start no session worker before a logon.

use std::path::PathBuf;
use std::process::ExitCode;

use stead_broker::serve::{Options, init, run};

fn main() -> ExitCode {
    init();
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let mut options = Options::default();
    for place in [&mut options.socket, &mut options.policy, &mut options.state] {
        *place = arguments.next().unwrap_or_else(|| place.clone());
    }
    options.audit.file = arguments.next();
    options.ready_workers = arguments.next().is_none_or(|last| last.as_os_str() != "no-ready-workers");
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
