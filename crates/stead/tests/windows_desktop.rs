//! Window stations and desktops: who is let onto one, for how long, and what is left of it.
//!
//! Each test has a window station of its own, whose lists are read by the testbed and not by the library. What the
//! lists are good for is asked with another user's token on the thread.
#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command as StdCommand, Stdio as StdStdio};
use std::time::{Duration, Instant};
use stead::desktop::{GrantTo, InteractiveSession, Trustee, sweep};
use stead::os::windows::{DesktopExt, DesktopRight, Sid};
use stead::{Command, Desktop, ErrorKind, Impersonation, Primary, Stdio, Token};
use testbed::windows::{LOGON, Mint, Seen, Stage, USER, WinProbe, program};

const OTHER_LOGON: &str = "S-1-5-5-0-4712";

/// What the issue's rule says, once more and in numbers.
const STATION: u32 = 0x0002_0123;
const DESKTOP: u32 = 0x0002_00c7;

fn logon() -> Trustee {
    Trustee::LogonSession(LOGON.parse::<Sid>().unwrap())
}

fn minted(logon: &str) -> std::io::Result<Token<Impersonation>> {
    Ok(Token::<Impersonation>::try_from(Mint::new(USER).logon(logon).impersonation()?).unwrap())
}

fn let_in(stage: &Stage, token: &Token<Impersonation>) -> bool {
    match token.impersonate(|_| stage.open(STATION, DESKTOP)).unwrap() {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(5) => false,
        Err(error) => panic!("{error}"),
    }
}

fn entries(list: &str, sid: &str) -> usize {
    list.matches(sid).count()
}

#[test]
fn a_logon_session_is_let_onto_a_desktop_for_as_long_as_it_has_a_lease() {
    let token = testbed::minted!(minted(LOGON));
    let of_other_logon = testbed::minted!(minted(OTHER_LOGON));
    let stage = Stage::entered().unwrap();
    let begin = stage.lists().unwrap();
    let desktop = Desktop::by_name(stage.name()).unwrap();
    assert!(!let_in(&stage, &token));
    let lease = desktop.grant_trustee(&logon()).unwrap();
    assert!(let_in(&stage, &token));
    assert!(!let_in(&stage, &of_other_logon), "the user's other logon session is not this one");
    assert!(desktop.access().unwrap().names(&logon()), "{}", desktop.access().unwrap());
    lease.give_back().unwrap();
    assert!(!let_in(&stage, &token));
    assert_eq!(stage.lists().unwrap(), begin);
}

#[test]
fn no_right_is_granted_that_was_not_asked_for() {
    let token = testbed::minted!(minted(LOGON));
    let stage = Stage::entered().unwrap();
    let desktop = Desktop::by_name(stage.name()).unwrap();
    let may = |station, desktop| token.impersonate(|_| stage.open(station, desktop)).unwrap().is_ok();
    let lease = desktop.grant_trustee(&logon()).unwrap();
    for more in [0x4, 0x8, 0x10, 0x40, 0x200, 0x1_0000, 0x4_0000, 0x8_0000] {
        assert!(!may(STATION | more, DESKTOP), "{more:#x}");
    }
    for more in [0x8, 0x10, 0x20, 0x100, 0x1_0000, 0x4_0000, 0x8_0000] {
        assert!(!may(STATION, DESKTOP | more), "{more:#x}");
    }
    drop(lease);
    let more = desktop.allow(DesktopRight::Clipboard).allow(DesktopRight::Hooks);
    let lease = more.grant_trustee(&logon()).unwrap();
    assert!(may(STATION | 0x4, DESKTOP | 0x8));
    assert!(!may(STATION | 0x204, DESKTOP));
    let dacls = more.dacls().unwrap();
    for (list, mask) in [(dacls.station, STATION | 0x4), (dacls.desktop, DESKTOP | 0x8)] {
        let list = list.unwrap();
        let ours: Vec<_> = list
            .entries()
            .iter()
            .filter(|ace| ace.sid().is_some_and(|sid| sid.to_string() == LOGON))
            .collect();
        assert_eq!(ours.len(), 1, "one entry: {list}");
        assert_eq!((ours[0].mask(), ours[0].flags()), (mask, 0), "not inherited by anything: {list}");
    }
    drop(lease);
}

#[test]
fn entries_of_others_stay_an_equal_one_too() {
    let stage = Stage::entered().unwrap();
    let own = Seen::own().unwrap().user;
    stage
        .set(
            &format!(
                "D:(D;;0x4;;;S-1-5-2)(A;;0xf037f;;;{own})(A;;0x20123;;;{LOGON})(A;OICIIO;0x1;;;S-1-1-0)"
            ),
            &format!("D:(A;;0xf01ff;;;{own})(A;;0x1;;;{LOGON})"),
        )
        .unwrap();
    let begin = stage.lists().unwrap();
    let lease = Desktop::by_name(stage.name()).unwrap().grant_trustee(&logon()).unwrap();
    let (station, desktop) = stage.lists().unwrap();
    assert_eq!(station, begin.0, "the access sufficed there");
    assert_eq!(entries(&desktop, LOGON), 2, "{desktop}");
    drop(lease);
    assert_eq!(stage.lists().unwrap(), begin);
}

#[test]
fn an_object_without_a_list_gets_none() {
    let stage = Stage::entered().unwrap();
    stage.set_none().unwrap();
    let begin = stage.lists().unwrap();
    let desktop = Desktop::by_name(stage.name()).unwrap();
    let _lease = desktop.grant_trustee(&logon()).unwrap();
    assert_eq!(stage.lists().unwrap(), begin);
    assert!(desktop.access().unwrap().names(&Trustee::Everyone));
}

#[test]
fn leases_of_one_logon_session_share_one_entry() {
    let stage = Stage::entered().unwrap();
    let begin = stage.lists().unwrap();
    let desktop = Desktop::by_name(stage.name()).unwrap();
    let first = desktop.grant_trustee(&logon()).unwrap();
    let second = Desktop::by_name(stage.name().to_uppercase()).unwrap().grant_trustee(&logon()).unwrap();
    let third = second.clone();
    assert_eq!(entries(&stage.lists().unwrap().0, LOGON), 1);
    drop(first);
    drop(third);
    assert_eq!(entries(&stage.lists().unwrap().1, LOGON), 1);
    drop(second);
    assert_eq!(stage.lists().unwrap(), begin);
}

#[test]
fn a_thousand_overlapping_leases_leave_the_lists_as_they_began() {
    let stage = Stage::entered().unwrap();
    let begin = stage.lists().unwrap();
    let desktop = Desktop::by_name(stage.name()).unwrap();
    let trustees: Vec<Trustee> =
        (0..10).map(|n| Trustee::LogonSession(format!("S-1-5-5-0-{}", 5000 + n).parse().unwrap())).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (desktop, trustees) = (&desktop, &trustees);
            scope.spawn(move || {
                let mut held = std::collections::VecDeque::new();
                for number in 0..250 {
                    held.push_back(desktop.grant_trustee(&trustees[(number * 7 + thread) % 10]).unwrap());
                    if held.len() > 12 {
                        drop(held.pop_front());
                    }
                }
            });
        }
    });
    assert_eq!(stage.lists().unwrap(), begin);
}

#[test]
fn what_is_denied_is_an_error_and_nothing_of_the_grant_remains() {
    let stage = Stage::entered().unwrap();
    let own = Seen::own().unwrap().user;
    let of_station = format!("D:(A;;0xf037f;;;{own})");
    stage.set(&of_station, &format!("D:(D;;0x1;;;{LOGON})(A;;0xf01ff;;;{own})")).unwrap();
    let begin = stage.lists().unwrap();
    let refused = Desktop::by_name(stage.name()).unwrap().grant_trustee(&logon()).unwrap_err();
    assert!(
        matches!(refused.kind(), ErrorKind::DesktopAccess { object, .. } if *object == stage.name()),
        "{refused}"
    );
    assert_eq!(stage.lists().unwrap(), begin);
}

#[test]
fn a_desktop_that_is_not_there_is_named() {
    let stage = Stage::entered().unwrap();
    let name = stage.name().replace("work", "nowhere");
    let refused = Desktop::by_name(&name).unwrap().grant_trustee(&logon()).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::NotFound { object } if *object == name), "{refused}");
    for name in ["", "default", r"a\b\c", r"\a", "a\\", "a\\b\nc", ":1", "/tmp/wayland-0"] {
        let refused = Desktop::by_name(name).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{name:?}: {refused}");
    }
    let session = InteractiveSession::Id(4711);
    // Wine 8 cannot tell which sessions there are.
    assert!(Desktop::interactive(session).is_err());
    let console = Desktop::interactive(InteractiveSession::Console).unwrap();
    assert!(console.to_string().starts_with(r"winsta0\default"), "{console}");
}

#[test]
fn a_token_without_a_logon_sid_is_refused_unless_its_user_is_named() {
    let token = Token::<Primary>::try_from(testbed::minted!(Mint::new(USER).primary())).unwrap();
    let stage = Stage::entered().unwrap();
    let desktop = Desktop::by_name(stage.name()).unwrap();
    assert!(matches!(desktop.grant(&token).unwrap_err().kind(), ErrorKind::NoLogonSid));
    let lease = desktop.grant_to(GrantTo::User).grant(&token).unwrap();
    assert_eq!(lease.trustee(), &Trustee::User(USER.parse().unwrap()));
    assert_eq!(entries(&stage.lists().unwrap().0, USER), 1);
}

/// A server that has a lease until its standard input ends, in the window station that `STEAD_STAGE` names.
#[test]
fn role_server() {
    let Ok(name) = std::env::var("STEAD_STAGE") else { return };
    Stage::enter(&name).unwrap();
    let lease = Desktop::by_name(&name).unwrap().grant_trustee(&logon()).unwrap();
    println!("\nleased");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
    lease.give_back().unwrap();
    std::process::exit(0);
}

struct Server(Child);

impl Server {
    fn with_a_lease(stage: &Stage) -> Self {
        let mut command = StdCommand::new(std::env::current_exe().unwrap());
        command.args(["--exact", "role_server", "--nocapture"]).env("STEAD_STAGE", stage.name());
        let mut child = command
            .stdin(StdStdio::piped())
            .stdout(StdStdio::piped())
            .stderr(StdStdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "leased"), "the server has no lease");
        Self(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }

    /// TerminateProcess.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What other tests left in window stations of their own is not reached from this one: that is no failure here.
fn sweep_here() {
    let _ = sweep();
}

#[test]
fn what_a_killed_server_had_granted_is_swept_and_nothing_else() {
    let stage = Stage::entered().unwrap();
    let begin = stage.lists().unwrap();
    let count = || entries(&stage.lists().unwrap().0, LOGON);
    let killed = Server::with_a_lease(&stage);
    let alive = Server::with_a_lease(&stage);
    assert_eq!(count(), 2, "each server has an entry of its own");
    sweep_here();
    assert_eq!(count(), 2, "both run");
    killed.kill();
    assert_eq!(count(), 2);
    sweep_here();
    assert_eq!(count(), 1, "the other one still runs");
    alive.end();
    assert_eq!(stage.lists().unwrap(), begin);
    // Without anybody calling it: the next grant begins with it.
    let (first, second) = (Server::with_a_lease(&stage), Server::with_a_lease(&stage));
    first.kill();
    second.kill();
    drop(Desktop::by_name(stage.name()).unwrap().grant_trustee(&Trustee::Group(Sid::USERS)).unwrap());
    assert_eq!(stage.lists().unwrap(), begin);
}

fn wait_until(what: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < patience, "it does not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_process_has_the_lease_until_the_last_of_its_tree_has_ended() {
    let stage = Stage::entered().unwrap();
    let begin = stage.lists().unwrap();
    let own = Token::<Primary>::current().unwrap();
    let logon = own.logon_sid_text();
    let desktop = Desktop::by_name(stage.name()).unwrap();
    let mut command = Command::new("cmd");
    stead::os::windows::CommandExt::raw_tail(&mut command, "/c start /b cmd /c pause & exit 3");
    command.desktop(desktop).stdin(Stdio::piped()).current_dir("C:\\");
    let mut child = command.spawn_as(&own).unwrap();
    assert_eq!(entries(&stage.lists().unwrap().1, &logon), 1);
    let input = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    // What it started reads the same input.
    assert_eq!(entries(&stage.lists().unwrap().1, &logon), 1, "its child still runs");
    drop(input);
    wait_until(|| stage.lists().unwrap() == begin);

    // Nobody waits, and the child is dropped.
    let child = command.spawn_as(&own).unwrap();
    assert_eq!(entries(&stage.lists().unwrap().1, &logon), 1);
    drop(child);
    wait_until(|| stage.lists().unwrap() == begin);

    // Nothing was started.
    let refused = command.current_dir(r"C:\no\such\directory").spawn_as(&own).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::DirectoryUnusable { .. }), "{refused}");
    assert_eq!(stage.lists().unwrap(), begin);
}

#[test]
fn after_wait_the_lease_of_a_single_process_is_given_back() {
    let stage = Stage::entered().unwrap();
    let begin = stage.lists().unwrap();
    let mut command = Command::new(program("winprobe"));
    command.arg("--quick").desktop(Desktop::by_name(stage.name()).unwrap());
    for _ in 0..5 {
        assert!(command.status_as(&Token::current().unwrap()).unwrap().success());
        // At once on Windows; Wine's console is a process of the job, and ends after it.
        wait_until(|| stage.lists().unwrap() == begin);
    }
}

#[test]
fn a_process_is_on_the_desktop_that_was_named_and_only_then() {
    let stage = Stage::elsewhere().unwrap();
    let mut command = Command::new(program("winprobe"));
    command.current_dir("C:\\");
    let on = |command: &Command| {
        let output = command.output_as(&Token::current().unwrap()).unwrap();
        WinProbe::parse(&output.stdout).desktop.unwrap_or_default().to_lowercase()
    };
    assert_ne!(on(&command), stage.name());
    Stage::enter(&stage.name()).unwrap();
    let begin = stage.lists().unwrap();
    assert_eq!(on(command.desktop(Desktop::by_name(stage.name()).unwrap())), stage.name());
    wait_until(|| stage.lists().unwrap() == begin);
}

#[test]
fn a_process_of_another_user_is_on_the_desktop_that_was_named() {
    testbed::skip_under_wine!("it connects a process with every right to a desktop, or with none");
    let mint = Mint::new(USER).logon(LOGON).privilege("SeAssignPrimaryTokenPrivilege");
    let token = Token::<Primary>::try_from(testbed::minted!(mint.primary())).unwrap();
    let stage = Stage::entered().unwrap();
    let begin = stage.lists().unwrap();
    let mut command = Command::new(program("winprobe"));
    command.desktop(Desktop::by_name(stage.name()).unwrap()).current_dir("C:\\");
    let output = command.output_as(&token).unwrap();
    let seen = WinProbe::parse(&output.stdout);
    assert_eq!((seen.user.as_str(), seen.logon.as_deref()), (USER, Some(LOGON)));
    assert_eq!(seen.desktop.unwrap_or_default().to_lowercase(), stage.name());
    wait_until(|| stage.lists().unwrap() == begin);
}

/// The system connects a process of the session's own user to that user's screen where no desktop is named.
#[test]
fn a_token_of_who_sits_before_the_screen_takes_a_choice() {
    let mint = Mint::new(USER).logon(LOGON).group("S-1-5-4").privilege("SeAssignPrimaryTokenPrivilege");
    let token = Token::<Primary>::try_from(testbed::minted!(mint.primary())).unwrap();
    let mut command = Command::new(program("winprobe"));
    command.arg("--quick").current_dir("C:\\");
    let refused = command.status_as(&token).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
    assert!(refused.to_string().contains("Desktop::none"), "{refused}");
    assert!(command.desktop(Desktop::none()).status_as(&token).unwrap().success());
}

trait LogonSidText {
    fn logon_sid_text(&self) -> String;
}

impl LogonSidText for Token<Primary> {
    fn logon_sid_text(&self) -> String {
        stead::os::windows::TokenExt::logon_sid(self).unwrap().to_string()
    }
}
