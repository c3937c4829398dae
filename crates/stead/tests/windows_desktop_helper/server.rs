//! The server, in its roles.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use stead::desktop::Trustee;
use stead::os::windows::Sid;
use stead::{Desktop, ErrorKind, Impersonation, Token};
use testbed::windows::{LOGON, Mint, Stage, USER};

const TESTS: [(&str, fn()); 3] = [
    ("a_window_station_that_is_not_the_servers_is_reached_by_its_helper", elsewhere),
    ("a_logon_session_is_let_onto_a_desktop_elsewhere_and_taken_off_it", enforced),
    ("without_init_there_is_an_error_and_no_second_server", without_init),
];

pub fn run() {
    let careless = std::env::var_os("STEAD_TEST_CARELESS").is_some();
    if !careless {
        stead::init();
    }
    testbed::run_tests(&TESTS);
}

fn logon() -> Trustee {
    Trustee::LogonSession(LOGON.parse::<Sid>().unwrap())
}

fn elsewhere() {
    let stage = Stage::elsewhere().unwrap();
    let begin = stage.lists().unwrap();
    let desktop = Desktop::by_name(stage.name()).unwrap();
    assert!(!desktop.access().unwrap().names(&logon()));
    let lease = desktop.grant_trustee(&logon()).unwrap();
    assert!(desktop.access().unwrap().names(&logon()));
    let (of_station, of_desktop) = stage.lists().unwrap();
    assert!(of_station.contains(LOGON) && of_desktop.contains(LOGON), "{of_station} {of_desktop}");
    lease.give_back().unwrap();
    assert_eq!(stage.lists().unwrap(), begin);
    let missing = Desktop::by_name(stage.name().replace("work", "nowhere")).unwrap();
    let refused = missing.grant_trustee(&logon()).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::NotFound { .. }), "{refused}");
}

fn enforced() {
    let token = testbed::minted!(Mint::new(USER).logon(LOGON).impersonation());
    let token = Token::<Impersonation>::try_from(token).unwrap();
    let stage = Stage::elsewhere().unwrap();
    let station = || token.impersonate(|_| stage.open_station(0x0002_0123)).unwrap().is_ok();
    assert!(!station());
    let lease = Desktop::by_name(stage.name()).unwrap().grant_trustee(&logon()).unwrap();
    assert!(station());
    drop(lease);
    assert!(!station());
}

fn without_init() {
    if std::env::var_os("STEAD_TEST_CARELESS").is_none() {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.arg("without_init").env("STEAD_TEST_CARELESS", "1");
        assert!(command.status().unwrap().success());
        return;
    }
    let stage = Stage::elsewhere().unwrap();
    let refused = Desktop::by_name(stage.name()).unwrap().grant_trustee(&logon()).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::DesktopAccess { .. }), "{refused}");
    assert!(refused.to_string().contains("stead::init()"), "{refused}");
}
