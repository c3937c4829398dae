//! Calls of the service, by callers that are ordinary users: without a policy, each as itself.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use service_support::{Service, alive, another, call, exit_code, output, own, part, refusal, shell, sleeper};
use stead_protocol::{
    CreateProcess, DescribeToken, Descriptor, DuplicateToken, Environment, FailureKind, GetProcess,
    GetStatus, INTERFACE, KillTree, Level, ListProcesses, LogOn, NAME, OpenFile, ProcessLimit, Request,
    RestrictToken, ResumeProcess, SignalProcess, TerminalSize, Text, Variable, WaitProcess,
};
use testbed::until;

#[test]
fn a_user_gets_a_process_of_its_own_and_nothing_of_the_service() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    service.caller(bed, "alice", "role_process_of_its_own");
    let started = service.audit().into_iter().find(|record| record["event"] == "process-start").unwrap();
    assert_eq!(started["client"]["uid"], bed.user("alice").uid);
    assert_eq!(started["rule"], "itself");
}

#[test]
fn role_process_of_its_own() {
    let Some(mut service) = part() else { return };
    let bed = testbed::Bed::current().unwrap();
    let alice = bed.user("alice");
    let token = own(&mut service);
    assert_eq!((token.context.uid, token.context.gid), (alice.uid, alice.gid));
    assert_eq!(token.context.capabilities.permitted, 0);

    let mut probe =
        CreateProcess { program: Some("probe".into()), token: token.token, ..CreateProcess::default() };
    probe.program = Some(Text::from(bed.bin("probe").as_os_str()));
    let (text, code) = output(&mut service, probe);
    assert_eq!(code, Some(0), "{text}");
    let seen = testbed::Probe::parse(text.as_bytes());
    let control =
        testbed::Probe::parse(&std::process::Command::new(bed.bin("probe")).output().unwrap().stdout);
    // As the caller's own child would be, but for what it may gain: the service's bounding set.
    assert_eq!((seen.uid, seen.gid, &seen.groups), (control.uid, control.gid, &control.groups));
    assert_eq!(seen.capabilities.permitted, control.capabilities.permitted);
    assert_eq!(seen.limits, control.limits, "the limits are the caller's, not the service's");
}

#[test]
fn arguments_environment_directory_descriptors_and_umask_arrive() {
    let bed = testbed::require!();
    Service::start(bed, "").caller(bed, "alice", "role_everything_arrives");
}

#[test]
fn role_everything_arrives() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (input, mut feed) = std::io::pipe().unwrap();
    feed.write_all(b"from stdin").unwrap();
    drop(feed);
    let script =
        r#"printf '%s|' "$0" "$1" "$VARIABLE" "${LANG-unset}" "$PWD" "$(umask)" "$(cat)" "$(nice)" >&7"#;
    let mut process = shell(token, script);
    process.arguments.extend([Text::from("zero"), Text::from(b"not \xff UTF-8".to_vec())]);
    process.environment = Environment {
        remove: vec!["LANG".into()],
        set: vec![Variable { name: "VARIABLE".into(), value: "a value".into() }],
        ..Environment::default()
    };
    process.directory = Some("/tmp".into());
    process.umask = Some(0o027);
    process.nice = Some(3);
    process.stdin = Some(1);
    process.descriptors = vec![Descriptor { descriptor: 0, target: 7 }];
    let (created, _) = call(&mut service, &process, &[writer.as_fd(), input.as_fd()]);
    drop(writer);
    let mut said = Vec::new();
    reader.read_to_end(&mut said).unwrap();
    assert_eq!(
        said,
        b"zero|not \xff UTF-8|a value|unset|/tmp|0027|from stdin|3|",
        "{}",
        String::from_utf8_lossy(&said)
    );
    assert_eq!(exit_code(&mut service, &created), Some(0));
}

#[test]
fn a_process_is_waited_for_signalled_and_ended_by_its_owner_on_any_connection() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    service.caller(bed, "alice", "role_waits_and_signals");
}

#[test]
fn role_waits_and_signals() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    let (created, mut descriptors) = call(&mut service, &sleeper(token), &[]);
    let id = created.process.id.clone();
    let pidfd = descriptors.take(created.pidfd).unwrap();
    assert!(alive(created.process.pid));

    let mut second = another();
    let not_yet = call(&mut second, &WaitProcess { process: id.clone(), timeout: Some(10) }, &[]).0;
    assert_eq!(not_yet.status, None);
    let (listed, _) = call(&mut second, &ListProcesses::default(), &[]);
    assert!(listed.processes.iter().any(|process| process.id == id && process.running));
    let (same, mut with) = call(&mut second, &GetProcess { process: id.clone() }, &[]);
    assert_eq!(same.pid, created.process.pid);
    with.take(0).unwrap();

    // One waits on its own connection while the other signals.
    let waiting = std::thread::spawn({
        let id = id.clone();
        move || call(&mut another(), &WaitProcess { process: id, timeout: None }, &[]).0
    });
    call(&mut second, &SignalProcess { process: id.clone(), signal: 15, group: false }, &[]);
    assert_eq!(waiting.join().unwrap().status.unwrap().signal, Some(15));
    assert_eq!(
        call(&mut service, &WaitProcess { process: id, timeout: None }, &[]).0.status.unwrap().signal,
        Some(15)
    );
    let mut watched = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut watched, None), Ok(1), "the pidfd tells of the end too");

    let (reader, writer) = std::io::pipe().unwrap();
    let mut tree = shell(token, "sleep 600 & sleep 600 & echo; wait");
    tree.stdout = Some(0);
    let (created, _) = call(&mut service, &tree, &[writer.as_fd()]);
    drop(writer);
    let mut reader = reader;
    reader.read_exact(&mut [0]).unwrap();
    call(&mut second, &KillTree { process: created.process.id.clone() }, &[]);
    // The pipe ends with the last process of the tree.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert_eq!(exit_code(&mut service, &created), None);
}

#[test]
fn nobody_else_sees_or_reaches_a_users_processes() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    service.caller(bed, "alice", "role_leaves_one_running");
    let mut root = service.connect();
    let (all, _) = call(&mut root, &ListProcesses::default(), &[]);
    let [process] = &all.processes[..] else { panic!("{all:?}") };
    service.caller_with(bed, "bob", "role_reaches_for_anothers", &[("STEAD_TEST_ID", &process.id)]);
    assert!(alive(process.pid));
    call(&mut root, &KillTree { process: process.id.clone() }, &[]);
    until("it has ended", || !alive(process.pid));
}

#[test]
fn role_leaves_one_running() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    call(&mut service, &sleeper(token), &[]);
}

#[test]
fn role_reaches_for_anothers() {
    let Some(mut service) = part() else { return };
    let process = std::env::var("STEAD_TEST_ID").unwrap();
    let none = FailureKind::NoSuchHandle { of: "process".to_owned() };
    assert_eq!(call(&mut service, &ListProcesses::default(), &[]).0.processes, []);
    assert_eq!(refusal(&mut service, &GetProcess { process: process.clone() }, &[]), none);
    assert_eq!(refusal(&mut service, &WaitProcess { process: process.clone(), timeout: Some(0) }, &[]), none);
    let signal = SignalProcess { process: process.clone(), signal: 9, group: false };
    assert_eq!(refusal(&mut service, &signal, &[]), none);
    assert_eq!(refusal(&mut service, &KillTree { process: process.clone() }, &[]), none);
    assert_eq!(refusal(&mut service, &ResumeProcess { process }, &[]), none);
}

#[test]
fn a_suspended_process_runs_when_it_is_resumed_and_ends_when_nobody_can() {
    let bed = testbed::require!();
    Service::start(bed, "").caller(bed, "alice", "role_suspends");
}

#[test]
fn role_suspends() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    let mut process = shell(token, "exit 7");
    process.suspended = true;
    let (created, _) = call(&mut service, &process, &[]);
    assert!(created.process.suspended);
    let wait = WaitProcess { process: created.process.id.clone(), timeout: None };
    assert!(matches!(refusal(&mut service, &wait, &[]), FailureKind::InvalidInput { .. }));
    call(&mut service, &ResumeProcess { process: created.process.id.clone() }, &[]);
    assert_eq!(exit_code(&mut service, &created), Some(7));

    let mut second = another();
    process.token = own(&mut second).token;
    let (left, _) = call(&mut second, &process, &[]);
    drop(second);
    until("the abandoned one has ended", || !alive(left.process.pid));
}

#[test]
fn a_process_on_a_terminal_sees_its_size() {
    let bed = testbed::require!();
    Service::start(bed, "").caller(bed, "alice", "role_terminal");
}

#[test]
fn role_terminal() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    let mut process = shell(token, "stty size; test -t 0 && tty | grep -q pts && exit 5");
    process.terminal = Some(TerminalSize { rows: 33, columns: 77, pixel_width: 0, pixel_height: 0 });
    let (created, mut descriptors) = call(&mut service, &process, &[]);
    let terminal: OwnedFd = descriptors.take(created.terminal.unwrap()).unwrap();
    let mut terminal = std::fs::File::from(terminal);
    let mut said = [0; 64];
    let length = terminal.read(&mut said).unwrap();
    assert!(String::from_utf8_lossy(&said[..length]).starts_with("33 77"));
    assert_eq!(exit_code(&mut service, &created), Some(5));
}

#[test]
fn limits_are_lowered_freely_and_raised_by_nobody_without_a_rule() {
    let bed = testbed::require!();
    Service::start(bed, "").caller(bed, "alice", "role_limits");
}

#[test]
fn role_limits() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    let limit = |soft, hard| vec![ProcessLimit { name: "RLIMIT_NOFILE".to_owned(), soft, hard }];
    let mut process = shell(token, "ulimit -Sn; ulimit -Hn");
    process.limits = limit(Some(100), Some(200));
    assert_eq!(output(&mut service, process.clone()), ("100\n200\n".to_owned(), Some(0)));
    process.limits = limit(None, None);
    let denied = refusal(&mut service, &process, &[]);
    assert!(
        matches!(&denied, FailureKind::PolicyDenied { privilege, .. } if privilege == "increase-quota"),
        "{denied:?}"
    );
    process.limits.clear();
    process.nice = Some(-5);
    assert!(matches!(refusal(&mut service, &process, &[]), FailureKind::PolicyDenied { .. }));
    process.nice = None;
    process.oom_score_adj = Some(-100);
    assert!(matches!(refusal(&mut service, &process, &[]), FailureKind::PolicyDenied { .. }));
}

#[test]
fn tokens_are_described_duplicated_and_restricted_and_never_raised() {
    let bed = testbed::require!();
    Service::start(bed, "").caller(bed, "alice", "role_tokens");
}

#[test]
fn role_tokens() {
    let Some(mut service) = part() else { return };
    let own = own(&mut service);
    assert_eq!(call(&mut service, &DescribeToken { token: own.token }, &[]).0, own);
    let level = Some(Level::Identification);
    let known = call(&mut service, &DuplicateToken { token: own.token, primary: false, level }, &[]).0;
    assert_eq!(known.context.level, Level::Identification);
    let raised = DuplicateToken { token: known.token, primary: true, level: None };
    assert!(matches!(refusal(&mut service, &raised, &[]), FailureKind::LevelTooLow { .. }));
    assert!(matches!(
        refusal(&mut service, &shell(known.token, "true"), &[]),
        FailureKind::LevelTooLow { .. }
    ));

    let group = *own.context.groups.last().unwrap();
    let fewer = RestrictToken { token: own.token, without_groups: vec![group], ..Default::default() };
    let fewer = call(&mut service, &fewer, &[]).0;
    assert!(!fewer.context.groups.contains(&group) && !fewer.context.no_new_privs);
    let least = RestrictToken { token: own.token, no_new_privs: true, ..Default::default() };
    let least = call(&mut service, &least, &[]).0;
    assert!(least.context.no_new_privs);
    let (text, _) = output(&mut service, shell(least.token, "grep NoNewPrivs /proc/self/status"));
    assert_eq!(text, "NoNewPrivs:\t1\n");

    // A token is its connection's alone.
    let mut second = another();
    let none = FailureKind::NoSuchHandle { of: "token".to_owned() };
    assert_eq!(refusal(&mut second, &DescribeToken { token: own.token }, &[]), none);
}

#[test]
fn files_are_opened_with_the_callers_rights_and_no_more() {
    let bed = testbed::require!();
    let folder = bed.scratch("files");
    for (name, mode) in [("open", 0o644), ("secret", 0o600)] {
        std::fs::write(folder.join(name), name).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(folder.join(name), mode).unwrap();
    }
    let service = Service::start(bed, "");
    service.caller_with(bed, "alice", "role_opens_files", &[("STEAD_TEST_FOLDER", folder.to_str().unwrap())]);
    let made = bed.user("alice").home.join("made by the service's helper");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&made).unwrap());
    assert_eq!(owner, bed.user("alice").uid);
    std::fs::remove_file(made).unwrap();
}

#[test]
fn role_opens_files() {
    let Some(mut service) = part() else { return };
    let folder = std::env::var("STEAD_TEST_FOLDER").unwrap();
    let token = own(&mut service).token;
    let open = |path: &str| OpenFile { token, path: Text::from(path), read: true, ..OpenFile::default() };
    let (opened, mut descriptors) = call(&mut service, &open(&format!("{folder}/open")), &[]);
    let mut text = String::new();
    std::fs::File::from(descriptors.take(opened.file).unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "open");
    for path in [&format!("{folder}/secret"), "/etc/shadow"] {
        assert!(
            matches!(refusal(&mut service, &open(path), &[]), FailureKind::AccessDenied { .. }),
            "{path}"
        );
    }
    let missing = open(&format!("{folder}/nothing"));
    assert!(matches!(refusal(&mut service, &missing, &[]), FailureKind::NotFound { .. }));
    assert!(matches!(refusal(&mut service, &open("/dev/null"), &[]), FailureKind::InvalidInput { .. }));
    // Neither the service's descriptors nor its root are in reach: a magic link is not followed.
    assert!(matches!(
        refusal(&mut service, &open("/proc/1/root/etc/passwd"), &[]),
        FailureKind::AccessDenied { .. }
    ));
    // A relative path begins at home.
    let mut create = open("made by the service's helper");
    (create.write, create.create_new) = (true, true);
    call(&mut service, &create, &[]);
}

#[test]
fn without_a_policy_nobody_logs_anybody_on() {
    let bed = testbed::require!();
    Service::start(bed, "").caller(bed, "alice", "role_denied_logons");
}

#[test]
fn role_denied_logons() {
    let Some(mut service) = part() else { return };
    for name in ["alice", "bob", "root", "nobody-of-this-name"] {
        let account = stead_protocol::Account { name: name.into(), local: true };
        let json = format!(r#"{{"account":{{"name":"{name}"}},"logon_type":"batch","s4u":true}}"#);
        let logon: LogOn = serde_json::from_str(&json).unwrap();
        let logon = LogOn { account, ..logon };
        // The same words, whoever it is and whether it is.
        let expected = FailureKind::PolicyDenied { privilege: "tcb".to_owned(), client: name.to_owned() };
        assert_eq!(refusal(&mut service, &logon, &[]), expected);
    }
}

#[test]
fn the_interface_is_told_as_it_is_and_parses() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    let status = call(&mut service.connect(), &GetStatus {}, &[]).0;
    assert_eq!((status.caller, status.pid), (0, service.pid()));
    let mut socket = std::os::unix::net::UnixStream::connect(service.socket()).unwrap();
    let mut answers = std::io::BufReader::new(socket.try_clone().unwrap());
    let mut ask = |method: &str, parameters: &str| -> serde_json::Value {
        write!(socket, r#"{{"method":"{method}","parameters":{parameters}}}"#).unwrap();
        socket.write_all(b"\0").unwrap();
        let mut answer = Vec::new();
        answers.read_until(0, &mut answer).unwrap();
        answer.pop();
        serde_json::from_slice(&answer).unwrap()
    };
    let info = ask("org.varlink.service.GetInfo", "{}");
    assert_eq!(info["parameters"]["interfaces"], serde_json::json!(["org.varlink.service", NAME]));
    for name in ["org.varlink.service", NAME] {
        let parameters = format!(r#"{{"interface":"{name}"}}"#);
        let told = ask("org.varlink.service.GetInterfaceDescription", &parameters);
        let text = told["parameters"]["description"].as_str().unwrap();
        let parsed = zlink::idl::Interface::try_from(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(parsed.name(), name);
        if name == NAME {
            let methods: Vec<String> =
                parsed.methods().map(|method| format!("{NAME}.{}", method.name())).collect();
            let mut known = Request::METHODS.to_vec();
            known.sort_unstable();
            let mut told = methods.iter().map(String::as_str).collect::<Vec<_>>();
            told.sort_unstable();
            assert_eq!(told, known);
            assert_eq!(text, INTERFACE);
        }
    }
    assert_eq!(ask("io.stead.Service.Nothing", "{}")["error"], "org.varlink.service.MethodNotFound");
    assert_eq!(ask("io.stead.Else.Nothing", "{}")["error"], "org.varlink.service.InterfaceNotFound");
    assert_eq!(ask("io.stead.Service.Monitor", "{}")["error"], "org.varlink.service.ExpectedMore");
    let unknown = ask("io.stead.Service.OwnToken", r#"{"no_new_privs":true}"#);
    assert_eq!(unknown["error"], "org.varlink.service.InvalidParameter");
}
