//! Asynchronous servers: the runtime's threads never change their identity.

#![cfg(target_os = "linux")]
#![cfg(all(target_os = "linux", feature = "tokio"))]
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

mod impersonate_support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use impersonate_support::*;
use stead::{ErrorKind, ImpersonationLevel};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

/// Every thread of this process.
fn all_threads() -> Vec<(String, Seen)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = entry.unwrap().path();
        // One may end meanwhile.
        let Ok(name) = std::fs::read_to_string(path.join("comm")) else { continue };
        let Ok(status) = std::fs::read_to_string(path.join("status")) else { continue };
        all.push((name.trim().to_owned(), seen_as(&status)));
    }
    all
}

#[test]
fn the_closure_runs_as_the_client_on_a_thread_that_is_not_the_runtimes() {
    let bed = testbed::require!();
    let before = seen();
    let alice = token(bed, "alice");
    let (within, name, all) = runtime().block_on(async {
        let task = tokio::spawn(async move {
            let act = || (seen(), std::thread::current().name().map(str::to_owned), all_threads());
            let seen_within = alice.impersonate_async(move |_| act()).await.unwrap();
            (seen_within, seen())
        });
        let (seen_within, after) = task.await.unwrap();
        assert_eq!(after, before);
        seen_within
    });
    assert_eq!(name.as_deref(), Some("stead-client"));
    assert_eq!(within, before.acting_for(bed.user("alice")));
    let changed: Vec<_> = all.iter().filter(|(_, thread)| *thread != before).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(seen(), before);
}

#[test]
fn the_workers_never_change_under_many_impersonations_at_once() {
    let bed = testbed::require!();
    let before = seen();
    let names = ["alice", "bob", "mallory"];
    let tokens: Vec<_> = names.iter().map(|name| token(bed, name)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (name, thread) in all_threads() {
                    assert!(!name.starts_with("tokio") || thread == before, "{name}: {thread:?}");
                }
            }
        });
        runtime().block_on(async {
            let mut tasks = Vec::new();
            for number in 0..120 {
                let token = tokens[number % names.len()].clone();
                let wanted = before.acting_for(bed.user(names[number % names.len()]));
                let before = before.clone();
                tasks.push(tokio::spawn(async move {
                    assert_eq!(token.impersonate_async(|_| seen()).await.unwrap(), wanted);
                    assert_eq!(seen(), before);
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
    });
}

#[test]
fn a_client_is_impersonated_asynchronously_too() {
    let bed = testbed::require!();
    let before = seen();
    let (_process, client) = client(bed, "alice");
    let within = runtime().block_on(client.impersonate_async(|_| seen())).unwrap();
    assert_eq!(within, before.acting_for(bed.user("alice")));
}

#[test]
fn the_runtimes_thread_reads_nothing_of_the_clients_process() {
    let bed = testbed::require!();
    // What this thread has read so far, in bytes; opened before impersonation makes the file root's.
    let io = std::fs::File::open("/proc/thread-self/io").unwrap();
    let read_so_far = || -> u64 {
        let mut text = [0; 512];
        let length = std::os::unix::fs::FileExt::read_at(&io, &mut text, 0).unwrap();
        let text = std::str::from_utf8(&text[..length]).unwrap();
        text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    };
    let (_process, client) = client(bed, "alice");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // What the runtime itself reads, and the looking.
        client.impersonate_async(|_| ()).await.unwrap();
        let before = read_so_far();
        let looking = read_so_far() - before;
        let before = read_so_far();
        client.impersonate_async(|_| ()).await.unwrap();
        let asynchronously = read_so_far() - before - looking;
        let before = read_so_far();
        client.impersonate(|_| ()).unwrap();
        let synchronously = read_so_far() - before - looking;
        // A wake-up of the runtime is 8 bytes; the status of one thread is more than a thousand.
        assert!(asynchronously < 256, "{asynchronously} bytes, and {synchronously} by the thread itself");
        assert!(synchronously > 1000, "the test sees what is read: {synchronously} bytes");
    });
}

#[test]
fn a_client_that_has_ended_when_the_future_is_polled_is_refused() {
    let bed = testbed::require!();
    testbed::confine::need_pinned_clients();
    let (process, client) = client(bed, "alice");
    let acting = client.impersonate_async(|_| ());
    drop(process);
    let refused = runtime().block_on(acting).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::ClientChanged { .. }), "{refused}");
}

#[test]
fn a_panic_of_the_closure_goes_on_where_it_is_awaited() {
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    let before = seen();
    let ended = runtime().block_on(async move {
        tokio::spawn(async move { alice.impersonate_async(|_| panic!("in the closure")).await }).await
    });
    let panic = ended.map(drop::<Result<(), stead::Error>>).unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"in the closure"));
    assert_eq!(seen(), before);
}

#[test]
fn a_refusal_comes_back_as_an_error() {
    let bed = testbed::require!();
    let known = token(bed, "alice").duplicate(ImpersonationLevel::Identification).unwrap();
    let refused = runtime().block_on(known.impersonate_async(|_| ())).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::LevelTooLow { .. }), "{refused}");
}

#[test]
fn a_timeout_frees_the_task_and_not_the_runtimes_identity() {
    let bed = testbed::require!();
    let before = seen();
    let alice = token(bed, "alice");
    let (go, wait) = std::sync::mpsc::channel::<()>();
    runtime().block_on(async {
        // As a file system of the client's would hold it.
        let held = alice.impersonate_async(move |_| wait.recv());
        assert!(tokio::time::timeout(Duration::from_millis(50), held).await.is_err());
        assert_eq!(seen(), before);
        assert_eq!(alice.impersonate_async(|_| seen()).await.unwrap(), before.acting_for(bed.user("alice")));
    });
    drop(go);
}

#[test]
fn inside_a_synchronous_impersonation_the_new_thread_is_the_servers() {
    let bed = testbed::require!();
    let before = seen();
    let (alice, bob) = (token(bed, "alice"), token(bed, "bob"));
    let runtime = runtime();
    let within = alice.impersonate(|_| runtime.block_on(bob.impersonate_async(|_| seen()))).unwrap().unwrap();
    assert_eq!(within, before.acting_for(bed.user("bob")));
    assert_eq!(seen(), before);
}
