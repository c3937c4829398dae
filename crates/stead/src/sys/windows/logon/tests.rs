//! Logons under Wine, which knows none: what is asked, what is refused, and what a session of the own token is.

use std::ffi::OsStr;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::AsRawHandle;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use windows_sys::Win32::System::JobObjects::AssignProcessToJobObject;

use super::conversation::{Authority, by_password};
use super::deadline::Clock;
use super::password::Password;
use super::session::SessionHandle;
use super::target::{Domain, Target, machine_name};
use crate::account::Account;
use crate::error::{AccountRestriction, Error, ErrorKind, Result};
use crate::logon::{Conversation, Lifetime, Logon, LogonSession, LogonType, Prompt, Secret};
use crate::privilege::Privilege;
use crate::process::{Command, Stdio};
use crate::sys::account::AccountEntry;
use crate::sys::token::own_context;

#[test]
fn names_are_taken_apart_as_they_were_meant() {
    let wide = |text: &str| OsStr::new(text).encode_wide().collect::<Vec<_>>();
    let domain = Target::of(&Account::domain("EXAMPLE", "alice")).unwrap();
    assert_eq!((domain.user(), domain.domain()), (&*wide("alice"), &Domain::Named(wide("EXAMPLE"))));
    let upn = Target::of(&Account::upn("alice@example.com")).unwrap();
    assert_eq!((upn.user(), upn.domain()), (&*wide("alice@example.com"), &Domain::OfPrincipal));
    let machine = machine_name().unwrap();
    let name = String::from_utf16(&machine).unwrap();
    // However it is written, it is looked for in this machine's own database.
    for account in [
        Account::local("alice"),
        Account::domain(".", "alice"),
        Account::domain(name.to_lowercase(), "alice"),
    ] {
        let local = Target::of(&account).unwrap();
        assert_eq!((local.user(), local.domain()), (&*wide("alice"), &Domain::ThisMachine(machine.clone())));
        assert_eq!(local.domain().for_logon(), Some(&*wide(".")));
        assert!(format!("{local:?}").contains(&format!("{name}\\\\alice")), "{local:?}");
    }
    for account in [
        Account::local(""),
        Account::local(r"EXAMPLE\alice"),
        Account::local("al\0ice"),
        Account::upn("alice"),
        Account::domain("", "alice"),
        Account::domain("EXAMPLE", ""),
        Account::domain("EXAMPLE", r"a\b"),
    ] {
        let refused = Target::of(&account).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
    }
}

#[test]
fn no_account_that_is_not_there_logs_on() {
    // Under Wine every logon succeeds, with the handle 0xdeadbeef: reading the token back finds that out.
    for kind in [LogonType::Interactive, LogonType::Network, LogonType::Batch, LogonType::Service] {
        let account = Account::local("no-such-user-of-stead");
        let refused = Logon::password(account, "no such password").kind(kind).open();
        assert!(refused.is_err(), "{refused:?}");
    }
}

#[test]
fn the_published_password_of_service_accounts_logs_nobody_on() {
    for text in ["_SA_{262E99C9-6160-4871-ACEC-4E61736B6F21}", "_sa_{262e99c9-6160-4871-acec-4e61736b6f21}"] {
        let refused = Logon::password(Account::local("alice"), text).open().unwrap_err();
        assert_eq!(refused.kind(), &ErrorKind::LogonFailed, "{refused}");
        let password = Password::of(String::new, text.into()).unwrap();
        assert!(password.is_everybodys());
    }
    for text in ["", "_SA_", "_SA_{262E99C9-6160-4871-ACEC-4E61736B6F21}x"] {
        assert!(!Password::of(String::new, text.into()).unwrap().is_everybodys());
    }
}

/// The system gives a token for every password that is tried with such a name.
#[test]
fn the_systems_own_accounts_are_nobodys_to_log_on() {
    for (sid, name) in [("S-1-5-19", "LOCAL SERVICE"), ("S-1-5-20", "NETWORK SERVICE")] {
        let token =
            testbed::minted!(testbed::windows::Mint::new(sid).logon(testbed::windows::LOGON).primary());
        let target = Target::of(&Account::domain("NT AUTHORITY", name)).unwrap();
        let refused = target.session(&token, Vec::new()).unwrap_err();
        assert_eq!(refused.kind(), &ErrorKind::LogonFailed, "{refused}");
    }
}

#[test]
fn no_account_that_is_not_there_is_logged_on_without_a_password() {
    let refused = Logon::s4u(Account::local("no-such-user-of-stead")).open();
    assert!(refused.is_err(), "{refused:?}");
    let interactive = Logon::s4u(Account::local("alice")).kind(LogonType::Interactive).open();
    assert!(matches!(interactive.unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
}

#[test]
fn what_the_system_refuses_has_a_kind() {
    let target = Target::of(&Account::domain("EXAMPLE", "alice")).unwrap();
    let kind = |code: i32| {
        let source = io::Error::from_raw_os_error(code);
        target.refused("LogonUserW", source, LogonType::Batch).kind().clone()
    };
    let restricted = |restriction| ErrorKind::AccountRestriction { restriction };
    assert_eq!(kind(1326), ErrorKind::LogonFailed);
    let denied = ErrorKind::LogonTypeDenied { logon_type: "LOGON32_LOGON_BATCH".into() };
    assert_eq!(kind(1385), denied);
    assert!(Error::new("logging on", denied).remedy().unwrap().contains("User Rights Assignment"));
    assert!(matches!(kind(1314), ErrorKind::PrivilegeMissing { privilege: Privilege::Logon, .. }));
    for code in [1327, 1328, 1329] {
        assert_eq!(kind(code), restricted(AccountRestriction::PolicyForbids), "{code}");
    }
    for code in [1330, 1907] {
        assert_eq!(kind(code), restricted(AccountRestriction::PasswordExpired), "{code}");
    }
    assert_eq!(kind(1331), restricted(AccountRestriction::AccountDisabled));
    assert_eq!(kind(1793), restricted(AccountRestriction::AccountExpired));
    assert_eq!(kind(1909), restricted(AccountRestriction::AccountLocked));
    assert_eq!(kind(1311), ErrorKind::LogonServerUnavailable);
    assert_eq!(kind(31), ErrorKind::System { call: "LogonUserW" });
}

/// A system that knows one password, and whether it has expired.
struct Fake {
    password: &'static str,
    expired: bool,
    /// What a new password must contain.
    policy: &'static str,
    attempts: u32,
    current: Option<String>,
}

impl Authority for Fake {
    type Token = String;

    fn doing(&self) -> String {
        "logging on alice".to_owned()
    }

    fn log_on(&mut self, password: &Password) -> Result<String> {
        self.attempts += 1;
        let right = self.current.as_deref().unwrap_or(self.password);
        if password.text() != right {
            return Err(Error::new(self.doing(), ErrorKind::LogonFailed));
        }
        if self.expired && self.current.is_none() {
            let restriction = AccountRestriction::PasswordExpired;
            return Err(Error::new(self.doing(), ErrorKind::AccountRestriction { restriction }));
        }
        Ok(password.text())
    }

    fn change(&mut self, old: &Password, new: &Password) -> Result<()> {
        assert_eq!(old.text(), self.password);
        if !new.text().contains(self.policy) {
            let restriction = AccountRestriction::PasswordExpired;
            return Err(Error::new(self.doing(), ErrorKind::AccountRestriction { restriction }));
        }
        self.current = Some(new.text());
        Ok(())
    }
}

/// Answers in this order, and notes what it was asked and told.
struct Answers(Vec<Option<&'static str>>, mpsc::Sender<String>);

impl Conversation for Answers {
    fn answer(&mut self, prompt: &Prompt<'_>) -> Option<Secret> {
        assert!(!prompt.echo());
        self.1.send(prompt.text().to_owned()).unwrap();
        if self.0.is_empty() { None } else { self.0.remove(0).map(Secret::from) }
    }

    fn inform(&mut self, text: &str, is_error: bool) {
        assert!(is_error);
        self.1.send(text.to_owned()).unwrap();
    }
}

fn conversation(answers: &[Option<&'static str>]) -> (Option<Box<dyn Conversation>>, mpsc::Receiver<String>) {
    let (said, heard) = mpsc::channel();
    (Some(Box::new(Answers(answers.to_vec(), said))), heard)
}

const EXPIRED: ErrorKind = ErrorKind::AccountRestriction { restriction: AccountRestriction::PasswordExpired };

fn fake(expired: bool) -> Fake {
    Fake { password: "old", expired, policy: "!", attempts: 0, current: None }
}

#[test]
fn a_conversation_is_asked_for_the_password_and_for_nothing_else() {
    let (answers, asked) = conversation(&[Some("old")]);
    let mut system = fake(false);
    assert_eq!(by_password(&mut system, None, answers).unwrap(), "old");
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), ["Password: "]);
    // One that refuses, or is wrong, fails the logon; a wrong one is not asked for again.
    for (answer, attempts) in [(None, 0), (Some("wrong"), 1)] {
        let mut system = fake(false);
        let refused = by_password(&mut system, None, conversation(&[answer]).0).unwrap_err();
        assert_eq!((refused.kind(), system.attempts), (&ErrorKind::LogonFailed, attempts));
    }
    let (answers, asked) = conversation(&[]);
    assert_eq!(by_password(&mut fake(false), Some("old".into()), answers).unwrap(), "old");
    assert_eq!(asked.into_iter().count(), 0, "the password was given");
}

#[test]
fn an_expired_password_is_changed_in_the_conversation_and_nowhere_else() {
    let silent = by_password(&mut fake(true), Some("old".into()), None).unwrap_err();
    assert_eq!(silent.kind(), &EXPIRED);
    let (answers, asked) = conversation(&[Some("new!"), Some("new!")]);
    let mut system = fake(true);
    assert_eq!(by_password(&mut system, Some("old".into()), answers).unwrap(), "new!");
    assert_eq!(system.attempts, 2);
    let asked: Vec<_> = asked.into_iter().collect();
    let expected =
        ["The password has expired and must be changed.", "New password: ", "New password again: "];
    assert_eq!(asked, expected);
    // Who knows the old one only by guessing changes nothing.
    let mut system = fake(true);
    let (answers, _asked) = conversation(&[Some("new!"), Some("new!")]);
    let wrong = by_password(&mut system, Some("guess".into()), answers).unwrap_err();
    assert_eq!((wrong.kind(), system.current), (&ErrorKind::LogonFailed, None));
    for answers in
        [vec![None], vec![Some("new!"), None], vec![Some("new!"), Some("mew!")], vec![Some("new"); 2]]
    {
        let mut system = fake(true);
        let refused = by_password(&mut system, Some("old".into()), conversation(&answers).0).unwrap_err();
        assert_eq!((refused.kind(), system.current), (&EXPIRED, None), "{answers:?}");
    }
}

/// Says so when it is closed.
struct Closing(mpsc::Sender<()>);

impl Drop for Closing {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn a_call_that_does_not_end_is_left_when_its_time_is_up() {
    let (release, released) = mpsc::channel::<()>();
    let (dropped, drops) = mpsc::channel();
    let mut clock = Clock::new(Duration::from_millis(50));
    let late = clock
        .run(
            || "logging on".into(),
            move || {
                let _ = released.recv();
                Ok(Closing(dropped))
            },
        )
        .err()
        .unwrap();
    assert!(matches!(late.kind(), ErrorKind::DeadlinePassed { .. }), "{late}");
    release.send(()).unwrap();
    drops.recv_timeout(Duration::from_secs(20)).expect("what it gave in the end is closed");
    // Nothing is left for a second call.
    let late = clock.run(
        || "logging on".into(),
        || {
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        },
    );
    assert!(matches!(late.unwrap_err().kind(), ErrorKind::DeadlinePassed { .. }));
    let in_time = Clock::new(Duration::from_secs(60)).run(|| "logging on".into(), || Ok(7)).unwrap();
    assert_eq!(in_time, 7);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_asked() {
    let alice = || Logon::password(Account::local("alice"), "x");
    for logon in [
        alice().lifetime(Lifetime::Detached),
        alice().env("", "x"),
        alice().env("A=B", "x"),
        alice().env("A", "x\0"),
        Logon::password(Account::local("alice"), "with\0NUL"),
        Logon::password(Account::local("alice"), vec![0xff]),
    ] {
        let refused = logon.open().unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
    }
}

/// A session of the own token, as a logon would give it; Wine knows no logon.
fn session(additions: &[(&str, &str)]) -> LogonSession {
    let context = own_context().unwrap();
    let account = AccountEntry::of_context(&context).unwrap().unwrap();
    let additions = additions.iter().map(|(name, value)| (name.into(), value.into())).collect();
    LogonSession::new(SessionHandle::new(context, account, additions).unwrap())
}

fn probe() -> Command {
    Command::new(testbed::windows::program("winprobe"))
}

fn held(session: &LogonSession) -> crate::Child {
    let mut child =
        probe().arg("--hold").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn_as(session.token()).unwrap();
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    child
}

#[test]
fn the_sessions_variables_reach_its_processes() {
    let session = session(&[("STEAD_SEAT", "seat7"), ("Path", r"C:\only")]);
    let all = session.environment();
    assert!(all.contains(&("STEAD_SEAT".into(), "seat7".into())), "{all:?}");
    assert!(all.iter().any(|(name, _)| name.eq_ignore_ascii_case("systemroot")), "{all:?}");
    let output = probe().env("MORE", "1").output_as(session.token()).unwrap();
    let seen = testbed::windows::WinProbe::parse(&output.stdout);
    assert_eq!(seen.environment["STEAD_SEAT"], "seat7");
    assert_eq!(seen.environment["MORE"], "1");
    let path: Vec<_> =
        seen.environment.iter().filter(|(name, _)| name.eq_ignore_ascii_case("path")).collect();
    assert_eq!(path.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), [r"C:\only"]);
}

#[test]
fn a_sessions_processes_are_listed_and_end_together_and_the_session_goes_on() {
    let session = session(&[]);
    assert_eq!(session.processes().unwrap(), [0_u32; 0]);
    let (mut one, mut two) = (held(&session), held(&session));
    // The hosts of their consoles may be among them.
    let listed = session.processes().unwrap();
    assert!(listed.contains(&one.id()) && listed.contains(&two.id()), "{listed:?}");
    one.kill_tree().unwrap();
    one.wait().unwrap();
    let listed = session.processes().unwrap();
    assert!(!listed.contains(&one.id()) && listed.contains(&two.id()), "{listed:?}");
    session.terminate().unwrap();
    assert_eq!(session.processes().unwrap(), [0_u32; 0]);
    assert!(!two.wait().unwrap().success());
    assert!(probe().status_as(session.token()).unwrap().success());
    assert!(session.started().is_empty());
}

/// The system keeps the processes of a job in one terminal session.
#[test]
fn a_session_has_a_job_for_each_terminal_session_and_ends_the_processes_of_all() {
    let context = own_context().unwrap();
    let account = AccountEntry::of_context(&context).unwrap().unwrap();
    let session = SessionHandle::new(context, account, Vec::new()).unwrap();
    let (here, elsewhere) = (session.job(0).unwrap(), session.job(7).unwrap());
    assert!(Arc::ptr_eq(&here, &session.job(0).unwrap()) && !Arc::ptr_eq(&here, &elsewhere));
    let mut child = std::process::Command::new(testbed::windows::program("winprobe"))
        .arg("--hold")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // SAFETY: both handles are open.
    let done = unsafe { AssignProcessToJobObject(elsewhere.raw(), child.as_raw_handle()) };
    assert_ne!(done, 0, "{}", io::Error::last_os_error());
    assert!(session.processes().unwrap().contains(&child.id()));
    session.terminate().unwrap();
    assert!(!child.wait().unwrap().success());
    assert_eq!(session.processes().unwrap(), [0_u32; 0]);
}

#[test]
fn processes_outlive_whoever_holds_their_session() {
    let session = session(&[]);
    let mut child = held(&session);
    drop(session);
    assert!(child.wait_timeout(Duration::from_millis(200)).unwrap().is_none());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_session_is_closed_after_its_last_token_and_process() {
    let session = session(&[]);
    let token = session.token().clone();
    let mut child = held(&session);
    let stdin = child.stdin.take();
    let elsewhere = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(token);
        drop(child);
        std::thread::sleep(Duration::from_millis(100));
        drop(stdin);
    });
    let before = Instant::now();
    session.close().unwrap();
    assert!(before.elapsed() >= Duration::from_millis(200));
    elsewhere.join().unwrap();
    assert!(matches!(
        LogonSession::reattach(crate::SessionId(1)).unwrap_err().kind(),
        ErrorKind::SessionEnded
    ));
    assert!(LogonSession::detached_sessions().unwrap().is_empty());
}
