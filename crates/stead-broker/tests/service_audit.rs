//! What a caller did stands in the audit log: which files it opened, what it did to which session, how it had a process
//! created. And no caller fills it.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use service_support::{Service, another, be_told, call, exit_code, own, part, refusal, s4u, say, shell};
use stead_protocol::client::{CallError, Connection};
use stead_protocol::{
    CloseSession, CreateProcess, Environment, FailureKind, GetStatus, LogOn, LogonType, Monitor, OpenFile,
    OpenSession, OpenedSession, SignalProcess, TerminateSession, Variable,
};
use testbed::{Bed, until};

const FILE: &str = "STEAD_TEST_FILE";

const POLICY: &str = r#"
[[allow]]
callers = { users = ["svc"] }
clients = { users = ["alice"] }
privileges = ["logon", "assign-primary-token"]
programs = ["/usr/bin/id"]
logon-types = ["interactive"]
"#;

fn with_password(service: &mut Connection) -> OpenedSession {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(Bed::current().unwrap().user("alice").password.as_bytes()).unwrap();
    drop(writer);
    let logon = LogOn { secret: Some(0), ..service_support::log_on("alice", LogonType::Interactive) };
    call(service, &logon, &[reader.as_fd()]).0
}

fn events(service: &Service, event: &str) -> Vec<Value> {
    service.audit().into_iter().filter(|record| record["event"] == event).collect()
}

/// The portal may run `id`, and nothing else. A file that it writes may be any program at any time.
#[test]
fn each_file_that_a_portal_opens_is_recorded_and_a_rule_that_was_taken_away_reaches_it() {
    let bed = testbed::require!();
    let service = Service::start(bed, POLICY);
    let file = bed.user("alice").home.join(format!("opened-{}\n", std::process::id()));
    let variables = [(FILE, file.to_str().unwrap())];
    let mut portal =
        service.part_by(bed.as_user("svc", &[], bed.this_program()), "role_writes_a_file", &variables);
    let session = portal.says();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "whatever it likes");
    until("both are on record", || events(&service, "file-open").len() == 2);
    let opened = &events(&service, "file-open")[0];
    let path = file.to_str().unwrap().replace('\n', "\\n");
    assert_eq!((&opened["outcome"], &opened["file"]), (&"ok".into(), &path.into()), "{opened}");
    assert_eq!(opened["access"], json!(["write", "create"]));
    assert_eq!((&opened["session"], &opened["client"]["name"]), (&session.as_str().into(), &"alice".into()));
    assert!(opened["rule"].as_str().unwrap().contains("policy.toml:"), "{opened}");
    let failed = &events(&service, "file-open")[1];
    assert_eq!((&failed["outcome"], &failed["file"]), (&"failed".into(), &"/etc/shadow".into()), "{failed}");
    let logon = &events(&service, "logon")[0];
    assert_eq!(logon["session"], session, "{logon}");

    service.write_policy("");
    service.signal(rustix::process::Signal::HUP);
    until("the policy was read anew", || events(&service, "policy-loaded").len() == 2);
    portal.tell();
    portal.wait();
    std::fs::remove_file(&file).unwrap();
    until("so is the denial", || events(&service, "file-open").len() == 3);
    assert_eq!(events(&service, "file-open")[2]["outcome"], "denied");
}

#[test]
fn role_writes_a_file() {
    let Some(mut service) = part() else { return };
    let path = std::env::var(FILE).unwrap();
    let opened = with_password(&mut service);
    let write = OpenFile {
        token: opened.token,
        path: path.as_str().into(),
        write: true,
        create: true,
        ..OpenFile::default()
    };
    let (file, mut with) = call(&mut service, &write, &[]);
    let file = with.take(file.file).unwrap();
    File::from(file).write_all(b"whatever it likes").unwrap();
    let shadow =
        OpenFile { token: opened.token, path: "/etc/shadow".into(), read: true, ..OpenFile::default() };
    let refused = refusal(&mut service, &shadow, &[]);
    assert!(matches!(refused, FailureKind::AccessDenied { .. }), "{refused:?}");
    say(&opened.session.id);
    be_told();
    let refused = refusal(&mut service, &write, &[]);
    let expected = FailureKind::PolicyDenied { privilege: "logon".to_owned(), client: "alice".to_owned() };
    assert_eq!(refused, expected);
}

#[test]
fn what_is_done_to_a_session_is_recorded_with_its_id() {
    let bed = testbed::require!();
    let service = Service::start(bed, &service_support::everything(&["root"], &["alice"]));
    let (mut first, mut second) = (service.connect(), service.connect());
    let opened = call(&mut first, &s4u("alice"), &[]).0;
    let id = opened.session.id;
    call(&mut first, &shell(opened.token, "sleep 600"), &[]);
    call(&mut second, &OpenSession { session: id.clone() }, &[]);
    call(&mut second, &TerminateSession { session: id.clone() }, &[]);
    drop(first);
    call(&mut second, &CloseSession { session: id.clone(), terminate: false }, &[]);
    until("its end is on record", || !events(&service, "session-end").is_empty());
    for event in ["logon", "session-open", "session-terminate", "session-close", "session-end"] {
        let records = events(&service, event);
        assert_eq!(records.len(), 1, "{event}: {records:?}");
        let record = &records[0];
        assert_eq!(
            (&record["session"], &record["caller"]["uid"]),
            (&id.as_str().into(), &0.into()),
            "{record}"
        );
        assert_eq!(record["client"]["name"], "alice", "{record}");
    }

    // What one call asks for is recorded as the two that ask for the same.
    let id = call(&mut second, &s4u("alice"), &[]).0.session.id;
    call(&mut second, &CloseSession { session: id.clone(), terminate: true }, &[]);
    until("its end is on record", || events(&service, "session-end").len() == 2);
    for event in ["session-terminate", "session-close", "session-end"] {
        let records = events(&service, event);
        assert_eq!((records.len(), &records[1]["session"]), (2, &id.as_str().into()), "{event}: {records:?}");
    }
}

/// Its worker does nothing for as long as the service waits.
#[test]
fn what_became_of_ending_a_session_is_recorded_and_not_that_it_was_asked_for() {
    let bed = testbed::require!();
    let policy = service_support::everything(&["root"], &["alice"]);
    let service = Service::start_without_ready_workers(bed, &policy);
    let mut root = service.connect();
    let session = call(&mut root, &s4u("alice"), &[]).0.session.id;
    let tasks = std::fs::read_dir(format!("/proc/{}/task", service.pid())).unwrap();
    let children = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap());
    let worker: i32 = children.collect::<String>().trim().parse().expect("it has no other children");
    let signal = |signal| {
        rustix::process::kill_process(rustix::process::Pid::from_raw(worker).unwrap(), signal).unwrap();
    };
    signal(rustix::process::Signal::STOP);
    let refused = refusal(&mut root, &CloseSession { session: session.clone(), terminate: true }, &[]);
    assert!(matches!(refused, FailureKind::DeadlinePassed { .. }), "{refused:?}");
    until("it is on record", || !events(&service, "session-terminate").is_empty());
    let records = events(&service, "session-terminate");
    assert_eq!((records.len(), &records[0]["outcome"]), (1, &"failed".into()), "{records:?}");
    assert_eq!(records[0]["session"], session, "{records:?}");
    signal(rustix::process::Signal::CONT);
}

#[test]
fn a_process_is_recorded_with_its_variables_directory_and_a_pinned_file() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    service.caller(bed, "alice", "role_is_recorded");
    let records = events(&service, "process-start");
    let (named, pinned) = (&records[0], &records[1]);
    assert_eq!(named["variables"], json!(["LD_PRELOAD", "A\\nB"]), "{named}");
    assert_eq!(named["directory"], "/usr", "{named}");
    assert!(!named.to_string().contains("not recorded"), "{named}");
    let file = std::fs::metadata("/bin/true").unwrap();
    assert_eq!(pinned["pinned"]["inode"], file.ino(), "{pinned}");
    let device = [rustix::fs::major(file.dev()), rustix::fs::minor(file.dev())];
    assert_eq!(pinned["pinned"]["device"], json!(device), "{pinned}");
    // So is the program of one that is refused.
    service.caller(bed, "alice", "role_asks_for_anothers_desktop");
    until("it is on record", || events(&service, "decision").iter().any(|one| one["outcome"] == "denied"));
    let decisions = events(&service, "decision");
    let denied = decisions.iter().find(|record| record["outcome"] == "denied").unwrap();
    assert_eq!(denied["program"], "/bin/true", "{denied}");
}

#[test]
fn role_is_recorded() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    let variable = |name: &str| Variable { name: name.into(), value: "not recorded".into() };
    let named = CreateProcess {
        token,
        program: Some("/bin/true".into()),
        directory: Some("/usr".into()),
        environment: Environment {
            set: vec![variable("LD_PRELOAD"), variable("A\nB")],
            ..Environment::default()
        },
        ..CreateProcess::default()
    };
    let created = call(&mut service, &named, &[]).0;
    exit_code(&mut service, &created);
    let file = File::open("/bin/true").unwrap();
    let pinned = CreateProcess { token, pinned: Some(0), ..CreateProcess::default() };
    let created = call(&mut service, &pinned, &[file.as_fd()]).0;
    assert_eq!(exit_code(&mut service, &created), Some(0));
}

#[test]
fn role_asks_for_anothers_desktop() {
    let Some(mut service) = part() else { return };
    let process = CreateProcess {
        token: own(&mut service).token,
        program: Some("/bin/true".into()),
        desktop: Some(":77".into()),
        ..CreateProcess::default()
    };
    let refused = refusal(&mut service, &process, &[]);
    assert!(matches!(refused, FailureKind::PolicyDenied { .. }), "{refused:?}");
}

/// Nobody who needs no rule fills the disk, or keeps what others did out of the log.
#[test]
fn who_floods_the_audit_log_has_its_records_counted_and_nobody_else_loses_one() {
    let bed = testbed::require!();
    let mut service = Service::start(bed, "");
    let mut flood =
        service.part_by(bed.as_user("mallory", &[], bed.this_program()), "role_floods_the_log", &[]);
    assert_eq!(flood.says(), "it begins");
    service.caller(bed, "bob", "role_creates_twenty");
    flood.wait();
    service.signal(rustix::process::Signal::TERM);
    service.wait();
    let audit = service.audit();
    let by = |user: &str| {
        let uid = bed.user(user).uid;
        audit.iter().filter(move |record| record["caller"]["uid"] == uid)
    };
    assert_eq!(by("bob").count(), 60, "twenty were decided, have begun, and have ended");
    assert!(audit.iter().all(|record| record["event"] != "lost"));
    let (folded, written): (Vec<_>, Vec<_>) = by("mallory").partition(|record| record["event"] == "folded");
    let counted: u64 = folded.iter().map(|record| record["count"].as_u64().unwrap()).sum();
    assert_eq!(written.len() as u64 + counted, FLOOD + 2, "its process was decided, and has begun");
    let size = std::fs::metadata(service.folder.join("audit.json")).unwrap().len();
    assert!(size < 3 << 20, "{size} bytes, {} records, {counted} more in {}", written.len(), folded.len());
}

const FLOOD: u64 = 4000;

#[test]
fn role_floods_the_log() {
    let Some(mut service) = part() else { return };
    // Each record of it is as long as a name is written down.
    let program = format!("/bin/{}sleep", "./".repeat(600));
    let process = CreateProcess {
        token: own(&mut service).token,
        program: Some(program.as_str().into()),
        arguments: vec!["600".into()],
        ..CreateProcess::default()
    };
    let process = call(&mut service, &process, &[]).0.process.id;
    say("it begins");
    let signal = SignalProcess { process, signal: 18, group: false };
    for _ in 1..FLOOD {
        service.tell(&signal).unwrap();
    }
    call(&mut service, &signal, &[]);
}

#[test]
fn role_creates_twenty() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    for _ in 0..20 {
        assert_eq!(service_support::output(&mut service, shell(token, "exit 7")).1, Some(7));
    }
}

/// What it is refused is told later and later. Who does not wait for it neither writes more of the log nor holds anything.
#[test]
fn the_record_of_a_refusal_says_nothing_of_an_account_that_nobody_looked_up() {
    let bed = testbed::require!();
    let service = Service::start(bed, &service_support::everything(&["svc"], &["bob"]));
    service.caller(bed, "alice", "role_asks_for_root");
    let denied = &events(&service, "decision")[0];
    assert_eq!(
        (&denied["outcome"], &denied["client"]["name"]),
        (&"denied".into(), &"root".into()),
        "{denied}"
    );
    assert!(denied["detail"].as_str().unwrap().ends_with("tcb over \"root\""), "{denied}");
}

#[test]
fn role_asks_for_root() {
    let Some(mut service) = part() else { return };
    let refused = refusal(&mut service, &s4u("root"), &[]);
    assert!(matches!(refused, FailureKind::PolicyDenied { .. }), "{refused:?}");
}

#[test]
fn who_does_not_wait_for_its_refusals_is_told_to_try_later_and_what_it_left_holds_nothing() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    service.caller(bed, "mallory", "role_is_refused_and_does_not_wait");
    let mut root = service.connect();
    until("what it left is given back", || call(&mut root, &GetStatus {}, &[]).0.connections == 1);
    let uid = bed.user("mallory").uid;
    let (folded, written): (Vec<_>, Vec<_>) = service
        .audit()
        .into_iter()
        .filter(|record| record["caller"]["uid"] == uid)
        .partition(|record| record["event"] == "folded");
    assert!(!folded.is_empty() && written.iter().all(|record| record["outcome"] == "denied"));
    let size = std::fs::metadata(service.folder.join("audit.json")).unwrap().len();
    assert!(size < 3 << 20, "{size} bytes, {} records", written.len());
}

#[test]
fn role_is_refused_and_does_not_wait() {
    let Some(mut service) = part() else { return };
    // Each record of it is as long as a name is written down.
    let refused = s4u(&"\u{200b}".repeat(1000));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(100);
    let (tell, told) = std::sync::mpsc::channel();
    while told.try_recv().is_err() {
        assert!(std::time::Instant::now() < until, "it is not told to try later");
        for _ in 0..200 {
            let _ = service.tell(&refused);
            service = another();
        }
        // One of these may have to wait, but not all.
        for _ in 0..4 {
            let tell = tell.clone();
            let (mut service, refused) = (another(), refused.clone());
            std::thread::spawn(move || {
                if let FailureKind::TryLater { after } = refusal(&mut service, &refused, &[]) {
                    tell.send(after).unwrap();
                }
            });
        }
    }
}

#[test]
fn what_is_wrong_with_a_call_itself_is_refused_before_anything_is_decided_or_recorded() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    service.caller(bed, "mallory", "role_asks_for_what_there_is_not");
    let uid = bed.user("mallory").uid;
    assert!(service.audit().iter().all(|record| record["caller"]["uid"] != uid));
}

#[test]
fn role_asks_for_what_there_is_not() {
    let Some(mut service) = part() else { return };
    let process = CreateProcess {
        token: own(&mut service).token,
        program: Some("/bin/true".into()),
        ..CreateProcess::default()
    };
    let limit = stead_protocol::ProcessLimit { name: "no-limit".into(), soft: None, hard: None };
    for wrong in [
        CreateProcess { limits: vec![limit], ..process.clone() },
        CreateProcess { stdin: Some(3), ..process.clone() },
        CreateProcess { program: None, ..process },
    ] {
        let refused = refusal(&mut service, &wrong, &[]);
        assert!(matches!(refused, FailureKind::InvalidInput { .. }), "{refused:?}");
    }
}

#[test]
fn a_user_who_watches_as_often_as_it_can_keeps_nobody_else_from_watching() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    let mut greedy =
        service.part_by(bed.as_user("mallory", &[], bed.this_program()), "role_watches_too_often", &[]);
    assert_eq!(greedy.says(), "4 of 64");
    service.caller(bed, "bob", "role_watches_once");
    let mut root = service.connect();
    root.call_more(&Monitor {}).unwrap();
    let next = std::thread::spawn(move || root.next_reply::<Monitor>().map(drop));
    // Records come until one is seen: the stream may begin a moment later.
    until("root sees a record", || {
        service.caller(bed, "bob", "role_creates_one");
        next.is_finished()
    });
    next.join().unwrap().unwrap();
    greedy.tell();
    greedy.wait();
}

/// As many as a user may have connections, but for the one that creates something to watch.
#[test]
fn role_watches_too_often() {
    let Some(mut service) = part() else { return };
    let mut watchers: Vec<Connection> = (0..63).map(|_| another()).collect();
    for watcher in &mut watchers {
        watcher.call_more(&Monitor {}).unwrap();
    }
    let token = own(&mut service).token;
    let seen = |watcher: &mut Connection| match watcher.next_reply::<Monitor>() {
        Ok(_) => true,
        Err(CallError::Failed(failure)) => {
            assert!(matches!(failure.kind, FailureKind::LimitReached { .. }), "{failure}");
            false
        }
        Err(error) => panic!("{error}"),
    };
    // A stream may begin a moment after it was asked for.
    let done = AtomicBool::new(false);
    let watching = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                service_support::output(&mut service, shell(token, "exit 0"));
            }
        });
        let watching = watchers.iter_mut().map(seen).filter(|seen| *seen).count();
        done.store(true, Ordering::Relaxed);
        watching
    });
    say(format_args!("{watching} of {}", watchers.len() + 1));
    be_told();
}

#[test]
fn role_watches_once() {
    let Some(mut service) = part() else { return };
    let mut watcher = another();
    watcher.call_more(&Monitor {}).unwrap();
    let next = std::thread::spawn(move || watcher.next_reply::<Monitor>().map(drop));
    let token = own(&mut service).token;
    while !next.is_finished() {
        service_support::output(&mut service, shell(token, "exit 0"));
    }
    next.join().unwrap().unwrap();
}

#[test]
fn role_creates_one() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    service_support::output(&mut service, shell(token, "exit 0"));
}
