//! The tokens of a connection.

use std::sync::Arc;

use stead::os::linux::{CapabilitySet, Gid, Limit, LoginUid, RestrictionExt, TokenExt, Uid};
use stead::token::{Restriction, TokenKind};
use stead::{Impersonation, LogonSession, Primary, Token};
use stead_protocol as wire;
use stead_protocol::{
    CloseToken, DescribeToken, DuplicateToken, Failure, FailureKind, Nothing, OpenedToken, RestrictToken,
    Text,
};

use super::caller::{account_groups, with};
use super::connection::State;
use super::failure::{failure, invalid};
use crate::policy::Subject;

/// How many tokens a connection may hold.
const MOST: usize = 256;

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
    /// It is that of a logon session, with or without authentication.
    Logon { session: Arc<LogonSession>, s4u: bool },
}

/// A token that a connection holds.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) token: AnyToken,
    pub(super) origin: Origin,
}

impl Held {
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
            AnyToken::Primary(token) => subject(token),
            AnyToken::Impersonation(token) => subject(token),
        }
    }

    fn context(&self) -> wire::Token {
        match &self.token {
            AnyToken::Primary(token) => context(token, true),
            AnyToken::Impersonation(token) => context(token, false),
        }
    }
}

fn subject<K: TokenKind>(token: &Token<K>) -> Result<Subject, Failure> {
    let name = token.user_name().map_err(|error| failure(&error))?;
    let name = name.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let of_account = account_groups(token.uid()).map_err(|error| failure(&error))?;
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

impl State {
    /// Keeps a token for the connection.
    pub(super) fn keep(&mut self, held: Held) -> Result<OpenedToken, Failure> {
        if self.tokens.len() >= MOST {
            let kind = FailureKind::QuotaReached { of: "tokens".to_owned(), most: MOST as u64 };
            return Err(kind.while_doing("keeping a token"));
        }
        let number = self.next_token;
        self.next_token += 1;
        let context = held.context();
        self.tokens.insert(number, held);
        Ok(OpenedToken { token: number, context })
    }

    /// The token of this number.
    pub(super) fn token(&self, number: u64) -> Result<&Held, Failure> {
        self.tokens.get(&number).ok_or_else(|| {
            FailureKind::NoSuchHandle { of: "token".to_owned() }.while_doing("looking up a token")
        })
    }

    pub(super) fn describe_token(&self, call: &DescribeToken) -> Result<OpenedToken, Failure> {
        Ok(OpenedToken { token: call.token, context: self.token(call.token)?.context() })
    }

    pub(super) fn duplicate_token(&mut self, call: &DuplicateToken) -> Result<OpenedToken, Failure> {
        let held = self.token(call.token)?;
        let token = if call.primary {
            if call.level.is_some() {
                let what = "a primary token has no level of its own";
                return Err(invalid("duplicating a token", what));
            }
            AnyToken::Primary(held.to_primary().map_err(|error| failure(&error))?)
        } else {
            let level = call.level.unwrap_or(wire::Level::Impersonation);
            let duplicate = match &held.token {
                AnyToken::Primary(token) => token.duplicate(level.into()),
                AnyToken::Impersonation(token) => token.duplicate(level.into()),
            };
            AnyToken::Impersonation(duplicate.map_err(|error| failure(&error))?)
        };
        let origin = held.origin.clone();
        self.keep(Held { token, origin })
    }

    pub(super) fn restrict_token(&mut self, call: &RestrictToken) -> Result<OpenedToken, Failure> {
        let held = self.token(call.token)?;
        let mut restriction = Restriction::new();
        if call.without_privileges {
            restriction = restriction.without_privileges();
        }
        for raw in &call.without_groups {
            let gid = Gid::new(*raw).ok_or_else(|| invalid("restricting a token", "-1 is no group"))?;
            restriction = restriction.without_group(gid);
        }
        if call.without_capabilities != 0 {
            // Every one but those named, whether this version knows its name or not.
            restriction =
                restriction.capabilities_within(CapabilitySet::from_bits(!call.without_capabilities));
        }
        if call.no_new_privs {
            restriction = restriction.no_new_privs();
        }
        let token = match &held.token {
            AnyToken::Primary(token) => token.restrict(&restriction).map(AnyToken::Primary),
            AnyToken::Impersonation(token) => token.restrict(&restriction).map(AnyToken::Impersonation),
        };
        let token = token.map_err(|error| failure(&error))?;
        let origin = held.origin.clone();
        self.keep(Held { token, origin })
    }

    pub(super) fn close_token(&mut self, call: &CloseToken) -> Result<Nothing, Failure> {
        self.token(call.token)?;
        self.tokens.remove(&call.token);
        Ok(Nothing {})
    }
}
