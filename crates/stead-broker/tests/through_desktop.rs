//! The library's own tests of desktops, on which the service puts the programs: for a server that could not.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::duplicate_mod, reason = "each file of tests has its support with it")]

mod through_support;

#[path = "../../stead/tests/desktop_lease.rs"]
mod desktop_lease;
#[path = "../../stead/tests/desktop_none.rs"]
mod desktop_none;
#[path = "../../stead/tests/desktop_seat.rs"]
mod desktop_seat;
#[path = "../../stead/tests/desktop_terminal.rs"]
mod desktop_terminal;
#[path = "../../stead/tests/desktop_wayland.rs"]
mod desktop_wayland;
#[path = "../../stead/tests/desktop_x11.rs"]
#[allow(unused_imports, unexpected_cfgs, reason = "as the library's own program has it")]
mod desktop_x11;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use stead::desktop::GrantTo;
use stead::os::linux::TokenExt;
use stead::{Account, Desktop, Logon, LogonSession, LogonType, Primary, Token};
use testbed::Bed;
use testbed::display::Display;
use through_support::{Connected, TheService, connect_and_stay, listener, without_privileges_of_its_own};

const POLICY: &str = r#"
[[allow]]
callers = { users = ["root"] }
clients = "everyone"
privileges = ["assign-primary-token", "impersonate", "logon"]
logon-types = ["interactive", "service"]
programs = "any"
desktops = "any"
"#;

/// The authority file by which the service is let into displays.
fn authority() -> &'static Path {
    static AUTHORITY: OnceLock<PathBuf> = OnceLock::new();
    AUTHORITY.get_or_init(|| Bed::current().unwrap().scratch("entry").join("authority"))
}

fn the_service() -> &'static TheService {
    static SERVICE: OnceLock<TheService> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let map = std::fs::read_to_string("/proc/self/gid_map").unwrap();
        if !map.split_ascii_whitespace().eq(["0", "0", "4294967295"]) {
            testbed::skip_test("the service's logon gids are not mapped in this user namespace");
        }
        let variables = vec![("XAUTHORITY".to_owned(), authority().to_owned())];
        TheService::start_with(Bed::current().unwrap(), POLICY, variables)
    })
}

/// The service is let into a display by its own authority file, as root is here by the display's.
fn enters(display: &Display) {
    std::fs::copy(display.authority(), authority()).unwrap();
}

/// How it is entered is not for its callers to say: they name the desktop.
fn as_asked(desktop: &Desktop, token: &Token<Primary>) -> Desktop {
    let to = if token.logon_gid().is_some() { GrantTo::LogonSession } else { GrantTo::User };
    Desktop::by_name(desktop.to_string()).unwrap().grant_to(to)
}

fn open_logon(logon: Logon) -> stead::Result<LogonSession> {
    logon.open_through(&the_service().connect())
}

fn open_logon_with_gid(logon: Logon) -> stead::Result<LogonSession> {
    open_logon(logon.logon_sid())
}

/// The counter is the service's own.
fn log_on_with_gid(bed: &Bed, user: &str, _counter: &Path) -> stead::Result<LogonSession> {
    let logon = Logon::password(Account::local(user), bed.user(user).password.as_str());
    open_logon_with_gid(logon.kind(LogonType::Interactive))
}

/// The token of a client that `setpriv` made, and that connected to this program: by way of the service.
fn minted(setpriv: &[&str]) -> Token<Primary> {
    let bed = Bed::current().unwrap();
    let (listener, path) = listener(&bed.scratch("server"));
    let prefix = [&["setpriv"], setpriv, &["--inh-caps=-all", "--"]].concat();
    let client = Connected::by(&prefix, bed, &listener, &path);
    let client_of = the_service().connect().client_of(&client.stream, &listener);
    client_of.and_then(|client| client.token()?.to_primary()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn role_that_connects() {
    connect_and_stay();
}
