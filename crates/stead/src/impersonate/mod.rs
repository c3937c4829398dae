//! Acting as a client on one thread: open its files and connect to its sockets with its rights.
//!
//! [`Token::impersonate`] puts the client's identity on the calling thread for the length of a closure, and puts
//! back what was there before. No other thread changes. The closure's [`Impersonating`] handle opens, connects and
//! asks as the client.
//!
//! ```no_run
//! use std::io::Read;
//!
//! # fn example(token: stead::Token<stead::Impersonation>) -> Result<(), Box<dyn std::error::Error>> {
//! let mut notes = token.impersonate(|me| me.open("notes.txt"))??;
//! let mut text = String::new();
//! notes.read_to_string(&mut text)?; // as the server again; the right was checked when the file was opened
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

use crate::error::Result;
use crate::sys;
use crate::token::{Impersonation, ImpersonationLevel, Token, TokenKind};

/// The calling thread while it impersonates.
///
/// It exists only inside the closure of [`Token::impersonate`], on that thread. Its methods act as the client.
pub struct Impersonating<'a> {
    token: &'a Token<Impersonation>,
    /// Bound to the thread, and of no other lifetime than its own.
    thread: PhantomData<*mut &'a ()>,
}

impl<K: TokenKind> Token<K> {
    /// Runs `act` as the client on the calling thread, and puts back what was there before.
    #[doc(alias = "ImpersonateLoggedOnUser")]
    #[doc(alias = "RevertToSelf")]
    #[doc(alias = "SetThreadToken")]
    pub fn impersonate<R>(&self, act: impl FnOnce(&mut Impersonating<'_>) -> R) -> Result<R> {
        const NEEDED: ImpersonationLevel = ImpersonationLevel::Impersonation;
        self.require_level(NEEDED, "impersonating")?;
        let token = self.duplicate(self.level())?;
        sys::impersonate::impersonate(&token, || {
            act(&mut Impersonating { token: &token, thread: PhantomData })
        })
    }
}

impl Token<Impersonation> {
    /// The token that is on the thread, after the kernel's ids were compared with it.
    #[doc(alias = "OpenThreadToken")]
    pub fn open_thread(me: &Impersonating<'_>) -> Result<Self> {
        let _ = me;
        sys::impersonate::verified()
    }
}

impl Impersonating<'_> {
    /// Runs `act` as another client, and goes on as this one after.
    #[doc(alias = "ImpersonateLoggedOnUser")]
    pub fn impersonate<K: TokenKind, R>(
        &mut self,
        other: &Token<K>,
        act: impl FnOnce(&mut Impersonating<'_>) -> R,
    ) -> Result<R> {
        other.impersonate(act)
    }

    /// The token that is on the thread.
    pub fn token(&self) -> &Token<Impersonation> {
        self.token
    }
}

impl fmt::Debug for Impersonating<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Impersonating").field(self.token).finish()
    }
}
