//! The asynchronous face of commands and children.

#![cfg(target_os = "linux")]
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod process_support;

use std::future::Future;
use std::time::Duration;

use process_support::*;
use stead::{Command, ErrorKind, Stdio};

fn run<R>(work: impl Future<Output = R>) -> R {
    // One thread: anything that blocked it would block all the rest.
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn output_and_status_come_without_blocking_the_runtime() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    run(async {
        let script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 3";
        let output = shell(script).output_as_async(&token).await.unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (3_000_000, 3_000_000));
        assert_eq!(output.status.code(), Some(3));
        assert!(Command::new("true").status_as_async(&token).await.unwrap().success());
        let missing = Command::new("/nowhere").status_as_async(&token).await.unwrap_err();
        assert!(matches!(missing.kind(), ErrorKind::ProgramNotFound { .. }), "{missing}");
    });
    assert!(zombies().is_empty());
}

#[test]
fn a_wait_that_is_given_up_loses_nothing() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    run(async {
        let mut command = Command::new("sleep");
        let mut child = command.arg("1000").stdin(Stdio::null()).spawn_as_async(&token).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(5), child.wait_async()).await.is_err());
        child.kill().unwrap();
        let status = child.wait_async().await.unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert_eq!(child.wait_async().await.unwrap(), status);
    });
}

#[test]
fn a_process_that_has_its_server_trace_a_thread_of_it_ends_for_who_waits_asynchronously() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    run(async {
        let mut command = Command::new(bed.bin("testbed-client"));
        command.args(["trick", "traced-thread", "ends"]).stdout(Stdio::piped());
        let mut child = command.spawn_as_async(&token).await.unwrap();
        // Sooner than the runtime ends the thread that has created it.
        let ended = tokio::time::timeout(Duration::from_secs(5), child.wait_async()).await;
        assert_eq!(ended.expect("it ends").unwrap().code(), Some(0));
    });
}

#[test]
fn many_at_once_on_one_thread_each_become_their_user() {
    let bed = testbed::require!();
    let tokens = ["alice", "bob", "mallory"].map(|name| (bed.user(name).uid, token(bed, name)));
    run(async {
        let mut running = Vec::new();
        for (uid, token) in tokens.iter().cycle().take(30) {
            let command = shell("sleep 0.1; id -u");
            running.push((uid, Box::pin(async move { command.output_as_async(token).await })));
        }
        for (uid, output) in running {
            assert_eq!(text(output.await.unwrap()), uid.to_string());
        }
    });
    assert!(zombies().is_empty());
}
