//! A token that is held for a caller, and where it comes from.

use std::sync::Arc;

use stead::os::linux::{Gid, Limit, LoginUid, TokenExt, Uid};
use stead::token::TokenKind;
use stead::{Impersonation, LogonSession, Primary, Token};
use stead_protocol as wire;
use stead_protocol::{Failure, Text};

use super::caller::{account_groups, with};
use super::failure::failure;
use crate::policy::Subject;

/// A token of either kind.
#[derive(Debug, Clone)]
pub(super) enum AnyToken {
    Primary(Token<Primary>),
    Impersonation(Token<Impersonation>),
}

/// Where a token comes from.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// It is the caller's own. Processes get no limits above those that the caller has.
    Own(Arc<[(Limit, u64, u64)]>),
    /// It is that of a client who connected to the caller.
    Client,
    /// It is that of a logon session of this type, with or without authentication.
    Logon { session: Arc<LogonSession>, kind: wire::LogonType, s4u: bool },
}

/// A token that a connection holds.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) token: AnyToken,
    pub(super) origin: Origin,
    /// The groups that were taken from it: what is denied to them stays denied.
    pub(super) taken: Vec<Gid>,
}

impl Held {
    /// One that nothing was taken from.
    pub(super) fn whole(token: AnyToken, origin: Origin) -> Self {
        Self { token, origin, taken: Vec::new() }
    }

    pub(super) fn uid(&self) -> Uid {
        match &self.token {
            AnyToken::Primary(token) => token.uid(),
            AnyToken::Impersonation(token) => token.uid(),
        }
    }

    /// A primary token of the same context.
    pub(super) fn to_primary(&self) -> stead::Result<Token<Primary>> {
        match &self.token {
            AnyToken::Primary(token) => token.to_primary(),
            AnyToken::Impersonation(token) => token.to_primary(),
        }
    }

    /// Whom it is for, as the policy sees it.
    pub(super) fn subject(&self) -> Result<Subject, Failure> {
        match &self.token {
            AnyToken::Primary(token) => subject(token, &self.taken),
            AnyToken::Impersonation(token) => subject(token, &self.taken),
        }
    }

    /// What it says.
    pub(super) fn context(&self) -> wire::Token {
        match &self.token {
            AnyToken::Primary(token) => context(token, true),
            AnyToken::Impersonation(token) => context(token, false),
        }
    }
}

fn subject<K: TokenKind>(token: &Token<K>, taken: &[Gid]) -> Result<Subject, Failure> {
    let name = token.user_name().map_err(|error| failure(&error))?;
    let name = name.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut of_account = account_groups(token.uid()).map_err(|error| failure(&error))?;
    of_account.extend(taken);
    Ok(Subject::new(token.uid(), name, with(token.groups(), token.gid())).account_groups(of_account))
}

fn context<K: TokenKind>(token: &Token<K>, primary: bool) -> wire::Token {
    let sets = token.capabilities();
    wire::Token {
        primary,
        level: token.level().into(),
        uid: token.uid().as_raw(),
        gid: token.gid().as_raw(),
        groups: token.groups().as_slice().iter().map(|gid| gid.as_raw()).collect(),
        capabilities: wire::CapabilitySets {
            effective: sets.effective.bits(),
            permitted: sets.permitted.bits(),
            inheritable: sets.inheritable.bits(),
            bounding: sets.bounding.bits(),
            ambient: sets.ambient.bits(),
        },
        securebits: token.securebits().0,
        no_new_privs: token.no_new_privs(),
        label: token.label().map(|label| Text::from(label.as_bytes().to_vec())),
        login_uid: match token.login_uid() {
            LoginUid::Set(uid) => Some(uid.as_raw()),
            LoginUid::Unset => Some(u32::MAX),
            LoginUid::Unsupported => None,
        },
        session: token.logon_session_id().map(|id| id.to_string()),
        logon_gid: token.logon_gid().map(Gid::as_raw),
        user_name: token.user_name().ok().flatten().map(|name| Text::from(&*name)),
    }
}
