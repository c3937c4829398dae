//! The service without the command: what its tests start, and what `stead serve` does.
//!
//! `serve_alone SOCKET POLICY STATE AUDIT` listens at SOCKET with the policy in the folder POLICY.

use std::path::PathBuf;

use stead_broker::serve::{Options, ServeError, init, run};

fn main() -> Result<(), ServeError> {
    init();
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let mut options = Options::default();
    for place in [&mut options.socket, &mut options.policy, &mut options.state] {
        *place = arguments.next().unwrap_or_else(|| place.clone());
    }
    options.audit.file = arguments.next();
    run(options)
}
