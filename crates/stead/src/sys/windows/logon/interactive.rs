//! The tokens of those who are logged on at the machine, or by remote desktop.

use std::io;
use std::os::windows::io::{AsHandle, FromRawHandle, OwnedHandle};
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{ERROR_NO_TOKEN, ERROR_PRIVILEGE_NOT_HELD, HANDLE};
use windows_sys::Win32::System::RemoteDesktop::{
    ProcessIdToSessionId, WTS_CONNECTSTATE_CLASS, WTS_SESSION_INFOW, WTSActive, WTSDisconnected,
    WTSEnumerateSessionsW, WTSFreeMemory, WTSGetActiveConsoleSessionId, WTSQueryUserToken,
};
use windows_sys::Win32::System::Threading::GetCurrentProcessId;

use crate::desktop::InteractiveSession as TerminalSession;
use crate::error::{Error, ErrorKind, Result};
use crate::privilege::Privilege;
use crate::sys::impersonate::as_server;
use crate::sys::token::SecurityContext;

const DOING: &str = "opening the token of an interactive session";

/// The context of whoever is logged on there.
///
/// Reference: [WTSQueryUserToken](https://learn.microsoft.com/windows/win32/api/wtsapi32/nf-wtsapi32-wtsqueryusertoken).
pub(crate) fn of_session(which: &TerminalSession) -> Result<SecurityContext> {
    as_server(|| match which {
        TerminalSession::Id(id) => token(*id),
        TerminalSession::Console => token(console()?),
        TerminalSession::Active => {
            let active = sessions()?.into_iter().filter(|(_, active)| *active).map(|(id, _)| token(id));
            // A session without a user: the screen on which somebody could log on.
            only(active.filter(|token| !is_empty(token)), "active session")
        }
        TerminalSession::OfUser(user) => {
            let of_user = sessions()?.into_iter().map(|(id, _)| token(id)).filter(|token| match token {
                Ok(context) => context.user == *user,
                Err(_) => !is_empty(token),
            });
            only(of_user, "session of that user")
        }
    })
}

/// The number of that session.
///
/// Only where the system tells no other way whose a session is, that takes SeTcbPrivilege.
pub(crate) fn session_number(which: &TerminalSession) -> Result<u32> {
    const DOING: &str = "finding an interactive session";
    as_server(|| match which {
        TerminalSession::Console => console(),
        TerminalSession::Id(id) => {
            if sessions()?.iter().any(|(found, _)| found == id) || own_session() == Some(*id) {
                return Ok(*id);
            }
            Err(Error::new(DOING, ErrorKind::NotFound { object: format!("interactive session {id}") }))
        }
        TerminalSession::Active => {
            let active: Vec<u32> =
                sessions()?.into_iter().filter(|(_, active)| *active).map(|(id, _)| id).collect();
            match active[..] {
                [id] => Ok(id),
                // Which of them have users is what their tokens tell.
                _ => of_session(which).map(|context| context.session_id),
            }
        }
        TerminalSession::OfUser(_) => of_session(which).map(|context| context.session_id),
    })
}

pub(crate) fn own_session() -> Option<u32> {
    let mut session = 0;
    // SAFETY: `session` is written only by this call; the other takes nothing and gives a number.
    let done = unsafe { ProcessIdToSessionId(GetCurrentProcessId(), &raw mut session) };
    (done != 0).then_some(session)
}

fn console() -> Result<u32> {
    // SAFETY: the call takes nothing and gives a number.
    match unsafe { WTSGetActiveConsoleSessionId() } {
        u32::MAX => Err(nobody("session at the console")),
        id => Ok(id),
    }
}

fn is_empty(token: &Result<SecurityContext>) -> bool {
    token.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound { .. }))
}

fn only(
    mut tokens: impl Iterator<Item = Result<SecurityContext>>,
    what: &'static str,
) -> Result<SecurityContext> {
    let first = tokens.next().ok_or_else(|| nobody(what))??;
    if tokens.next().is_none() {
        return Ok(first);
    }
    let what = format!("there is more than one {what}: name it by its number").into();
    Err(Error::new(DOING, ErrorKind::InvalidInput { what }))
}

fn nobody(object: &str) -> Error {
    Error::new(DOING, ErrorKind::NotFound { object: object.to_owned() })
}

fn token(id: u32) -> Result<SecurityContext> {
    let mut raw: HANDLE = null_mut();
    // SAFETY: `raw` is written only by the call.
    let done = unsafe { WTSQueryUserToken(id, &raw mut raw) };
    if done == 0 {
        let source = io::Error::last_os_error();
        let kind = match source.raw_os_error().map(i32::cast_unsigned) {
            Some(ERROR_NO_TOKEN) => ErrorKind::NotFound { object: format!("user in session {id}") },
            Some(ERROR_PRIVILEGE_NOT_HELD) => ErrorKind::PrivilegeMissing {
                privilege: Privilege::Logon,
                missing: "SeTcbPrivilege".into(),
                held: false,
                enabled: false,
            },
            _ => ErrorKind::System { call: "WTSQueryUserToken" },
        };
        return Err(Error::new(DOING, kind).with_source(source));
    }
    let invalid = |what: String| Error::new(DOING, ErrorKind::NoIdentity { what: what.into() });
    if raw.is_null() {
        return Err(invalid("the call succeeded without a token".into()));
    }
    // SAFETY: the call succeeded, so the handle is new and nobody else's.
    let token = unsafe { OwnedHandle::from_raw_handle(raw) };
    let (context, _) = SecurityContext::of(token.as_handle())
        .map_err(|source| Error::system(DOING, "GetTokenInformation", source))?;
    if context.session_id != id {
        return Err(invalid(format!("the token is of session {}, not {id}", context.session_id)));
    }
    Ok(context)
}

/// The machine's sessions that somebody may be logged on in, and whether each is active.
fn sessions() -> Result<Vec<(u32, bool)>> {
    let found = all_sessions()?.into_iter();
    let found = found.filter(|(_, state)| *state == WTSActive || *state == WTSDisconnected);
    Ok(found.map(|(id, state)| (id, state == WTSActive)).collect())
}

/// Whether there is a session of that number, whoever is logged on in it. That of the services always is.
pub(crate) fn is_there(session: u32) -> Result<bool> {
    let all = all_sessions()?;
    if all.is_empty() {
        let source = io::Error::other("no session was listed");
        return Err(Error::system("looking for a terminal session", "WTSEnumerateSessionsW", source));
    }
    Ok(all.iter().any(|(id, _)| *id == session))
}

fn all_sessions() -> Result<Vec<(u32, WTS_CONNECTSTATE_CLASS)>> {
    let mut list: *mut WTS_SESSION_INFOW = null_mut();
    let mut count = 0;
    // SAFETY: null is this machine; what is written is written only by the call.
    let done = unsafe { WTSEnumerateSessionsW(null_mut(), 0, 1, &raw mut list, &raw mut count) };
    if done == 0 || list.is_null() {
        return Err(Error::system(DOING, "WTSEnumerateSessionsW", io::Error::last_os_error()));
    }
    // SAFETY: the call succeeded: `list` leads to `count` structures, which nobody else has, until they are freed.
    let found = unsafe { std::slice::from_raw_parts(list, count as usize) };
    let found = found.iter().map(|one| (one.SessionId, one.State)).collect();
    // SAFETY: the list came from WTSEnumerateSessionsW, and is not used after this.
    unsafe { WTSFreeMemory(list.cast()) };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_is_not_there_has_no_token() {
        // Under Wine the call succeeds, without a token of that session.
        let refused = of_session(&TerminalSession::Id(0x7fff_fff0));
        assert!(refused.is_err(), "{refused:?}");
    }
}
