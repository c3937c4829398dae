//! The token of a pipe's client, captured once.

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle};
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{
    ERROR_BAD_IMPERSONATION_LEVEL, ERROR_CANNOT_IMPERSONATE, ERROR_INVALID_FUNCTION, ERROR_INVALID_HANDLE,
    ERROR_INVALID_PARAMETER,
};
use windows_sys::Win32::Security::RevertToSelf;
use windows_sys::Win32::System::Pipes::{GetNamedPipeInfo, ImpersonateNamedPipeClient, PIPE_SERVER_END};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::impersonate::thread::{Fault, abort, as_process, found};
use crate::sys::sid::Sid;
use crate::sys::thread_token::{Identity, OnThread, USUAL, on_thread};
use crate::token::ImpersonationLevel;

const DOING: &str = "identifying a client";

/// The client of a pipe, as of one moment.
#[derive(Debug)]
pub struct Captured(pub(crate) Grant);

/// What a client granted when its token was captured.
#[derive(Debug)]
pub(crate) enum Grant {
    /// It stays anonymous.
    Anonymous,
    Token {
        token: OwnedHandle,
        identity: Identity,
        level: ImpersonationLevel,
    },
}

/// Captures the token of the client at the other end of `pipe`, the server's end of a named pipe.
///
/// It is that of the last message that was read from the pipe, so that it has to be captured once, and used
/// from then on: what the client sends later may be sent as somebody else.
///
/// Reference: [ImpersonateNamedPipeClient](https://learn.microsoft.com/windows/win32/api/namedpipeapi/nf-namedpipeapi-impersonatenamedpipeclient).
pub(crate) fn capture(pipe: BorrowedHandle<'_>) -> Result<Captured> {
    require_server_end(pipe)?;
    as_process(|| {
        // SAFETY: the handle is borrowed and so open.
        if unsafe { ImpersonateNamedPipeClient(pipe.as_raw_handle()) } == 0 {
            return Err(refused(io::Error::last_os_error()));
        }
        let reverting = Reverting;
        // As the process: with the client's own rights nothing could be opened below impersonation level.
        let token = on_thread(USUAL);
        drop(reverting);
        let token = match token {
            Ok(OnThread::Token(token)) => token,
            Ok(OnThread::Anonymous) => return Ok(Captured(Grant::Anonymous)),
            Ok(OnThread::Nothing) => {
                let what = "the call succeeded, and nothing is on the thread".into();
                return Err(Error::new(DOING, ErrorKind::NoIdentity { what }));
            }
            Err(source) => return Err(Error::system(DOING, "OpenThreadToken", source)),
        };
        let identity = Identity::of(token.as_handle())
            .map_err(|source| Error::system(DOING, "GetTokenInformation", source))?;
        let Some(level) = identity.level else {
            let what = "a primary token is on the thread".into();
            return Err(Error::new(DOING, ErrorKind::NoIdentity { what }));
        };
        if level == ImpersonationLevel::Anonymous {
            return Ok(Captured(Grant::Anonymous));
        }
        if identity.user == Sid::ANONYMOUS {
            let what = "the anonymous logon (S-1-5-7)".into();
            return Err(Error::new(DOING, ErrorKind::NoIdentity { what }));
        }
        Ok(Captured(Grant::Token { token, identity, level }))
    })
    .map_err(fault)?
}

/// Takes the client off the thread again; aborts the process where that fails.
struct Reverting;

impl Drop for Reverting {
    fn drop(&mut self) {
        // SAFETY: the call takes nothing and acts on the calling thread.
        let result = match unsafe { RevertToSelf() } {
            0 => Err(Fault::Call { call: "RevertToSelf", source: io::Error::last_os_error() }),
            _ => found(),
        };
        match result {
            Ok(None) => {}
            Ok(Some(_)) => abort("the server's own identity", &Fault::Differs("the thread's identity")),
            Err(fault) => abort("the server's own identity", &fault),
        }
    }
}

/// The server's end of a pipe, or an error that says what else it is.
pub(crate) fn require_server_end(pipe: BorrowedHandle<'_>) -> Result<()> {
    let mut flags = 0;
    // SAFETY: `flags` is written only by this call, nothing else is asked for; the handle is borrowed.
    let done =
        unsafe { GetNamedPipeInfo(pipe.as_raw_handle(), &raw mut flags, null_mut(), null_mut(), null_mut()) };
    let invalid = |what: &'static str| Error::new(DOING, ErrorKind::InvalidInput { what: what.into() });
    if done == 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error().map(i32::cast_unsigned) {
            Some(ERROR_INVALID_FUNCTION | ERROR_INVALID_PARAMETER | ERROR_INVALID_HANDLE) => {
                invalid("the handle is no named pipe's").with_source(error)
            }
            _ => Error::system(DOING, "GetNamedPipeInfo", error),
        });
    }
    if flags & PIPE_SERVER_END == 0 {
        // There "the client" would be the server itself, or nobody.
        return Err(invalid("the handle is the connecting end of its pipe, not the server's"));
    }
    Ok(())
}

fn refused(source: io::Error) -> Error {
    let kind = match source.raw_os_error().map(i32::cast_unsigned) {
        // A client that is tracked dynamically is known when it has sent something that was read.
        Some(ERROR_CANNOT_IMPERSONATE) => {
            ErrorKind::NoIdentity { what: "nothing was read from the client yet: read first".into() }
        }
        Some(ERROR_BAD_IMPERSONATION_LEVEL) => ErrorKind::LevelTooLow {
            granted: ImpersonationLevel::Anonymous,
            needed: ImpersonationLevel::Identification,
        },
        _ => ErrorKind::System { call: "ImpersonateNamedPipeClient" },
    };
    Error::new(DOING, kind).with_source(source)
}

fn fault(fault: Fault) -> Error {
    match fault {
        Fault::Call { call, source } => Error::system(DOING, call, source),
        other => Error::new(DOING, ErrorKind::ImpersonationChanged { what: other.to_string().into() }),
    }
}
