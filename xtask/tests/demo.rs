//! The demo in each place where it must work, as a program reads it.

#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs `xtask demo --json` by way of `command`, and gives its lines.
fn demo(mut command: Command) -> Vec<Value> {
    let output = command
        .args(["demo", "--json"])
        .env("STEAD_PROGRAMS", "/run/programs")
        .current_dir("/")
        .output()
        .unwrap();
    let (text, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}\n{said}", output.status);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A bed within the bed takes every right there is.
macro_rules! only_in_a_bed_of_root {
    ($bed:expr) => {
        if $bed.mode() != testbed::Mode::Namespaces {
            testbed::skip!("a bed within the bed can only be made in one of root's");
        }
    };
}

fn shows_everything(lines: &[Value]) {
    for procedure in ["logon", "impersonate"] {
        let shown = lines.iter().find(|line| line["procedure"] == procedure).unwrap();
        for part in ["server", "client", "process"] {
            for key in ["uid", "gid", "groups", "capeff", "no_new_privs", "session_id"] {
                assert!(!shown[part][key].is_null(), "{part} {key} in {shown}");
            }
        }
        for key in ["uid", "gid", "groups", "capeff", "no_new_privs"] {
            assert_eq!(shown["process"][key], shown["client"][key], "{key} in {shown}");
        }
        assert_ne!(shown["process"]["uid"], shown["server"]["uid"]);
        assert_eq!(shown["process"]["capeff"], "0000000000000000");
        assert_eq!(shown["process"]["session_id"], shown["process"]["pid"]);
    }
    if Path::new("/usr/bin/Xvfb").exists() {
        let attempts: Vec<(&str, bool)> = lines
            .iter()
            .filter(|line| line["desktop"] == "attempt")
            .map(|line| (line["who"].as_str().unwrap(), line["let_in"].as_bool().unwrap()))
            .collect();
        let expected = [
            ("alice, before", false),
            ("alice, in the logon session of her program", true),
            ("alice, in her other logon session", false),
            ("bob", false),
            ("alice, after", false),
        ];
        assert_eq!(attempts, expected);
        let window = lines.iter().find(|line| line["desktop"] == "window").unwrap();
        assert!(window["pixels"].as_u64().unwrap() > 0, "{window}");
        assert_eq!(lines.iter().find(|line| line["desktop"] == "end").unwrap()["holds"], true);
    } else {
        assert!(lines.iter().any(|line| line["note"].as_str().is_some_and(|note| note.contains("xvfb"))));
    }
    let refused: Vec<&Value> = lines.iter().filter(|line| line.get("refused").is_some()).collect();
    assert!(refused.len() >= 8, "{refused:?}");
    assert!(refused.iter().all(|line| line["error"].as_str().is_some_and(|error| !error.is_empty())));
    let confined =
        |line: &&&Value| line["refused"].as_str().is_some_and(|what| what.contains("no_new_privs"));
    assert!(refused.iter().find(confined).unwrap()["error"].as_str().unwrap().contains("no_new_privs"));
}

#[test]
fn by_root_the_demo_shows_both_procedures_a_desktop_and_what_is_refused() {
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    shows_everything(&demo(bed.confined(&["--empty-run"], "/run/programs/xtask")));
}

#[test]
fn by_an_ordinary_user_in_a_user_namespace_it_shows_the_same() {
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    if !Path::new("/usr/bin/newuidmap").exists() {
        testbed::skip!("newuidmap is not installed (apt-get install uidmap)");
    }
    let svc = bed.user("svc");
    let mut command = bed.confined(&["--empty-run"], "setpriv");
    command.args([&format!("--reuid={}", svc.uid), &format!("--regid={}", svc.gid)]);
    command.args(["--init-groups", "--inh-caps=-all", "--", "/run/programs/xtask"]).env("HOME", &svc.home);
    shows_everything(&demo(command));
}

#[test]
fn in_an_ordinary_container_it_shows_the_same_and_says_what_cannot_be_verified() {
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    let lines = demo(bed.container("/run/programs/xtask"));
    shows_everything(&lines);
    let notes: Vec<&str> = lines.iter().filter_map(|line| line["note"].as_str()).collect();
    assert!(notes.iter().any(|note| note.contains("CAP_SYS_PTRACE")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("taken away again")), "{notes:?}");
}
