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
mod linux;
#[cfg(windows)]
pub mod windows;

#[cfg(target_os = "linux")]
pub use linux::*;

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

/// Runs tests as a program with libtest's `main` would, as far as the runner asks for it: `--list`, and those that are
/// named. For a program whose `main` must be its own.
pub fn run_tests(tests: &[(&str, fn())]) {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if has("--list") {
        for (name, _) in tests.iter().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return;
    }
    let names: Vec<&String> = arguments[1..].iter().filter(|argument| !argument.starts_with('-')).collect();
    for (name, test) in tests {
        if names.is_empty() || names.iter().any(|wanted| name.contains(wanted.as_str())) {
            test();
        }
    }
}

/// Waits until something holds, for a minute at most, or as many as `STEAD_SLOW` says; nothing is ever measured.
///
/// # Panics
///
/// When it never does.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let minutes = std::env::var("STEAD_SLOW").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(1);
    for _ in 0..minutes * 6000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it never came to pass that {what}");
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
