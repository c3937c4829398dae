//! The security label under which a program runs, with a security module that keeps labels.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod process_support;

use process_support::*;
use stead::os::linux::CommandExt;
use stead::{Command, Stdio};

/// A profile of AppArmor's that `cargo xtask test --in machine` loads: to load one elsewhere would change the machine.
const PROFILE: &str = "stead-test-label";

#[test]
fn a_program_runs_under_the_label_that_is_asked_for_or_not_at_all() {
    let bed = testbed::require!();
    let loaded = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    if !loaded.lines().any(|line| line.split(' ').next() == Some(PROFILE)) {
        testbed::skip!("needs AppArmor with the profile {PROFILE}: cargo xtask test --in machine");
    }
    let alice = token(bed, "alice");
    let label_of = |label: Option<&str>| {
        let mut command = Command::new("cat");
        command.arg("/proc/self/attr/current").stdout(Stdio::piped());
        if let Some(label) = label {
            command.exec_label(label);
        }
        command.output_as(&alice).map(|output| String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(label_of(None).unwrap(), "unconfined\n");
    // As a person writes it, as AppArmor shows it, and as AppArmor takes it.
    for label in [PROFILE, "stead-test-label (enforce)", "exec stead-test-label"] {
        assert_eq!(label_of(Some(label)).unwrap(), "stead-test-label (enforce)\n", "{label}");
    }
    let error = label_of(Some("stead-no-such-profile")).unwrap_err();
    assert!(error.to_string().contains("label"), "{error}");
}
