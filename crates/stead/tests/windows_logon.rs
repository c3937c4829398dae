//! Real logons, on real Windows: who the processes are, what the account may not, what the server lacks. Wine has
//! one user and says yes to every password.
//!
//! STEAD_TEST_USER and STEAD_TEST_PASSWORD name a local account made for it (.github/workflows/test.yml);
//! STEAD_TEST_AS says as whom the tests run: `system` or `administrator`.
#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::AsHandle;
use std::path::PathBuf;
use std::time::Duration;

use stead::local::{Address, ConnectOptions, ListenOptions, Stream};
use stead::os::windows::{Sid, TokenExt};
use stead::{
    Account, Command, ErrorKind, ImpersonationLevel, Logon, LogonSession, LogonType, Primary, Privilege,
    Stdio, Token,
};
use testbed::windows::{LockedEvent, Seen, WinProbe, program};

const TYPES: [LogonType; 5] = [
    LogonType::Interactive,
    LogonType::Network,
    LogonType::NetworkCleartext,
    LogonType::Batch,
    LogonType::Service,
];

fn logged_on((name, password): &(String, String), kind: LogonType) -> LogonSession {
    let logon = Logon::password(Account::local(name), password.as_str()).kind(kind);
    logon.open().unwrap_or_else(|error| panic!("{kind:?}: {error}"))
}

fn is_system() -> bool {
    Seen::own().unwrap().user == "S-1-5-18"
}

/// What only a LocalSystem service may: give a process another user's token, and vouch for a user.
macro_rules! require_system {
    () => {
        if !is_system() {
            testbed::skip!(
                "it takes SeAssignPrimaryTokenPrivilege and SeTcbPrivilege: run it as a LocalSystem service"
            );
        }
    };
}

fn probe(session: &LogonSession, command: &mut Command) -> WinProbe {
    let output = command.output_as(session.token()).unwrap_or_else(|error| panic!("{error}"));
    assert!(output.status.success(), "{output:?}");
    WinProbe::parse(&output.stdout)
}

fn winprobe() -> Command {
    let mut command = Command::new(program("winprobe"));
    command.current_dir("C:\\");
    command
}

#[test]
fn the_tests_run_as_the_workflow_says() {
    let Ok(who) = std::env::var("STEAD_TEST_AS") else {
        testbed::skip!("STEAD_TEST_AS does not say as whom the tests are meant to run")
    };
    assert_eq!(is_system(), who == "system");
}

#[test]
fn every_logon_type_gives_the_accounts_own_token() {
    let account = testbed::logon_account!();
    let sids: Vec<Sid> = TYPES
        .into_iter()
        .map(|kind| {
            let session = logged_on(&account, kind);
            let token = session.token();
            // Asked without the library too.
            assert_eq!(Seen::token(token.as_handle()).unwrap().user, token.user_sid().to_string());
            assert!(session.account().eq_ignore_ascii_case(&account.0), "{session:?}");
            let groups = token.groups();
            let of_type = match kind {
                LogonType::Interactive => Sid::INTERACTIVE,
                LogonType::Batch => "S-1-5-3".parse().unwrap(),
                LogonType::Service => "S-1-5-6".parse().unwrap(),
                _ => Sid::NETWORK,
            };
            assert!(groups.iter().any(|group| group.sid == of_type), "{kind:?}: {groups:?}");
            let sid = token.user_sid();
            session.close().unwrap();
            sid
        })
        .collect();
    assert!(
        sids.iter().all(|sid| *sid == sids[0] && *sid != Token::<Primary>::current().unwrap().user_sid())
    );
}

#[test]
fn a_wrong_password_and_an_unknown_account_are_told_alike() {
    let (name, _) = testbed::logon_account!();
    for account in [Account::local(name), Account::local("no-such-user-of-stead"), Account::local("SYSTEM")] {
        let refused = Logon::password(account, "certainly wrong").open().unwrap_err();
        assert_eq!(refused.kind(), &ErrorKind::LogonFailed, "{refused}");
        assert_eq!(refused.os_error().unwrap().raw_os_error(), Some(1326));
    }
}

#[test]
fn the_sessions_processes_are_the_accounts_in_every_logon_type() {
    let account = testbed::logon_account!();
    require_system!();
    for kind in TYPES {
        let session = logged_on(&account, kind);
        let seen = probe(&session, &mut winprobe());
        assert_eq!(seen.user, session.token().user_sid().to_string(), "{kind:?}");
        assert_eq!(seen.logon, session.token().logon_sid().map(|sid| sid.to_string()), "{kind:?}");
        assert!(seen.groups.iter().all(|group| group != "S-1-5-32-544"), "{kind:?}: {seen:?}");
    }
}

#[test]
fn a_sessions_processes_are_known_have_its_variables_and_end_together() {
    let (name, password) = testbed::logon_account!();
    require_system!();
    let logon = Logon::password(Account::domain(".", name), password).kind(LogonType::Batch);
    let session = logon.env("STEAD_MARK", "seven").deadline(Duration::from_secs(60)).open().unwrap();
    assert_eq!(probe(&session, &mut winprobe()).environment["STEAD_MARK"], "seven");
    let mut child = winprobe().arg("--hold").stdin(Stdio::piped()).spawn_as(session.token()).unwrap();
    assert_eq!(Seen::process(child.id()).unwrap().user, session.token().user_sid().to_string());
    assert!(session.processes().unwrap().contains(&child.id()));
    session.terminate().unwrap();
    assert!(session.processes().unwrap().is_empty());
    assert!(!child.wait().unwrap().success());
    drop(child);
    session.close().unwrap();
}

#[test]
fn an_administrator_is_told_which_privilege_is_missing() {
    let account = testbed::logon_account!();
    if is_system() {
        testbed::skip!("LocalSystem lacks nothing: run it as an administrator");
    }
    let session = logged_on(&account, LogonType::Batch);
    let refused = winprobe().spawn_as(session.token()).unwrap_err();
    let ErrorKind::PrivilegeMissing { privilege, missing, held, .. } = refused.kind() else {
        panic!("{refused}")
    };
    assert_eq!((*privilege, &**missing), (Privilege::AssignPrimaryToken, "SeAssignPrimaryTokenPrivilege"));
    assert!(!held);
    assert!(refused.remedy().unwrap().contains("LocalSystem"), "{refused}");
    let refused = Logon::s4u(Account::local(account.0)).open().unwrap_err();
    assert!(
        matches!(refused.kind(), ErrorKind::PrivilegeMissing { missing, .. } if missing == "SeTcbPrivilege"),
        "{refused}"
    );
    // What it holds, impersonation, works: the thread is the account's, and its rights are.
    let user = session.token().user_sid().to_string();
    let seen = session.token().impersonate(|_| Seen::thread().unwrap().user).unwrap();
    assert_eq!(seen, user);
}

#[test]
fn an_account_is_logged_on_without_its_password_by_who_may_vouch_for_it() {
    let (name, password) = testbed::logon_account!();
    require_system!();
    let by_password = logged_on(&(name.clone(), password), LogonType::Batch);
    for kind in [LogonType::Network, LogonType::Batch] {
        let session = Logon::s4u(Account::local(&name)).kind(kind).open().unwrap();
        assert_eq!(session.token().user_sid(), by_password.token().user_sid());
        assert_eq!(probe(&session, &mut winprobe()).user, by_password.token().user_sid().to_string());
    }
}

#[test]
fn an_object_for_one_logon_is_that_logons_alone() {
    let account = testbed::logon_account!();
    let (one, other) = (logged_on(&account, LogonType::Batch), logged_on(&account, LogonType::Batch));
    let event = LockedEvent::only_for(&one.token().require_logon_sid().unwrap().to_string()).unwrap();
    let denied = || event.open().is_err_and(|error| error.raw_os_error() == Some(5));
    one.token().impersonate(|_| event.open()).unwrap().unwrap();
    assert!(other.token().impersonate(|_| denied()).unwrap(), "the same user's other logon is not it");
}

/// A directory that only the system and the administrators may enter.
struct Locked(PathBuf);

impl Locked {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("stead-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("notes.txt"), "not for everybody").unwrap();
        std::fs::copy(program("winprobe"), path.join("locked.exe")).unwrap();
        let mut icacls = std::process::Command::new("icacls");
        icacls.arg(&path).args(["/inheritance:r", "/T", "/grant:r"]);
        icacls.args(["*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F"]);
        assert!(icacls.stdout(std::process::Stdio::null()).status().unwrap().success());
        Self(path)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_that_the_account_may_not_open_is_not_opened_for_it() {
    let account = testbed::logon_account!();
    let locked = Locked::new("files");
    let notes = locked.0.join("notes.txt");
    assert!(std::fs::read(&notes).is_ok(), "the server itself may");
    let session = logged_on(&account, LogonType::Network);
    let refused = session.token().impersonate(|me| me.open(&notes)).unwrap().unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::AccessDenied { .. }), "{refused}");
    assert!(std::fs::read(&notes).is_ok(), "the thread is the server's again");
}

#[test]
fn a_program_that_the_account_may_not_reach_is_not_started_for_it() {
    let account = testbed::logon_account!();
    require_system!();
    let locked = Locked::new("programs");
    let session = logged_on(&account, LogonType::Batch);
    let refused = Command::new(locked.0.join("locked.exe")).current_dir("C:\\").spawn_as(session.token());
    let refused = refused.unwrap_err();
    let expected = matches!(
        refused.kind(),
        ErrorKind::ProgramUnusable { .. }
            | ErrorKind::ProgramNotFound { .. }
            | ErrorKind::AccessDenied { .. }
    );
    assert!(expected, "{refused}");
    let refused = winprobe().current_dir(&locked.0).spawn_as(session.token()).unwrap_err();
    let expected =
        matches!(refused.kind(), ErrorKind::DirectoryUnusable { .. } | ErrorKind::ProgramUnusable { .. });
    assert!(expected, "{refused}");
}

#[test]
fn role_connects() {
    let (Ok(address), Ok(level)) = (std::env::var("STEAD_TEST_PIPE"), std::env::var("STEAD_TEST_LEVEL"))
    else {
        return;
    };
    let level = match level.as_str() {
        "identification" => ImpersonationLevel::Identification,
        _ => ImpersonationLevel::Impersonation,
    };
    let options = ConnectOptions::new().level(level);
    let mut stream = Stream::connect_with(&Address::path(address), &options).unwrap();
    stream.write_all(b"hello").unwrap();
    let _ = stream.read(&mut [0]);
}

#[test]
fn a_client_of_another_user_is_who_it_is_at_the_level_that_it_granted() {
    let account = testbed::logon_account!();
    require_system!();
    let session = logged_on(&account, LogonType::Batch);
    let user = session.token().user_sid();
    for (name, level) in [
        ("identification", ImpersonationLevel::Identification),
        ("impersonation", ImpersonationLevel::Impersonation),
    ] {
        let address = Address::name(&format!("test-{}-{name}", std::process::id())).unwrap();
        let listener = ListenOptions::new().open_to_all().bind(&address).unwrap();
        let mut client = Command::new(std::env::current_exe().unwrap());
        client.args(["--exact", "role_connects"]).current_dir("C:\\");
        client.env("STEAD_TEST_PIPE", address.as_path()).env("STEAD_TEST_LEVEL", name);
        let mut child = client.spawn_as(session.token()).unwrap();
        let mut server = listener.accept().unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        let client = server.client().unwrap();
        assert_eq!(client.level(), level);
        assert_eq!(client.token().unwrap().user_sid(), user);
        let seen = client.impersonate(|_| Seen::thread().unwrap().user);
        if level == ImpersonationLevel::Impersonation {
            assert_eq!(seen.unwrap(), user.to_string());
            let primary = client.token().unwrap().to_primary().unwrap();
            let output = winprobe().output_as(&primary).unwrap();
            assert_eq!(WinProbe::parse(&output.stdout).user, user.to_string());
        } else {
            assert!(matches!(seen.unwrap_err().kind(), ErrorKind::LevelTooLow { .. }));
        }
        drop(server);
        child.wait().unwrap();
    }
}

/// One handle, into which two have written before the server reads: a client as every program is one, whose identity
/// goes with what it writes.
fn written_by_two(address: &Address, first: &LogonSession) -> std::fs::File {
    let mut options = std::fs::OpenOptions::new();
    // SECURITY_CONTEXT_TRACKING and SECURITY_IMPERSONATION.
    options.read(true).write(true).security_qos_flags(0x4_0000 | 0x2_0000);
    let mut client = options.open(address.as_path()).unwrap();
    first.token().impersonate(|_| client.write_all(b"one").unwrap()).unwrap();
    client.write_all(b"another").unwrap();
    client
}

#[test]
fn a_client_is_whoever_sent_its_first_message_and_not_the_next() {
    let account = testbed::logon_account!();
    let session = logged_on(&account, LogonType::Batch);
    let user = session.token().user_sid();
    assert_ne!(user, Token::<Primary>::current().unwrap().user_sid());
    let address = Address::name(&format!("test-{}-two", std::process::id())).unwrap();
    let listener = ListenOptions::new().open_to_all().bind(&address).unwrap();
    let _client = written_by_two(&address, &session);
    let mut server = listener.accept().unwrap();
    let mut buffer = vec![0; 64 * 1024];
    assert_eq!(server.read(&mut buffer).unwrap(), 3);
    assert_eq!(server.client().unwrap().token().unwrap().user_sid(), user);
    assert_eq!(server.read(&mut buffer).unwrap(), 7);
    assert_eq!(server.client().unwrap().token().unwrap().user_sid(), user);
}

#[cfg(feature = "tokio")]
#[test]
fn by_tokio_too_a_client_is_whoever_sent_its_first_message() {
    use ::tokio::io::AsyncReadExt;

    let account = testbed::logon_account!();
    let session = logged_on(&account, LogonType::Batch);
    let address = Address::name(&format!("test-{}-two-tokio", std::process::id())).unwrap();
    let listener = ListenOptions::new().open_to_all().bind(&address).unwrap();
    let _client = written_by_two(&address, &session);
    ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let listener = stead::local::tokio::Listener::new(listener).unwrap();
        let mut server = listener.accept().await.unwrap();
        let mut buffer = vec![0; 64 * 1024];
        assert_eq!(server.read(&mut buffer).await.unwrap(), 3);
        assert_eq!(server.client().unwrap().token().unwrap().user_sid(), session.token().user_sid());
        assert_eq!(server.read(&mut buffer).await.unwrap(), 7);
    });
}

#[test]
fn one_logon_within_another_is_on_the_thread_and_the_other_again() {
    let account = testbed::logon_account!();
    let (outer, inner) = (logged_on(&account, LogonType::Batch), logged_on(&account, LogonType::Batch));
    let logons = [&outer, &inner].map(|session| session.token().logon_sid().unwrap().to_string());
    let seen = || Seen::thread().unwrap().logon.unwrap();
    let inner = inner.token().duplicate(ImpersonationLevel::Impersonation).unwrap();
    outer
        .token()
        .impersonate(|me| {
            assert_eq!(seen(), logons[0]);
            me.impersonate(&inner, |_| assert_eq!(seen(), logons[1])).unwrap();
            assert_eq!(seen(), logons[0]);
        })
        .unwrap();
}

#[test]
fn no_password_logs_the_systems_own_accounts_on() {
    let _account = testbed::logon_account!();
    require_system!();
    for name in ["LocalService", "LOCAL SERVICE", "NetworkService", "NETWORK SERVICE"] {
        for password in ["", "anything"] {
            let account = Account::domain("NT AUTHORITY", name);
            let opened = Logon::password(account, password).kind(LogonType::Service).open();
            assert!(opened.is_err(), "{name}: {opened:?}");
        }
    }
}

/// An account that may log on at no hour of the week.
struct NoHours(String);

impl NoHours {
    fn new() -> Self {
        let name = format!("stead-{}", std::process::id());
        let password = format!("aA1!-{name}-{:?}", std::time::SystemTime::now());
        Self::net(&[&name, &password[..14], "/add", "/times:"]);
        Self(name)
    }

    fn net(arguments: &[&str]) {
        let mut net = std::process::Command::new("net");
        net.arg("user").args(arguments).stdout(std::process::Stdio::null());
        assert!(net.status().unwrap().success(), "{arguments:?}");
    }
}

impl Drop for NoHours {
    fn drop(&mut self) {
        Self::net(&[&self.0, "/delete"]);
    }
}

#[test]
fn an_account_is_not_logged_on_outside_its_hours_without_its_password_either() {
    let _account = testbed::logon_account!();
    require_system!();
    let account = NoHours::new();
    let refused = Logon::s4u(Account::local(&account.0)).kind(LogonType::Network).open().unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::AccountRestriction { .. }), "{refused}");
}

#[test]
fn a_pipe_that_is_not_open_to_all_refuses_the_account() {
    let account = testbed::logon_account!();
    let address = Address::name(&format!("test-{}-closed", std::process::id())).unwrap();
    let _listener = ListenOptions::new().bind(&address).unwrap();
    let session = logged_on(&account, LogonType::Batch);
    let refused = session.token().impersonate(|me| me.connect(&address)).unwrap().unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::AccessDenied { .. }), "{refused}");
}
