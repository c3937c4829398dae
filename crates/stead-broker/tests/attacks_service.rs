//! How brokers of this kind were broken, tried against the real service.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod through_support;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio as Std;

use stead::error::ConfinedPart;
use stead::os::linux::{ServiceExt, TokenExt, Uid};
use stead::{Account, Command, ErrorKind, Logon, Service};
use stead_protocol::client::Connection;
use stead_protocol::{CreateProcess, FailureKind, OpenSession, OwnToken, SignalProcess};
use testbed::until;
use through_support::{
    Connected, TheService, alive, connect_and_stay, folder_of, judged, listener, say, trusting, words,
};

#[test]
fn role_that_connects() {
    connect_and_stay();
}

/// Sandboxes (Flatpak, bubblewrap): the confined process asks the broker for a free one.
#[test]
fn a_confined_caller_gets_no_free_process_of_its_own() {
    let bed = testbed::require!();
    let service = TheService::start(bed, "");
    for (options, part) in [
        (&["--no-new-privs"][..], ConfinedPart::NoNewPrivileges),
        (&["--seccomp"], ConfinedPart::Seccomp),
        (&["--drop-bounding"], ConfinedPart::BoundingSet),
    ] {
        let mut command = bed.confined(options, "setpriv");
        command
            .args(["--reuid=47001", "--regid=47001", "--init-groups", "--inh-caps=-all", "--"])
            .arg(bed.this_program())
            .args(["--exact", "role_that_asks_for_its_own_token", "--nocapture", "--test-threads=1"])
            .env("STEAD_SERVICE", &service.socket)
            .env("STEAD_TEST_WORDS", "x")
            .current_dir("/");
        let said = through_support::played(&command.output().unwrap());
        assert_eq!(said, format!("refused: {part}\n"), "{options:?}");
    }
    // A free one gets it.
    assert_eq!(service.play(bed, "alice", "role_that_asks_for_its_own_token", &["x"]), "alice\n");
}

#[test]
fn role_that_asks_for_its_own_token() {
    if words().is_none() {
        return;
    }
    let service = Service::connect().unwrap();
    match service.own_token().and_then(|own| Command::new("id").arg("-un").output_as(&own)) {
        Ok(output) => say(String::from_utf8_lossy(&output.stdout).trim_end()),
        Err(error) => match error.kind() {
            ErrorKind::ClientConfined { part } => say(format_args!("refused: {part}")),
            _ => panic!("{error}"),
        },
    }
}

#[test]
fn a_confined_client_of_a_portal_gets_no_free_process() {
    let bed = testbed::require!();
    let service = trusting(bed);
    let (listener, path) = listener(&bed.scratch("server"));
    for (client, part) in [
        (bed.client("alice").no_new_privs(), ConfinedPart::NoNewPrivileges),
        (bed.client("alice").seccomp(), ConfinedPart::Seccomp),
        (bed.client("alice").namespace("mnt"), ConfinedPart::MountNamespace),
    ] {
        let _client = client.connect(&path);
        let (stream, _) = listener.accept().unwrap();
        let error =
            service.connect().client_of(&stream, &listener).and_then(|client| client.token()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::ClientConfined { part }, "{error}");
    }
}

/// CVE-2021-3560: the peer goes away in the middle of the check.
#[test]
fn a_client_that_is_gone_gives_no_token_and_a_caller_that_is_gone_gets_no_process() {
    let bed = testbed::require!();
    let service = trusting(bed);
    let (listener, path) = listener(&bed.scratch("server"));
    let gone = bed.client("alice").exit_after().try_connect(&path).unwrap();
    let (stream, _) = listener.accept().unwrap();
    until("it has ended", || !alive(gone.pid().unsigned_abs()));
    let refused = judged(&service, &stream, &listener).unwrap_err();
    assert!(matches!(refused, FailureKind::ClientChanged { .. }), "{refused:?}");

    // Between the connection and the use of it.
    let client = Connected::by(
        &["setpriv", "--reuid=47001", "--regid=47001", "--init-groups", "--"],
        bed,
        &listener,
        &path,
    );
    let known = service.connect().client_of(&client.stream, &listener).unwrap();
    let stream = client.stream.try_clone().unwrap();
    drop(client);
    assert!(matches!(known.token().unwrap_err().kind(), ErrorKind::ClientChanged { .. }));
    drop(stream);

    // A caller that sends its call and ends before it is answered.
    let marker = bed.scratch("marker");
    for _ in 0..20 {
        let said = service.play(bed, "svc", "role_that_calls_and_ends", &["x"]);
        assert_eq!(said, "called\n");
    }
    assert!(fs::read_dir(marker).unwrap().next().is_none());
    assert_eq!(service.play(bed, "alice", "role_that_asks_for_its_own_token", &["x"]), "alice\n");
}

#[test]
fn role_that_calls_and_ends() {
    if words().is_none() {
        return;
    }
    let call = stead_protocol::frame::encode_call(&OwnToken {}, stead_protocol::frame::Replies::One).unwrap();
    let mut stream = UnixStream::connect(std::env::var_os("STEAD_SERVICE").unwrap()).unwrap();
    stream.write_all(&call).unwrap();
    say("called");
}

/// CVE-2011-1485, CVE-2013-4288, CVE-2019-6133: another program, with other ids, where the client was.
#[test]
fn a_client_that_executes_a_setuid_program_before_the_service_looks_is_refused() {
    let bed = testbed::require!();
    let service = trusting(bed);
    let (listener, path) = listener(&bed.scratch("server"));
    let mut process = bed.client("alice").connect(&path);
    let (stream, _) = listener.accept().unwrap();
    let client = service.connect().client_of(&stream, &listener).unwrap();
    assert_eq!(client.token().unwrap().uid().as_raw(), bed.user("alice").uid);
    assert_eq!(process.tell(&format!("exec {} wait", bed.setuid_program().display())), "ok");
    until("it is root's by now", || {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
    });
    let refused = client.token().unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::ClientChanged { .. }), "{refused}");
}

/// CVE-2019-3842, CVE-2025-6018, CVE-2009-0361: variables by which a session becomes what it is not.
#[test]
fn a_caller_sets_no_variable_that_modules_act_on() {
    let bed = testbed::require!();
    let service = trusting(bed);
    for name in
        ["XDG_SEAT", "XDG_VTNR", "XDG_SESSION_TYPE", "XDG_SESSION_CLASS", "KRB5CCNAME", "LD_PRELOAD", "PATH"]
    {
        let logon = Logon::s4u(Account::local("alice")).env(name, "seat0");
        let error = logon.open_through(&service.connect()).unwrap_err();
        let ErrorKind::InvalidInput { what } = error.kind() else { panic!("{error}") };
        assert!(what.contains(name), "{what}");
    }
    let session =
        Logon::s4u(Account::local("alice")).env("LANG", "de_DE.UTF-8").open_through(&service.connect());
    session.unwrap().close().unwrap();
}

/// sudo's env_check: a message catalog of the caller's is format strings for the client's programs, and a time zone any file.
#[test]
fn a_logon_takes_no_variable_that_leads_to_a_callers_file() {
    let bed = testbed::require!();
    let service = trusting(bed);
    let logon =
        |name, value| Logon::s4u(Account::local("alice")).env(name, value).open_through(&service.connect());
    for (name, value) in
        [("LANGUAGE", "../../../tmp/x"), ("LC_ALL", "%n"), ("TERM", "/x"), ("TZ", ":/dev/tty")]
    {
        let error = logon(name, value).unwrap_err();
        let ErrorKind::InvalidInput { what } = error.kind() else { panic!("{error}") };
        assert!(what.contains(name), "{what}");
    }
    let session = logon("TZ", "Europe/Berlin").unwrap();
    let zone = Command::new("printenv").arg("TZ").output_as(session.token()).unwrap();
    assert_eq!(zone.stdout, b"Europe/Berlin\n");
    session.close().unwrap();
}

/// systemdspawner GHSA-cg54-gpgr-4rm6: a secret in arguments or on the bus. A service that writes everything down
/// that it is told.
#[test]
fn a_password_is_in_no_message_and_arrives_in_its_own_pipe() {
    let bed = testbed::require!();
    let path = bed.scratch("recorder").join("socket");
    let recorder = UnixListener::bind(&path).unwrap();
    let recording = std::thread::spawn(move || {
        let (mut stream, _) = recorder.accept().unwrap();
        let (told, mut descriptors) = message(&stream);
        let mut secret = String::new();
        fs::File::from(descriptors.remove(0)).read_to_string(&mut secret).unwrap();
        stream.write_all(b"{\"error\":\"io.stead.Service.LogonFailed\",\"parameters\":{}}\0").unwrap();
        (told, secret)
    });
    let service =
        Service::connect_to_that_of(&path, Uid::new(rustix::process::getuid().as_raw()).unwrap()).unwrap();
    let error = Logon::password(Account::local("alice"), "correct horse").open_through(&service).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::LogonFailed);
    let (told, secret) = recording.join().unwrap();
    assert_eq!(secret, "correct horse");
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("alice") && !told.contains("horse"), "{told}");
}

/// One message, and the descriptors beside it.
fn message(stream: &UnixStream) -> (Vec<u8>, Vec<OwnedFd>) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (mut message, mut descriptors) = (Vec::new(), Vec::new());
    while message.last() != Some(&0) {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4096];
        let got = recvmsg(
            stream,
            &mut [std::io::IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let length = got.unwrap().bytes;
        assert_ne!(length, 0);
        message.extend_from_slice(&bytes[..length]);
        for one in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = one {
                descriptors.extend(some);
            }
        }
    }
    (message, descriptors)
}

/// A path is no principal: whoever executes the portal's program is not the portal.
#[test]
fn executing_the_portals_program_does_not_make_anybody_the_portal() {
    let bed = testbed::require!();
    let service = TheService::start(
        bed,
        r#"
        [[allow]]
        callers = { users = ["svc"] }
        clients = { users = ["alice"] }
        privileges = ["impersonate", "assign-primary-token", "tcb"]
        programs = "any"
        logon-types = ["network"]
        "#,
    );
    // The same file, the same arguments; only its user is another.
    assert_eq!(service.play(bed, "svc", "role_that_wants_to_be_alice", &["x"]), "alice\n");
    let said = service.play(bed, "mallory", "role_that_wants_to_be_alice", &["x"]);
    assert!(said.contains("policy does not give this server tcb"), "{said}");
    let refused = stead_broker::policy::Policy::parse(
        "policy.toml",
        "[[allow]]\ncallers = { programs = [\"/usr/bin/portal\"] }\nclients = \"everyone\"\nprivileges = [\"tcb\"]\n",
        &stead_broker::policy::NameTable::new(),
    );
    assert!(refused.unwrap_err().to_string().contains("programs"));
}

#[test]
fn role_that_wants_to_be_alice() {
    if words().is_none() {
        return;
    }
    let service = Service::connect().unwrap();
    let logon = Logon::s4u(Account::local("alice")).open_through(&service);
    match logon.and_then(|session| Command::new("id").arg("-un").output_as(session.token())) {
        Ok(output) => say(String::from_utf8_lossy(&output.stdout).trim_end()),
        Err(error) => say(error),
    }
}

/// CVE-2015-6563, CVE-2017-1000082: the unprivileged side chooses the name that PAM is given.
#[test]
fn the_account_that_a_caller_names_is_the_one_that_was_decided_on_or_none() {
    let bed = testbed::require!();
    let service = TheService::start(
        bed,
        r#"
        [[allow]]
        callers = { users = ["root"] }
        clients = { users = ["alice", "0day"] }
        privileges = ["tcb", "assign-primary-token"]
        programs = "any"
        logon-types = ["network"]
        "#,
    );
    let log_on = |name: &str| Logon::s4u(Account::local(name)).open_through(&service.connect());
    for name in ["alice", "0day"] {
        let session = log_on(name).unwrap();
        assert_eq!(session.token().uid().as_raw(), bed.user(name).uid);
        session.close().unwrap();
    }
    for name in ["0", "0x0", "47001", "root", "../alice", "alice\n", " alice", "ALICE", "bob", ""] {
        let error = log_on(name).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::PolicyDenied { .. } | ErrorKind::InvalidInput { .. }),
            "{name:?}: {error}"
        );
    }
}

/// Somebody else's socket where the service's should be.
#[test]
fn nobody_elses_service_is_told_anything() {
    let bed = testbed::require!();
    let folder = folder_of(bed, bed.user("mallory"));
    let service = trusting(bed);
    let mut part =
        service.part(bed, "mallory", "role_that_pretends_to_be_the_service", &[folder.to_str().unwrap()]);
    let part = part.stdout(Std::piped()).stderr(Std::piped()).spawn().unwrap();
    let socket = folder.join("socket");
    until("it listens", || socket.exists() || !alive(part.id()));
    let error = Service::connect_to(&socket).unwrap_err();
    let ErrorKind::ServiceUnavailable { why } = error.kind() else { panic!("{error}") };
    assert!(why.contains(&format!("it is of uid {}", bed.user("mallory").uid)), "{why}");
    // The command is told nothing by it, either, whoever kept the variable for root.
    let shown = std::process::Command::new(bed.bin("stead"))
        .args(["ps"])
        .env("STEAD_SERVICE", &socket)
        .stdin(Std::null())
        .output()
        .unwrap();
    assert!(!shown.status.success());
    assert!(String::from_utf8_lossy(&shown.stderr).contains("not of root"), "{shown:?}");
    // It heard nothing at all.
    assert_eq!(through_support::played(&part.wait_with_output().unwrap()), "0 bytes\n0 bytes\n");
    let nobody = Service::connect_to(folder.join("nothing")).unwrap_err();
    assert!(nobody.to_string().contains("nothing is there"), "{nobody}");
}

#[test]
fn role_that_pretends_to_be_the_service() {
    let Some(words) = words() else { return };
    let (listener, _) = listener(Path::new(&words[0]));
    for _ in 0..2 {
        let mut told = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut told).unwrap();
        say(format_args!("{} bytes", told.len()));
    }
}

/// One caller's tokens, sessions and processes are no other's.
#[test]
fn what_one_caller_holds_no_other_can_name() {
    let bed = testbed::require!();
    let service = trusting(bed);
    let session = Logon::s4u(Account::local("alice")).open_through(&service.connect()).unwrap();
    let mut child = Command::new("sleep").arg("600").spawn_as(session.token()).unwrap();
    let mut own = Connection::connect(&service.socket).unwrap();
    let (listed, _) = own.call(&stead_protocol::ListProcesses::default(), &[]).unwrap();
    let process = &listed.processes[0].id;
    let said =
        service.play(bed, "mallory", "role_that_reaches_for_others", &[&session.id().to_string(), process]);
    assert_eq!(said, "token: refused\nsession: refused\nprocess: refused\nsessions: 0, processes: 0\n");
    assert!(alive(child.id()));
    child.kill_tree().unwrap();
    child.wait().unwrap();
}

#[test]
fn role_that_reaches_for_others() {
    let Some(words) = words() else { return };
    let mut connection = Connection::connect(std::env::var_os("STEAD_SERVICE").unwrap()).unwrap();
    let refused = |is_error: bool| if is_error { "refused" } else { "taken" };
    let create = CreateProcess { token: 1, program: Some("id".into()), ..CreateProcess::default() };
    say(format_args!("token: {}", refused(connection.call(&create, &[]).is_err())));
    let open = OpenSession { session: words[0].clone() };
    say(format_args!("session: {}", refused(connection.call(&open, &[]).is_err())));
    let kill = SignalProcess { process: words[1].clone(), signal: 9, group: false };
    say(format_args!("process: {}", refused(connection.call(&kill, &[]).is_err())));
    let (sessions, _) = connection.call(&stead_protocol::ListSessions {}, &[]).unwrap();
    let (processes, _) = connection.call(&stead_protocol::ListProcesses::default(), &[]).unwrap();
    say(format_args!("sessions: {}, processes: {}", sessions.sessions.len(), processes.processes.len()));
}

/// What the caller passes as strings is never joined, split, or read by a shell.
#[test]
fn arguments_variables_and_names_reach_the_process_byte_for_byte() {
    use std::os::unix::ffi::OsStrExt;
    let bed = testbed::require!();
    let service = trusting(bed);
    let session = Logon::s4u(Account::local("alice")).open_through(&service.connect()).unwrap();
    let hostile =
        [&b"; id"[..], b"$(id)", b"a b", b"", b"\"'\\", b"\xff\xfe\x01", b"\\u0000ef", "ü".as_bytes()];
    let mut command = Command::new("printf");
    command.arg("%s|");
    for word in hostile {
        command.arg(std::ffi::OsStr::from_bytes(word));
    }
    let output = command.output_as(session.token()).unwrap();
    let expected: Vec<u8> = hostile.iter().flat_map(|word| word.iter().copied().chain(*b"|")).collect();
    assert_eq!(output.stdout, expected);
    let nul = Command::new("true").arg("a\0ef").spawn_as(session.token()).unwrap_err();
    assert!(matches!(nul.kind(), ErrorKind::InvalidInput { .. }), "{nul}");
    session.close().unwrap();
    // Past the library too: a NUL has no form on the wire.
    let mut stream = UnixStream::connect(&service.socket).unwrap();
    let call = r#"{"method":"io.stead.Service.CreateProcess","parameters":{"token":1,"program":"a\u0000"}}"#;
    stream.write_all(call.as_bytes()).unwrap();
    stream.write_all(&[0]).unwrap();
    let (reply, _) = message(&stream);
    assert!(String::from_utf8_lossy(&reply).contains("org.varlink.service.InvalidParameter"));
}
