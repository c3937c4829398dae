//! What the tests of the Windows side rest on holds where they run.

#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::os::windows::io::AsHandle;
use testbed::windows::{LOGON, LockedEvent, Mint, Seen, USER, WinProbe, fresh_handle, program};

#[test]
fn a_minted_token_is_another_users_with_a_logon_of_its_own() {
    let mint = Mint::new(USER).logon(LOGON).group("S-1-5-32-546");
    let primary = testbed::minted!(mint.primary());
    let impersonation = testbed::minted!(mint.impersonation());
    for token in [primary, impersonation] {
        let seen = Seen::token(token.as_handle()).unwrap();
        assert_eq!((seen.user.as_str(), seen.logon.as_deref()), (USER, Some(LOGON)));
        assert!(seen.groups.iter().any(|group| group == "S-1-5-32-546"), "{seen:?}");
        assert_ne!(seen.user, Seen::own().unwrap().user);
    }
}

#[test]
fn an_event_for_one_sid_is_closed_to_all_others() {
    let own = Seen::own().unwrap().user;
    assert!(LockedEvent::only_for(&own).unwrap().open().is_ok());
    let error = LockedEvent::only_for(LOGON).unwrap().open().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
}

#[test]
fn the_probe_tells_who_it_is_and_what_it_was_given() {
    let output = std::process::Command::new(program("winprobe"))
        .args(["--handles", "12,999999996", "--", "two words"])
        .env("MARK", "set")
        .output()
        .unwrap();
    let seen = WinProbe::parse(&output.stdout);
    assert_eq!(seen.user, Seen::own().unwrap().user);
    assert_eq!(seen.std_arguments.last().unwrap(), "two words");
    assert_eq!(seen.shell_arguments[1..], seen.std_arguments[1..]);
    assert_eq!(seen.crt_arguments[1..], seen.std_arguments[1..]);
    assert_eq!(seen.environment["MARK"], "set");
    assert!(!seen.open_handles.contains(&999_999_996));
}

#[test]
fn the_value_of_a_fresh_handle_rises_when_handles_leak() {
    let before = fresh_handle().unwrap();
    let leak: Vec<_> = (0..100).map(|_| std::fs::File::open(program("winprobe")).unwrap()).collect();
    assert!(fresh_handle().unwrap() > before);
    drop(leak);
    assert_eq!(fresh_handle().unwrap(), before);
}
