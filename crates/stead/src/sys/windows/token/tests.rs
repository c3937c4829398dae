use std::os::windows::io::{AsHandle, OwnedHandle};

use crate::error::ErrorKind;
use crate::os::windows::{RestrictionExt, Sid, TokenExt};
use crate::token::{Impersonation, ImpersonationLevel, Primary, Restriction, Token};

fn handle<K: crate::token::TokenKind>(token: &Token<K>) -> OwnedHandle {
    token.as_handle().try_clone_to_owned().unwrap()
}

#[test]
fn the_servers_own_token_says_who_it_is() {
    let own = Token::current().unwrap();
    assert_eq!(own.user_sid(), super::super::thread_token::process_user().unwrap());
    assert!(own.groups().iter().any(super::Group::is_enabled));
    assert!(own.privileges().iter().any(|privilege| privilege.name.starts_with("Se")));
    if let Some(sid) = own.logon_sid() {
        assert!(sid.is_logon_session(), "{sid}");
        assert_eq!(own.require_logon_sid().unwrap(), sid);
    }
    let text = own.to_string();
    assert!(text.contains(&own.user_sid().to_string()), "{text}");
}

#[test]
fn a_token_goes_to_impersonation_and_back_and_stays_the_same_context() {
    let own = Token::current().unwrap();
    let impersonation = own.duplicate(ImpersonationLevel::Impersonation).unwrap();
    let again = impersonation.to_primary().unwrap();
    assert_eq!(again.user_sid(), own.user_sid());
    assert_eq!(again.context().logon_id, own.context().logon_id);
    assert_eq!(again.groups(), own.groups());
}

#[test]
fn no_level_is_raised_and_no_process_comes_of_an_identification_token() {
    let known = Token::current().unwrap().duplicate(ImpersonationLevel::Identification).unwrap();
    for refused in
        [known.duplicate(ImpersonationLevel::Impersonation).map(drop), known.to_primary().map(drop)]
    {
        assert!(matches!(refused.unwrap_err().kind(), ErrorKind::LevelTooLow { .. }));
    }
}

#[test]
fn a_handle_becomes_a_token_of_its_own_kind_only() {
    let own = Token::current().unwrap();
    let impersonation = own.duplicate(ImpersonationLevel::Identification).unwrap();
    assert!(Token::<Primary>::try_from(handle(&own)).is_ok());
    let taken = Token::<Impersonation>::try_from(handle(&impersonation)).unwrap();
    assert_eq!(taken.level(), ImpersonationLevel::Identification);
    for refused in [
        Token::<Impersonation>::try_from(handle(&own)).map(drop),
        Token::<Primary>::try_from(handle(&impersonation)).map(drop),
    ] {
        assert!(matches!(refused.unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
    }
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    assert!(Token::<Primary>::try_from(OwnedHandle::from(file)).is_err());
}

#[test]
fn a_restriction_only_takes_and_what_it_takes_is_gone() {
    let own = Token::current().unwrap();
    let group = own.groups().iter().find(|group| group.sid == Sid::ADMINISTRATORS && group.is_enabled());
    let mut restriction = Restriction::new().without_privileges();
    if let Some(group) = group {
        restriction = restriction.deny_only(group.sid);
    }
    let least = own.restrict(&restriction).unwrap();
    assert!(least.privileges().iter().all(|privilege| privilege.name == "SeChangeNotifyPrivilege"));
    if let Some(group) = group {
        let left = least.groups().iter().find(|left| left.sid == group.sid).unwrap();
        assert!(left.is_deny_only() && !left.is_enabled());
    }
    assert_eq!(least.user_sid(), own.user_sid());
}

#[test]
fn a_restriction_that_names_what_is_not_there_is_an_error() {
    let own = Token::current().unwrap();
    let stranger: Sid = "S-1-5-21-1-2-3-4".parse().unwrap();
    for restriction in
        [Restriction::new().deny_only(stranger), Restriction::new().without_privilege("SeNoSuchPrivilege")]
    {
        let refused = own.restrict(&restriction).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
    }
}

/// Wine says that it moved the token, and did not; Windows asks for SeTcbPrivilege.
#[test]
fn a_token_is_moved_to_another_session_or_it_is_said_that_it_was_not() {
    let own = super::own_context().unwrap();
    let session = own.session_id + 1;
    match super::in_session(&own, session, "moving a token") {
        Ok(moved) => assert_eq!((moved.session_id, moved.user), (session, own.user)),
        Err(refused) => assert!(
            matches!(
                refused.kind(),
                ErrorKind::PrivilegeMissing { .. }
                    | ErrorKind::ImpersonationChanged { .. }
                    | ErrorKind::System { .. }
            ),
            "{refused}"
        ),
    }
}
