//! What is asked when an account logs on by a password: the password, where it was not given, and a new one in an
//! expired one's place.
#![forbid(unsafe_code)]

use super::password::Password;
use crate::error::{AccountRestriction, Error, ErrorKind, Result};
use crate::logon::{Conversation, Prompt, Secret};

/// Who says whether a password is right.
pub(super) trait Authority {
    /// What a logon gives.
    type Token;

    fn doing(&self) -> String;
    fn log_on(&mut self, password: &Password) -> Result<Self::Token>;
    fn change(&mut self, old: &Password, new: &Password) -> Result<()>;
}

/// One attempt; where the right password has expired, its change and the attempt that this is for.
pub(super) fn by_password<A: Authority>(
    authority: &mut A,
    secret: Option<Secret>,
    mut conversation: Option<Box<dyn Conversation>>,
) -> Result<A::Token> {
    let given = match (secret, &mut conversation) {
        (Some(secret), _) => secret,
        (None, Some(conversation)) => ask(conversation.as_mut(), "Password: ")
            .ok_or_else(|| Error::new(authority.doing(), ErrorKind::LogonFailed))?,
        (None, None) => {
            let what = "nobody answers the question for the password".into();
            return Err(Error::new(authority.doing(), ErrorKind::InvalidInput { what }));
        }
    };
    let old = Password::of(|| authority.doing(), given)?;
    let expired = match authority.log_on(&old) {
        Err(error) if has_expired(&error) => error,
        done => return done,
    };
    let Some(conversation) = conversation.as_deref_mut() else { return Err(expired) };
    conversation.inform("The password has expired and must be changed.", true);
    // Whoever refuses here leaves it as it is: expired.
    let Some(new) = ask(conversation, "New password: ") else { return Err(expired) };
    let Some(again) = ask(conversation, "New password again: ") else { return Err(expired) };
    let (new, again) = (Password::of(|| authority.doing(), new)?, Password::of(|| authority.doing(), again)?);
    if new != again {
        conversation.inform("The two are not the same.", true);
        return Err(expired);
    }
    if let Err(error) = authority.change(&old, &new) {
        conversation.inform("The new password was not accepted.", true);
        return Err(error);
    }
    authority.log_on(&new)
}

fn ask(conversation: &mut dyn Conversation, text: &str) -> Option<Secret> {
    conversation.answer(&Prompt { text, echo: false })
}

fn has_expired(error: &Error) -> bool {
    let expired = ErrorKind::AccountRestriction { restriction: AccountRestriction::PasswordExpired };
    *error.kind() == expired
}
