//! What a process may do to the worker of its logon session, and another of its user's from outside.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod logon_support;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use logon_support::*;
use stead::{Child, Command, ErrorKind, LogonSession, Stdio};
use testbed::{Bed, until};

/// How soon it has to be over: not after what ends by being given up.
const SOON: Duration = Duration::from_secs(15);

/// Starts the trick.
fn played(bed: &Bed, session: &LogonSession, trick: &[&str]) -> Child {
    let mut command = Command::new(bed.bin("testbed-client"));
    command.arg("trick").args(trick).stdout(Stdio::piped());
    let mut child = command.spawn_as(session.token()).unwrap_or_else(|error| panic!("{error}"));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.trim() != "ready" {
        testbed::skip_test(format_args!("the kernel does not let a process do this here: {line}"))
    }
    child
}

#[test]
fn a_session_is_logged_off_also_where_a_process_outside_of_it_traces_one_of_its() {
    let bed = testbed::require!();
    let outside = session(bed, "alice");
    for (host, terminated) in [("traced.example", false), ("terminated.example", true)] {
        let session = from(logon(bed, "alice"), host).opened().unwrap();
        let mut traced = played(bed, &session, &["lets-trace"]);
        let pid = traced.id().to_string();
        let mut tracer = played(bed, &outside, &["trace", &pid]);
        let begun = Instant::now();
        if terminated {
            session.terminate().unwrap();
            // It has ended; how, its tracer is told first. Where the kernel does not say who has been told (before 6.15), and
            // the worker has gone, it may as well be lost.
            let error = traced.wait().unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::DeadlinePassed { .. } | ErrorKind::StatusLost),
                "{error}"
            );
        }
        drop(traced);
        session.log_off().unwrap();
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert!(phases(bed, host).contains(&"close_session".to_owned()));
        assert!(Path::new("/proc").join(&pid).exists(), "its tracer has let go of it");
        tracer.kill().unwrap();
        tracer.wait().unwrap();
    }
    outside.log_off().unwrap();
}

#[test]
fn a_process_of_a_session_that_stops_for_the_worker_has_not_ended() {
    let bed = testbed::require!();
    let session = session(bed, "alice");
    let mut child = played(bed, &session, &["traced-stop"]);
    let stat = format!("/proc/{}/stat", child.id());
    let state = || std::fs::read_to_string(&stat).unwrap().rsplit_once(") ").unwrap().1.chars().next();
    until("it has stopped", || state() == Some('t'));
    // The worker collects what there is.
    assert!(Command::new("true").status_as(session.token()).unwrap().success());
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    session.log_off().unwrap();
}
