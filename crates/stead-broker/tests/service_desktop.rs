//! Interactive processes that the service creates, for servers without any privilege.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod through_support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio as Std};

use stead::desktop::GrantTo;
use stead::os::linux::DesktopExt;
use stead::{Account, Command, Desktop, ErrorKind, Logon, LogonType, Primary, Service, Stdio, Token};
use testbed::display::{Display, Options};
use testbed::{Bed, until};
use through_support::{TheService, say, words};

const BLUE: [u8; 3] = [0x33, 0x66, 0xcc];

/// A service that may enter this display, and whose policy gives svc that one, and no other.
fn service(bed: &Bed, display: &Display) -> TheService {
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap();
    if !map.split_ascii_whitespace().eq(["0", "0", "4294967295"]) {
        testbed::skip_test("the service's logon gids are not mapped in this user namespace");
    }
    let policy = format!(
        r#"
        [[allow]]
        callers = {{ users = ["svc"] }}
        clients = "everyone"
        privileges = ["assign-primary-token", "logon"]
        logon-types = ["interactive"]
        programs = "any"
        desktops = ["{}"]
        "#,
        display.name()
    );
    let variables = vec![("XAUTHORITY".to_owned(), display.authority().to_owned())];
    TheService::start_with(bed, &policy, variables)
}

/// The display as the test, which is root, is let into it.
fn seen_by_root(display: &Display) -> Desktop {
    Desktop::by_name(display.name()).unwrap().authority_file(display.authority())
}

/// A part that is played while the test goes on; it ends with its standard input.
struct Playing {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Playing {
    fn start(service: &TheService, bed: &Bed, role: &str, words: &[&str]) -> Self {
        let mut command = service.part(bed, "svc", role, words);
        let mut process = command.stdin(Std::piped()).stdout(Std::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    /// The next thing that it says.
    fn hears(&mut self) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it ended: {all}");
            if let Some(said) = line.strip_prefix("said: ") {
                return said.trim_end().to_owned();
            }
            all.push_str(&line);
        }
    }

    fn end(mut self) {
        drop(self.process.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.process.wait().unwrap().success(), "{rest}");
    }
}

/// What the parts do: a program of this token shows a window until the part's standard input ends.
fn show(token: &Token<Primary>, desktop: Desktop) {
    let mut command = Command::new(Bed::current().unwrap().bin("testbed-xclient"));
    command.args(["show", "3366cc"]).desktop(desktop).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn_as(token).unwrap_or_else(|error| panic!("{error}"));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    say(line.trim_end());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(child.stdin.take());
    // Where the service has been killed meanwhile nobody tells how it ended.
    let _ = child.wait();
}

fn alice(bed: &Bed) -> Logon {
    Logon::password(Account::local("alice"), bed.user("alice").password.as_str()).kind(LogonType::Interactive)
}

#[test]
fn role_that_shows_a_window_of_a_logon_session() {
    let Some(words) = words() else { return };
    let service = Service::connect().unwrap();
    let session = alice(Bed::current().unwrap()).logon_sid().open_through(&service).unwrap();
    show(session.token(), Desktop::by_name(&words[0]).unwrap());
}

#[test]
fn role_that_shows_a_window_of_its_own_user() {
    let Some(words) = words() else { return };
    let token = Service::connect().unwrap().own_token().unwrap().to_primary().unwrap();
    let desktop = Desktop::by_name(&words[0]).unwrap();
    // Its token is of no logon session, and nothing falls back to the user.
    let error = Command::new("true").desktop(desktop.clone()).spawn_as(&token).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoLogonSid), "{error}");
    show(&token, desktop.grant_to(GrantTo::User));
}

/// The window is shown by a program of this user, who is let in meanwhile, and nobody is afterwards.
fn is_shown_and_leaves_nothing_behind(role: &str) {
    let bed = testbed::require!();
    let display = Display::start(bed, &Options::default());
    let service = service(bed, &display);
    let desktop = seen_by_root(&display);
    let before = desktop.access().unwrap();
    assert_eq!(before.entries(), []);

    let mut part = Playing::start(&service, bed, role, &[&display.name()]);
    assert_eq!(part.hears(), "shown");
    assert_eq!(display.screenshot().count(BLUE), 200 * 150);
    assert_eq!(desktop.access().unwrap().entries().len(), 1);
    part.end();
    until("the lease is gone", || desktop.access().unwrap() == before);
    assert_eq!(display.screenshot().count(BLUE), 0);
}

#[test]
fn a_server_without_privileges_has_a_logon_sessions_program_on_the_display_that_policy_names() {
    is_shown_and_leaves_nothing_behind("role_that_shows_a_window_of_a_logon_session");
}

#[test]
fn a_server_without_privileges_has_its_own_program_on_the_display_that_policy_names() {
    is_shown_and_leaves_nothing_behind("role_that_shows_a_window_of_its_own_user");
}

#[test]
fn role_that_is_refused_a_desktop() {
    let Some(words) = words() else { return };
    let [named, other] = &words[..] else { panic!("{words:?}") };
    let service = Service::connect().unwrap();
    let session = alice(Bed::current().unwrap()).logon_sid().open_through(&service).unwrap();
    let own = service.own_token().unwrap().to_primary().unwrap();
    let refusal = |token: &Token<Primary>, desktop: Desktop| {
        Command::new("true").desktop(desktop).spawn_as(token).unwrap_err()
    };
    let other = Desktop::by_name(other).unwrap();
    for desktop in [other.clone(), other.grant_to(GrantTo::User), Desktop::by_name("/dev/tty63").unwrap()] {
        for token in [session.token(), &own] {
            let error = refusal(token, desktop.clone());
            assert!(matches!(error.kind(), ErrorKind::PolicyDenied { .. }), "{desktop}: {error}");
        }
    }
    // How the display is entered, and how much its programs are trusted, is the service's to say.
    let named = Desktop::by_name(named).unwrap();
    let choices =
        [named.clone().trusted(true), named.clone().host_list(true), named.authority_file("/tmp/a")];
    for desktop in choices {
        let error = refusal(session.token(), desktop);
        assert!(matches!(error.kind(), ErrorKind::NotThroughService { .. }), "{error}");
    }
    // Without a desktop it is created.
    assert!(Command::new("true").status_as(session.token()).unwrap().success());
}

#[test]
fn a_display_that_policy_does_not_name_is_refused_and_nobody_is_let_in() {
    let bed = testbed::require!();
    let (display, other) =
        (Display::start(bed, &Options::default()), Display::start(bed, &Options::default()));
    let service = service(bed, &display);
    service.play(bed, "svc", "role_that_is_refused_a_desktop", &[&display.name(), &other.name()]);
    for display in [&display, &other] {
        assert_eq!(seen_by_root(display).access().unwrap().entries(), []);
        assert_eq!(display.hosts().1, []);
    }
    let audit = std::fs::read_to_string(service.folder.join("audit")).unwrap();
    assert!(audit.contains("does not name the desktop"), "{audit}");
}

#[test]
fn what_a_killed_service_had_granted_is_taken_back_when_it_begins_anew() {
    let bed = testbed::require!();
    let display = Display::start(bed, &Options::default());
    let mut first = service(bed, &display);
    let desktop = seen_by_root(&display);
    let role = "role_that_shows_a_window_of_a_logon_session";
    let mut part = Playing::start(&first, bed, role, &[&display.name()]);
    assert_eq!(part.hears(), "shown");
    first.kill();
    // The program goes on, and its own connection to the X server with it.
    assert_eq!(display.screenshot().count(BLUE), 200 * 150);
    let again = TheService::start_again(&first);
    until("the grant is taken back, and its client is cut off", || display.screenshot().count(BLUE) == 0);
    part.end();
    // And the new service grants as the first did.
    let mut part = Playing::start(&again, bed, role, &[&display.name()]);
    assert_eq!(part.hears(), "shown");
    part.end();
    until("the lease is gone", || desktop.access().unwrap().entries().is_empty());
}

#[test]
fn the_command_shows_ones_own_window_on_the_display_that_policy_names() {
    let bed = testbed::require!();
    let display = Display::start(bed, &Options::default());
    let service = service(bed, &display);
    let desktop = seen_by_root(&display);
    let before = desktop.access().unwrap();
    let mut command = service.as_user(bed, "svc", bed.bin("stead"));
    command.args(["run", "--desktop", &display.name(), "--"]).arg(bed.bin("testbed-xclient"));
    let mut process =
        command.args(["show", "3366cc"]).stdin(Std::piped()).stdout(Std::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "shown\n");
    assert_eq!(display.screenshot().count(BLUE), 200 * 150);
    let during = desktop.access().unwrap();
    let [entry] = during.entries() else { panic!("{during}") };
    let svc = stead::os::linux::Uid::new(bed.user("svc").uid).unwrap();
    assert_eq!(*entry.trustee(), stead::desktop::Trustee::User(svc), "oneself, and no logon session");
    drop(process.stdin.take());
    assert!(process.wait().unwrap().success());
    until("the lease is gone", || desktop.access().unwrap() == before);
    // On one that the policy does not name it shows nothing.
    let other = Display::start(bed, &Options::default());
    let mut command = service.as_user(bed, "svc", bed.bin("stead"));
    let refused = command.args(["run", "--desktop", &other.name(), "--", "true"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
    assert_eq!(seen_by_root(&other).access().unwrap().entries(), []);
}
