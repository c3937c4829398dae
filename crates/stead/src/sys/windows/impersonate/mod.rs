//! Impersonation: a client's token on the calling thread, for the length of a closure.
//!
//! Each frame puts back what it found, whoever had put it there; a nested impersonation is set from the server's
//! own identity, never from the one around it. What this library put on the thread is known to the thread alone
//! ([`LAYER`]), and compared with what the system says is there.

// It is const; the lint does not see it where thread-locals are keys of the system.
#![allow(clippy::missing_const_for_thread_local)]

pub(crate) mod files;
pub(crate) mod thread;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use windows_sys::Win32::Foundation::{ERROR_BAD_IMPERSONATION_LEVEL, ERROR_PRIVILEGE_NOT_HELD};

use crate::error::{Error, ErrorKind, Result};
use crate::privilege::Privilege;
use crate::sys::thread_token::Identity;
use crate::token::{Impersonation, ImpersonationLevel, Token};
use thread::{Fault, as_process, found, same, with_token};

thread_local! {
    /// The impersonation of this library that is on the thread now.
    static LAYER: RefCell<Option<Layer>> = const { RefCell::new(None) };
}

#[derive(Clone)]
struct Layer {
    token: Token<Impersonation>,
    identity: Identity,
}

/// Puts the outer layer back into the thread's own memory, also when a closure unwinds.
struct Known(Option<Layer>);

impl Known {
    fn replace(layer: Option<Layer>) -> Self {
        Self(LAYER.try_with(|known| known.replace(layer)).ok().flatten())
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let _ = LAYER.try_with(|known| known.replace(self.0.take()));
    }
}

const DOING: &str = "impersonating";

/// Runs `act` with the client's token on the calling thread, and puts back what was there.
///
/// `act` runs as exactly `token`, or not at all. Aborts the process if what was there cannot be put back.
pub(crate) fn impersonate<R>(token: &Token<Impersonation>, act: impl FnOnce() -> R) -> Result<R> {
    let context = &token.data().context;
    let identity = Identity::of(context.handle())
        .map_err(|source| Error::system(DOING, "GetTokenInformation", source))?;
    if identity.level < Some(ImpersonationLevel::Impersonation) {
        let granted = identity.level.unwrap_or(ImpersonationLevel::Anonymous);
        let needed = ImpersonationLevel::Impersonation;
        return Err(Error::new(DOING, ErrorKind::LevelTooLow { granted, needed }));
    }
    let layer = Layer { token: token.clone(), identity: identity.clone() };
    with_token(context.handle(), &identity, || {
        let _known = Known::replace(Some(layer));
        act()
    })
    .map_err(|fault| error(token, fault))
}

/// Runs `act` with the server's own identity: where the calling thread has another, that is taken off before and
/// put on again after, verified.
///
/// An error where it cannot be taken off, or could not be put on again: a client that is on the thread anonymously, as
/// one of RPC can choose to be. Aborts the process if it is not put on again.
pub(crate) fn as_server<R: Outcome>(act: impl FnOnce() -> R) -> R {
    let result = as_process(|| {
        let _known = Known::replace(None);
        act()
    });
    result.unwrap_or_else(R::not_done)
}

/// What can say that it was not done.
pub(crate) trait Outcome {
    fn not_done(why: Fault) -> Self;
}

impl<T> Outcome for Result<T> {
    fn not_done(why: Fault) -> Self {
        let what = why.to_string().into();
        Err(Error::new("acting as the server", ErrorKind::ImpersonationChanged { what }))
    }
}

impl<T> Outcome for io::Result<T> {
    fn not_done(why: Fault) -> Self {
        Err(io::Error::other(why.to_string()))
    }
}

/// The token that this library put on the calling thread.
pub(crate) fn current() -> Option<Token<Impersonation>> {
    LAYER.try_with(|known| known.borrow().as_ref().map(|layer| layer.token.clone())).ok().flatten()
}

/// The same, after what the system says is on the thread was compared with it.
pub(crate) fn verified() -> Result<Token<Impersonation>> {
    const DOING: &str = "opening the thread's token";
    let layer = LAYER.try_with(|known| known.borrow().clone()).ok().flatten();
    let layer = layer.ok_or_else(|| Error::new(DOING, ErrorKind::NotImpersonating))?;
    let verdict = match found() {
        Ok(Some(found)) => same(&layer.identity, &found),
        Ok(None) => Err(Fault::Differs("the thread's identity")),
        Err(fault) => Err(fault),
    };
    match verdict {
        Ok(()) => Ok(layer.token),
        Err(Fault::Call { call, source }) => Err(Error::system(DOING, call, source)),
        Err(fault) => {
            Err(Error::new(DOING, ErrorKind::ImpersonationChanged { what: fault.to_string().into() }))
        }
    }
}

/// Whether the impersonation that is on the calling thread is `token`'s.
pub(crate) fn is_on_thread(token: &Token<Impersonation>) -> bool {
    let same = |layer: &Layer| Arc::ptr_eq(layer.token.data(), token.data());
    LAYER.try_with(|known| known.borrow().as_ref().is_some_and(same)).unwrap_or(false)
}

fn error(token: &Token<Impersonation>, fault: Fault) -> Error {
    let doing = || format!("{DOING} {}", token.data().context.user());
    let missing = || ErrorKind::PrivilegeMissing {
        privilege: Privilege::Impersonate,
        missing: "SeImpersonatePrivilege".into(),
        held: false,
        enabled: false,
    };
    match fault {
        // What the system does for a server that may not impersonate this user: it says yes, and lets the
        // thread only know who the client is.
        Fault::Level { .. } => Error::new(doing(), missing()),
        Fault::Call { call, source } => {
            let is = |code: u32| io::Error::raw_os_error(&source) == Some(code.cast_signed());
            let kind = if is(ERROR_PRIVILEGE_NOT_HELD) {
                missing()
            } else if is(ERROR_BAD_IMPERSONATION_LEVEL) {
                let needed = ImpersonationLevel::Impersonation;
                ErrorKind::LevelTooLow { granted: token.level(), needed }
            } else {
                ErrorKind::System { call }
            };
            Error::new(doing(), kind).with_source(source)
        }
        fault @ (Fault::Anonymous | Fault::Differs(_)) => {
            Error::new(doing(), ErrorKind::ImpersonationChanged { what: fault.to_string().into() })
        }
    }
}
