//! What a connection knows between its calls.

use std::collections::BTreeMap;
use std::sync::Weak;

use stead_protocol::{Failure, FailureKind, OpenedToken};
use tokio::net::UnixStream;

use super::caller::Caller;
use super::failure::failure;
use super::process::Tracked;
use super::session::Closer;
use super::tie::Ties;
use super::token::{Held, Origin};

/// How many tokens a connection may hold.
const MOST: usize = 256;

/// What a connection knows between its calls.
#[derive(Debug)]
pub(super) struct State {
    pub(super) caller: Caller,
    /// The tokens it opened.
    pub(super) tokens: BTreeMap<u64, Held>,
    next_token: u64,
    /// Processes that it created suspended: they end with it if nobody resumes them.
    pub(super) suspended: Vec<Weak<Tracked>>,
    /// Sessions that end with it.
    pub(super) ties: Ties,
    /// The session whose end its call waits for.
    pub(super) closing: Option<Closer>,
}

impl State {
    /// Of a connection whose first call has come.
    pub(super) fn of(socket: &UnixStream) -> Result<Self, Failure> {
        let caller = Caller::of(socket).map_err(|error| failure(&error))?;
        Ok(Self {
            caller,
            tokens: BTreeMap::new(),
            next_token: 1,
            suspended: Vec::new(),
            ties: Ties::default(),
            closing: None,
        })
    }

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

    /// Drops the tokens of a session.
    pub(super) fn let_go(&mut self, id: &str) {
        self.tokens.retain(|_, held| match &held.origin {
            Origin::Logon { session, .. } => session.id().to_string() != id,
            _ => true,
        });
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for process in self.suspended.iter().filter_map(Weak::upgrade) {
            process.abandon();
        }
        self.ties.lost();
    }
}
