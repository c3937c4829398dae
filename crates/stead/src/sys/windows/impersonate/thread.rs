//! What is on the calling thread, changed and put back: each change is read back, and a thread whose former
//! identity cannot be put back ends the process.

use std::io;
use std::os::windows::io::{AsHandle, BorrowedHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{GetLastError, SetLastError};
use windows_sys::Win32::Security::{TOKEN_IMPERSONATE, TOKEN_QUERY};

use crate::sys::thread_token::{Identity, OnThread, on_thread, put};
use crate::token::ImpersonationLevel;

/// Why a thread's identity is not the one that it should be.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A call failed.
    Call { call: &'static str, source: io::Error },
    /// A call succeeded, and the thread has the identity at another level.
    Level { wanted: ImpersonationLevel, found: ImpersonationLevel },
    /// What is on the thread is anonymous: it cannot be opened, and so not be put back.
    Anonymous,
    /// A call succeeded, and reading back shows something else.
    Differs(&'static str),
}

impl Fault {
    fn in_call(call: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Call { call, source }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call { call, source } => write!(f, "{call}: {source}"),
            Self::Level { wanted, found } => write!(f, "the level read back is {found}, not {wanted}"),
            Self::Anonymous => {
                f.write_str("an anonymous identity is on the thread, and could not be put back")
            }
            Self::Differs(what) => write!(f, "{what} read back is not what was set"),
        }
    }
}

/// A token that was on the thread, and is to be there again.
#[derive(Debug)]
pub(crate) struct Outer {
    token: OwnedHandle,
    identity: Identity,
}

/// What is on the calling thread now; `None` is the process's own identity.
///
/// Whoever put it there: it need not have been this library.
pub(crate) fn outer() -> Result<Option<Outer>, Fault> {
    match on_thread(TOKEN_QUERY | TOKEN_IMPERSONATE).map_err(Fault::in_call("OpenThreadToken"))? {
        OnThread::Nothing => Ok(None),
        // It cannot be put back, as it cannot be opened: nothing may then be put in its place.
        OnThread::Anonymous => Err(Fault::Anonymous),
        OnThread::Token(token) => {
            let identity = Identity::of(token.as_handle()).map_err(Fault::in_call("GetTokenInformation"))?;
            Ok(Some(Outer { token, identity }))
        }
    }
}

/// The identity that is on the thread, opened anew.
pub(crate) fn found() -> Result<Option<Identity>, Fault> {
    match on_thread(TOKEN_QUERY).map_err(Fault::in_call("OpenThreadToken"))? {
        OnThread::Nothing => Ok(None),
        OnThread::Anonymous => Err(Fault::Differs("an anonymous identity")),
        OnThread::Token(token) => {
            Identity::of(token.as_handle()).map(Some).map_err(Fault::in_call("GetTokenInformation"))
        }
    }
}

/// Puts an impersonation token on the thread, and reads it back.
///
/// Without SeImpersonatePrivilege the call succeeds too, for another user's token: the thread then has it at
/// identification level, with which it may do nothing.
pub(crate) fn take_on(token: BorrowedHandle<'_>, wanted: &Identity) -> Result<(), Fault> {
    put(Some(token)).map_err(Fault::in_call("SetThreadToken"))?;
    let Some(found) = found()? else { return Err(Fault::Differs("the thread's identity")) };
    same(wanted, &found)
}

pub(crate) fn same(wanted: &Identity, found: &Identity) -> Result<(), Fault> {
    if wanted.user != found.user {
        return Err(Fault::Differs("the thread's user"));
    }
    if wanted.logon != found.logon {
        return Err(Fault::Differs("the thread's logon session"));
    }
    match (wanted.level, found.level) {
        (Some(wanted), Some(found)) if wanted != found => Err(Fault::Level { wanted, found }),
        (wanted, found) if wanted.is_some() != found.is_some() => Err(Fault::Differs("the token's type")),
        _ => Ok(()),
    }
}

/// Puts back what was on the thread before, and reads it back. Aborts the process where that fails.
///
/// The thread's last error is left as it was: the closure's caller may want to ask for it.
pub(crate) fn put_back(outer: Option<&Outer>) {
    let error = last_error();
    let result = match outer {
        Some(outer) => take_on(outer.token.as_handle(), &outer.identity),
        None => put(None).map_err(Fault::in_call("SetThreadToken")).and_then(|()| match found()? {
            None => Ok(()),
            Some(_) => Err(Fault::Differs("the server's own identity")),
        }),
    };
    if let Err(fault) = result {
        abort(if outer.is_some() { "the outer impersonation" } else { "the server's own identity" }, &fault);
    }
    set_last_error(error);
}

fn last_error() -> u32 {
    // SAFETY: the call takes nothing and reads a value of the thread's own.
    unsafe { GetLastError() }
}

fn set_last_error(error: u32) {
    // SAFETY: the call sets a number of the thread's own.
    unsafe { SetLastError(error) }
}

/// Puts back what was there when it is dropped, also when a closure unwinds.
#[derive(Debug)]
pub(crate) struct PutBack(pub(crate) Option<Outer>);

impl Drop for PutBack {
    fn drop(&mut self) {
        put_back(self.0.as_ref());
    }
}

/// Runs `act` as the process itself, whoever is on the thread, and puts that back after.
pub(crate) fn as_process<R>(act: impl FnOnce() -> R) -> Result<R, Fault> {
    let Some(outer) = outer()? else { return Ok(act()) };
    let put_back = PutBack(Some(outer));
    put(None).map_err(Fault::in_call("SetThreadToken"))?;
    if found()?.is_some() {
        return Err(Fault::Differs("the server's own identity"));
    }
    let result = act();
    drop(put_back);
    Ok(result)
}

/// Runs `act` with `token` on the thread: as exactly that, or not at all.
pub(crate) fn with_token<R>(
    token: BorrowedHandle<'_>,
    wanted: &Identity,
    act: impl FnOnce() -> R,
) -> Result<R, Fault> {
    // Wine puts a primary token on a thread too; Windows refuses (1346).
    if wanted.level.is_none() {
        return Err(Fault::Differs("a primary token: its level"));
    }
    // Never derived from the impersonation around it: SetThreadToken decides by the process's own token and by
    // the privileges of what is on the thread.
    let put_back = PutBack(outer()?);
    put(None).map_err(Fault::in_call("SetThreadToken"))?;
    take_on(token, wanted)?;
    let result = act();
    drop(put_back);
    Ok(result)
}

/// The thread has an identity that is neither the server's nor the one that was asked for: nothing may run on.
pub(crate) fn abort(what: &str, fault: &Fault) -> ! {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "stead: cannot put back {what} ({fault}); aborting");
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::sys::thread_token::{USUAL, duplicate, process};
    use windows_sys::Win32::Security::{TOKEN_DUPLICATE, TokenImpersonation};

    fn own(level: ImpersonationLevel) -> (OwnedHandle, Identity) {
        let process = process(TOKEN_QUERY | TOKEN_DUPLICATE).unwrap();
        let token = duplicate(process.as_handle(), USUAL, level, TokenImpersonation).unwrap();
        let identity = Identity::of(token.as_handle()).unwrap();
        (token, identity)
    }

    /// A client of RPC's can choose to be that, and would end the server.
    #[test]
    fn a_thread_that_is_anonymous_gets_an_error_and_stays_so() {
        let (token, _) = own(ImpersonationLevel::Anonymous);
        put(Some(token.as_handle())).unwrap();
        let refused = crate::Token::current().unwrap_err();
        let still = on_thread(USUAL);
        put(None).unwrap();
        assert!(matches!(still, Ok(OnThread::Anonymous)), "{still:?}");
        assert!(matches!(refused.kind(), ErrorKind::ImpersonationChanged { .. }), "{refused}");
        crate::Token::current().unwrap();
    }

    #[test]
    fn nested_identities_come_and_go_in_order() {
        let (outer, outer_is) = own(ImpersonationLevel::Impersonation);
        let (inner, inner_is) = own(ImpersonationLevel::Identification);
        assert_ne!(outer_is, inner_is);
        with_token(outer.as_handle(), &outer_is, || {
            assert_eq!(found().unwrap().as_ref(), Some(&outer_is));
            with_token(inner.as_handle(), &inner_is, || {
                assert_eq!(found().unwrap().as_ref(), Some(&inner_is));
                as_process(|| assert_eq!(found().unwrap(), None)).unwrap();
                assert_eq!(found().unwrap().as_ref(), Some(&inner_is));
            })
            .unwrap();
            assert_eq!(found().unwrap().as_ref(), Some(&outer_is));
        })
        .unwrap();
        assert_eq!(found().unwrap(), None);
    }

    #[test]
    fn a_panic_goes_on_when_the_thread_is_the_server_again() {
        let (token, is) = own(ImpersonationLevel::Impersonation);
        let panicked = std::panic::catch_unwind(|| {
            let _ = with_token(token.as_handle(), &is, || panic!("as the client"));
        });
        assert!(panicked.is_err());
        assert_eq!(found().unwrap(), None);
    }

    #[test]
    fn nothing_runs_with_an_identity_that_reads_back_as_another() {
        let (token, mut wanted) = own(ImpersonationLevel::Identification);
        wanted.level = Some(ImpersonationLevel::Impersonation);
        let ran = with_token(token.as_handle(), &wanted, || ());
        assert!(matches!(ran, Err(Fault::Level { .. })), "{ran:?}");
        let (token, mut wanted) = own(ImpersonationLevel::Impersonation);
        wanted.user = crate::sys::sid::Sid::NETWORK;
        let ran = with_token(token.as_handle(), &wanted, || ());
        assert!(matches!(ran, Err(Fault::Differs(_))), "{ran:?}");
        assert_eq!(found().unwrap(), None);
    }

    #[test]
    fn the_last_error_survives_the_way_back() {
        let (token, is) = own(ImpersonationLevel::Impersonation);
        with_token(token.as_handle(), &is, || set_last_error(4711)).unwrap();
        assert_eq!(last_error(), 4711);
    }

    #[test]
    fn another_thread_is_not_touched() {
        let (token, is) = own(ImpersonationLevel::Impersonation);
        with_token(token.as_handle(), &is, || {
            let elsewhere = std::thread::spawn(|| found().unwrap()).join().unwrap();
            assert_eq!(elsewhere, None);
        })
        .unwrap();
    }

    #[test]
    fn a_primary_token_is_not_put_on_a_thread() {
        let process = process(TOKEN_QUERY | TOKEN_DUPLICATE | TOKEN_IMPERSONATE).unwrap();
        let is = Identity::of(process.as_handle()).unwrap();
        assert_eq!(is.level, None);
        let ran = with_token(process.as_handle(), &is, || ());
        assert!(matches!(ran, Err(Fault::Differs(_))), "{ran:?}");
        assert_eq!(found().unwrap(), None);
    }
}
