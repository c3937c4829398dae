//! Throw-away users, PAM stack, homes and clients for the demo and the tests.
//!
//! The *bed* is a place of its own, made for one run: private mount and PID namespaces with users, passwords,
//! PAM services and homes that exist nowhere else, and that end with it. Nothing of the host changes.
//! Where namespaces may not be made (an ordinary container), users are made in the container's own account files
//! and taken away again.
//!
//! A test asks for it and is skipped outside:
//!
//! ```no_run
//! # fn a_test() {
//! let bed = testbed::require!();
//! let alice = bed.user("alice");
//! let seen = bed.control_setpriv("alice");
//! assert_eq!(seen.uid.real, alice.uid);
//! # }
//! ```
//!
//! `cargo xtask test` makes the bed once and runs every test in a process of its own inside.

#[cfg(target_os = "linux")]
mod accounts;
#[cfg(target_os = "linux")]
mod bed;
#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
pub mod confine;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
pub mod display;
#[cfg(target_os = "linux")]
mod enter;
#[cfg(target_os = "linux")]
pub mod logind;
#[cfg(target_os = "linux")]
mod pam;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
pub mod wayland;
#[cfg(target_os = "linux")]
pub mod window;
#[cfg(windows)]
pub mod windows;

#[cfg(target_os = "linux")]
pub use {
    accounts::User,
    bed::{Bed, Mode, PamEvent, ROOT},
    client::{ClientBuilder, RunningClient},
    enter::{EnterOptions, Entry, enter, run_stage_if_asked},
    probe::{Capabilities, Ids, Keyring, Limit, Probe, Scheduling, Signals},
};

/// Ends the test as skipped, from wherever it is: prints `skipped: REASON` and ends the process, which under the runner
/// holds this one test.
pub fn skip_test(reason: impl std::fmt::Display) -> ! {
    println!("\nskipped: {reason}");
    std::process::exit(0);
}

/// Ends the test as skipped where the process that played a part of it, and ended well, says that it was: `output` is
/// its standard output.
pub fn skip_if_skipped(output: &[u8]) {
    let text = String::from_utf8_lossy(output);
    if let Some(reason) = text.lines().find_map(|line| line.strip_prefix("skipped: ")) {
        skip_test(reason);
    }
}

/// Prints `skipped: REASON` on a line of its own, which is what the runner counts, and returns from the test.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        println!("\nskipped: {}", format_args!($($reason)+));
        return;
    }};
}

/// The bed this test runs in, as `&'static Bed`; outside one the test prints that it was skipped, and returns.
///
/// `require!()` shares the bed with the tests that run at the same time. `require!(alone)` has it for itself
/// until the test's process ends, for tests that count processes or change the account files.
#[macro_export]
macro_rules! require {
    () => {
        match $crate::Bed::shared() {
            Some(bed) => bed,
            None => $crate::skip!("needs the testbed: run it with `cargo xtask test`"),
        }
    };
    (alone) => {
        match $crate::Bed::alone() {
            Some(bed) => bed,
            None => $crate::skip!("needs the testbed: run it with `cargo xtask test`"),
        }
    };
}

/// Lets this test take longer than the runner's usual limit of 120 seconds.
#[macro_export]
macro_rules! time_limit {
    ($seconds:expr) => {
        println!("\ntestbed: time limit {} s", $seconds)
    };
}
