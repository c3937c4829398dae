//! Clients that end, execute another program, or whose number goes to somebody else, at any moment between connecting
//! and the process that is created for them.
//!
//! Some dozens; with `STEAD_LONG=1` thousands.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/client.rs"]
mod common;

use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Server, has_uid, may_inspect, wait_for_status};
use stead::error::ConfinedPart;
use stead::{Client, Command, Confinement, ErrorKind, Impersonation, Token};
use testbed::{Bed, RunningClient, User};

fn long() -> bool {
    std::env::var_os("STEAD_LONG").is_some()
}

fn choice() -> Confinement {
    // Otherwise one that may not look at all would refuse every client for that.
    if may_inspect() { Confinement::Refuse } else { Confinement::Unknown }
}

/// What the client does at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strike {
    /// It executes a set-user-ID program of root's.
    Setuid,
    /// It executes another program of its own.
    Execute,
    Exit,
}

impl Strike {
    const ALL: [Self; 3] = [Self::Setuid, Self::Execute, Self::Exit];

    /// Begins; whether it is done is another question.
    fn begin(self, bed: &Bed, mut process: RunningClient) -> Option<RunningClient> {
        let program = match self {
            Self::Setuid => bed.setuid_program(),
            Self::Execute => bed.bin("testbed-client"),
            Self::Exit => {
                process.finish();
                return None;
            }
        };
        assert_eq!(process.tell(&format!("exec {} wait", program.display())), "ok");
        Some(process)
    }

    /// The same, and waits until it is done.
    fn strike(self, bed: &Bed, process: RunningClient) -> Option<RunningClient> {
        let process = self.begin(bed, process)?;
        match self {
            Self::Setuid => wait_for_status(process.pid(), |status| has_uid(status, 1, 0)),
            // Its name changes from testbed-client to the same: by its arguments.
            Self::Execute => {
                let arguments = format!("/proc/{}/cmdline", process.pid());
                while !std::fs::read(&arguments).unwrap().ends_with(b"wait\0") {
                    std::thread::yield_now();
                }
            }
            Self::Exit => {}
        }
        Some(process)
    }
}

/// A process for the client; what the kernel says that it is.
fn process_of(token: &Token<Impersonation>) -> stead::Result<String> {
    let output = Command::new("cat").arg("/proc/self/status").output_as(&token.to_primary()?)?;
    assert!(output.status.success(), "{}", output.status);
    Ok(String::from_utf8(output.stdout).unwrap())
}

fn is(status: &str, user: &User) -> bool {
    let numbers = |key: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().map(|word| word.parse().unwrap()).collect()
    };
    numbers("Uid:") == [user.uid; 4]
        && numbers("Gid:") == [user.gid; 4]
        && numbers("Groups:") == user.all_groups()
}

/// All of it, with something to do at each step.
fn serve(socket: &UnixStream, mut at: impl FnMut(usize)) -> stead::Result<String> {
    at(0);
    let client = Client::with(choice()).of(socket)?;
    at(1);
    let token = client.token()?;
    at(2);
    let status = process_of(&token);
    at(3);
    status
}

fn is_changed(error: &stead::Error) -> bool {
    matches!(error.kind(), ErrorKind::ClientChanged { .. })
}

#[test]
fn whatever_a_client_does_between_two_steps_it_gets_its_own_process_or_none() {
    let bed = testbed::require!();
    testbed::time_limit!(300);
    let alice = bed.user("alice");
    for strike in Strike::ALL {
        for point in 0..4 {
            let server = Server::new(bed, "steps");
            let mut process = Some(bed.client("alice").connect(&server.path));
            let socket = server.accept();
            let result = serve(&socket, |at| {
                if at == point {
                    process = strike.strike(bed, process.take().unwrap());
                }
            });
            let harmless = strike == Strike::Execute || point >= 2;
            match result {
                Ok(status) => assert!(harmless && is(&status, alice), "{strike:?} at {point}: {status}"),
                Err(error) => assert!(!harmless && is_changed(&error), "{strike:?} at {point}: {error}"),
            }
        }
    }
}

/// Waits without sleeping: these are shorter than the shortest sleep.
fn spin(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[test]
fn whenever_a_client_executes_or_ends_it_gets_its_own_process_or_none() {
    let bed = testbed::require!();
    testbed::time_limit!(if long() { 7200 } else { 600 });
    let alice = bed.user("alice");
    let (mut served, mut refused) = (0, 0);
    for round in 0..if long() { 3000_u64 } else { 45 } {
        let server = Server::new(bed, "moments");
        let process = bed.client("alice").connect(&server.path);
        let socket = server.accept();
        let strike = Strike::ALL[usize::try_from(round % 3).unwrap()];
        // From at once to what a whole process takes, at moments that do not repeat themselves.
        let moment = Duration::from_micros(round * 7919 % 3000);
        let result = std::thread::scope(|scope| {
            let striker = scope.spawn(|| {
                spin(moment);
                strike.begin(bed, process)
            });
            let result = serve(&socket, |_| {});
            drop(striker.join().unwrap());
            result
        });
        match result {
            Ok(status) => {
                assert!(is(&status, alice), "{strike:?} after {moment:?}: {status}");
                served += 1;
            }
            Err(error) => {
                assert!(is_changed(&error), "{strike:?} after {moment:?}: {error}");
                refused += 1;
            }
        }
    }
    println!("{served} served, {refused} refused");
}

/// A new user namespace comes with a full bounding set: read there, the set says nothing of what the client had.
#[test]
fn a_client_of_fewer_rights_is_refused_at_every_moment_of_entering_a_namespace_that_has_all() {
    let bed = testbed::require!();
    testbed::time_limit!(if long() { 3600 } else { 300 });
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE");
    }
    let confined = |part| ErrorKind::ClientConfined { part };
    for _ in 0..if long() { 2000 } else { 40 } {
        let server = Server::new(bed, "entering");
        let process = bed.client("alice").smaller_bounding_set().try_connect(&server.path);
        let Ok(mut process) = process else { testbed::skip!("the bounding set cannot be made smaller here") };
        let client = Client::of(server.accept()).unwrap();
        let inside = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                loop {
                    let last = inside.load(Ordering::Acquire);
                    let why = client.token().expect_err("a confined client must be refused").kind().clone();
                    if last {
                        break why;
                    }
                    let either = [ConfinedPart::BoundingSet, ConfinedPart::UserNamespace].map(confined);
                    assert!(either.contains(&why), "{why:?}");
                }
            });
            process.confine(&["--userns"]);
            inside.store(true, Ordering::Release);
            assert_eq!(asked.join().unwrap(), confined(ConfinedPart::UserNamespace));
        });
    }
}

/// Its first thread has ended and shows nothing of where the others are; of those none is there for long, and a list of
/// threads ends early where one ends.
#[test]
fn a_confined_client_whose_threads_hand_on_to_each_other_is_refused_at_every_moment() {
    let bed = testbed::require!();
    testbed::time_limit!(600);
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE");
    }
    let server = Server::new(bed, "relay");
    let process = bed.client("alice").namespace("net").try_connect(&server.path);
    let Ok(mut process) = process else { testbed::skip!("a network namespace cannot be made here") };
    let client = Client::of(server.accept()).unwrap();
    assert_eq!(process.tell("relay"), "ok");
    let end = Instant::now() + Duration::from_secs(if long() { 120 } else { 3 });
    let mut named = 0_u32;
    while Instant::now() < end {
        let error = client.token().expect_err("a confined client must be refused");
        match error.kind() {
            ErrorKind::ClientConfined { part } => {
                assert_eq!(*part, ConfinedPart::NetworkNamespace);
                named += 1;
            }
            // Not once in all passes was one of its threads seen to the end.
            _ => assert!(is_changed(&error), "{error}"),
        }
    }
    println!("named {named} times");
    wait_for_status(process.pid(), |status| {
        status.contains("State:\tZ") && !status.contains("Threads:\t1\n")
    });
}

#[test]
fn whoever_has_the_number_of_a_client_that_ended_is_never_taken_for_it() {
    let bed = testbed::require!(alone);
    testbed::time_limit!(if long() { 3600 } else { 600 });
    if std::fs::OpenOptions::new().write(true).open("/proc/sys/kernel/ns_last_pid").is_err() {
        testbed::skip!("process ids cannot be chosen here (ns_last_pid)");
    }
    let (alice, bob) = (bed.user("alice").uid, bed.user("bob").uid);
    let mut reused = 0;
    for _ in 0..if long() { 300 } else { 6 } {
        let server = Server::new(bed, "numbers");
        let process = bed.client("alice").connect(&server.path);
        let socket = server.accept();
        let pid = process.pid();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // The server asks again and again, while the client ends and another takes its number.
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    match Client::with(choice()).of(&socket).and_then(|client| client.token()) {
                        Ok(token) => assert_eq!(stead::os::linux::TokenExt::uid(&token).as_raw(), alice),
                        Err(error) => assert!(is_changed(&error), "{error}"),
                    }
                }
            });
            process.finish();
            for _ in 0..20 {
                if std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).is_err() {
                    break;
                }
                let mut other = std::process::Command::new("setpriv")
                    .args(["--reuid", &bob.to_string(), "--clear-groups", "--"])
                    .arg(bed.bin("testbed-client"))
                    .arg("wait")
                    .stdin(Stdio::piped())
                    .spawn()
                    .unwrap();
                let same = other.id().cast_signed() == pid;
                if same {
                    wait_for_status(pid, |status| has_uid(status, 1, bob));
                    reused += 1;
                }
                drop(other.stdin.take());
                other.wait().unwrap();
                if same {
                    break;
                }
            }
            over.store(true, Ordering::Relaxed);
        });
    }
    println!("{reused} numbers had again");
    if reused == 0 {
        testbed::skip!("no process id could be had again");
    }
}
