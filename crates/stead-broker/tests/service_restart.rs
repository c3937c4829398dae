//! The service ends, by itself or by force, and begins anew: what it knew it knows again.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;
use service_support::{Service, alive, call, everything, own, part, refusal, s4u, shell};
use stead_protocol::client::Connection;
use stead_protocol::{
    CreatedProcess, FailureKind, GetStatus, KillTree, ListProcesses, ListSessions, OpenSession, Process,
    SignalProcess, WaitProcess,
};
use testbed::until;

fn policy() -> String {
    everything(&["svc"], &["alice", "bob"]) + &everything(&["root"], &["alice"])
}

fn start(service: &mut Connection, token: u64, script: &str) -> CreatedProcess {
    call(service, &shell(token, script), &[]).0
}

fn status(service: &mut Connection, process: &Process) -> Result<Option<i32>, FailureKind> {
    let wait = WaitProcess { process: process.id.clone(), timeout: None };
    match service.call(&wait, &[]) {
        Ok((waited, _)) => Ok(waited.status.unwrap().code),
        Err(stead_protocol::client::CallError::Failed(failure)) => Err(failure.kind),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn processes_and_sessions_live_on_and_are_known_after_the_service_was_killed() {
    let bed = testbed::require!();
    let folder = bed.scratch("gate");
    let gate = folder.join("open");
    let mut service = Service::start(bed, &policy());
    let mut root = service.connect();
    let opened = call(&mut root, &s4u("alice"), &[]).0;
    let wait = format!("while ! test -e {}; do sleep 0.05; done; exit", gate.display());
    let first = start(&mut root, opened.token, &format!("{wait} 3"));
    let second = start(&mut root, opened.token, &format!("{wait} 4"));
    let third = start(&mut root, opened.token, "sleep 600 & sleep 600; true");
    let of_root = own(&mut root);
    let fourth = start(&mut root, of_root.token, &format!("{wait} 5"));
    service.kill();
    // The connection ends with an error, and nobody else's call is answered on it.
    assert!(root.call(&GetStatus {}, &[]).is_err());
    for process in [&first, &second, &third, &fourth] {
        assert!(alive(process.process.pid));
    }

    service.run(bed);
    let mut root = service.connect();
    let (listed, _) = call(&mut root, &ListProcesses::default(), &[]);
    for process in [&first, &second, &third, &fourth] {
        let found = listed.processes.iter().find(|one| one.id == process.process.id).unwrap();
        assert_eq!((found.pid, found.running), (process.process.pid, true));
    }
    let (sessions, _) = call(&mut root, &ListSessions {}, &[]);
    let session = sessions.sessions.iter().find(|one| one.id == opened.session.id).unwrap();
    assert!(session.pids.contains(&first.process.pid));
    // A new process in the old session.
    let again = call(&mut root, &OpenSession { session: opened.session.id.clone() }, &[]).0;
    assert_eq!(again.context.uid, bed.user("alice").uid);
    let fifth = start(&mut root, again.token, "exit 6");
    assert_eq!(status(&mut root, &fifth.process), Ok(Some(6)));

    std::fs::write(&gate, "").unwrap();
    assert_eq!(status(&mut root, &first.process), Ok(Some(3)), "the worker kept it");
    assert_eq!(status(&mut root, &second.process), Ok(Some(4)));
    // The kernel keeps it for who holds a pidfd, from Linux 6.15 on.
    let told = status(&mut root, &fourth.process);
    assert!(matches!(told, Ok(Some(5)) | Err(FailureKind::StatusLost {})), "{told:?}");
    call(&mut root, &KillTree { process: third.process.id.clone() }, &[]);
    until("the tree has ended", || !alive(third.process.pid));
}

#[test]
fn a_status_is_still_told_of_what_ended_while_there_was_no_service() {
    let bed = testbed::require!();
    let gate = bed.scratch("gate").join("open");
    let mut service = Service::start(bed, &policy());
    let mut root = service.connect();
    let opened = call(&mut root, &s4u("alice"), &[]).0;
    let before = start(&mut root, opened.token, "exit 8");
    assert_eq!(status(&mut root, &before.process), Ok(Some(8)));
    let wait = format!("while ! test -e {}; do sleep 0.05; done; exit 9", gate.display());
    let meanwhile = start(&mut root, opened.token, &wait);
    let stays = start(&mut root, opened.token, "exec sleep 600");
    service.kill();
    std::fs::write(&gate, "").unwrap();
    until("it has ended", || !alive(meanwhile.process.pid));
    service.run(bed);
    let mut root = service.connect();
    assert_eq!(status(&mut root, &before.process), Ok(Some(8)), "it was written down");
    assert_eq!(status(&mut root, &meanwhile.process), Ok(Some(9)), "the worker kept it");
    call(&mut root, &KillTree { process: stays.process.id.clone() }, &[]);
}

#[test]
fn a_number_that_is_another_process_by_now_is_not_taken_for_the_old_one() {
    let bed = testbed::require!();
    let mut service = Service::start(bed, &policy());
    let mut root = service.connect();
    let token = own(&mut root).token;
    let old = start(&mut root, token, "exec sleep 600");
    service.kill();
    // As if its number had been given away: the record names a process that it does not prove.
    let mut stranger = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let path = service.folder.join("state/processes").join(format!("{}.json", old.process.id));
    let text = std::fs::read_to_string(&path).unwrap();
    let renamed =
        text.replace(&format!("\"pid\":{}", old.process.pid), &format!("\"pid\":{}", stranger.id()));
    assert_ne!(text, renamed);
    std::fs::write(&path, renamed).unwrap();
    service.run(bed);
    let mut root = service.connect();
    assert_eq!(status(&mut root, &old.process), Err(FailureKind::StatusLost {}));
    call(&mut root, &SignalProcess { process: old.process.id.clone(), signal: 9, group: false }, &[]);
    // An earlier run's tree of which nothing is known any more has no processes.
    let _ = root.call(&KillTree { process: old.process.id.clone() }, &[]);
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger was not touched");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_raw(old.process.pid.cast_signed()).unwrap(),
        Signal::KILL,
    );
}

#[test]
fn killing_a_worker_is_an_error_for_its_callers_and_for_nobody_else() {
    let bed = testbed::require!();
    let service = Service::start(bed, &policy());
    let mut root = service.connect();
    let opened = call(&mut root, &s4u("alice"), &[]).0;
    let running = start(&mut root, opened.token, "exec sleep 600");
    let status_of = std::fs::read_to_string(format!("/proc/{}/status", running.process.pid)).unwrap();
    let worker =
        status_of.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(worker).unwrap(), Signal::KILL).unwrap();
    let refused = refusal(&mut root, &shell(opened.token, "true"), &[]);
    assert!(
        matches!(refused, FailureKind::SessionEnded {} | FailureKind::WorkerUnavailable { .. }),
        "{refused:?}"
    );
    // A session of its own is opened as before.
    let other = call(&mut root, &s4u("alice"), &[]).0;
    let fine = start(&mut root, other.token, "exit 2");
    assert_eq!(status(&mut root, &fine.process), Ok(Some(2)));
    call(&mut root, &SignalProcess { process: running.process.id.clone(), signal: 9, group: false }, &[]);
    until("what was left has ended", || !alive(running.process.pid));
}

#[test]
fn a_policy_is_read_anew_on_sighup_all_or_nothing() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    service.caller(bed, "svc", "role_may_not");
    service.write_policy(&policy());
    service.signal(Signal::HUP);
    let loaded = |service: &Service, event: &str| {
        service.audit().iter().filter(|record| record["event"] == event).count()
    };
    until("the policy is in force", || loaded(&service, "policy-loaded") == 2);
    service.caller(bed, "svc", "role_may");
    service.write_policy("[[allow]]\ncallers = \"everyone\"\nprivileges = [\"tcb\"]\nclints = 1\n");
    service.signal(Signal::HUP);
    until("the policy is refused", || loaded(&service, "policy-refused") == 1);
    service.caller(bed, "svc", "role_may");
}

#[test]
fn a_sighup_while_the_service_begins_does_not_end_it() {
    let bed = testbed::require!();
    let taken = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(caught, 16).unwrap() & 1 != 0
    };
    for _ in 0..20 {
        let mut service = Service::prepare(bed, "", None);
        service.begin(bed);
        let pid = service.pid();
        let socket = service.socket();
        until("it takes signals or listens", || taken(pid) || socket.exists());
        assert!(taken(pid), "it was to be found before it could be told to read its policy anew");
        service.signal(Signal::HUP);
        until("it answers", || Connection::connect(&socket).is_ok());
        assert_eq!(call(&mut service.connect(), &GetStatus {}, &[]).0.pid, pid);
    }
}

#[test]
fn role_may_not() {
    let Some(mut service) = part() else { return };
    assert!(matches!(refusal(&mut service, &s4u("bob"), &[]), FailureKind::PolicyDenied { .. }));
}

#[test]
fn role_may() {
    let Some(mut service) = part() else { return };
    call(&mut service, &s4u("bob"), &[]);
}

#[test]
fn it_ends_when_it_is_told_to_and_leaves_the_processes_alone() {
    let bed = testbed::require!();
    let mut service = Service::start(bed, "");
    let mut root = service.connect();
    let token = own(&mut root).token;
    let running = start(&mut root, token, "exec sleep 600");
    service.signal(Signal::TERM);
    assert_eq!(service.wait().code(), Some(0));
    assert!(!service.socket().exists());
    assert!(alive(running.process.pid));
    let last = service.audit().pop().unwrap();
    assert_eq!(last["event"], "service-stop");
    let pid = rustix::process::Pid::from_raw(running.process.pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn a_second_service_of_the_same_place_does_not_begin() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    let second = service.command(bed).output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another service runs already"));
    call(&mut service.connect(), &GetStatus {}, &[]);
}

#[test]
fn a_service_manager_may_listen_for_it_and_is_told_when_it_is_ready() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    let folder = bed.scratch("manager");
    let listener = UnixListener::bind(folder.join("service.sock")).unwrap();
    let notify = std::os::unix::net::UnixDatagram::bind(folder.join("notify")).unwrap();
    // As systemd does it: the socket is number 3, and the environment says whose.
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let script = format!(r#"exec 3<&{}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@""#, listener.as_raw_fd());
    let mut command = std::process::Command::new("/bin/sh");
    command.arg("-c").arg(script).arg(bed.bin("serve_alone"));
    command.args([service.folder.join("nowhere.sock"), service.folder.join("policy"), folder.join("state")]);
    command.env("NOTIFY_SOCKET", folder.join("notify"));
    let mut child = command.spawn().unwrap();
    let mut said = [0; 256];
    let length = notify.recv(&mut said).unwrap();
    assert!(String::from_utf8_lossy(&said[..length]).contains("READY=1"));
    let mut root = Connection::from(UnixStream::connect(folder.join("service.sock")).unwrap());
    assert_eq!(call(&mut root, &GetStatus {}, &[]).0.pid, child.id());
    assert!(!service.folder.join("nowhere.sock").exists());
    child.kill().unwrap();
    child.wait().unwrap();
}
