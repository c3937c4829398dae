//! What a caller does with the tokens that it holds.

use stead::os::linux::{CapabilitySet, Gid, RestrictionExt};
use stead::token::Restriction;
use stead_protocol as wire;
use stead_protocol::{
    CloseToken, DescribeToken, DuplicateToken, Failure, Nothing, OpenedToken, RestrictToken,
};

use crate::serve::failure::{failure, invalid};
use crate::serve::state::State;
use crate::serve::token::{AnyToken, Held};

/// What a token says.
pub(super) fn describe(state: &State, call: &DescribeToken) -> Result<OpenedToken, Failure> {
    Ok(OpenedToken { token: call.token, context: state.token(call.token)?.context() })
}

/// A token of the same context, of either kind.
pub(super) fn duplicate(state: &mut State, call: &DuplicateToken) -> Result<OpenedToken, Failure> {
    let held = state.token(call.token)?;
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
    let duplicate = Held { token, ..held.clone() };
    state.keep(duplicate)
}

/// A token of less.
pub(super) fn restrict(state: &mut State, call: &RestrictToken) -> Result<OpenedToken, Failure> {
    let held = state.token(call.token)?;
    let mut restriction = Restriction::new();
    if call.without_privileges {
        restriction = restriction.without_privileges();
    }
    let mut taken = held.taken.clone();
    for raw in &call.without_groups {
        let gid = Gid::new(*raw).ok_or_else(|| invalid("restricting a token", "-1 is no group"))?;
        restriction = restriction.without_group(gid);
        taken.push(gid);
    }
    if call.without_capabilities != 0 {
        // Every one but those named, whether this version knows its name or not.
        restriction = restriction.capabilities_within(CapabilitySet::from_bits(!call.without_capabilities));
    }
    if call.no_new_privs {
        restriction = restriction.no_new_privs();
    }
    let token = match &held.token {
        AnyToken::Primary(token) => token.restrict(&restriction).map(AnyToken::Primary),
        AnyToken::Impersonation(token) => token.restrict(&restriction).map(AnyToken::Impersonation),
    };
    let token = token.map_err(|error| failure(&error))?;
    let restricted = Held { token, taken, origin: held.origin.clone() };
    state.keep(restricted)
}

/// Gives a token back.
pub(super) fn close(state: &mut State, call: &CloseToken) -> Result<Nothing, Failure> {
    state.token(call.token)?;
    state.tokens.remove(&call.token);
    Ok(Nothing {})
}
