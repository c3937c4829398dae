//! Tokens on Windows: what is taken over, what is said of it, and what duplicating may not do.
#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::windows::io::{AsHandle, OwnedHandle};
use stead::os::windows::TokenExt;
use stead::token::Restriction;
use stead::{ErrorKind, Impersonation, ImpersonationLevel, Primary, Token};
use testbed::windows::{LOGON, Mint, Seen, USER};

#[test]
fn the_servers_own_token_is_what_the_system_says_of_the_process() {
    let own = Token::current().unwrap();
    let seen = Seen::own().unwrap();
    assert_eq!(own.user_sid().to_string(), seen.user);
    assert_eq!(own.logon_sid().map(|sid| sid.to_string()), seen.logon);
    let groups: Vec<String> = own.groups().iter().map(|group| group.sid.to_string()).collect();
    assert_eq!(groups, seen.groups);
    assert!(own.to_string().contains(&seen.user), "{own}");
}

#[test]
fn a_token_of_another_user_is_taken_over_as_it_is() {
    let handle = testbed::minted!(Mint::new(USER).logon(LOGON).group("S-1-5-32-546").primary());
    let token = Token::<Primary>::try_from(handle).unwrap();
    assert_eq!(token.user_sid().to_string(), USER);
    assert_eq!(token.logon_sid().unwrap().to_string(), LOGON);
    assert!(token.groups().iter().any(|group| group.sid.to_string() == "S-1-5-32-546"));
    assert_eq!(Seen::token(token.as_handle()).unwrap().user, USER);
    assert_ne!(token, Token::current().unwrap());
}

#[test]
fn the_anonymous_logon_is_taken_over_as_nobody() {
    let mint = Mint::new("S-1-5-7");
    let primary = Token::<Primary>::try_from(testbed::minted!(mint.primary())).unwrap_err();
    let impersonation = Token::<Impersonation>::try_from(mint.impersonation().unwrap()).unwrap_err();
    for error in [primary, impersonation] {
        assert!(matches!(error.kind(), ErrorKind::NoIdentity { .. }), "{error}");
    }
}

#[test]
fn a_token_without_a_logon_sid_says_so() {
    let token = Token::<Primary>::try_from(testbed::minted!(Mint::new(USER).primary())).unwrap();
    assert_eq!(token.logon_sid(), None);
    assert!(matches!(token.require_logon_sid().unwrap_err().kind(), ErrorKind::NoLogonSid));
}

#[test]
fn a_handle_of_the_other_kind_is_refused() {
    let own = Token::current().unwrap();
    let impersonation = own.duplicate(ImpersonationLevel::Impersonation).unwrap();
    let primary = |handle: OwnedHandle| Token::<Primary>::try_from(handle);
    let error = primary(impersonation.as_handle().try_clone_to_owned().unwrap()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    let error = Token::<Impersonation>::try_from(own.as_handle().try_clone_to_owned().unwrap()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
}

#[test]
fn what_is_no_token_is_refused() {
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    assert!(Token::<Primary>::try_from(OwnedHandle::from(file)).is_err());
}

/// Wine lets an identification token become a primary one; the library asks nobody.
#[test]
fn duplicating_never_raises_the_level() {
    let known = Token::current().unwrap().duplicate(ImpersonationLevel::Identification).unwrap();
    for error in [
        known.duplicate(ImpersonationLevel::Impersonation).map(|_| ()).unwrap_err(),
        known.to_primary().map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error.kind(), ErrorKind::LevelTooLow { .. }), "{error}");
    }
}

#[test]
fn a_token_without_privileges_has_none_but_the_one_that_everybody_has() {
    let own = Token::current().unwrap();
    let least = own.restrict(&Restriction::new().without_privileges()).unwrap();
    assert!(
        least.privileges().iter().all(|privilege| privilege.name == "SeChangeNotifyPrivilege"),
        "{least}"
    );
    assert_eq!(least.user_sid(), own.user_sid());
}
