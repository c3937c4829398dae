//! Sessions that end with the connections that hold them, and sessions that do not.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::path::PathBuf;

use serde_json::{Value, json};
use service_support::{
    Part, SOCKET, Service, alive, another, be_told, call, everything, part, refusal, say, shell,
};
use stead::{Account, Logon};
use stead_protocol::client::Connection;
use stead_protocol::{
    CloseSession, FailureKind, Lifetime, ListSessions, LogOn, OpenSession, OpenedSession, TerminateSession,
};
use testbed::until;

fn policy() -> String {
    everything(&["root", "mallory"], &["alice"])
}

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
    service.tell(&CloseSession { session: session.session.id.clone(), terminate: false }).unwrap();
}

fn lists(service: &mut Connection, session: &OpenedSession) -> bool {
    let listed = call(service, &ListSessions {}, &[]).0;
    listed.sessions.iter().any(|one| one.id == session.session.id)
}

#[test]
fn a_tied_session_ends_with_its_callers_connection_and_a_detached_one_does_not() {
    let bed = testbed::require!();
    let service = Service::start(bed, &policy());
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

    let records = || service.audit().into_iter().filter(|record| record["event"] == "session-lost");
    until("it is on record", || records().count() > 0);
    let record = records().next().unwrap();
    assert_eq!(record["session"], tied.session.id.as_str(), "{record}");
    assert_eq!(record["client"]["name"], "alice", "{record}");
    assert_eq!(records().count(), 1);
}

#[test]
fn a_tied_session_that_was_let_go_of_ends_with_its_last_process() {
    let bed = testbed::require!();
    let service = Service::start(bed, &policy());
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
fn a_session_that_is_closed_with_all_that_runs_in_it_is_over_when_that_is_answered() {
    let bed = testbed::require!();
    let service = Service::start(bed, &policy());
    for lifetime in [Lifetime::Tied, Lifetime::Detached] {
        let (mut caller, mut other) = (service.connect(), service.connect());
        let session = log_on(&mut caller, lifetime);
        let process = start(&mut caller, &session, "sleep 600 & sleep 600");
        let id = session.session.id.clone();
        call(&mut caller, &CloseSession { session: id.clone(), terminate: true }, &[]);
        assert!(!alive(process) && !lists(&mut other, &session));
        // The connection, and what else it holds, is as good as before.
        let next = log_on(&mut caller, lifetime);
        assert!(lists(&mut other, &next));
        call(&mut caller, &CloseSession { session: next.session.id, terminate: true }, &[]);
        let gone = FailureKind::NoSuchHandle { of: "session".to_owned() };
        assert_eq!(refusal(&mut other, &CloseSession { session: id, terminate: true }, &[]), gone);
    }
}

#[test]
fn who_opens_a_session_that_was_let_go_of_does_not_end_it_by_going_away() {
    let bed = testbed::require!();
    let mut service = Service::start(bed, &policy());
    let mut caller = service.connect();
    let session = log_on(&mut caller, Lifetime::Tied);
    let process = start(&mut caller, &session, "sleep 600");
    let_go(&mut caller, &session);
    until("the service has heard of it", || record(&service, &session.session.id)["holders"] == json!([]));
    drop(caller);
    for restart in [false, true] {
        if restart {
            service.kill();
            service.run(bed);
        }
        let mut looks = service.connect();
        assert_eq!(open(&mut looks, &session).session.lifetime, Lifetime::Detached);
        let by_another = start(&mut looks, &session, "sleep 600");
        drop(looks);
        stays_alive(process);
        assert!(alive(by_another));
    }
    assert!(sessions_lost(&service).is_empty());
    call(&mut service.connect(), &TerminateSession { session: session.session.id }, &[]);
    until("its process has ended", || !alive(process));
}

#[test]
fn a_tied_session_lives_until_the_last_connection_that_holds_it_is_lost() {
    let bed = testbed::require!();
    let service = Service::start(bed, &policy());
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
    let service = Service::start(bed, &policy());
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
    for terminate in [false, true] {
        let close = CloseSession { session: session.clone(), terminate };
        assert_eq!(refusal(&mut service, &close, &[]), unknown);
    }
    assert_eq!(refusal(&mut service, &TerminateSession { session: session.clone() }, &[]), unknown);
    assert!(call(&mut service, &ListSessions {}, &[]).0.sessions.is_empty());
    let own = log_on(&mut service, Lifetime::Tied);
    assert_ne!(own.session.id, session);
}

#[test]
fn a_tied_session_outlives_the_service_and_ends_with_who_opens_it_again() {
    let bed = testbed::require!();
    for kill in [true, false] {
        let mut service = Service::start(bed, &policy());
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

/// Logs alice on, tied to this process, and says the session, its process and who holds it.
fn hold(service: &mut Connection) -> OpenedSession {
    hold_with(service, "exit 0")
}

/// The same with a process that does this when it is told that nobody is there any more.
fn hold_with(service: &mut Connection, told: &str) -> OpenedSession {
    let session = log_on(service, Lifetime::Tied);
    let process = start(service, &session, &format!("trap '{told}' HUP; while :; do sleep 0.05; done"));
    say(format!("{} {process}", session.session.id));
    session
}

/// What such a process said: its session and the session's process.
fn held(part: &mut Part) -> (String, u32) {
    let said = part.says();
    let (session, process) = said.split_once(' ').unwrap();
    (session.to_owned(), process.parse().unwrap())
}

#[test]
fn role_holds_a_session() {
    let Some(mut service) = part() else { return };
    hold(&mut service);
    be_told();
}

/// Where the service writes a session down.
fn record_of(service: &Service, session: &str) -> PathBuf {
    service.folder.join(format!("state/sessions/{session}.json"))
}

fn record(service: &Service, session: &str) -> Value {
    serde_json::from_slice(&std::fs::read(record_of(service, session)).unwrap()).unwrap()
}

fn stays_alive(process: u32) {
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(alive(process), "somebody holds its session");
    }
}

fn sessions_lost(service: &Service) -> Vec<String> {
    let records = service.audit().into_iter().filter(|record| record["event"] == "session-lost");
    records.map(|record| record["session"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_tie_survives_the_service_whether_it_is_killed_or_told_to_end() {
    let bed = testbed::require!();
    for kill in [true, false] {
        let mut service = Service::start(bed, &policy());
        let mut parts = [1, 2].map(|_| service.part(bed, "role_holds_a_session", &[]));
        let [(first, process), (second, other)] = parts.each_mut().map(held);
        if kill {
            service.kill();
        } else {
            service.signal(rustix::process::Signal::TERM);
            service.wait();
        }
        service.run(bed);
        stays_alive(process);
        assert!(alive(other));
        parts[0].kill();
        until("the first holder's process has ended", || !alive(process));
        until("it is on record", || sessions_lost(&service) == [first.clone()]);
        assert!(alive(other), "the second holder's has not");

        // Again, and this time the holder ends while there is no service.
        service.kill();
        parts[1].kill();
        assert!(alive(other), "who should have ended it");
        service.run(bed);
        until("the second holder's process has ended", || !alive(other));
        until("it is on record", || sessions_lost(&service) == [first.clone(), second.clone()]);
    }
}

#[test]
fn a_service_that_is_killed_while_it_ends_a_lost_session_is_followed_by_one_that_ends_it() {
    let bed = testbed::require!();
    for pause in [0, 50, 200, 400] {
        let mut service = Service::start(bed, &policy());
        let mut part = service.part(bed, "role_holds_a_session_that_stays", &[]);
        let (session, process) = held(&mut part);
        part.kill();
        // The process is told, and has half a second.
        std::thread::sleep(std::time::Duration::from_millis(pause));
        service.kill();
        service.run(bed);
        until("the process has ended", || !alive(process));
        until("it is on record", || sessions_lost(&service).contains(&session));
    }
}

#[test]
fn role_holds_a_session_that_stays() {
    let Some(mut service) = part() else { return };
    hold_with(&mut service, "");
    be_told();
}

#[test]
fn a_tie_is_not_taken_over_by_another_process_with_the_holders_number() {
    let bed = testbed::require!();
    let mut service = Service::start(bed, &policy());
    let mut part = service.part(bed, "role_holds_a_session", &[]);
    let (session, process) = held(&mut part);
    service.kill();
    part.kill();
    // As if its number had been given away: the record names a process that it does not prove.
    let mut stranger = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let mut record = record(&service, &session);
    assert_eq!(record["holders"].as_array().unwrap().len(), 1, "{record}");
    record["holders"][0]["pid"] = stranger.id().into();
    std::fs::write(record_of(&service, &session), record.to_string()).unwrap();
    service.run(bed);
    until("its process has ended", || !alive(process));
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger was not touched");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn who_let_go_of_a_tied_session_lets_it_go_on_also_over_a_restart() {
    let bed = testbed::require!();
    for after in [false, true] {
        let mut service = Service::start(bed, &policy());
        let after_it = if after { "yes" } else { "" };
        let mut part = service.part(bed, "role_lets_go", &[("AFTER_THE_RESTART", after_it)]);
        let (session, process) = held(&mut part);
        if !after {
            assert_eq!(part.says(), "let go");
            until("the service has heard of it", || record(&service, &session)["holders"] == json!([]));
        }
        service.kill();
        service.run(bed);
        part.tell();
        part.wait();
        stays_alive(process);
        let mut root = service.connect();
        call(&mut root, &TerminateSession { session }, &[]);
        assert!(sessions_lost(&service).is_empty(), "nobody went away without letting go of it");
    }
}

#[test]
fn role_lets_go() {
    let Some(_) = part() else { return };
    // By the library, as a server does it: dropping the session and the last child lets go of it.
    let service = stead::Service::connect_to(std::env::var_os(SOCKET).unwrap()).unwrap();
    let logon = Logon::s4u(Account::local("alice")).kind(stead::LogonType::Batch);
    let session = logon.open_through(&service).unwrap();
    let child = stead::Command::new("sleep").arg("600").spawn_as(session.token()).unwrap();
    say(format!("{} {}", session.id(), child.id()));
    let after = std::env::var("AFTER_THE_RESTART").is_ok_and(|value| !value.is_empty());
    if after {
        be_told();
    }
    drop((session, child));
    if !after {
        say("let go");
        be_told();
    }
}

#[test]
fn a_restart_does_not_loosen_what_several_processes_hold() {
    let bed = testbed::require!();
    let mut service = Service::start(bed, &policy());
    let mut first = service.part(bed, "role_holds_a_session", &[]);
    let (session, process) = held(&mut first);
    let mut second = service.part(bed, "role_opens_it_again", &[("SESSION", &session)]);
    assert_eq!(second.says(), "opened");
    service.kill();
    service.run(bed);
    first.kill();
    stays_alive(process);
    // One that takes it over anew after the restart holds it by its connection, and no more than that.
    second.tell();
    assert_eq!(second.says(), "opened");
    stays_alive(process);
    second.tell();
    until("its process has ended", || !alive(process));
    second.tell();
    second.wait();
}

#[test]
fn role_opens_it_again() {
    let Some(mut service) = part() else { return };
    let open_session = OpenSession { session: std::env::var("SESSION").unwrap() };
    call(&mut service, &open_session, &[]);
    say("opened");
    be_told();
    let mut anew = another();
    call(&mut anew, &open_session, &[]);
    say("opened");
    be_told();
    drop(anew);
    be_told();
}
