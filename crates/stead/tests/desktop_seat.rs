//! The desktop that a person sits before, as a real logind tells it, or as it is configured.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod desktop_support;

use std::path::Path;

use desktop_support::*;
use stead::desktop::{GrantTo, InteractiveSession};
use stead::os::linux::{DesktopExt, LogonExt, Uid};
use stead::{Account, Desktop, ErrorKind, Logon, LogonSession};
use testbed::display::{Display, Options};
use testbed::logind::Machine;
use testbed::wayland::{Compositor, missing};
use testbed::{Bed, until};

const CONFIGURATION: &str = "/etc/stead/console-desktop";

#[test]
fn the_desktop_of_seat0_is_what_logind_says() {
    let bed = testbed::require!();
    testbed::time_limit!(300);
    if let Some(reason) = missing() {
        testbed::skip!("{reason}");
    }
    if !["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64"]
        .iter()
        .any(|folder| Path::new(folder).join("security/pam_systemd.so").exists())
    {
        testbed::skip!("needs pam_systemd (apt-get install libpam-systemd)");
    }
    let machine = match Machine::start(bed) {
        Ok(machine) => machine,
        Err(reason) => testbed::skip!("{reason}"),
    };
    let mut inside = machine.command(&bed.this_program());
    let role = role(bed, &[], &exact(module_path!(), "role_a_server_beside_logind"));
    inside.args(role.get_args());
    inside
        .envs(role.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("STEAD_TEST_LOGIND", "1");
    let output = inside.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("role: done"), "{said}");
}

/// A session that pam_systemd tells logind of: a display manager's, not a server's.
fn seated(bed: &Bed, user: &str, kind: &str, vt: &str) -> LogonSession {
    let logon = seat(Logon::s4u(Account::local(&bed.user(user).name)), kind, vt);
    logon.open().unwrap_or_else(|error| panic!("{error}"))
}

fn seat(logon: Logon, kind: &str, vt: &str) -> Logon {
    let logon = logon
        .pam_service("stead-seat")
        .env("XDG_SEAT", "seat0")
        .env("XDG_VTNR", vt)
        .env("XDG_SESSION_CLASS", "user")
        .env("XDG_SESSION_TYPE", kind);
    with_worker(logon)
}

/// Finds each kind of session's desktop.
#[test]
fn role_a_server_beside_logind() {
    if std::env::var_os("STEAD_TEST_LOGIND").is_none() {
        return;
    }
    let bed = Bed::current().unwrap();
    std::fs::write(
        "/etc/pam.d/stead-seat",
        "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_systemd.so\n",
    )
    .unwrap();
    let alice = Uid::new(bed.user("alice").uid).unwrap();
    let bob = Uid::new(bed.user("bob").uid).unwrap();
    let find = |which: InteractiveSession| Desktop::interactive(which).map(|desktop| desktop.to_string());

    // Nobody is there yet.
    for which in [InteractiveSession::Console, InteractiveSession::Active, InteractiveSession::OfUser(alice)]
    {
        let error = find(which).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NotFound { .. }), "{error}");
    }

    // The virtual terminal that is before the person's eyes now, and another one.
    let active = std::fs::read_to_string("/sys/class/tty/tty0/active").unwrap();
    let vt = active.trim().strip_prefix("tty").unwrap();
    let terminal = seated(bed, "bob", "tty", vt);
    assert_eq!(find(InteractiveSession::Console).unwrap(), format!("/dev/tty{vt}"));
    assert_eq!(find(InteractiveSession::OfUser(bob)).unwrap(), format!("/dev/tty{vt}"));
    let id = id_of(&terminal);
    assert_eq!(find(InteractiveSession::Id(id)).unwrap(), format!("/dev/tty{vt}"));
    assert!(find(InteractiveSession::Id("no-such-session".into())).is_err());
    terminal.close().unwrap();
    until("logind knows that he has gone", || find(InteractiveSession::Console).is_err());

    let graphical = seated(bed, "alice", "wayland", vt);
    let folder = format!("/run/user/{alice}");
    until("logind has made her runtime directory", || Path::new(&folder).is_dir());
    let error = find(InteractiveSession::Console).unwrap_err();
    assert!(error.to_string().contains("Wayland socket"), "{error}");
    let compositor = Compositor::start_in(bed.user("alice"), Path::new(&folder)).unwrap();
    let socket = compositor.socket().display().to_string();
    let id = id_of(&graphical);
    for which in [
        InteractiveSession::Console,
        InteractiveSession::Active,
        InteractiveSession::OfUser(alice),
        InteractiveSession::Id(id),
    ] {
        assert_eq!(find(which.clone()).unwrap(), socket, "{which:?}");
    }
    assert!(matches!(find(InteractiveSession::OfUser(bob)).unwrap_err().kind(), ErrorKind::NotFound { .. }));

    // And it is one: another user's logon session is let onto it, and shut out again.
    let desktop = Desktop::interactive(InteractiveSession::Console).unwrap();
    let guest = session(bed, "mallory");
    let before = getfacl(&compositor.socket());
    let mut client = stead::Command::new(bed.bin("testbed-wayland"));
    let said = printed(client.desktop(desktop), &guest);
    assert!(said.starts_with("connected: "), "{said}");
    until("the list is what it was", || getfacl(&compositor.socket()) == before);
    drop(compositor);
    graphical.close().unwrap();
    a_session_names_only_an_x_server_of_its_own(bed, vt);
    println!("\nrole: done");
}

/// Which display a session has is its user's word, to logind (SetDisplay). The X servers of others, which root has started
/// for them, are not to be had by it, nor is a terminal that is somebody else's by now.
fn a_session_names_only_an_x_server_of_its_own(bed: &Bed, vt: &str) {
    let alice = Uid::new(bed.user("alice").uid).unwrap();
    let find = || Desktop::interactive(InteractiveSession::OfUser(alice));
    until("logind knows that she has gone", || find().is_err());
    for user in [None, Some("bob"), Some("alice")] {
        let display = Display::start(bed, &Options { user: user.map(str::to_owned), ..Options::default() });
        let logon = Logon::s4u(Account::local(&bed.user("alice").name)).tty(display.name());
        let session = seat(logon, "x11", vt).open().unwrap_or_else(|error| panic!("{error}"));
        let found = find().unwrap();
        assert_eq!(found.to_string(), display.name());
        let desktop = found.authority_file(display.authority()).grant_to(GrantTo::User);
        match (desktop.grant(session.token()), user) {
            (Ok(lease), Some("alice")) => drop(lease),
            (Err(error), None) => {
                assert!(error.to_string().contains("virtual terminal of the session"), "{error}");
            }
            (Err(error), Some("bob")) => {
                assert!(error.to_string().contains("could be anybody's"), "{error}");
            }
            (result, user) => panic!("the X server of {user:?}: {result:?}"),
        }
        session.close().unwrap();
        until("logind knows that she has gone", || find().is_err());
    }
    // The terminal is root's: nobody is logged on there.
    let session = seated(bed, "alice", "tty", vt);
    let error = find().unwrap().grant_to(GrantTo::User).grant(session.token()).unwrap_err();
    assert!(error.to_string().contains("not the terminal of the user"), "{error}");
    session.close().unwrap();
}

/// What logind calls it.
fn id_of(session: &LogonSession) -> String {
    let environment = session.environment();
    let id =
        environment.into_iter().find(|(name, _)| name == "XDG_SESSION_ID").expect("pam_systemd says it").1;
    id.into_string().unwrap()
}

#[test]
fn where_logind_does_not_run_the_configuration_names_the_console() {
    let bed = testbed::require!(alone);
    assert!(!Path::new("/run/systemd/seats").exists(), "no logind runs in the bed");
    let error = Desktop::interactive(InteractiveSession::Console).unwrap_err();
    assert!(error.to_string().contains(CONFIGURATION), "{error}");
    let uid = Uid::new(bed.user("alice").uid).unwrap();
    let error = Desktop::interactive(InteractiveSession::OfUser(uid)).unwrap_err();
    assert!(error.to_string().contains("Desktop::by_name"), "{error}");

    std::fs::create_dir_all("/etc/stead").unwrap();
    std::fs::write(CONFIGURATION, "# the kiosk's\n:7\n").unwrap();
    let found = Desktop::interactive(InteractiveSession::Console);
    std::os::unix::fs::chown(CONFIGURATION, Some(uid.as_raw()), None).unwrap();
    let anybodys = Desktop::interactive(InteractiveSession::Console);
    std::fs::remove_file(CONFIGURATION).unwrap();
    std::fs::remove_dir("/etc/stead").unwrap();
    assert_eq!(found.unwrap().to_string(), ":7");
    assert!(anybodys.unwrap_err().to_string().contains("nobody else can write"));
}
