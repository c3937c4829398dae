//! When a session ends, and that nothing is left of it.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod logon_support;
#[path = "common/server.rs"]
mod server;

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio as StdStdio;

use logon_support::*;
use server::StartedServer;
use stead::os::linux::LogonExt;
use stead::{Account, Command, ErrorKind, Lifetime, Logon, LogonSession, LogonType, SessionId, Stdio};
use testbed::until;

const CLOSED: &str = "close_session";

#[test]
fn a_session_ends_after_its_last_token_and_its_last_process() {
    let bed = testbed::require!();
    let host = "last.example";
    let session = from(logon(bed, "alice"), host).opened().unwrap();
    let token = session.token().clone();
    let mut child = sleeper(&session);
    drop(session);
    assert_eq!(seen_with(bed, &token), bed.user("alice").uid, "the token keeps the session");
    drop(token);
    assert!(lives(child.id()));
    assert!(!phases(bed, host).contains(&CLOSED.to_owned()), "the child keeps the session");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(child);
    until("the session is closed", || phases(bed, host).contains(&CLOSED.to_owned()));
}

fn seen_with(bed: &testbed::Bed, token: &stead::Token<stead::Primary>) -> u32 {
    let output = Command::new(bed.bin("probe")).stdout(Stdio::piped()).output_as(token).unwrap();
    testbed::Probe::parse(&output.stdout).uid.real
}

/// Starts a daemon that left its session and its parent, and gives its pid.
fn daemon(session: &LogonSession) -> u32 {
    let output = Command::new("/bin/sh")
        .arg("-c")
        .arg("setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $!")
        .stdout(Stdio::piped())
        .output_as(session.token())
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn a_daemon_that_everybody_left_keeps_its_session_open() {
    let bed = testbed::require!();
    let host = "daemon.example";
    let session = from(logon(bed, "alice"), host).opened().unwrap();
    let worker = worker();
    let daemon = daemon(&session);
    until("the daemon is the worker's", || parent(daemon) == Some(worker));
    assert!(session.processes().unwrap().contains(&daemon));
    drop(session);
    assert!(lives(worker) && lives(daemon));
    assert!(!phases(bed, host).contains(&CLOSED.to_owned()));
    kill(daemon);
    until("the session is closed", || phases(bed, host).contains(&CLOSED.to_owned()));
}

#[test]
fn close_waits_for_the_end_and_tells_what_pam_said() {
    let bed = testbed::require!();
    let host = "close.example";
    from(logon(bed, "alice"), host).opened().unwrap().close().unwrap();
    assert!(phases(bed, host).contains(&CLOSED.to_owned()));
    let error = logon(bed, "alice").pam_service("stead-fail-close").opened().unwrap().close().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::System { call: "pam_close_session" }, "{error}");
    let error = logon(bed, "alice").pam_service("stead-fail-close").opened().unwrap().log_off().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::System { call: "pam_close_session" }, "{error}");
    assert!(children().is_empty(), "the worker was collected");
}

#[test]
fn terminate_ends_every_process_of_the_session_and_of_no_other() {
    let bed = testbed::require!();
    let (one, other) = (session(bed, "alice"), session(bed, "alice"));
    let (mut child, mut spared) = (sleeper(&one), sleeper(&other));
    let daemon = daemon(&one);
    one.terminate().unwrap();
    assert!(one.processes().unwrap().is_empty());
    assert!(!lives(daemon));
    assert!(lives(spared.id()));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    // The session is still there.
    assert_eq!(seen(bed, &one).uid.real, bed.user("alice").uid);
    spared.kill().unwrap();
}

#[test]
fn logging_off_ends_all_that_runs_in_the_session_and_nothing_else_and_waits_for_pam() {
    let bed = testbed::require!();
    let host = "off.example";
    let (one, other) = (from(logon(bed, "alice"), host).opened().unwrap(), session(bed, "alice"));
    let mut spared = sleeper(&other);
    drop(sleeper(&one));
    let daemon = daemon(&one);
    one.log_off().unwrap();
    assert!(!lives(daemon));
    assert!(phases(bed, host).contains(&CLOSED.to_owned()));
    assert!(lives(spared.id()));
    spared.kill().unwrap();
    spared.wait().unwrap();
    drop(spared);
    // Nothing has run in this one, and nothing runs any more.
    session(bed, "alice").log_off().unwrap();
    other.log_off().unwrap();
}

#[test]
fn logging_off_ends_the_processes_at_once_also_where_somebody_else_holds_the_session() {
    let bed = testbed::require!();
    let host = "held.example";
    let session = from(logon(bed, "alice"), host).opened().unwrap();
    let (token, daemon) = (session.token().clone(), daemon(&session));
    let off = std::thread::spawn(move || session.log_off());
    until("the daemon was ended", || !lives(daemon));
    assert!(!phases(bed, host).contains(&CLOSED.to_owned()), "the token keeps the session");
    drop(token);
    off.join().unwrap().unwrap();
    assert!(phases(bed, host).contains(&CLOSED.to_owned()));
}

#[test]
fn killing_a_tree_reaches_what_left_it_and_spares_the_rest_of_the_session() {
    let bed = testbed::require!();
    let session = session(bed, "alice");
    let script = "sleep 600 & (sleep 600 & sleep 600 &) ; sleep 600";
    let start = || Command::new("/bin/sh").arg("-c").arg(script).spawn_as(session.token()).unwrap();
    let (mut first, mut second) = (start(), start());
    until("both trees stand", || session.processes().unwrap().len() == 10);
    first.kill_tree().unwrap();
    first.wait().unwrap();
    until("one tree is gone", || session.processes().unwrap().len() == 5);
    assert!(lives(second.id()));
    second.kill_tree().unwrap();
    second.wait().unwrap();
    until("both are gone", || session.processes().unwrap().is_empty());
}

#[test]
fn a_session_whose_worker_was_killed_says_so_and_the_server_goes_on() {
    let bed = testbed::require!();
    let lost = session(bed, "alice");
    kill(worker());
    let error = Command::new("/bin/true").spawn_as(lost.token()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::SessionEnded, "{error}");
    assert!(lost.processes().is_err());
    needs_privileges_of_its_own("telling a session that was lost from one that ended");
    assert_eq!(*lost.close().unwrap_err().kind(), ErrorKind::SessionEnded);
    session(bed, "bob").close().unwrap();
    assert!(children().iter().all(|pid| !lives(*pid)));
}

#[test]
fn a_worker_killed_in_any_phase_leaves_an_error_and_nothing_else() {
    let bed = testbed::require!(alone);
    session(bed, "alice").close().unwrap();
    let before = descriptors();
    for service in ["stead-slow", "stead-slow-account", "stead-slow-session"] {
        let logon = logon(bed, "alice").pam_service(service);
        let opening = std::thread::spawn(move || logon.opened());
        let (mut found, mut module) = (None, None);
        until("the module sleeps", || {
            found = children().into_iter().find(|pid| lives(*pid));
            module = found.and_then(|worker| children_of(worker).into_iter().next());
            module.is_some_and(|pid| name_of(pid) == "sleep")
        });
        kill(found.unwrap());
        let error = opening.join().unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WorkerUnavailable { .. }), "{service}: {error}");
        // The module's own child is the module's.
        kill(module.unwrap());
        assert_eq!(descriptors(), before, "{service}");
        assert!(children().iter().all(|pid| !lives(*pid)), "{service}");
    }
    // Killed while it closes: the session's end is an error.
    let session = logon(bed, "alice").pam_service("stead-slow-close").opened().unwrap();
    let worker = worker();
    let closing = std::thread::spawn(move || session.close());
    until("the module sleeps", || children_of(worker).iter().any(|pid| name_of(*pid) == "sleep"));
    let module = children_of(worker)[0];
    kill(worker);
    kill(module);
    assert_eq!(*closing.join().unwrap().unwrap_err().kind(), ErrorKind::SessionEnded);
}

/// Not a test: the server that other tests start and kill. It logs alice on and says what it made.
#[test]
fn role_server_that_is_killed() {
    let Ok(lifetime) = std::env::var("STEAD_TEST_SERVER") else { return };
    let bed = testbed::Bed::current().expect("inside the bed");
    let host = std::env::var("STEAD_TEST_HOST").unwrap();
    let lifetime = if lifetime == "detached" { Lifetime::Detached } else { Lifetime::TiedToServer };
    // The thread that logs on ends before the server does.
    let (session, child) = std::thread::spawn(move || {
        let session = from(logon(bed, "alice"), &host).lifetime(lifetime).opened().unwrap();
        let child = sleeper(&session);
        (session, child)
    })
    .join()
    .unwrap();
    let quick = Command::new("/bin/sh").arg("-c").arg("exit 47").spawn_as(session.token()).unwrap();
    let daemon = daemon(&session);
    println!("\nserver: {} {} {} {} {daemon}", worker(), session.id(), child.id(), quick.id());
    std::thread::sleep(std::time::Duration::from_secs(600));
    drop((session, child, quick));
}

struct Server {
    process: StartedServer,
    worker: u32,
    session: SessionId,
    child: u32,
    quick: u32,
    daemon: u32,
}

impl Server {
    fn start(lifetime: &str, host: &str) -> Self {
        let mut variables = told_to_a_server();
        variables.push(("STEAD_TEST_SERVER", lifetime.to_owned()));
        variables.push(("STEAD_TEST_HOST", host.to_owned()));
        let process = StartedServer::start(&exact(module_path!(), "role_server_that_is_killed"), variables);
        let pid = |at: usize| process.said[at].parse().unwrap();
        let (worker, child, quick, daemon) = (pid(0), pid(2), pid(3), pid(4));
        let session = process.said[1].parse().unwrap();
        Self { process, worker, session, child, quick, daemon }
    }

    fn kill(&mut self) {
        self.process.kill();
    }
}

#[test]
fn when_the_server_is_killed_a_tied_session_is_closed_in_order_and_its_processes_are_gone() {
    let bed = testbed::require!();
    let host = "tied.example";
    let mut server = Server::start("tied", host);
    assert!(lives(server.worker) && lives(server.child) && lives(server.daemon));
    server.kill();
    until("the worker is gone", || !lives(server.worker));
    assert!(!lives(server.child) && !lives(server.daemon));
    assert!(phases(bed, host).contains(&CLOSED.to_owned()));
}

#[test]
fn when_the_server_is_killed_a_detached_session_lives_and_is_found_again() {
    let bed = testbed::require!();
    needs_privileges_of_its_own(
        "taking a session over whose server is gone; through the service anybody of its user does",
    );
    let host = "detached.example";
    let mut server = Server::start("detached", host);
    // As long as its server lives, nobody else gets it.
    let taken = LogonSession::reattach(server.session).unwrap_err();
    assert!(matches!(taken.kind(), ErrorKind::WorkerUnavailable { .. }), "{taken}");
    server.kill();
    assert!(LogonSession::detached_sessions().unwrap().contains(&server.session));
    let mut session = LogonSession::reattach(server.session);
    until("the worker has noticed", || {
        if session.is_err() {
            session = LogonSession::reattach(server.session);
        }
        session.is_ok()
    });
    let session = session.unwrap();
    assert!(lives(server.worker) && lives(server.child) && lives(server.daemon));
    assert_eq!(seen(bed, &session).uid.real, bed.user("alice").uid);
    let started = session.started();
    let quick = started.iter().find(|process| process.pid() == server.quick).unwrap();
    assert_eq!(quick.exit_status().unwrap().unwrap().code(), Some(47), "statuses wait for the next server");
    let child = started.iter().find(|process| process.pid() == server.child).unwrap();
    assert_eq!(child.exit_status().unwrap(), None);
    drop(started);
    session.terminate().unwrap();
    session.close().unwrap();
    assert!(!lives(server.child) && !lives(server.daemon));
    assert!(phases(bed, host).contains(&CLOSED.to_owned()));
    assert!(!LogonSession::detached_sessions().unwrap().contains(&server.session));
    assert_eq!(*LogonSession::reattach(server.session).unwrap_err().kind(), ErrorKind::SessionEnded);
}

#[test]
fn the_socket_of_a_killed_worker_is_swept_at_the_next_listing() {
    let bed = testbed::require!();
    let session = logon(bed, "alice").lifetime(Lifetime::Detached).opened().unwrap();
    let socket = format!("/run/stead/sessions/{}.sock", session.id());
    assert!(std::fs::symlink_metadata(&socket).is_ok());
    kill(worker());
    until("the worker is gone", || !LogonSession::detached_sessions().unwrap().contains(&session.id()));
    assert!(std::fs::symlink_metadata(&socket).is_err());
}

#[test]
fn a_detached_sessions_socket_is_for_the_servers_own_user_only() {
    let bed = testbed::require!();
    let session = logon(bed, "alice").lifetime(Lifetime::Detached).opened().unwrap();
    let folder = std::fs::metadata("/run/stead/sessions").unwrap();
    assert_eq!((folder.uid(), folder.mode() & 0o7777), (0, 0o700));
    let socket = format!("/run/stead/sessions/{}.sock", session.id());
    // One who comes past the folder's mode is still not the server: the worker does not answer.
    let said = bed
        .as_user("mallory", &["dac_override"], bed.bin("testbed-client"))
        .args(["connect", &socket])
        .stdin(StdStdio::null())
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&said.stdout).contains("alice"));
    assert_eq!(seen(bed, &session).uid.real, bed.user("alice").uid, "the session minds nobody else");
    session.close().unwrap();
}

#[test]
fn the_worker_leaves_the_servers_terminal_and_keeps_nothing_of_it() {
    let bed = testbed::require!();
    let session = session(bed, "alice");
    let status = testbed::Probe::of(worker().try_into().unwrap()).unwrap();
    assert_eq!((status.session, status.terminal, status.parent_death_signal), (status.pid, 0, 0));
    assert_eq!(status.environment, Vec::<String>::new());
    drop(session);
    if !testbed::confine::may("sys_ptrace") {
        testbed::skip!(
            "the directory of the worker, which is not dumpable, needs CAP_SYS_PTRACE; the rest was tested"
        );
    }
    assert_eq!(status.directory, "/");
}

#[test]
fn logons_and_processes_leave_no_growth() {
    let bed = testbed::require!();
    testbed::time_limit!(3600);
    let rounds = std::env::var("STEAD_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let round = |number: usize| {
        let name = ["alice", "bob", "0day"][number % 3];
        let session = Logon::s4u(Account::local(name)).kind(LogonType::Network).opened().unwrap();
        let status = Command::new("/bin/true").status_as(session.token()).unwrap();
        assert!(status.success());
        if number.is_multiple_of(2) {
            session.close().unwrap();
        }
    };
    for number in 0..12 {
        round(number);
    }
    let settle = || {
        until("the workers have ended", || {
            session(bed, "bob").close().unwrap();
            children().is_empty()
        });
    };
    settle();
    let before = (descriptors(), threads());
    let memory = resident_kib();
    for number in 0..rounds {
        round(number);
    }
    settle();
    assert_eq!((descriptors(), threads()), before);
    assert!(resident_kib() < memory + 2048, "{} KiB after {memory}", resident_kib());
}

#[test]
fn a_session_in_which_processes_come_and_go_takes_no_more_memory() {
    let bed = testbed::require!();
    testbed::time_limit!(3600);
    let rounds = std::env::var("STEAD_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(400);
    let session = session(bed, "alice");
    // Else everything that is known of those that ended goes with the last of them.
    let mut stays = sleeper(&session);
    let come_and_go = |times: usize| {
        for _ in 0..times {
            assert!(Command::new("/bin/true").status_as(session.token()).unwrap().success());
        }
    };
    come_and_go(200);
    let worker = worker();
    let before = memory_of(worker);
    come_and_go(rounds);
    let after = memory_of(worker);
    assert!(after <= before + 64, "{before} KiB before {rounds} processes, {after} KiB after");
    stays.kill().unwrap();
}

/// What a process has of its own, in KiB.
fn memory_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

fn worker() -> u32 {
    let living: Vec<u32> =
        children().into_iter().filter(|pid| lives(*pid) && name_of(*pid) == "stead-session").collect();
    *living.last().expect("the worker is a child")
}

fn name_of(pid: u32) -> String {
    let mut name = String::new();
    if let Ok(mut file) = std::fs::File::open(format!("/proc/{pid}/comm")) {
        let _ = file.read_to_string(&mut name);
    }
    name.trim_end().to_owned()
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn children_of(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Not a test by itself: what a server with capabilities and without root does.
#[test]
fn role_server_with_capabilities_only() {
    let Ok(_) = std::env::var("STEAD_TEST_CAPABLE") else { return };
    let bed = testbed::Bed::current().expect("inside the bed");
    assert_eq!(rustix::process::getuid().as_raw(), bed.user("svc").uid);
    let session =
        from(logon(bed, "alice"), "capable.example").opened().unwrap_or_else(|error| panic!("{error}"));
    let ours = seen(bed, &session);
    assert_eq!(ours.uid.real, bed.user("alice").uid);
    assert_eq!(ours.umask, bed.pam_umask("stead-interactive"));
    assert_eq!((ours.capabilities.permitted, ours.capabilities.ambient), (0, 0));
    let mut child = sleeper(&session);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(child);
    session.close().unwrap();
    println!("\ncapable: done");
}

#[test]
fn a_server_that_is_not_root_but_has_the_capabilities_logs_accounts_on() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("it has capabilities");
    // The worker must be where svc can execute it, and belong to root.
    let folder = bed.scratch("capable");
    for (from, name) in [(std::env::current_exe().unwrap(), "program"), (worker_program(), "stead-session")] {
        std::fs::copy(from, folder.join(name)).unwrap();
    }
    let capabilities =
        ["setuid", "setgid", "setpcap", "kill", "sys_ptrace", "dac_read_search", "audit_control", "sys_nice"];
    let output = bed
        .as_user("svc", &capabilities, folder.join("program"))
        .args(["--exact", "role_server_with_capabilities_only", "--nocapture"])
        .env("STEAD_TEST_CAPABLE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("capable: done"), "{output:?}");
}

/// Not a test by itself: what a server in an ordinary container does.
#[test]
fn role_server_in_a_container() {
    let Ok(_) = std::env::var("STEAD_TEST_CONTAINER") else { return };
    let bed = testbed::Bed::current().expect("inside the bed");
    // pam_loginuid is required where the bed can set it, and a container may not.
    let logon = Logon::password(Account::local("alice"), bed.user("alice").password.as_str());
    let session = logon.pam_service("stead-fail-close").opened().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(seen(bed, &session).uid.real, bed.user("alice").uid);
    let mut child = sleeper(&session);
    child.kill_tree().unwrap();
    child.wait().unwrap();
    drop(child);
    assert_eq!(*session.close().unwrap_err().kind(), ErrorKind::System { call: "pam_close_session" });
    println!("\ncontainer: done");
}

#[test]
fn a_server_in_an_ordinary_container_logs_accounts_on() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("it is root in a container");
    let output = bed
        .docker_like(std::env::current_exe().unwrap())
        .args(["--exact", "role_server_in_a_container", "--nocapture"])
        .env("STEAD_TEST_CONTAINER", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    testbed::skip_if_skipped(&output.stdout);
    assert!(String::from_utf8_lossy(&output.stdout).contains("container: done"), "{output:?}");
}
