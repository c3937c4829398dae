//! Impersonation on Windows: the thread's user as the system tells it, and what that user may open.
#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use stead::os::windows::TokenExt;
use stead::{Command, ErrorKind, Impersonation, ImpersonationLevel, Primary, Token};
use testbed::windows::{LOGON, LockedEvent, Mint, Seen, USER, WinProbe, program};

fn no_thread_token() -> bool {
    Seen::thread().is_err_and(|error| error.raw_os_error() == Some(1008))
}

#[test]
fn the_thread_is_the_clients_within_the_closure_and_only_there() {
    let handle = testbed::minted!(Mint::new(USER).logon(LOGON).impersonation());
    let client = Token::<Impersonation>::try_from(handle).unwrap();
    let own = Seen::own().unwrap();
    assert!(no_thread_token());
    client
        .impersonate(|me| {
            let seen = Seen::thread().unwrap();
            assert_eq!((seen.user.as_str(), seen.logon.as_deref()), (USER, Some(LOGON)));
            assert_eq!(Token::open_thread(me).unwrap().user_sid().to_string(), USER);
            assert!(std::thread::spawn(no_thread_token).join().unwrap(), "another thread took part");
            assert_eq!(Token::current().unwrap().user_sid().to_string(), own.user);
        })
        .unwrap();
    assert!(no_thread_token());
}

#[test]
fn an_object_for_one_logon_alone_turns_from_denied_to_granted_and_back() {
    let handle = testbed::minted!(Mint::new(USER).logon(LOGON).impersonation());
    let client = Token::<Impersonation>::try_from(handle).unwrap();
    let event = LockedEvent::only_for(LOGON).unwrap();
    let denied = || event.open().is_err_and(|error| error.raw_os_error() == Some(5));
    assert!(denied());
    client.impersonate(|_| event.open()).unwrap().unwrap();
    assert!(denied());
    let handle = testbed::minted!(Mint::new(USER).logon("S-1-5-5-0-4712").impersonation());
    let other_logon = Token::<Impersonation>::try_from(handle).unwrap();
    assert!(other_logon.impersonate(|_| denied()).unwrap(), "the user's other logon session is not this one");
}

#[test]
fn an_inner_impersonation_gives_the_outer_one_back() {
    let outer = testbed::minted!(Mint::new(USER).logon(LOGON).impersonation());
    let inner = testbed::minted!(Mint::new("S-1-5-21-1-1-1-1234").impersonation());
    let outer = Token::<Impersonation>::try_from(outer).unwrap();
    let inner = Token::<Impersonation>::try_from(inner).unwrap();
    outer
        .impersonate(|me| {
            me.impersonate(&inner, |_| assert_eq!(Seen::thread().unwrap().user, "S-1-5-21-1-1-1-1234"))
                .unwrap();
            assert_eq!(Seen::thread().unwrap().user, USER);
        })
        .unwrap();
    assert!(no_thread_token());
}

#[test]
fn a_panic_ends_the_impersonation() {
    let own = Token::current().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        own.impersonate(|_| {
            assert!(!no_thread_token());
            panic!("on purpose");
        })
    }));
    assert!(panicked.is_err());
    assert!(no_thread_token());
}

#[test]
fn a_token_that_only_identifies_is_not_impersonated() {
    let known = Token::current().unwrap().duplicate(ImpersonationLevel::Identification).unwrap();
    let error = known.impersonate(|_| ()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::LevelTooLow { .. }), "{error}");
    assert!(no_thread_token());
}

#[test]
fn a_process_created_while_impersonating_is_the_tokens_and_the_impersonation_goes_on() {
    let mint = Mint::new(USER).logon(LOGON).privilege("SeAssignPrimaryTokenPrivilege");
    let token = Token::<Primary>::try_from(testbed::minted!(mint.primary())).unwrap();
    let other = testbed::minted!(Mint::new("S-1-5-21-1-1-1-1234").impersonation());
    let other = Token::<Impersonation>::try_from(other).unwrap();
    let mut command = Command::new(program("winprobe"));
    command.current_dir("C:\\");
    let seen = other
        .impersonate(|_| {
            let output = command.output_as(&token).unwrap();
            let seen = WinProbe::parse(&output.stdout);
            assert_eq!(Seen::thread().unwrap().user, "S-1-5-21-1-1-1-1234");
            seen
        })
        .unwrap();
    assert_eq!(seen.user, USER);
}
