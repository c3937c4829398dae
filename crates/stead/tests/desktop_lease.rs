//! Leases: how long a tree of processes has its access to a desktop, and what a crash leaves of it.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process_support;
#[path = "common/server.rs"]
mod server;
mod x11_support;

use std::collections::VecDeque;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use process_support::*;
use server::StartedServer;
use stead::desktop::GrantTo;
use stead::logon::Lifetime;
use stead::os::linux::{Cgroup, CommandExt, DesktopExt};
use stead::process::Containment;
use stead::{Command, Desktop, LogonSession, Primary, SessionId, Token};
use testbed::display::{Display, Options};
use testbed::until;
use x11_support::*;

/// Kills a process by its number, which a test of its own has made.
fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A tree whose first process ends at once and whose last one lives on: the lease ends with the last.
fn lasts_as_long_as_the_tree(
    builder: &mut Command,
    token: &Token<Primary>,
    desktop: &Desktop,
    expected: Containment,
) {
    let before = desktop.access().unwrap();
    let mut program = Interactive::with(builder, token, desktop);
    assert_eq!(program.child.containment(), expected);
    let last = program.line();
    assert!(program.child.wait().unwrap().success());
    drop(program);
    let trustee = desktop.trustee(token).unwrap();
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let now = desktop.access().unwrap();
        assert!(now.names(&trustee), "the last process of the tree lives: {now}");
    }
    kill(&last);
    until("the lease is given back", || desktop.access().unwrap() == before);
}

/// Says its authority file and the number of a process that outlives it.
const LEAVES_A_CHILD: &str = "echo $XAUTHORITY; sleep 600 >/dev/null & echo $!";
const LEAVES_A_DAEMON: &str = "echo $XAUTHORITY; setsid -f sh -c 'echo $$; exec sleep 600 >/dev/null'";

#[test]
fn a_lease_lasts_until_the_last_process_of_the_tree_has_ended() {
    let bed = testbed::require!();
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options::default());
    let desktop = desktop(&display);
    let alice = log_on(bed, "alice", &counter);
    // Others of the same session, with what they leave, have nothing to do with it.
    let mut other = shell("sleep 600 & exec sleep 600").spawn_as(alice.token()).unwrap();
    assert!(shell("sleep 600 >/dev/null &").status_as(alice.token()).unwrap().success());
    for script in [LEAVES_A_CHILD, LEAVES_A_DAEMON] {
        lasts_as_long_as_the_tree(&mut shell(script), alice.token(), &desktop, Containment::SessionWorker);
    }
    other.kill_tree().unwrap();
    drop(other);
    alice.terminate().unwrap();
    alice.close().unwrap();
}

#[test]
fn a_lease_of_a_tree_in_a_cgroup_ends_when_the_group_is_empty() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a control group of its own");
    let Some((directory, _)) = bed.cgroup("desktop") else {
        testbed::skip!("no cgroup (version 2) can be written here");
    };
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options::default());
    let alice = log_on(bed, "alice", &counter);
    for script in [LEAVES_A_CHILD, LEAVES_A_DAEMON] {
        let mut builder = shell(script);
        builder.cgroup(Cgroup::delegated(&directory).unwrap());
        lasts_as_long_as_the_tree(&mut builder, alice.token(), &desktop(&display), Containment::Cgroup);
    }
    alice.close().unwrap();
}

#[test]
fn a_process_without_a_logon_session_is_let_in_as_its_user_for_as_long_as_its_posix_session() {
    let bed = testbed::require!();
    let display = Display::start(bed, &Options::default());
    let token = token(bed, "alice");
    let desktop = desktop(&display).grant_to(GrantTo::User);
    lasts_as_long_as_the_tree(&mut shell(LEAVES_A_CHILD), &token, &desktop, Containment::PosixSession);
    let mut program = Interactive::start("read answer", &token, &desktop);
    let authority = program.authority.clone();
    assert!(is_let_in(bed, &token, &display, Some(&authority)), "every process of the user");
    assert!(!is_let_in(bed, &process_support::token(bed, "bob"), &display, Some(&authority)));
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    until("the lease is given back", || !authority.exists());
}

#[test]
fn a_lease_ends_with_a_tree_that_has_its_server_trace_a_thread_of_it() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("how a display is entered");
    let display = Display::start(bed, &Options::default());
    let token = token(bed, "alice");
    let desktop = desktop(&display).grant_to(GrantTo::User);
    let before = desktop.access().unwrap();
    let mut command = Command::new(bed.bin("testbed-client"));
    command.args(["trick", "traced-thread", "ends"]).desktop(desktop.clone());
    let child = command.stdout(stead::Stdio::piped()).spawn_as(&token).unwrap();
    // Nobody waits for it.
    until("the lease is given back", || desktop.access().unwrap() == before);
    drop(child);
}

#[test]
fn a_child_that_nobody_waits_for_gives_its_lease_back_too() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("it looks at its own threads and descriptors");
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options::default());
    let desktop = desktop(&display);
    let alice = log_on(bed, "alice", &counter);
    let before = desktop.access().unwrap();
    let program = Interactive::start("echo $$; exec sleep 600", alice.token(), &desktop);
    let Interactive { child, mut output, .. } = program;
    drop(child);
    let mut pid = String::new();
    output.read_line(&mut pid).unwrap();
    assert_ne!(desktop.access().unwrap(), before);
    kill(pid.trim());
    until("the lease is given back", || desktop.access().unwrap() == before);

    // One that never ran, and one that could not.
    drop(Command::new("true").desktop(desktop.clone()).suspended(true).spawn_as(alice.token()).unwrap());
    Command::new("/nowhere").desktop(desktop.clone()).spawn_as(alice.token()).unwrap_err();
    until("the lease is given back", || desktop.access().unwrap() == before);
    alice.close().unwrap();
    until("nobody keeps anything any more", || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let names =
            threads.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
        !names.into_iter().any(|name| name.trim() == "stead-keeper")
    });
}

#[test]
fn a_thousand_processes_of_ten_sessions_leave_the_access_list_as_it_was() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("it looks at its own threads and descriptors");
    testbed::time_limit!(600);
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options::default());
    display.admit("mallory");
    let desktop = desktop(&display);
    let (before, hosts) = (desktop.access().unwrap(), display.hosts());
    let sessions: Vec<LogonSession> =
        (0..10).map(|number| log_on(bed, ["alice", "bob"][number % 2], &counter)).collect();
    // What is opened once, and stays.
    assert!(
        xclient(bed).arg("try").desktop(desktop.clone()).status_as(sessions[0].token()).unwrap().success()
    );
    until("its lease is given back", || desktop.access().unwrap() == before);
    let descriptors = open_descriptors();
    std::thread::scope(|scope| {
        for session in &sessions {
            let desktop = &desktop;
            scope.spawn(move || {
                let mut running = VecDeque::new();
                for round in 0..100 {
                    let mut command = xclient(bed);
                    command.arg("try").desktop(desktop.clone());
                    running.push_back(
                        command.spawn_as(session.token()).unwrap_or_else(|error| panic!("{error}")),
                    );
                    // Now several at once, now none: leases are shared, and taken anew.
                    while running.len() > round % 4 {
                        let status = running.pop_front().unwrap().wait().unwrap();
                        assert!(status.success(), "{status}");
                    }
                }
            });
        }
    });
    until("every lease is given back", || desktop.access().unwrap() == before);
    assert_eq!(display.hosts(), hosts);
    until("nothing is left open", || open_descriptors() <= descriptors);
    for session in sessions {
        session.close().unwrap();
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Not a test: the server that is killed. It starts an interactive program of alice's, and says which.
#[test]
fn role_server_with_an_interactive_process() {
    let Ok(display) = std::env::var("STEAD_TEST_DISPLAY") else { return };
    let bed = testbed::Bed::current().expect("inside the bed");
    let value = |name: &str| std::env::var(name).unwrap();
    let mut desktop = Desktop::by_name(display).unwrap().authority_file(value("STEAD_TEST_AUTHORITY"));
    if value("STEAD_TEST_HOW") == "host-list" {
        desktop = desktop.host_list(true).grant_to(GrantTo::User);
    }
    let session = logon(bed, "alice", Path::new(&value("STEAD_TEST_COUNTER")))
        .lifetime(Lifetime::Detached)
        .open()
        .unwrap_or_else(|error| panic!("{error}"));
    let kept = bed.user("alice").home.join(value("STEAD_TEST_KEPT"));
    let script = format!(
        "[ -z \"$XAUTHORITY\" ] || cat \"$XAUTHORITY\" >{}; sleep 600 | {} show 3366cc",
        kept.display(),
        bed.bin("testbed-xclient").display()
    );
    let mut program = Interactive::start(&script, session.token(), &desktop);
    assert_eq!(program.line(), "shown");
    println!("\nserver: {} {}", session.id(), program.authority.display());
    std::thread::sleep(std::time::Duration::from_secs(600));
}

struct Server {
    process: StartedServer,
    session: SessionId,
    authority: PathBuf,
    kept: PathBuf,
}

impl Server {
    fn start(bed: &testbed::Bed, display: &Display, how: &str, counter: &Path) -> Self {
        let kept = format!("kept-{how}");
        let name = display.name();
        let variables: [(&str, &std::ffi::OsStr); 5] = [
            ("STEAD_TEST_DISPLAY", name.as_ref()),
            ("STEAD_TEST_AUTHORITY", display.authority().as_os_str()),
            ("STEAD_TEST_HOW", how.as_ref()),
            ("STEAD_TEST_COUNTER", counter.as_os_str()),
            ("STEAD_TEST_KEPT", kept.as_ref()),
        ];
        let process = StartedServer::start("role_server_with_an_interactive_process", variables);
        let session = process.said[0].parse().unwrap();
        let authority = process.said.get(1).cloned().unwrap_or_default().into();
        Self { process, session, authority, kept: bed.user("alice").home.join(kept) }
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    /// Its session, taken over when the worker has seen its end.
    fn session(&self) -> LogonSession {
        let mut session = None;
        until("the session can be taken over", || {
            session = LogonSession::reattach(self.session).ok();
            session.is_some()
        });
        session.unwrap()
    }
}

#[test]
fn what_a_killed_server_had_granted_is_swept_at_the_next_start_and_nothing_else() {
    // Alone: other tests' servers would sweep it as well.
    let bed = testbed::require!(alone);
    needs_privileges_of_its_own("how a display is entered");
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options::default());
    display.admit("mallory");
    let hosts = display.hosts();
    let desktop = desktop(&display);
    let bob = log_on(bed, "bob", &counter);
    let lease = desktop.grant(bob.token()).unwrap();
    let (list, folders) = (desktop.access().unwrap(), records());
    for how in ["authorization", "host-list"] {
        let mut server = Server::start(bed, &display, how, &counter);
        server.kill();
        // Its session lives on by itself, and with it the program and its window.
        let session = server.session();
        assert_eq!(display.screenshot().count(BLUE), 200 * 150);
        let by = (how == "authorization").then_some(&*server.kept);
        assert!(is_let_in(bed, session.token(), &display, by));
        assert_eq!(records().len(), folders.len() + 1);

        stead::desktop::sweep().unwrap();
        assert_eq!(records(), folders);
        assert!(!is_let_in(bed, session.token(), &display, by), "{how}");
        assert!(!server.authority.exists() || server.authority.as_os_str().is_empty());
        assert_eq!(display.hosts(), hosts, "mallory stays");
        assert_eq!(desktop.access().unwrap(), list, "and so does bob");
        if how == "authorization" {
            until("its program was cut off", || display.screenshot().count(BLUE) == 0);
        }
        session.terminate().unwrap();
        session.close().unwrap();
        until("its window is gone", || display.screenshot().count(BLUE) == 0);
    }
    lease.give_back().unwrap();
    bob.close().unwrap();
}

#[test]
fn what_a_killed_server_had_granted_ends_by_itself_with_its_program() {
    let bed = testbed::require!(alone);
    needs_privileges_of_its_own("how a display is entered");
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options::default());
    let mut server = Server::start(bed, &display, "authorization", &counter);
    server.kill();
    let session = server.session();
    session.terminate().unwrap();
    until("the X server has forgotten it", || {
        // Longer than an authorization outlives its last client; each try is one more.
        std::thread::sleep(std::time::Duration::from_secs(8));
        !is_let_in(bed, session.token(), &display, Some(&server.kept))
    });
    session.close().unwrap();
    // What is left is a record of nothing. The next lease of a new server would sweep it, too.
    stead::desktop::sweep().unwrap();
    assert!(!server.authority.exists());
}

#[test]
fn leases_are_shared_and_told_apart() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a lease that it takes by hand");
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options::default());
    let desktop = desktop(&display);
    let (alice, bob) = (log_on(bed, "alice", &counter), log_on(bed, "bob", &counter));
    let environment = |lease: &stead::AccessLease| -> Vec<(String, String)> {
        let pairs = lease.environment();
        pairs.map(|(name, value)| (name.display().to_string(), value.display().to_string())).collect()
    };
    let first = desktop.grant(alice.token()).unwrap();
    let second = desktop.grant(alice.token()).unwrap();
    let other = desktop.grant(bob.token()).unwrap();
    let trusted = desktop.clone().trusted(true).grant(alice.token()).unwrap();
    assert_eq!(environment(&first), environment(&second));
    assert_ne!(environment(&first), environment(&other));
    assert_ne!(environment(&first), environment(&trusted));
    assert_eq!(desktop.access().unwrap().entries().len(), 3, "{}", desktop.access().unwrap());
    drop(first);
    assert_eq!(desktop.access().unwrap().entries().len(), 3);
    drop(second);
    drop(trusted);
    let left = desktop.access().unwrap();
    assert!(!left.names(&desktop.trustee(alice.token()).unwrap()) && left.names(other.trustee()), "{left}");
    drop(other);
    assert_eq!(desktop.access().unwrap().entries(), []);
    let none = Desktop::none().grant(alice.token()).unwrap_err();
    assert!(matches!(none.kind(), stead::ErrorKind::InvalidInput { .. }), "{none}");
    for session in [alice, bob] {
        session.close().unwrap();
    }
}
