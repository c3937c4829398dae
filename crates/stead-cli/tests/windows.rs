//! The command on Windows.
#![cfg(windows)]
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::{Command, Stdio};

/// The program as cargo built it: one folder above the tests.
fn stead(arguments: &[&str]) -> Command {
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new(own.parent().unwrap().parent().unwrap().join("stead.exe"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = stead(arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn a_program_as_oneself_prints_and_ends_as_it_does_by_itself() {
    for code in ["0", "7", "255"] {
        let script = format!("echo printed& exit {code}");
        let output = stead(&["run", "--", "cmd.exe", "/c", &script]).output().unwrap();
        assert_eq!(output.status.code().unwrap().to_string(), code, "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("printed"), "{output:?}");
    }
    let missing = stead(&["run", "--", "no-such-program-anywhere.exe"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
    let unknown = stead(&["run", "--as", "alice", "--", "cmd.exe"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(125), "{unknown:?}");
}

#[test]
fn whoami_is_the_token_of_this_process() {
    use stead::os::windows::TokenExt;
    let own = stead::Token::current().unwrap();
    let seen = json(&["whoami", "--json"]);
    assert_eq!(seen["user"], own.user_sid().to_string());
    assert_eq!(seen["groups"].as_array().unwrap().len(), own.groups().len());
    assert_eq!(json(&["privileges", "--json"]).as_array().unwrap().len(), stead::Privilege::ALL.len());
    assert!(json(&["doctor", "--json"])["findings"].as_array().unwrap().len() > 3);
}

#[test]
fn what_has_no_meaning_here_is_not_in_the_help() {
    let help = |arguments: &[&str]| String::from_utf8(stead(arguments).output().unwrap().stdout).unwrap();
    let all = help(&["--help"]);
    for absent in ["serve", "token", "sessions", "policy", "man ", "monitor"] {
        assert!(!all.contains(&format!("  {absent}")), "{absent}: {all}");
    }
    let run = help(&["run", "--help"]);
    assert!(!run.contains("--pty") && !run.contains("--limit") && run.contains("--password-stdin"), "{run}");
}
