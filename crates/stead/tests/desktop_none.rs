//! What a process has that no desktop was named for: nothing that leads to one.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]
#![allow(unused_qualifications, reason = "`crate::` is not this where the service's tests take it in")]

mod desktop_support;

use desktop_support::*;
use stead::os::linux::{DesktopExt, LogonExt};
use stead::{Account, Command, Desktop, Logon, LogonSession, LogonType, PtySize};
use testbed::display::{Display, Options};
use testbed::{AT_A_DESKTOP, Bed, OF_A_DESKTOP, Probe};

/// A session that PAM's modules have given what leads to a desktop, as modules of a seat do.
fn seated(bed: &Bed) -> LogonSession {
    let logon = Logon::password(Account::local("alice"), bed.user("alice").password.as_str());
    let logon = logon.kind(LogonType::Service).remote_host(AT_A_DESKTOP).env("TERM", "vt100");
    crate::open_logon(logon).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_non_interactive_process_has_no_terminal_and_nothing_that_leads_to_a_desktop() {
    let bed = testbed::require!();
    let display = Display::start(bed, &Options::default());
    let session = seated(bed);
    let output = Command::new(bed.bin("probe")).output_as(session.token()).unwrap();
    let seen = Probe::parse(&output.stdout);
    for name in OF_A_DESKTOP.iter().chain(&["TERM"]) {
        assert_eq!(seen.variable(name), None, "{name}");
    }
    assert_eq!(seen.variable("STEAD_OWN"), Some("stays"));
    assert_eq!((seen.terminal, seen.session), (0, seen.pid), "no terminal, and a session of its own");
    // It may guess what the display is called.
    let xclient = bed.bin("testbed-xclient");
    let guess = printed(Command::new(&xclient).arg("try").env("DISPLAY", display.name()), &session);
    assert!(!guess.is_empty(), "it is refused, and says so");
    let desktop = Desktop::by_name(display.name()).unwrap().authority_file(display.authority());
    assert_eq!(desktop.access().unwrap().entries(), []);
    session.close().unwrap();
}

#[test]
fn a_process_on_a_terminal_of_its_own_is_told_so_and_of_no_display() {
    let bed = testbed::require!();
    let session = seated(bed);
    let script = "echo \"$XDG_SESSION_TYPE|$TERM|$DISPLAY$WAYLAND_DISPLAY$XDG_SEAT\"";
    let mut child = shell(script).pty(PtySize::default()).spawn_as(session.token()).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(child.pty.as_mut().unwrap(), &mut said).unwrap();
    child.wait().unwrap();
    assert_eq!(said.trim_end(), "tty|vt100|");
    session.close().unwrap();
}
