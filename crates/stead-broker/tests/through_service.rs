//! Servers without any privilege, and what the service does for them.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod through_support;

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio as Std;
use std::sync::mpsc;
use std::time::Duration;

use stead::impersonate::OpenOptions;
use stead::os::linux::{CommandExt, Gid, Limit, LogonExt, LogonSessionExt, RestrictionExt, TokenExt};
use stead::token::Restriction;
use stead::{Account, Client, Command, ErrorKind, Logon, LogonType, Prompt, Secret, Service, Stdio, Token};
use testbed::{Bed, Probe, until};
use through_support::{Connected, PORTAL, TheService, connect_and_stay, folder_of, listener, say, words};

#[test]
fn role_that_connects() {
    connect_and_stay();
}

/// The prefix that makes a process this user's.
fn as_user(bed: &Bed, name: &str) -> Vec<String> {
    let user = bed.user(name);
    let (uid, gid) = (format!("--reuid={}", user.uid), format!("--regid={}", user.gid));
    ["setpriv", &uid, &gid, "--init-groups", "--inh-caps=-all", "--"].map(str::to_owned).into()
}

fn connected(bed: &Bed, name: &str, listener: &std::os::unix::net::UnixListener, path: &Path) -> Connected {
    let prefix = as_user(bed, name);
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    Connected::by(&prefix, bed, listener, path)
}

/// Lines of a process's status in `/proc`.
fn status_of(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn an_http_server_without_any_capability_runs_each_callers_command_as_the_caller() {
    let bed = testbed::require!();
    if !Path::new("/usr/bin/curl").exists() {
        testbed::skip!("curl is not installed");
    }
    let people: Vec<&str> =
        ["alice", "bob", "carol"].into_iter().filter(|name| bed.find_user(name).is_some()).collect();
    let clients = people.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let service = TheService::start(
        bed,
        &format!(
            r#"
            [[allow]]
            callers = {{ users = ["svc"] }}
            clients = {{ users = [{clients}] }}
            privileges = ["impersonate", "assign-primary-token"]
            programs = "any"
            "#
        ),
    );
    let socket = folder_of(bed, bed.user("svc")).join("http.sock");
    let mut server = service
        .as_user(bed, "svc", bed.bin("http_portal"))
        .arg(&socket)
        .current_dir("/")
        .stdin(Std::null())
        .spawn()
        .unwrap();
    until("the server listens", || socket.exists());

    // It is what it is said to be: svc, without any capability.
    let svc = bed.user("svc").uid;
    assert_eq!(status_of(server.id(), "Uid:"), format!("{svc} {svc} {svc} {svc}"));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(status_of(server.id(), set), "0000000000000000", "{set}");
    }

    let ask = |name: &str, confinement: &str, body: &str| {
        let output = bed
            .as_user(name, &[], "setpriv")
            .args([confinement, "--", "curl", "-sS", "-w", "%{http_code}", "--unix-socket"])
            .arg(&socket)
            .args(["-d", body, "http://server/"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let free = "--inh-caps=-all";
    for name in &people {
        assert_eq!(ask(name, free, "id -un"), format!("{name}\n200"));
        let groups = ask(name, free, "id -G");
        let mut groups: Vec<u32> =
            groups.trim_end_matches("200").split_whitespace().map(|gid| gid.parse().unwrap()).collect();
        groups.sort_unstable();
        assert_eq!(groups, bed.user(name).all_groups(), "{name}");
    }
    let refused = ask("mallory", free, "id -un");
    assert!(
        refused.ends_with("403") && refused.contains("policy does not give this server impersonate"),
        "{refused}"
    );
    let refused = ask("alice", "--no-new-privs", "id -un");
    assert!(refused.ends_with("403") && refused.contains("no_new_privs"), "{refused}");
    let missing = ask("alice", free, "no-such-program");
    assert!(missing.ends_with("422") && missing.contains("there is no program"), "{missing}");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn a_clients_token_through_the_service_is_the_one_that_a_privileged_server_reads() {
    let bed = testbed::require!();
    let service = TheService::start(bed, PORTAL);
    let (listener, path) = listener(&bed.scratch("server"));
    for name in ["alice", "bob", "0day"] {
        let client = connected(bed, name, &listener, &path);
        let direct = Client::of(&client.stream).unwrap();
        let through = service.connect().client_of(&client.stream, &listener).unwrap();
        assert_eq!(format!("{direct:?}"), format!("{through:?}"));
        let (direct, through) = (direct.token().unwrap(), through.token().unwrap());
        assert_eq!(direct, through);
        assert_eq!(direct.to_string(), through.to_string());
        assert_eq!(serde_json::to_value(&direct).unwrap(), serde_json::to_value(&through).unwrap());
        assert_eq!(direct.user_name().unwrap(), through.user_name().unwrap());
        let (direct, through) = (direct.to_primary().unwrap(), through.to_primary().unwrap());
        assert_eq!(direct.to_string(), through.to_string());
        let restriction = Restriction::new().without_privileges();
        let restricted = [direct.restrict(&restriction), through.restrict(&restriction)];
        let [direct, through] = restricted.map(|token| token.unwrap().to_string());
        assert_eq!(direct, through);
    }
}

#[test]
fn a_session_through_the_service_is_as_one_of_a_privileged_server() {
    let bed = testbed::require!();
    let service = TheService::start(bed, PORTAL);
    let logon = || {
        Logon::password(Account::local("alice"), bed.user("alice").password.as_str())
            .kind(LogonType::Interactive)
    };
    let direct = logon().open().unwrap();
    let through = logon().open_through(&service.connect()).unwrap();
    assert_ne!(direct.id(), through.id());
    assert_eq!(direct.account(), through.account());
    assert_eq!(direct.environment(), through.environment());
    let shown =
        |session: &stead::LogonSession| session.token().to_string().replace(&session.id().to_string(), "ID");
    assert_eq!(shown(&direct), shown(&through));
    assert_eq!(direct.umask(), through.umask());
    assert!(through.processes().unwrap().is_empty());
    let mut child = Command::new("sleep").arg("600").spawn_as(through.token()).unwrap();
    assert!(through.processes().unwrap().contains(&child.id()));
    through.terminate().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    drop(child);
    through.close().unwrap();
    direct.close().unwrap();
}

/// What a portal does with one client, all of it.
#[test]
fn role_portal() {
    let Some(words) = words() else { return };
    let [folder, password, note, others] = &words[..] else { panic!("{words:?}") };
    let bed = Bed::current().unwrap();
    let own = Token::current().unwrap();
    assert!(own.capabilities().permitted.is_empty() && own.uid().as_raw() == bed.user("svc").uid);
    let service = Service::connect().unwrap();

    // Procedure 1.
    let session = Logon::password(Account::local("alice"), password.as_str()).open_through(&service).unwrap();
    let mut command = Command::new(bed.bin("probe"));
    command
        .env("ADDED", "by the portal")
        .umask(0o027)
        .nice(5)
        .limit(Limit::OpenFiles, 64, 128)
        .no_new_privs(true);
    let seen = Probe::parse(&command.output_as(session.token()).unwrap().stdout);
    say(format_args!("{} {} {}", seen.uid.real, seen.variable("ADDED").unwrap(), seen.umask));
    assert_eq!((seen.nice, seen.no_new_privs, seen.limits["Max open files"].hard), (5, true, Some(128)));

    let mut child = Command::new("sh")
        .args(["-c", "read line; echo got $line; echo more >/dev/stdout; sleep 600 & exec sleep 600"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn_as(session.token())
        .unwrap();
    child.stdin.take().unwrap().write_all(b"words\n").unwrap();
    let mut text = [0; 15];
    child.stdout.as_mut().unwrap().read_exact(&mut text).unwrap();
    say(String::from_utf8_lossy(&text).replace('\n', ","));
    assert_eq!(child.try_wait().unwrap(), None);
    assert_eq!(child.wait_timeout(Duration::from_millis(20)).unwrap(), None);
    let tree = session.processes().unwrap();
    assert_eq!(tree.len(), 2, "{tree:?}");
    child.kill_tree().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    until("the tree is gone", || session.processes().unwrap().is_empty());

    let group = Gid::new(*bed.user("alice").groups.first().unwrap()).unwrap();
    let less = session.token().restrict(&Restriction::new().without_group(group).no_new_privs()).unwrap();
    let seen = Probe::parse(&Command::new(bed.bin("probe")).output_as(&less).unwrap().stdout);
    assert!(seen.no_new_privs && !seen.groups.contains(&group.as_raw()));
    assert_eq!(seen.groups.len() + 1, bed.user("alice").all_groups().len());
    // What the thread itself still holds would keep the session open.
    drop((child, less));

    // Procedure 2, with files opened as the client.
    let (listener, path) = listener(Path::new(folder));
    say(path.display());
    let (stream, _) = listener.accept().unwrap();
    let client = service.client_of(&stream, &listener).unwrap();
    let mut notes = String::new();
    client.impersonate(|me| me.open(note)).unwrap().unwrap().read_to_string(&mut notes).unwrap();
    say(notes.trim_end());
    let refused = client.impersonate(|me| me.open(others)).unwrap().unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::AccessDenied { .. }), "{refused}");
    let missing = client.impersonate(|me| me.open("/nowhere")).unwrap().unwrap_err();
    assert!(matches!(missing.kind(), ErrorKind::NotFound { .. }), "{missing}");
    let made = client.impersonate(|me| {
        let mut file =
            me.open_with("by-the-portal", OpenOptions::new().write(true).create(true).truncate(true))?;
        file.write_all(b"as her").unwrap();
        assert_eq!(rustix::process::geteuid().as_raw(), bed.user("svc").uid, "the thread stays what it was");
        Token::open_thread(me)?.to_primary()
    });
    let token = made.unwrap().unwrap();
    let output = Command::new("stat").args(["-c", "%u %s", "by-the-portal"]).output_as(&token).unwrap();
    say(String::from_utf8_lossy(&output.stdout).trim_end());
    session.close().unwrap();
}

#[test]
fn an_unprivileged_server_does_both_procedures_as_a_privileged_one_does() {
    let bed = testbed::require!();
    let service = TheService::start(bed, PORTAL);
    let alice = bed.user("alice");
    let folder = folder_of(bed, bed.user("svc"));
    let note = alice.home.join("for-the-portal");
    std::fs::write(&note, "only hers\n").unwrap();
    std::os::unix::fs::chown(&note, Some(alice.uid), Some(alice.gid)).unwrap();
    std::fs::set_permissions(&note, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let others = bed.scratch("others").join("secret");
    std::fs::write(&others, "not hers").unwrap();
    std::fs::set_permissions(&others, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let words =
        [folder.to_str().unwrap(), alice.password.as_str(), "for-the-portal", others.to_str().unwrap()];
    let mut part = service.part(bed, "svc", "role_portal", &words);
    let portal = part.stdout(Std::piped()).stderr(Std::piped()).spawn().unwrap();
    let socket: PathBuf = folder.join("socket");
    until("the portal listens", || socket.exists() || !through_support::alive(portal.id()));
    let _client = bed.client("alice").connect(&socket);
    let said = through_support::played(&portal.wait_with_output().unwrap());
    let expected = format!(
        "{} by the portal 23\ngot words,more,\n{}\nonly hers\n{} 6\n",
        alice.uid,
        socket.display(),
        alice.uid
    );
    assert_eq!(said, expected);
    for file in [note, alice.home.join("by-the-portal")] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn what_cannot_be_done_through_the_service_says_so() {
    let bed = testbed::require!();
    let service = TheService::start(bed, PORTAL);
    let (listener, path) = listener(&bed.scratch("server"));
    let client = connected(bed, "alice", &listener, &path);
    let client = service.connect().client_of(&client.stream, &listener).unwrap();
    let refused = |error: stead::Error| {
        assert!(matches!(error.kind(), ErrorKind::NotThroughService { .. }), "{error}");
        assert!(error.to_string().contains("not through the service: "), "{error}");
    };
    client
        .impersonate(|me| {
            refused(me.metadata("notes.txt").unwrap_err());
            refused(me.symlink_metadata("notes.txt").unwrap_err());
            refused(me.read_dir("/").unwrap_err());
            refused(me.connect(&path).unwrap_err());
            refused(me.access("/", stead::impersonate::Access::READ).unwrap_err());
        })
        .unwrap();
    let token = client.token().unwrap().to_primary().unwrap();
    let granted = stead::os::linux::CapabilitySet::EMPTY.with(stead::os::linux::Capability::NetBindService);
    refused(Command::new("true").ambient_capabilities(granted).spawn_as(&token).unwrap_err());
    refused(Command::new("true").exec_label("some").spawn_as(&token).unwrap_err());
    let logon = || Logon::s4u(Account::local("alice"));
    refused(logon().pam_service("login").open_through(&service.connect()).unwrap_err());
    refused(logon().worker("/bin/true").open_through(&service.connect()).unwrap_err());
}

#[test]
fn what_the_policy_does_not_give_is_a_typed_error_and_nothing_runs() {
    let bed = testbed::require!();
    let service = TheService::start(
        bed,
        r#"
        [[allow]]
        callers = { users = ["root"] }
        clients = { users = ["alice"] }
        privileges = ["impersonate"]
        "#,
    );
    let (listener, path) = listener(&bed.scratch("server"));
    let service = service.connect();
    let denied = |error: stead::Error, wanted: &str| {
        let ErrorKind::PolicyDenied { privilege, .. } = error.kind() else { panic!("{error}") };
        assert_eq!(privilege, wanted);
    };
    let alice = connected(bed, "alice", &listener, &path);
    let token = service.client_of(&alice.stream, &listener).unwrap().token().unwrap().to_primary().unwrap();
    let marker = bed.user("alice").home.join("must-not-be-made");
    denied(Command::new("touch").arg(&marker).status_as(&token).unwrap_err(), "assign-primary-token");
    assert!(!marker.exists());
    let bob = connected(bed, "bob", &listener, &path);
    denied(service.client_of(&bob.stream, &listener).unwrap().token().unwrap_err(), "impersonate");
    // The same words for who exists and who does not.
    let refusal = |name: &str, logon: Logon| {
        let error = logon.open_through(&service).unwrap_err();
        error.to_string().replace(name, "NAME")
    };
    for (known, unknown) in [("alice", "nobody-of-that-name"), ("root", "0x0")] {
        let by_password = |name: &str| refusal(name, Logon::password(Account::local(name), "a guess"));
        assert_eq!(by_password(known), by_password(unknown));
        let s4u = |name: &str| refusal(name, Logon::s4u(Account::local(name)));
        assert_eq!(s4u(known), s4u(unknown));
        assert!(s4u(known).contains("policy does not give this server tcb"), "{}", s4u(known));
    }
}

#[test]
fn a_logons_questions_come_to_the_server_that_asked() {
    let bed = testbed::require!();
    let service = TheService::start(bed, PORTAL);
    let (heard, questions) = mpsc::channel();
    let password = bed.user("bob").password.clone();
    let caller = std::thread::current().id();
    let answers = move |prompt: &Prompt<'_>| {
        assert_eq!(std::thread::current().id(), caller, "on the thread that logs on");
        heard.send((prompt.text().to_owned(), prompt.echo())).unwrap();
        Some(Secret::from(password.as_str()))
    };
    let session =
        Logon::with_conversation(Account::local("bob"), answers).open_through(&service.connect()).unwrap();
    assert_eq!(session.account(), "bob");
    let (text, echo) = questions.recv().unwrap();
    assert!(text.contains("assword") && !echo, "{text}");
    session.close().unwrap();
    let refuse = |_: &Prompt<'_>| None;
    let error = Logon::with_conversation(Account::local("bob"), refuse).open_through(&service.connect());
    assert!(error.is_err());
}

#[test]
fn a_slow_call_of_one_client_holds_up_no_other() {
    let bed = testbed::require!();
    let service = TheService::start(bed, PORTAL);
    let connection = service.connect();
    let (asked, is_asked) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let slow = {
        let connection = connection.clone();
        std::thread::spawn(move || {
            let answers = move |_: &Prompt<'_>| {
                asked.send(()).unwrap();
                released.recv().unwrap();
                None
            };
            Logon::with_conversation(Account::local("bob"), answers).open_through(&connection).map(drop)
        })
    };
    is_asked.recv().unwrap();
    let session = Logon::s4u(Account::local("alice")).open_through(&connection).unwrap();
    let mut long = Command::new("sleep").arg("600").spawn_as(session.token()).unwrap();
    let waited = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| long.wait());
        // Waited for by its pidfd: the service and the session are free.
        assert!(Command::new("true").status_as(session.token()).unwrap().success());
        assert_eq!(connection.sessions().unwrap().len(), 1);
        session.terminate().unwrap();
        waiting.join().unwrap()
    });
    assert_eq!(waited.unwrap().signal(), Some(9));
    release.send(()).unwrap();
    assert!(slow.join().unwrap().is_err());
}

#[test]
fn when_the_service_is_killed_errors_say_so_and_sessions_are_found_again() {
    let bed = testbed::require!();
    let mut service = TheService::start(bed, PORTAL);
    let connection = service.connect();
    let session = Logon::s4u(Account::local("alice")).open_through(&connection).unwrap();
    let mut child = Command::new("sleep").arg("600").spawn_as(session.token()).unwrap();
    let id = session.id();
    service.kill();
    let lost = Command::new("true").status_as(session.token()).unwrap_err();
    assert!(matches!(lost.kind(), ErrorKind::ServiceUnavailable { .. }), "{lost}");
    assert!(matches!(connection.sessions().unwrap_err().kind(), ErrorKind::ServiceUnavailable { .. }));
    assert_eq!(child.try_wait().unwrap(), None, "the process lives on");
    drop(session);

    let again = TheService::start_again(&service);
    let connection = again.connect();
    let known = connection.sessions().unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].id(), known[0].account().to_str()), (id, Some("alice")));
    assert_eq!(known[0].processes(), [child.id()]);
    let session = connection.reattach(id).unwrap();
    assert_eq!(Command::new("id").arg("-un").output_as(session.token()).unwrap().stdout, b"alice\n");
    let started = session.started();
    assert_eq!(started.iter().map(stead::logon::StartedProcess::pid).collect::<Vec<_>>(), [child.id()]);
    started[0].kill_tree().unwrap();
    until("it has ended", || !through_support::alive(started[0].pid()));
    drop(started);
    let _ = child.try_wait();
    drop(child);
    session.close().unwrap();
    until("the session is over", || connection.sessions().unwrap().is_empty());
}

#[test]
fn a_process_whose_end_its_caller_knows_is_not_counted_against_the_caller_any_more() {
    let bed = testbed::require!();
    let service = TheService::start(bed, &format!("[quotas]\nprocesses = 1\n{PORTAL}"));
    let connection = service.connect();
    let own = connection.own_token().unwrap();
    for round in 0..200 {
        let status = Command::new("/bin/true").status_as(&own);
        assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{round}: {status:?}");
    }
    // One that runs is counted.
    let mut runs = Command::new("/bin/sleep").arg("600").spawn_as(&own).unwrap();
    let error = Command::new("/bin/true").status_as(&own).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::LimitReached { .. }), "{error}");
    runs.kill().unwrap();
    runs.wait().unwrap();
    assert!(Command::new("/bin/true").status_as(&own).unwrap().success());
}
