//! Sessions that end with the connections that hold them, and sessions that do not.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod service_support;

use service_support::{Service, alive, call, part, refusal, shell};
use stead_protocol::client::Connection;
use stead_protocol::{
    CloseSession, FailureKind, Lifetime, ListSessions, LogOn, OpenSession, OpenedSession, TerminateSession,
};
use testbed::until;

const POLICY: &str = r#"
[[allow]]
callers = { users = ["root", "mallory"] }
clients = { users = ["alice"] }
privileges = ["tcb", "assign-primary-token"]
programs = "any"
logon-types = ["batch"]
"#;

fn log_on(service: &mut Connection, lifetime: Lifetime) -> OpenedSession {
    let json = r#"{"account":{"name":"alice"},"logon_type":"batch","s4u":true}"#;
    let logon: LogOn = serde_json::from_str(json).unwrap();
    assert_eq!(logon.lifetime, Lifetime::Detached, "who says nothing gets a detached one");
    call(service, &LogOn { lifetime, ..logon }, &[]).0
}

fn start(service: &mut Connection, session: &OpenedSession, script: &str) -> u32 {
    call(service, &shell(session.token, script), &[]).0.process.pid
}

fn open(service: &mut Connection, session: &OpenedSession) -> OpenedSession {
    call(service, &OpenSession { session: session.session.id.clone() }, &[]).0
}

/// Lets go of a session whose processes go on: nobody waits for the answer.
fn let_go(service: &mut Connection, session: &OpenedSession) {
    service.tell(&CloseSession { session: session.session.id.clone() }).unwrap();
}

fn lists(service: &mut Connection, session: &OpenedSession) -> bool {
    let listed = call(service, &ListSessions {}, &[]).0;
    listed.sessions.iter().any(|one| one.id == session.session.id)
}

#[test]
fn a_tied_session_ends_with_its_callers_connection_and_a_detached_one_does_not() {
    let bed = testbed::require!();
    let service = Service::start(bed, POLICY);
    let (mut caller, mut watcher) = (service.connect(), service.connect());
    let tied = log_on(&mut caller, Lifetime::Tied);
    let detached = log_on(&mut caller, Lifetime::Detached);
    assert_eq!((tied.session.lifetime, detached.session.lifetime), (Lifetime::Tied, Lifetime::Detached));
    let told = bed.user("alice").home.join(format!("told-{}", std::process::id()));
    let ended = [
        start(
            &mut caller,
            &tied,
            &format!("trap 'echo told > {}; exit' HUP; while :; do sleep 0.05; done", told.display()),
        ),
        start(&mut caller, &tied, "trap '' HUP TERM; while :; do sleep 0.05; done"),
        start(&mut caller, &tied, "kill -STOP $$"),
    ];
    let stays = start(&mut caller, &detached, "sleep 600");
    // Both ignore and catch signals by now, or the first of them would not be told.
    let catches = |pid: u32, field: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap() & 1 != 0
    };
    until("the first catches SIGHUP", || catches(ended[0], "SigCgt:"));
    until("the second ignores it", || catches(ended[1], "SigIgn:"));
    drop(caller);
    until("its processes have ended", || ended.iter().all(|pid| !alive(*pid)));
    assert_eq!(std::fs::read_to_string(&told).unwrap(), "told\n", "they had a moment to end by themselves");
    std::fs::remove_file(&told).unwrap();
    until("the session is over", || !lists(&mut watcher, &tied));
    assert!(alive(stays) && lists(&mut watcher, &detached));
    call(&mut watcher, &TerminateSession { session: detached.session.id.clone() }, &[]);

    let records = || service.audit().into_iter().filter(|record| record["event"] == "session-end");
    until("it is on record", || records().count() > 0);
    let record = records().next().unwrap();
    assert_eq!(record["session"], tied.session.id.as_str(), "{record}");
    assert_eq!(record["client"]["name"], "alice", "{record}");
    assert_eq!(records().count(), 1);
}

#[test]
fn a_tied_session_that_was_let_go_of_ends_with_its_last_process() {
    let bed = testbed::require!();
    let service = Service::start(bed, POLICY);
    let (mut caller, mut watcher) = (service.connect(), service.connect());
    let session = log_on(&mut caller, Lifetime::Tied);
    let gate = bed.user("alice").home.join(format!("gate-{}", std::process::id()));
    let wait = format!("while ! test -e {}; do sleep 0.05; done", gate.display());
    let process = start(&mut caller, &session, &wait);
    // It asks for its own connection's end to be waited for: as one who closes and goes does.
    let_go(&mut caller, &session);
    drop(caller);
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(alive(process) && lists(&mut watcher, &session));
    }
    std::fs::write(&gate, "").unwrap();
    until("the session is over", || !lists(&mut watcher, &session));
    std::fs::remove_file(gate).unwrap();
}

#[test]
fn a_tied_session_lives_until_the_last_connection_that_holds_it_is_lost() {
    let bed = testbed::require!();
    let service = Service::start(bed, POLICY);
    let (mut first, mut watcher) = (service.connect(), service.connect());
    let session = log_on(&mut first, Lifetime::Tied);
    let process = start(&mut first, &session, "sleep 600");
    let (mut second, mut third) = (service.connect(), service.connect());
    for holder in [&mut second, &mut third] {
        open(holder, &session);
        // Twice is once.
        open(holder, &session);
    }
    drop(first);
    let_go(&mut third, &session);
    drop(third);
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(alive(process), "one holds it still");
    }
    drop(second);
    until("its process has ended", || !alive(process));
    until("the session is over", || !lists(&mut watcher, &session));
}

#[test]
fn nobody_else_can_hold_a_tied_session_or_let_go_of_it() {
    let bed = testbed::require!();
    let service = Service::start(bed, POLICY);
    let (mut caller, mut watcher) = (service.connect(), service.connect());
    let session = log_on(&mut caller, Lifetime::Tied);
    let process = start(&mut caller, &session, "sleep 600");
    // Entitled to alice's sessions of its own, and not to this one.
    service.caller_with(bed, "mallory", "role_names_anothers_session", &[("SESSION", &session.session.id)]);
    // Another connection of the same user lets go of what it holds itself, and that is nothing.
    let_go(&mut watcher, &session);
    assert!(alive(process) && lists(&mut service.connect(), &session));
    drop(caller);
    until("its process has ended", || !alive(process));
}

#[test]
fn role_names_anothers_session() {
    let Some(mut service) = part() else { return };
    let session = std::env::var("SESSION").unwrap();
    let unknown = FailureKind::NoSuchHandle { of: "session".to_owned() };
    assert_eq!(refusal(&mut service, &OpenSession { session: session.clone() }, &[]), unknown);
    assert_eq!(refusal(&mut service, &CloseSession { session: session.clone() }, &[]), unknown);
    assert_eq!(refusal(&mut service, &TerminateSession { session: session.clone() }, &[]), unknown);
    assert!(call(&mut service, &ListSessions {}, &[]).0.sessions.is_empty());
    let own = log_on(&mut service, Lifetime::Tied);
    assert_ne!(own.session.id, session);
}

#[test]
fn a_tied_session_outlives_the_service_and_ends_with_who_opens_it_again() {
    let bed = testbed::require!();
    for kill in [true, false] {
        let mut service = Service::start(bed, POLICY);
        let mut caller = service.connect();
        let session = log_on(&mut caller, Lifetime::Tied);
        let process = start(&mut caller, &session, "sleep 600");
        if kill {
            service.kill();
        } else {
            service.signal(rustix::process::Signal::TERM);
            service.wait();
        }
        drop(caller);
        service.run(bed);
        let mut again = service.connect();
        assert!(alive(process) && lists(&mut again, &session));
        assert_eq!(open(&mut again, &session).session.lifetime, Lifetime::Tied);
        drop(again);
        until("its process has ended", || !alive(process));
    }
}
