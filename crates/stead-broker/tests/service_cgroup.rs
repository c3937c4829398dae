//! A service to which a control group was delegated: each process and its descendants are in one of their own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod service_support;

use service_support::{Service, Unit, alive, call, everything, members, own, refusal, shell};
use stead_protocol::client::{CallError, Connection};
use stead_protocol::{FailureKind, KillTree, LogOn, OpenSession, OpenedSession, Process, WaitProcess};
use testbed::until;

fn policy() -> String {
    everything(&["root"], &["alice"])
}

/// Begins daemons that belong to nobody, faster than they could be ended one by one, and ends itself.
const DAEMONS: &str = "setsid -f sh -c 'while :; do setsid -f sleep 1000; sleep 0.02; done'; exit 7";

fn group_of(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

fn log_on(root: &mut Connection) -> OpenedSession {
    let json = r#"{"account":{"name":"alice","local":true},"logon_type":"batch","s4u":true}"#;
    call(root, &serde_json::from_str::<LogOn>(json).unwrap(), &[]).0
}

fn start(root: &mut Connection, token: u64, script: &str) -> Process {
    call(root, &shell(token, script), &[]).0.process
}

fn code(root: &mut Connection, process: &Process) -> Option<i32> {
    let wait = WaitProcess { process: process.id.clone(), timeout: None };
    call(root, &wait, &[]).0.status.unwrap().code
}

fn kill_tree(root: &mut Connection, process: &Process) {
    call(root, &KillTree { process: process.id.clone() }, &[]);
}

#[test]
fn daemons_that_left_their_tree_are_ended_with_it_also_after_a_restart() {
    let bed = testbed::require!();
    let unit = Unit::require(bed);
    let mut service = Service::start_in(bed, &policy(), Some(unit.service()));
    let mut root = service.connect();
    let session = log_on(&mut root);
    // Not alone in its session: whose a daemon is, its worker could not tell.
    let neighbour = start(&mut root, session.token, "sleep 600");
    let token = own(&mut root).token;
    let trees: Vec<Process> =
        [session.token, token, session.token, token].map(|token| start(&mut root, token, DAEMONS)).into();
    let mut daemons = Vec::new();
    for process in &trees {
        assert_eq!(process.containment, "cgroup");
        assert_eq!(code(&mut root, process), Some(7));
        until("it has daemons", || members(&unit.of(process)).len() > 3);
        daemons.extend(members(&unit.of(process)));
    }
    for process in &trees[..2] {
        kill_tree(&mut root, process);
        assert!(!unit.of(process).exists(), "an empty group stayed");
    }
    service.kill();
    service.run(bed);
    let mut root = service.connect();
    let mut later = Vec::new();
    for process in &trees[2..] {
        later.extend(members(&unit.of(process)));
        assert!(!later.is_empty());
        kill_tree(&mut root, process);
        assert!(!unit.of(process).exists(), "an empty group stayed");
    }
    for daemon in daemons.into_iter().chain(later) {
        until("the daemon has ended", || !alive(daemon));
    }
    assert!(alive(neighbour.pid), "a neighbour in the session was ended");
    kill_tree(&mut root, &neighbour);
    until("the neighbour has ended", || !alive(neighbour.pid));
}

/// Whoever ends its first process at once would have as many daemons as it likes.
#[test]
fn a_tree_is_counted_until_its_last_process_has_ended() {
    let bed = testbed::require!();
    let unit = Unit::require(bed);
    let policy = policy() + "[quotas]\nprocesses = 2\n";
    let mut service = Service::start_in(bed, &policy, Some(unit.service()));
    let mut root = service.connect();
    let reached = FailureKind::QuotaReached { of: "processes".to_owned(), most: 2 };
    let one_more = |root: &mut Connection| {
        let process = shell(own(root).token, "exit 7");
        root.call(&process, &[]).map(|(created, _)| code(root, &created.process))
    };
    let is_reached = |root: &mut Connection| match one_more(root) {
        Err(CallError::Failed(failure)) => failure.kind == reached,
        other => panic!("{other:?}"),
    };
    let token = own(&mut root).token;
    let trees = [(), ()].map(|()| start(&mut root, token, "setsid -f sleep 1000; exit 7"));
    for process in &trees {
        assert_eq!(code(&mut root, process), Some(7));
    }
    assert!(is_reached(&mut root));
    service.kill();
    service.run(bed);
    let mut root = service.connect();
    assert!(is_reached(&mut root), "after a restart, too");
    kill_tree(&mut root, &trees[0]);
    // Its end is no other's.
    for _ in 0..3 {
        assert_eq!(one_more(&mut root).unwrap(), Some(7));
    }
    let token = own(&mut root).token;
    let last = start(&mut root, token, "setsid -f sleep 1000; exit 7");
    assert_eq!(code(&mut root, &last), Some(7));
    assert!(is_reached(&mut root));
    // One that ends by itself.
    for pid in members(&unit.of(&last)) {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    until("there is room again", || members(&unit.of(&last)).is_empty());
    assert_eq!(one_more(&mut root).unwrap(), Some(7));
    kill_tree(&mut root, &trees[1]);
}

#[test]
fn a_tree_that_lives_is_known_however_many_processes_of_its_user_end_after_it() {
    const REMEMBERED: usize = 256;
    let bed = testbed::require!();
    let unit = Unit::require(bed);
    let mut service = Service::start_in(bed, &policy(), Some(unit.service()));
    let mut root = service.connect();
    let token = own(&mut root).token;
    let trees = [(), ()].map(|()| start(&mut root, token, "setsid -f sleep 1000; exit 7"));
    let ended = start(&mut root, token, "exit 7");
    for process in trees.iter().chain([&ended]) {
        assert_eq!(code(&mut root, process), Some(7));
    }
    for _ in 0..REMEMBERED + 8 {
        let process = start(&mut root, token, "exit 0");
        assert_eq!(code(&mut root, &process), Some(0));
    }
    let of = "process".to_owned();
    let forgotten = refusal(&mut root, &KillTree { process: ended.id }, &[]);
    assert_eq!(forgotten, FailureKind::NoSuchHandle { of }, "nobody is left in its group");
    let [one, other] = trees;
    kill_tree(&mut root, &one);
    assert!(!unit.of(&one).exists(), "an empty group stayed");
    service.kill();
    service.run(bed);
    let mut root = service.connect();
    assert_eq!(code(&mut root, &other), Some(7), "it is told how it ended");
    kill_tree(&mut root, &other);
    assert!(!unit.of(&other).exists(), "an empty group stayed");
}

#[test]
fn a_process_is_in_a_group_of_its_own_which_goes_with_it() {
    let bed = testbed::require!();
    let unit = Unit::require(bed);
    let service = Service::start_in(bed, &policy(), Some(unit.service()));
    let mut root = service.connect();
    let token = own(&mut root).token;
    let (said, _) = service_support::output(&mut root, shell(token, "cat /proc/self/cgroup; exit 3"));
    let line = said.lines().find(|line| line.starts_with("0::")).unwrap();
    let (above, id) = line.rsplit_once('/').unwrap();
    assert!(above.ends_with("/clients"), "{line}");
    assert!(!unit.0.join("clients").join(id).exists(), "its group outlived it");
    assert_eq!(members(&unit.service()), [service.pid()]);
}

#[test]
fn a_group_that_became_empty_while_there_was_no_service_is_removed() {
    let bed = testbed::require!();
    let unit = Unit::require(bed);
    let mut service = Service::start_in(bed, &policy(), Some(unit.service()));
    let mut root = service.connect();
    let token = own(&mut root).token;
    let process = start(&mut root, token, "setsid -f sleep 1000; exit 2");
    assert_eq!(code(&mut root, &process), Some(2));
    let group = unit.of(&process);
    assert_eq!(members(&group).len(), 1, "a daemon is in the group");
    service.kill();
    std::fs::write(group.join("cgroup.kill"), "1").unwrap();
    service.run(bed);
    until("the group is removed", || !group.exists());
    assert!(unit.0.join("clients").exists());
}

#[test]
fn a_service_that_is_in_the_delegated_group_itself_moves_into_a_part_of_it() {
    let bed = testbed::require!();
    let unit = Unit::require(bed);
    let mut service = Service::start_in(bed, &policy(), Some(unit.0.clone()));
    let mut root = service.connect();
    // It listens before it looks around; an answer comes afterwards.
    let token = own(&mut root).token;
    assert!(members(&unit.0).is_empty());
    assert_eq!(members(&unit.service()), [service.pid()]);
    let process = start(&mut root, token, "sleep 600");
    assert!(members(&unit.of(&process)).contains(&process.pid));
    // As the manager of an older systemd starts it anew.
    service.kill();
    service.run(bed);
    kill_tree(&mut service.connect(), &process);
    until("it has ended", || !alive(process.pid));
    assert_eq!(members(&unit.service()), [service.pid()]);
}

#[test]
fn a_group_that_was_not_delegated_is_left_alone() {
    let bed = testbed::require!();
    let Some(unit) = Unit::make(bed) else { testbed::skip!("no writable cgroup of version 2 here") };
    let service = Service::start_in(bed, &policy(), Some(unit.service()));
    let mut root = service.connect();
    let token = own(&mut root).token;
    let process = start(&mut root, token, "sleep 600");
    assert_eq!(process.containment, "posix_session");
    assert_eq!(group_of(process.pid), group_of(service.pid()));
    assert!(!unit.0.join("clients").exists());
    kill_tree(&mut root, &process);
}

#[test]
fn a_session_that_pam_gave_a_scope_of_its_own_stays_in_it() {
    let bed = testbed::require!();
    let unit = Unit::require(bed);
    let service = Service::start_in(bed, &policy(), Some(unit.service()));
    let mut root = service.connect();
    let session = log_on(&mut root);
    let id = session.session.id.clone();
    let first = start(&mut root, session.token, "sleep 600");
    assert_eq!(first.containment, "cgroup");
    // What pam_systemd has logind do.
    let (scope, _) = bed.cgroup("scope").unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", first.pid)).unwrap();
    let worker = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    std::fs::write(scope.join("cgroup.procs"), worker).unwrap();
    let again = call(&mut root, &OpenSession { session: id }, &[]).0;
    let second = start(&mut root, again.token, "sleep 600");
    assert_eq!(second.containment, "session_worker");
    assert!(members(&scope).contains(&second.pid));
    assert!(!unit.of(&second).exists());
    for process in [first, second] {
        kill_tree(&mut root, &process);
        until("it has ended", || !alive(process.pid));
    }
}
