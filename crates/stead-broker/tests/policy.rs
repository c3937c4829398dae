//! The policy, the audit log and the throttle through the real service, with callers that are real users.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod service_support;

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use service_support::{
    Service, call, exit_code, log_on, output, own, part, refusal, s4u, shell, skip_if_unseen,
};
use stead_protocol::client::{CallError, Connection};
use stead_protocol::{
    CloseSession, CreateProcess, Environment, ExplainPolicy, Failure, FailureKind, LogOn, LogonType,
    OpenedSession, PolicyQuestion, Text, Variable,
};
use testbed::until;

/// svc may log on members of alice's group and bob's.
const PORTAL: &str = r#"
[[allow]]
name = "portal"
callers = { users = ["svc"] }
clients = { groups = ["stead-shared"] }
privileges = ["tcb", "logon", "assign-primary-token"]
logon-types = ["batch"]
programs = ["/bin/echo", "/bin/sleep"]
environment = ["JOB_*"]
"#;

/// Logs on with a password, which travels in a pipe.
fn with_password(service: &mut Connection, user: &str, password: &str) -> Result<OpenedSession, Failure> {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(password.as_bytes()).unwrap();
    drop(writer);
    let log_on = LogOn { secret: Some(0), ..log_on(user, LogonType::Batch) };
    match service.call(&log_on, &[reader.as_fd()]) {
        Ok((session, _)) => Ok(session),
        Err(CallError::Failed(failure)) => Err(failure),
        Err(error) => panic!("{error}"),
    }
}

fn is_denied(kind: &FailureKind) -> bool {
    matches!(kind, FailureKind::PolicyDenied { .. })
}

fn echo(token: u64) -> CreateProcess {
    CreateProcess {
        token,
        program: Some(Text::from("/bin/echo")),
        arguments: vec![Text::from("as the client")],
        ..CreateProcess::default()
    }
}

fn records(service: &Service, event: &str) -> Vec<serde_json::Value> {
    service.audit().into_iter().filter(|record| record["event"] == event).collect()
}

#[test]
fn what_the_policy_gives_a_portal_it_has_and_nobody_else() {
    let bed = testbed::require!();
    let service = Service::start(bed, PORTAL);
    service.caller(bed, "svc", "role_portal");
    // The same program, run by another user, is nobody: an executable's path is no principal.
    service.caller(bed, "mallory", "role_is_no_portal");
    let decisions = records(&service, "decision");
    assert!(decisions.iter().any(|record| record["outcome"] == "ok" && record["privilege"] == "tcb"));
    let policy = service.folder.join("policy/policy.toml");
    let expected = format!("{}:2", policy.display());
    let by_rule = |record: &&serde_json::Value| record["outcome"] == "ok" && record["rule"] != "itself";
    for record in decisions.iter().filter(by_rule) {
        assert_eq!(record["rule"], expected.as_str(), "{record}");
    }
}

#[test]
fn role_portal() {
    let Some(mut service) = part() else { return };
    let bed = testbed::Bed::current().unwrap();
    let (session, _) = call(&mut service, &s4u("alice"), &[]);
    assert_eq!(session.session.uid, bed.user("alice").uid);
    assert_eq!(output(&mut service, echo(session.token)), ("as the client\n".to_owned(), Some(0)));

    let mut with_its_own_variable = echo(session.token);
    let variable = |name: &str| Variable { name: Text::from(name), value: Text::from("/tmp/x.so") };
    with_its_own_variable.environment =
        Environment { set: vec![variable("JOB_X")], ..Environment::default() };
    assert_eq!(output(&mut service, with_its_own_variable).1, Some(0));

    // What is not in the rule is refused, however it is put.
    for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "BASH_ENV"] {
        let mut process = echo(session.token);
        process.environment = Environment { set: vec![variable(name)], ..Environment::default() };
        assert!(is_denied(&refusal(&mut service, &process, &[])), "{name}");
    }
    for program in ["/bin/sh", "/bin/../bin/sh", "/bin//echo", "echo", "/bin/echo/", "./echo", "/usr/bin/id"]
    {
        let process = CreateProcess { program: Some(Text::from(program)), ..echo(session.token) };
        assert!(is_denied(&refusal(&mut service, &process, &[])), "{program}");
    }
    let open = std::fs::File::open("/bin/echo").unwrap();
    let pinned = CreateProcess { program: None, pinned: Some(0), ..echo(session.token) };
    assert!(is_denied(&refusal(&mut service, &pinned, &[open.as_fd()])));
    let interactive = LogOn { s4u: true, ..log_on("alice", LogonType::Interactive) };
    for other in [s4u("mallory"), s4u("root"), interactive, s4u("no-such-user"), s4u("0"), s4u("")] {
        let refused = refusal(&mut service, &other, &[]);
        assert!(is_denied(&refused) || matches!(refused, FailureKind::InvalidInput { .. }), "{refused:?}");
    }
}

#[test]
fn role_is_no_portal() {
    let Some(mut service) = part() else { return };
    for user in ["alice", "bob", "root", "mallory", "no-such-user"] {
        assert!(is_denied(&refusal(&mut service, &s4u(user), &[])), "{user}");
    }
    let token = own(&mut service).token;
    assert_eq!(output(&mut service, shell(token, "echo own")), ("own\n".to_owned(), Some(0)));
}

#[test]
fn a_rule_for_everyone_and_a_group_of_roots_do_not_log_root_on() {
    let bed = testbed::require!();
    let policy = r#"
        [[allow]]
        callers = { users = ["svc"] }
        clients = "everyone"
        privileges = ["tcb", "logon"]
        logon-types = "any"
        [[allow]]
        callers = { users = ["svc"] }
        clients = { groups = ["root"] }
        privileges = ["tcb", "logon"]
        logon-types = "any"
    "#;
    Service::start(bed, policy).caller(bed, "svc", "role_reaches_for_root");
}

#[test]
fn role_reaches_for_root() {
    let Some(mut service) = part() else { return };
    call(&mut service, &s4u("alice"), &[]);
    assert!(is_denied(&refusal(&mut service, &s4u("root"), &[])));
    let failure = with_password(&mut service, "root", "guess").unwrap_err();
    assert!(is_denied(&failure.kind), "{failure}");
}

#[test]
fn a_denial_is_the_same_for_users_that_exist_and_for_names_that_nobody_has() {
    let bed = testbed::require!();
    let service = Service::start(bed, PORTAL);
    // To one the policy gives nobody at all, to the other somebody.
    service.caller(bed, "mallory", "role_compares_denials");
    service.caller(bed, "svc", "role_compares_denials");
}

#[test]
fn role_compares_denials() {
    let Some(mut service) = part() else { return };
    // What tells them apart does so every time; what else the machine does, once or twice.
    let quotients: Vec<f64> = std::iter::repeat_with(|| compare_denials(&mut service)).take(4).collect();
    assert!(
        quotients.iter().any(|one| (0.8..1.25).contains(one)),
        "known users' by unknown ones': {quotients:?}"
    );
}

/// It looks the user up, as a denial does.
#[test]
fn that_something_would_be_denied_takes_as_long_to_be_told_as_a_denial() {
    let bed = testbed::require!();
    Service::start(bed, PORTAL).caller(bed, "svc", "role_has_denials_explained");
}

#[test]
fn role_has_denials_explained() {
    let Some(mut service) = part() else { return };
    for user in ["mallory", "nobody-has-this-name"] {
        let question =
            PolicyQuestion { privilege: "tcb".to_owned(), client: Some(user.into()), ..Default::default() };
        let began = Instant::now();
        let explained = call(&mut service, &ExplainPolicy { caller: None, question }, &[]).0;
        assert!(!explained.allowed && began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
    }
}

/// How long a denial takes for a user that exists, as a multiple of how long it takes for one that does not; it is the same
/// denial.
fn compare_denials(service: &mut Connection) -> f64 {
    let mut times: [Vec<Duration>; 2] = Default::default();
    for round in 0..12 {
        // Taking turns, so that what else the machine does falls on both.
        for (which, user) in ["mallory", "nobody-has-this-name"].into_iter().enumerate() {
            let (began, without) = (Instant::now(), round % 2 == 0);
            let failure = if without {
                let Err(CallError::Failed(failure)) = service.call(&s4u(user), &[]) else { panic!("{user}") };
                failure
            } else {
                with_password(service, user, "a guess").unwrap_err()
            };
            times[which].push(began.elapsed());
            let FailureKind::PolicyDenied { client, .. } = &failure.kind else { panic!("{failure}") };
            assert_eq!(client, user);
            let same = failure.to_string().replace(user, "NAME");
            let privilege = if without { "tcb" } else { "logon" };
            assert!(same.contains(privilege) && same.contains("NAME"), "{same}");
            assert!(!same.contains("exist") && !same.contains("unknown"), "{same}");
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    let [known, unknown] = times.map(median);
    known / unknown
}

#[test]
fn a_policy_is_taken_on_sighup_whole_or_not_at_all() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    let reload = |policy: &str, event: &str| {
        let before = records(&service, event).len();
        service.write_policy(policy);
        service.signal(rustix::process::Signal::HUP);
        until(event, || records(&service, event).len() > before);
    };
    service.caller(bed, "svc", "role_may_not");
    reload(PORTAL, "policy-loaded");
    service.caller(bed, "svc", "role_may");
    // The first half is fine, and would take everything away.
    reload("[[deny]]\ncallers = \"everyone\"\n[[alow]]\n", "policy-refused");
    service.caller(bed, "svc", "role_may");
    let refused = records(&service, "policy-refused").pop().unwrap();
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("policy.toml:3:3: ") && detail.contains("did you mean `allow`?"), "{detail}");
    reload("[[deny]]\ncallers = \"everyone\"\n", "policy-loaded");
    service.caller(bed, "svc", "role_may_not");
    service.caller(bed, "svc", "role_may_not_even_as_itself");
}

#[test]
fn role_may() {
    let Some(mut service) = part() else { return };
    call(&mut service, &s4u("alice"), &[]);
}

#[test]
fn role_may_not() {
    let Some(mut service) = part() else { return };
    assert!(is_denied(&refusal(&mut service, &s4u("alice"), &[])));
}

#[test]
fn role_may_not_even_as_itself() {
    let Some(mut service) = part() else { return };
    let token = match service.call(&stead_protocol::OwnToken {}, &[]) {
        Ok((token, _)) => token.token,
        Err(CallError::Failed(failure)) => {
            skip_if_unseen(&failure.kind);
            return assert!(is_denied(&failure.kind), "{failure}");
        }
        Err(error) => panic!("{error}"),
    };
    assert!(is_denied(&refusal(&mut service, &echo(token), &[])));
}

#[test]
fn failed_logons_have_to_wait_and_hold_up_nobody_else() {
    let bed = testbed::require!();
    let policy = r#"
        [failed-logons]
        free-attempts = 2
        first-delay-seconds = 8
        longest-delay-seconds = 8
        [[allow]]
        callers = { users = ["svc", "mallory"] }
        clients = "everyone"
        privileges = ["logon"]
        logon-types = ["batch"]
    "#;
    let service = Service::start(bed, policy);
    service.caller(bed, "mallory", "role_guesses");
    // Another caller's logon of the same user is not held up.
    service.caller(bed, "svc", "role_knows");
    let outcomes: Vec<_> =
        records(&service, "logon").iter().map(|record| record["outcome"].clone()).collect();
    assert!(
        outcomes.iter().any(|outcome| outcome == "failed") && outcomes.iter().any(|outcome| outcome == "ok")
    );
    let log = std::fs::read_to_string(service.folder.join("audit.json")).unwrap();
    for secret in [bed.user("alice").password.as_str(), "opens the door", "a wrong guess"] {
        assert!(!log.contains(secret), "a secret stands in the audit log");
    }
}

#[test]
fn role_guesses() {
    let Some(mut service) = part() else { return };
    // The same for a user that exists and for one that does not.
    for user in ["alice", "nobody-has-this-name"] {
        for attempt in 0..2 {
            let failure = with_password(&mut service, user, "a wrong guess").unwrap_err();
            assert!(matches!(failure.kind, FailureKind::LogonFailed {}), "{user} {attempt}: {failure}");
        }
        // Which of the two is right makes no difference now.
        let too_early = with_password(&mut service, user, &password("alice")).unwrap_err();
        let FailureKind::TryLater { after } = too_early.kind else { panic!("{user}: {too_early}") };
        assert!(after > 0 && after <= 8000, "{after}");
    }
    // Whoever waits as long as it is told gets its turn; another's may be due meanwhile.
    let session = loop {
        match with_password(&mut service, "alice", &password("alice")) {
            Ok(session) => break session,
            Err(Failure { kind: FailureKind::TryLater { after }, .. }) => {
                std::thread::sleep(Duration::from_millis(after));
            }
            Err(failure) => panic!("{failure}"),
        }
    };
    call(&mut service, &CloseSession { session: session.session.id, terminate: false }, &[]);
    for _ in 0..2 {
        with_password(&mut service, "alice", "a wrong guess").unwrap_err();
    }
}

#[test]
fn role_knows() {
    let Some(mut service) = part() else { return };
    with_password(&mut service, "alice", &password("alice")).unwrap_or_else(|failure| panic!("{failure}"));
}

fn password(user: &str) -> String {
    testbed::Bed::current().unwrap().user(user).password.clone()
}

#[test]
fn quotas_are_each_callers_own_and_what_ends_is_given_back() {
    let bed = testbed::require!();
    let policy = format!("[quotas]\nsessions = 2\nprocesses = 3\nconnections = 4\n{PORTAL}");
    let service = Service::start(bed, &policy);
    service.caller(bed, "svc", "role_uses_its_quotas_up");
    service.caller(bed, "alice", "role_has_its_own_quota");
}

#[test]
fn role_uses_its_quotas_up() {
    let Some(mut service) = part() else { return };
    let reached = |kind: FailureKind, what: &str, number: u64| match kind {
        FailureKind::QuotaReached { of, most } => assert_eq!((of.as_str(), most), (what, number)),
        other => panic!("{other:?}"),
    };
    let (first, _) = call(&mut service, &s4u("alice"), &[]);
    call(&mut service, &s4u("bob"), &[]);
    reached(refusal(&mut service, &s4u("alice"), &[]), "sessions", 2);

    let sleep = CreateProcess {
        token: first.token,
        program: Some(Text::from("/bin/sleep")),
        arguments: vec![Text::from("600")],
        ..CreateProcess::default()
    };
    let created: Vec<_> = (0..3).map(|_| call(&mut service, &sleep, &[]).0).collect();
    reached(refusal(&mut service, &sleep, &[]), "processes", 3);
    for process in created {
        let id = process.process.id.clone();
        call(&mut service, &stead_protocol::KillTree { process: id }, &[]);
        assert_eq!(exit_code(&mut service, &process), None);
    }
    until("there is room for a process", || service.call(&echo(first.token), &[]).is_ok());
    call(&mut service, &CloseSession { session: first.session.id, terminate: false }, &[]);
    until("there is room for a session", || service.call(&s4u("alice"), &[]).is_ok());

    let mut connections: Vec<_> = (0..3).map(|_| service_support::another()).collect();
    for connection in &mut connections {
        own(connection);
    }
    let mut one_too_many = service_support::another();
    match one_too_many.call(&stead_protocol::OwnToken {}, &[]) {
        Err(CallError::Failed(failure)) => reached(failure.kind, "connections", 4),
        // It was closed before the call was written.
        Err(CallError::Connection(_)) => {}
        other => panic!("{other:?}"),
    }
    drop(connections);
    until("there is room for a connection", || {
        service_support::another().call(&stead_protocol::OwnToken {}, &[]).is_ok()
    });
}

#[test]
fn role_has_its_own_quota() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    assert_eq!(output(&mut service, echo(token)).1, Some(0));
}

#[test]
fn no_argument_forges_a_line_of_the_audit_log() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    service.caller(bed, "mallory", "role_forges");
    let uid = bed.user("mallory").uid;
    let records = service.audit();
    for record in records.iter().filter(|record| record.get("caller").is_some()) {
        // The test itself connects as root.
        assert!(record["caller"]["uid"] == uid || record["caller"]["uid"] == 0, "{record}");
    }
    let forged = records.iter().find(|record| record["event"] == "process-start").unwrap();
    assert_eq!(
        forged["arguments"][0], r#"\n{"event":"decision","caller":{"uid":4242}}\n\u{1b}[2J"#,
        "{forged}"
    );
    until("its end is recorded", || !self::records(&service, "process-end").is_empty());
}

#[test]
fn role_forges() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    let argument = "\n{\"event\":\"decision\",\"caller\":{\"uid\":4242}}\n\x1b[2J";
    let process = CreateProcess { arguments: vec![Text::from(argument)], ..echo(token) };
    assert_eq!(output(&mut service, process).1, Some(0));
}

/// `console` is whatever display that is, and `:7.0` is `:7`.
#[test]
fn a_display_that_is_denied_by_its_name_is_reached_by_no_other() {
    const CONFIGURATION: &str = "/etc/stead/console-desktop";
    let bed = testbed::require!(alone);
    let rules = "[[allow]]\ncallers = { users = [\"svc\"] }\nclients = { users = [\"svc\"] }\ndesktops = \"any\"\n\
                 privileges = [\"assign-primary-token\"]\nprograms = \"any\"\n\
                 [[deny]]\ncallers = { users = [\"svc\"] }\ndesktops = [\":7\"]\n";
    let service = Service::start(bed, rules);
    std::fs::create_dir_all("/etc/stead").unwrap();
    std::fs::write(CONFIGURATION, ":7\n").unwrap();
    let played = std::panic::catch_unwind(|| service.caller(bed, "svc", "role_asks_for_a_denied_display"));
    std::fs::remove_file(CONFIGURATION).unwrap();
    std::fs::remove_dir("/etc/stead").unwrap();
    played.unwrap();
}

#[test]
fn role_asks_for_a_denied_display() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    let mut asks = |desktop: &str| {
        let process = CreateProcess { desktop: Some(desktop.into()), desktop_for_user: true, ..echo(token) };
        refusal(&mut service, &process, &[])
    };
    for denied in [":7", ":7.0", "console"] {
        let refused = asks(denied);
        assert!(matches!(refused, FailureKind::PolicyDenied { .. }), "{denied}: {refused:?}");
    }
    let other = asks(":8");
    assert!(
        !matches!(other, FailureKind::PolicyDenied { .. }),
        "nothing is there, which is another matter: {other:?}"
    );
}
