//! What a process has that no desktop was named for: nothing that leads to one.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod desktop_support;

use desktop_support::*;
use stead::os::linux::DesktopExt;
use stead::{Account, Command, Desktop, Logon, PtySize};
use testbed::Probe;
use testbed::display::{Display, Options};

/// What PAM modules of a seat set, and what a server that was started on a desktop has.
const OF_A_DESKTOP: &[&str] = &[
    "DISPLAY",
    "XAUTHORITY",
    "WAYLAND_DISPLAY",
    "WAYLAND_SOCKET",
    "XDG_SESSION_TYPE",
    "XDG_SEAT",
    "XDG_VTNR",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "TERM",
];

#[test]
fn a_non_interactive_process_has_no_terminal_and_nothing_that_leads_to_a_desktop() {
    let bed = testbed::require!();
    let display = Display::start(bed, &Options::default());
    let mut logon = Logon::s4u(Account::local(&bed.user("alice").name)).env("STEAD_OWN", "stays");
    for name in OF_A_DESKTOP {
        logon = logon.env(name, "from PAM");
    }
    let session = logon.open().unwrap();
    let output = Command::new(bed.bin("probe")).output_as(session.token()).unwrap();
    let seen = Probe::parse(&output.stdout);
    for name in OF_A_DESKTOP {
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
    let mut logon = Logon::s4u(Account::local(&bed.user("alice").name));
    for name in ["DISPLAY", "WAYLAND_DISPLAY", "XDG_SESSION_TYPE", "XDG_SEAT"] {
        logon = logon.env(name, "from PAM");
    }
    let session = logon.env("TERM", "vt100").open().unwrap();
    let script = "echo \"$XDG_SESSION_TYPE|$TERM|$DISPLAY$WAYLAND_DISPLAY$XDG_SEAT\"";
    let mut child = shell(script).pty(PtySize::default()).spawn_as(session.token()).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(child.pty.as_mut().unwrap(), &mut said).unwrap();
    child.wait().unwrap();
    assert_eq!(said.trim_end(), "tty|vt100|");
    session.close().unwrap();
}
