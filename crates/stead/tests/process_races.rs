//! Races, run as races: what a client's other processes can do to a new one while it is created, over and over.
//!
//! A few hundred processes; with `STEAD_LONG=1` a hundred thousand.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process_support;

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use process_support::*;
use stead::process::Stage;
use stead::{Command, ErrorKind, Primary, Token};
use testbed::{Bed, until};

/// How long a process may be on its way to its program, where somebody stops it.
const DEADLINE: Duration = Duration::from_millis(150);
const THREADS: usize = 4;

fn long() -> bool {
    std::env::var_os("STEAD_LONG").is_some()
}

/// Ended whatever becomes of the test.
struct Ended(stead::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill_tree();
    }
}

/// What the kernel says that a process is, also of one that has ended and was not collected.
fn credentials(pid: u32) -> Vec<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let wanted =
        ["Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:"];
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    status.lines().filter(|text| wanted.iter().any(|key| text.starts_with(key))).map(line).collect()
}

/// The same of a process that nobody attacks.
fn control(token: &Token<Primary>) -> Vec<String> {
    let mut child = Command::new("sleep").arg("600").spawn_as(token).unwrap();
    let credentials = credentials(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    credentials
}

/// How many of a user's processes there are.
fn of_user(bed: &Bed, name: &str) -> usize {
    let uid = bed.user(name).uid;
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let of = |status: String| {
        status
            .lines()
            .any(|line| line.starts_with("Uid:") && line.split_whitespace().any(|id| id == uid.to_string()))
    };
    entries
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok())
        .filter(|text| of(text.clone()))
        .count()
}

#[derive(Debug, Default)]
struct Counts {
    right: AtomicUsize,
    held: AtomicUsize,
    ended: AtomicUsize,
}

#[test]
fn in_a_storm_of_signals_each_process_is_the_clients_or_not_there_and_none_is_held() {
    let bed = testbed::require!(alone);
    testbed::time_limit!(if long() { 10_800 } else { 900 });
    let (mallory, alice) = (token(bed, "mallory"), token(bed, "alice"));
    let (mallorys, alices) = (control(&mallory), control(&alice));
    assert_ne!(mallorys, alices);
    // kill(-1) reaches all that mallory may signal but the caller: whatever becomes hers is stopped, goes on, is
    // killed, at whatever moment that is.
    let storm = "trap '' CONT; while :; do \
                 kill -STOP -1; kill -STOP -1; kill -STOP -1; kill -CONT -1; \
                 kill -STOP -1; kill -STOP -1; kill -STOP -1; kill -KILL -1; done";
    let mut attacker = Ended(shell(storm).spawn_as(&mallory).unwrap());
    let counts = Counts::default();
    let each = if long() { 100_000 } else { 240 } / THREADS;
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (counts, mallory, mallorys, alice, alices) = (&counts, &mallory, &mallorys, &alice, &alices);
            scope.spawn(move || {
                for round in 0..each {
                    if round % 16 == 0 {
                        // Who has nothing to do with it does not notice.
                        let mut child = Command::new("true").spawn_as(alice).unwrap();
                        assert_eq!(&credentials(child.id()), alices);
                        assert!(child.wait().unwrap().success());
                        counts.right.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let began = Instant::now();
                    let spawned = Command::new("true").deadline(DEADLINE).spawn_as(mallory);
                    assert!(began.elapsed() < PATIENCE, "held for {:?}", began.elapsed());
                    let counter = match spawned {
                        Ok(mut child) => {
                            assert_eq!(&credentials(child.id()), mallorys);
                            child.kill().unwrap();
                            child.wait().unwrap();
                            &counts.right
                        }
                        Err(error) => match error.kind() {
                            ErrorKind::DeadlinePassed { .. } => &counts.held,
                            ErrorKind::SpawnFailed { stage: Stage::Ended, .. } => &counts.ended,
                            other => panic!("{other:?}: {error}"),
                        },
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{counts:?}");
    attacker.0.kill_tree().unwrap();
    attacker.0.wait().unwrap();
    until("nothing of mallory's is left", || of_user(bed, "mallory") == 0);
    assert!(zombies().is_empty());
    assert!(Command::new("true").status_as(&mallory).unwrap().success());
}

/// Ended whatever becomes of the test, which waits for what it says.
struct Spy(std::process::Child);

impl Drop for Spy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Another program of the client's, which looks at each new process as fast as it can: into it (`exe`, `maps`, `fd`,
/// `root`) and by ptrace. It says `reached` of programs, where it may, and else what it has got hold of.
const SPY: &str = r#"
    $| = 1;
    my ($ptrace, %seen) = (0 + shift);
    # PF_EXITING: what has no memory any more is anybody's of its user (__ptrace_may_access), for it runs nothing.
    my $ends = sub {
        open(my $stat, '<', "/proc/$_[0]/stat") or return 1;
        my $line = <$stat> // return 1;
        return (split ' ', substr($line, rindex($line, ')') + 2))[6] & 4;
    };
    while (1) {
        open(my $load, '<', '/proc/loadavg') or next;
        my $last = (split ' ', <$load>)[4];
        close $load;
        for my $p ($last - 3 .. $last + 1) {
            next if $p < 2 || $p == $$;
            # PTRACE_SEIZE
            my $traced = !defined(readlink "/proc/$p/exe") && syscall($ptrace, 0x4206, $p, 0, 0) == 0;
            my $exe = readlink "/proc/$p/exe";
            print "traced\n" if $traced && (!defined $exe || $exe =~ /trampoline/) && !$ends->($p);
            kill 'KILL', $p if $traced;
            print "exe $exe\n" if defined $exe && $exe =~ /trampoline/;
            print "reached\n" if defined $exe && $exe =~ /sleep|coreutils|busybox/ && !$seen{$p}++;
            if (open(my $maps, '<', "/proc/$p/maps")) {
                print "maps\n" if grep { /trampoline/ } <$maps>;
            }
            if (opendir(my $all, "/proc/$p/fd")) {
                for my $n (readdir $all) {
                    my $to = readlink "/proc/$p/fd/$n";
                    print "descriptor $n $to\n" if defined $to && $n =~ /^\d+$/ && $n > 2 && $to =~ /pipe|memfd|socket|secret/;
                }
            }
            if (!defined $exe && opendir(my $root, "/proc/$p/root/")) {
                print "root\n" if !defined readlink("/proc/$p/exe") && !$ends->($p);
            }
        }
        1 while waitpid(-1, 1) > 0;
    }
"#;

#[test]
fn a_spy_that_looks_at_every_new_process_gets_hold_of_none_before_its_program() {
    let bed = testbed::require!(alone);
    testbed::time_limit!(if long() { 7200 } else { 900 });
    let token = token(bed, "alice");
    let secret = bed.scratch("spied").join("secret");
    std::fs::write(&secret, "of the server's").unwrap();
    let _open = std::fs::File::open(&secret).unwrap();
    let mut spy = bed
        .as_user("alice", &[], "perl")
        .args(["-e", SPY, &libc::SYS_ptrace.to_string()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(spy.stdout.take().unwrap());
    let spy = Spy(spy);
    let reached = AtomicUsize::new(0);
    let rounds = if long() { 20_000 } else { 200 };
    let got: Vec<String> = std::thread::scope(|scope| {
        let listener = scope.spawn(|| {
            let lines = output.lines().map_while(Result::ok);
            let count = |line: &String| {
                let reached = (line == "reached").then(|| reached.fetch_add(1, Ordering::Relaxed));
                reached.is_none()
            };
            lines.filter(count).take(10).collect::<Vec<_>>()
        });
        let began = Instant::now();
        let mut round = 0;
        // The control: it looks in time, and sees programs as soon as they are.
        while round < rounds || (reached.load(Ordering::Relaxed) < 10 && began.elapsed() < PATIENCE * 5) {
            round += 1;
            match Command::new("sleep").arg("0.02").spawn_as(&token) {
                // What is traced has its end told to who traces it first.
                Ok(mut child) if round % 8 == 0 => drop(child.wait()),
                Ok(_) => {}
                // It ends what it could trace, which is the client's program at its first instruction.
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::SpawnFailed { stage: Stage::Ended, .. }),
                    "{error}"
                ),
            }
        }
        println!("{round} processes, {} programs seen", reached.load(Ordering::Relaxed));
        drop(spy);
        listener.join().unwrap()
    });
    assert_eq!(got, Vec::<String>::new());
    if reached.into_inner() < 10 {
        testbed::skip!("the spy had too little of the processor to be one");
    }
}
