//! Logons through the service: by password, by conversation, without either; by whom the policy names.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use service_support::{Service, another, call, output, part, refusal, shell};
use stead_protocol::client::Connection;
use stead_protocol::conversation::{Question, encode_answer};
use stead_protocol::{
    CloseSession, FailureKind, ListSessions, LogOn, LogonType, OpenSession, OpenedSession, TerminateSession,
    Variable,
};
use testbed::Bed;

const POLICY: &str = r#"
[[allow]]
name = "the portal"
callers = { users = ["svc"] }
clients = { users = ["alice", "bob", "frank"] }
privileges = ["logon", "assign-primary-token", "impersonate"]
programs = "any"
logon-types = ["interactive", "batch"]

[[allow]]
callers = { users = ["svc"] }
clients = { users = ["bob"] }
privileges = ["tcb"]
logon-types = ["batch"]
"#;

fn log_on(name: &str) -> LogOn {
    service_support::log_on(name, LogonType::Interactive)
}

fn with_password(bed: &Bed, service: &mut Connection, user: &str) -> OpenedSession {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(bed.user(user).password.as_bytes()).unwrap();
    drop(writer);
    let logon = LogOn { secret: Some(0), ..log_on(user) };
    call(service, &logon, &[reader.as_fd()]).0
}

#[test]
fn a_portal_without_privileges_logs_its_users_on_by_their_passwords() {
    let bed = testbed::require!();
    let service = Service::start(bed, POLICY);
    service.caller(bed, "svc", "role_logs_on");
    let audit = service.audit();
    let logon = audit.iter().find(|record| record["event"] == "logon").unwrap();
    assert_eq!((&logon["outcome"], &logon["client"]["name"]), (&"ok".into(), &"alice".into()));
    let password = &bed.user("alice").password;
    assert!(!format!("{audit:?}").contains(password.as_str()), "no record holds a secret");
}

#[test]
fn role_logs_on() {
    let Some(mut service) = part() else { return };
    let bed = Bed::current().unwrap();
    let opened = with_password(bed, &mut service, "alice");
    let alice = bed.user("alice");
    assert_eq!((opened.context.uid, opened.session.uid), (alice.uid, alice.uid));
    assert_eq!(opened.context.session.as_ref(), Some(&opened.session.id));
    assert!(opened.environment.iter().any(|one| one.name.as_bytes() == b"HOME"));
    let (text, code) = output(&mut service, shell(opened.token, "id -u; id -G | wc -w; echo $HOME"));
    assert_eq!(code, Some(0), "{text}");
    let said: Vec<&str> = text.lines().collect();
    assert_eq!((said[0], said[2]), (alice.uid.to_string().as_str(), alice.home.to_str().unwrap()));

    let (listed, _) = call(&mut another(), &ListSessions {}, &[]);
    assert!(listed.sessions.iter().any(|session| session.id == opened.session.id));
    // Another connection of the portal's takes the session over, and ends it.
    let mut second = another();
    let session = opened.session.id.clone();
    let again = call(&mut second, &OpenSession { session: session.clone() }, &[]).0;
    assert_eq!(again.session.id, session);
    drop(service);
    call(&mut second, &TerminateSession { session: session.clone() }, &[]);
    call(&mut second, &CloseSession { session: session.clone(), terminate: false }, &[]);
    let gone = refusal(&mut second, &OpenSession { session }, &[]);
    assert_eq!(gone, FailureKind::NoSuchHandle { of: "session".to_owned() });
}

/// A terminal of the seat, as XDG_SEAT and XDG_VTNR, would make the session that of whoever is at the machine.
#[test]
fn a_caller_claims_no_seat_by_a_terminals_name() {
    let bed = testbed::require!();
    Service::start(bed, POLICY).caller(bed, "svc", "role_claims_a_seat");
}

#[test]
fn role_claims_a_seat() {
    let Some(mut service) = part() else { return };
    let password = &Bed::current().unwrap().user("alice").password;
    let logon = |service: &mut Connection, tty: &str| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(password.as_bytes()).unwrap();
        drop(writer);
        let logon = LogOn { secret: Some(0), tty: Some(tty.into()), ..log_on("alice") };
        service.call(&logon, &[reader.as_fd()])
    };
    for tty in ["tty1", "/dev/tty3", "/dev//tty3", "/dev/./tty3", ":0", "host:0", "console", "/dev/console"] {
        let refused = logon(&mut service, tty).map(drop).unwrap_err().to_string();
        assert!(refused.contains("not a caller's to claim"), "{tty}: {refused}");
    }
    for tty in ["pts/3", "/dev/pts/3", "web-portal"] {
        logon(&mut service, tty).unwrap();
    }
}

/// However slow the machine is, nobody's wait is over within a test.
const LONG_WAITS: &str = "[failed-logons]\nfirst-delay-seconds = 3600\nlongest-delay-seconds = 36000\n";

#[test]
fn a_wrong_password_is_one_error_and_too_many_of_them_have_to_wait() {
    let bed = testbed::require!();
    Service::start(bed, &format!("{LONG_WAITS}{POLICY}")).caller(bed, "svc", "role_wrong_passwords");
}

#[test]
fn role_wrong_passwords() {
    let Some(mut service) = part() else { return };
    let mut wrong = || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"not hers").unwrap();
        drop(writer);
        refusal(&mut service, &LogOn { secret: Some(0), ..log_on("alice") }, &[reader.as_fd()])
    };
    for _ in 0..3 {
        assert_eq!(wrong(), FailureKind::LogonFailed {});
    }
    assert!(matches!(wrong(), FailureKind::TryLater { after } if after > 0));
}

/// Directories know one account in several spellings; whoever guesses at it shall not have three guesses with each.
#[test]
fn another_spelling_has_to_wait_as_well_whether_or_not_there_is_such_an_account() {
    let bed = testbed::require!();
    Service::start(bed, &over_everyone()).caller(bed, "svc", "role_guesses_in_many_spellings");
}

fn over_everyone() -> String {
    let allow = r#"
[[allow]]
callers = { users = ["svc", "mallory", "bob", "grace", "dave"] }
clients = "everyone"
privileges = ["logon"]
logon-types = ["interactive"]
"#;
    format!("{LONG_WAITS}{allow}")
}

fn guess(service: &mut Connection, name: &str) -> FailureKind {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"a guess").unwrap();
    drop(writer);
    let mut logon = LogOn { secret: Some(0), ..log_on(name) };
    logon.account.local = false;
    refusal(service, &logon, &[reader.as_fd()])
}

/// Three failures with each of four callers are twelve of the user's: then a fifth caller has to wait, too, but for another
/// user it does not.
#[test]
fn failures_are_counted_for_each_user_and_for_each_caller() {
    let bed = testbed::require!();
    let service = Service::start(bed, &over_everyone());
    for caller in ["svc", "mallory", "bob", "grace"] {
        service.caller(bed, caller, "role_fails_as_often_as_it_may");
    }
    service.caller(bed, "dave", "role_waits_for_what_others_did");
}

#[test]
fn role_fails_as_often_as_it_may() {
    let Some(mut service) = part() else { return };
    for _ in 0..3 {
        assert_eq!(guess(&mut service, "alice"), FailureKind::LogonFailed {});
    }
    assert!(matches!(guess(&mut service, "alice"), FailureKind::TryLater { .. }));
    assert_eq!(guess(&mut service, "frank"), FailureKind::LogonFailed {});
}

#[test]
fn role_waits_for_what_others_did() {
    let Some(mut service) = part() else { return };
    assert!(matches!(guess(&mut service, "alice"), FailureKind::TryLater { .. }));
    assert_eq!(guess(&mut service, "frank"), FailureKind::LogonFailed {});
}

#[test]
fn role_guesses_in_many_spellings() {
    let Some(mut service) = part() else { return };
    for [name, others @ ..] in [
        ["alice", "ALICE", "Alice", "alice@example.com"],
        [
            "nobody-of-this-name",
            "NOBODY-of-this-name",
            "Nobody-of-this-name",
            "nobody-of-this-name@example.com",
        ],
    ] {
        for _ in 0..3 {
            assert_eq!(guess(&mut service, name), FailureKind::LogonFailed {}, "{name}");
        }
        for other in others {
            let refused = guess(&mut service, other);
            assert!(matches!(refused, FailureKind::TryLater { after } if after > 0), "{other}: {refused:?}");
        }
    }
}

#[test]
fn without_a_secret_only_whom_and_how_the_policy_names() {
    let bed = testbed::require!();
    let service = Service::start(bed, POLICY);
    service.caller(bed, "svc", "role_s4u");
    service.caller(bed, "mallory", "role_has_no_rights");
    let audit = service.audit();
    assert!(audit.iter().any(|record| record["outcome"] == "denied" && record["client"]["name"] == "alice"));
}

#[test]
fn role_s4u() {
    let Some(mut service) = part() else { return };
    let bed = Bed::current().unwrap();
    let s4u = |name: &str, logon_type| LogOn { s4u: true, logon_type, ..log_on(name) };
    let opened = call(&mut service, &s4u("bob", LogonType::Batch), &[]).0;
    let (text, _) = output(&mut service, shell(opened.token, "id -u"));
    assert_eq!(text.trim(), bed.user("bob").uid.to_string());
    let denied =
        |name: &str| FailureKind::PolicyDenied { privilege: "tcb".to_owned(), client: name.to_owned() };
    // Not in that way; not her; not root; and nobody, in the same words.
    for (name, kind) in [
        ("bob", LogonType::Interactive),
        ("alice", LogonType::Batch),
        ("root", LogonType::Batch),
        ("nobody-of-this-name", LogonType::Batch),
    ] {
        assert_eq!(refusal(&mut service, &s4u(name, kind), &[]), denied(name));
    }
    // What PAM's modules act on is not the caller's to set.
    let mut seat = s4u("bob", LogonType::Batch);
    seat.environment = vec![Variable { name: "XDG_SEAT".into(), value: "seat0".into() }];
    assert!(matches!(refusal(&mut service, &seat, &[]), FailureKind::InvalidInput { .. }));
}

#[test]
fn role_has_no_rights() {
    let Some(mut service) = part() else { return };
    let bed = Bed::current().unwrap();
    // Not even with the right password.
    for name in ["alice", "mallory", "nobody-of-this-name"] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(bed.find_user(name).map_or(b"x", |user| user.password.as_bytes())).unwrap();
        drop(writer);
        let logon = LogOn { secret: Some(0), ..log_on(name) };
        let expected = FailureKind::PolicyDenied { privilege: "logon".to_owned(), client: name.to_owned() };
        assert_eq!(refusal(&mut service, &logon, &[reader.as_fd()]), expected);
    }
}

#[test]
fn questions_of_a_logon_are_asked_and_answered_over_a_socket() {
    let bed = testbed::require!();
    Service::start(bed, POLICY).caller(bed, "svc", "role_converses");
}

#[test]
fn role_converses() {
    let Some(mut service) = part() else { return };
    let bed = Bed::current().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let password = bed.user("alice").password.clone();
    let answering = std::thread::spawn(move || {
        let mut socket = ours;
        let mut asked = Vec::new();
        let mut message = Vec::new();
        let mut byte = [0];
        while socket.read(&mut byte).unwrap_or(0) == 1 {
            if byte[0] != 0 {
                message.push(byte[0]);
                continue;
            }
            let question = Question::decode(&std::mem::take(&mut message)).unwrap();
            if matches!(question, Question::Prompt { .. }) {
                socket.write_all(&encode_answer(Some(password.as_bytes()))).unwrap();
            }
            asked.push(question);
        }
        asked
    });
    let logon = LogOn { conversation: Some(0), ..log_on("alice") };
    let opened = call(&mut service, &logon, &[theirs.as_fd()]).0;
    drop(theirs);
    assert_eq!(opened.context.uid, bed.user("alice").uid);
    let asked = answering.join().unwrap();
    assert!(matches!(asked[..], [Question::Prompt { echo: false, .. }, ..]), "{asked:?}");
}
