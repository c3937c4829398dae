//! Tokens on threads, and what a token says of itself: the few calls that everything else here stands on.
//!
//! Reference: [OpenThreadToken](https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-openthreadtoken),
//! [GetTokenInformation](https://learn.microsoft.com/windows/win32/api/securitybaseapi/nf-securitybaseapi-gettokeninformation).

use std::ffi::OsString;
use std::io;
use std::os::windows::ffi::OsStringExt;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::path::PathBuf;
use std::ptr::null;

use windows_sys::Win32::Foundation::{ERROR_CANT_OPEN_ANONYMOUS, ERROR_INSUFFICIENT_BUFFER, ERROR_NO_TOKEN};
use windows_sys::Win32::Security::{
    DuplicateTokenEx, GetTokenInformation, SecurityAnonymous, SecurityDelegation, SecurityIdentification,
    SecurityImpersonation, TOKEN_ACCESS_MASK, TOKEN_DUPLICATE, TOKEN_IMPERSONATE, TOKEN_INFORMATION_CLASS,
    TOKEN_QUERY, TOKEN_STATISTICS, TOKEN_TYPE, TokenImpersonation, TokenStatistics, TokenUser,
};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetCurrentThread, OpenProcessToken, OpenThreadToken, SetThreadToken,
};
use windows_sys::Win32::UI::Shell::GetUserProfileDirectoryW;

use super::impersonate::thread::as_process;
use super::sid::Sid;
use crate::token::ImpersonationLevel;

/// What tells one token's identity from another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: Sid,
    /// The logon session's LUID.
    pub(crate) logon: u64,
    /// `None` for a primary token.
    pub(crate) level: Option<ImpersonationLevel>,
}

impl Identity {
    #[expect(non_upper_case_globals, reason = "Win32's own names")]
    pub(crate) fn of(token: BorrowedHandle<'_>) -> io::Result<Self> {
        let statistics = statistics(token)?;
        let level = (statistics.TokenType == TokenImpersonation)
            .then(|| match statistics.ImpersonationLevel {
                SecurityAnonymous => Ok(ImpersonationLevel::Anonymous),
                SecurityIdentification => Ok(ImpersonationLevel::Identification),
                SecurityImpersonation => Ok(ImpersonationLevel::Impersonation),
                SecurityDelegation => Ok(ImpersonationLevel::Delegation),
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a token of an unknown level")),
            })
            .transpose()?;
        let id = statistics.AuthenticationId;
        let logon = u64::from(id.HighPart.cast_unsigned()) << 32 | u64::from(id.LowPart);
        Ok(Self { user: user(token)?, logon, level })
    }
}

/// Fixed-size facts of a token.
pub(crate) fn statistics(token: BorrowedHandle<'_>) -> io::Result<TOKEN_STATISTICS> {
    let mut statistics = TOKEN_STATISTICS::default();
    let size = u32::try_from(size_of_val(&statistics)).unwrap_or(0);
    let mut needed = 0;
    // SAFETY: the buffer is a TOKEN_STATISTICS, writable and as long as is said; the handle is borrowed.
    let done = unsafe {
        GetTokenInformation(
            token.as_raw_handle(),
            TokenStatistics,
            (&raw mut statistics).cast(),
            size,
            &raw mut needed,
        )
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(statistics) }
}

/// The token's user.
pub(crate) fn user(token: BorrowedHandle<'_>) -> io::Result<Sid> {
    let answer = information(token, TokenUser)?;
    // TOKEN_USER is a SID_AND_ATTRIBUTES: a pointer into the same buffer first.
    sid_at(&answer, 0).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a token without a user"))
}

/// An answer of any length, in words so that it is aligned for what it holds.
pub(crate) fn information(
    token: BorrowedHandle<'_>,
    class: TOKEN_INFORMATION_CLASS,
) -> io::Result<Vec<usize>> {
    let mut words = vec![0_usize; 32];
    loop {
        let size = size_of_val(words.as_slice());
        let mut needed = 0;
        // SAFETY: `words` is writable for `size` bytes; the handle is borrowed and so open.
        let done = unsafe {
            GetTokenInformation(
                token.as_raw_handle(),
                class,
                words.as_mut_ptr().cast(),
                u32::try_from(size).unwrap_or(u32::MAX),
                &raw mut needed,
            )
        };
        if done != 0 {
            words.truncate((needed as usize).div_ceil(size_of::<usize>()).max(1));
            return Ok(words);
        }
        let error = io::Error::last_os_error();
        let grown = (needed as usize).div_ceil(size_of::<usize>());
        let short = error.raw_os_error() == Some(ERROR_INSUFFICIENT_BUFFER.cast_signed());
        if !short || grown <= words.len() {
            return Err(error);
        }
        words.resize(grown, 0);
    }
}

/// The SID that the pointer in `words[at]` leads to, when that is inside `words`.
pub(crate) fn sid_at(words: &[usize], at: usize) -> Option<Sid> {
    let start = words.as_ptr().addr();
    let offset = words.get(at)?.checked_sub(start)?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    Sid::from_bytes(bytes.get(offset..)?)
}

/// What is on the calling thread.
#[derive(Debug)]
pub(crate) enum OnThread {
    /// The process's own identity.
    Nothing,
    /// The anonymous identity, which cannot be opened.
    Anonymous,
    Token(OwnedHandle),
}

/// The calling thread's token, opened with the process's rights, not with those of the identity that is on it.
pub(crate) fn on_thread(access: TOKEN_ACCESS_MASK) -> io::Result<OnThread> {
    let mut raw = std::ptr::null_mut();
    // SAFETY: the pseudo-handle is the calling thread's; `raw` is written only by this call.
    let done = unsafe { OpenThreadToken(GetCurrentThread(), access, 1, &raw mut raw) };
    if done != 0 {
        // SAFETY: the call succeeded, so the handle is new and nobody else's.
        return Ok(OnThread::Token(unsafe { OwnedHandle::from_raw_handle(raw) }));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error().map(i32::cast_unsigned) {
        Some(ERROR_NO_TOKEN) => Ok(OnThread::Nothing),
        Some(ERROR_CANT_OPEN_ANONYMOUS) => Ok(OnThread::Anonymous),
        _ => Err(error),
    }
}

/// Puts an impersonation token on the calling thread, or takes away what is there.
pub(crate) fn put(token: Option<BorrowedHandle<'_>>) -> io::Result<()> {
    let raw = token.map_or(std::ptr::null_mut(), |token| token.as_raw_handle());
    // SAFETY: null means the calling thread, and no token; the handle is borrowed and so open.
    let done = unsafe { SetThreadToken(null(), raw) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The process's own token. On a thread that impersonates, OpenProcessToken would ask with the rights of the
/// identity that is on it.
pub(crate) fn process(access: TOKEN_ACCESS_MASK) -> io::Result<OwnedHandle> {
    let mut raw = std::ptr::null_mut();
    // SAFETY: the pseudo-handle is the calling process's; `raw` is written only by this call.
    let done = unsafe { OpenProcessToken(GetCurrentProcess(), access, &raw mut raw) };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the handle is new and nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
}

/// The user that the process runs as.
pub(crate) fn process_user() -> io::Result<Sid> {
    user(process(TOKEN_QUERY)?.as_handle())
}

/// What a token of ours is opened with: to be looked at, put on a thread, and duplicated.
pub(crate) const USUAL: TOKEN_ACCESS_MASK = TOKEN_QUERY | TOKEN_IMPERSONATE | TOKEN_DUPLICATE;

/// DuplicateTokenEx: a token of its own, which no other handle changes.
///
/// As the process, whoever is on the thread: a new token has the default access list of its maker, and one that a
/// client made could not be opened by the server, which reads back every impersonation
/// ([Security Descriptors for New Objects](https://learn.microsoft.com/windows/win32/secauthz/security-descriptors-for-new-objects)).
pub(crate) fn duplicate(
    token: BorrowedHandle<'_>,
    access: TOKEN_ACCESS_MASK,
    level: ImpersonationLevel,
    kind: TOKEN_TYPE,
) -> io::Result<OwnedHandle> {
    as_process(|| duplicate_now(token, access, level, kind))
        .map_err(|fault| io::Error::other(fault.to_string()))?
}

fn duplicate_now(
    token: BorrowedHandle<'_>,
    access: TOKEN_ACCESS_MASK,
    level: ImpersonationLevel,
    kind: TOKEN_TYPE,
) -> io::Result<OwnedHandle> {
    let level = match level {
        ImpersonationLevel::Anonymous => SecurityAnonymous,
        ImpersonationLevel::Identification => SecurityIdentification,
        ImpersonationLevel::Impersonation => SecurityImpersonation,
        ImpersonationLevel::Delegation => SecurityDelegation,
    };
    let mut raw = std::ptr::null_mut();
    // SAFETY: the handle is borrowed and so open; no attributes are given, so that the new handle is not
    // inheritable; `raw` is written only by this call.
    let done = unsafe { DuplicateTokenEx(token.as_raw_handle(), access, null(), level, kind, &raw mut raw) };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the handle is new and nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
}

/// The profile directory of a token's user, where there is one.
///
/// Reference: [GetUserProfileDirectoryW](https://learn.microsoft.com/windows/win32/api/userenv/nf-userenv-getuserprofiledirectoryw).
pub(crate) fn profile_directory(token: BorrowedHandle<'_>) -> Option<PathBuf> {
    let mut length = 260;
    for _ in 0..2 {
        let mut path = vec![0_u16; length as usize];
        // SAFETY: the buffer is writable for `length` characters; the handle is borrowed and so open.
        let done =
            unsafe { GetUserProfileDirectoryW(token.as_raw_handle(), path.as_mut_ptr(), &raw mut length) };
        if done != 0 {
            let end = path.iter().position(|unit| *unit == 0).unwrap_or(path.len());
            return Some(OsString::from_wide(&path[..end]).into());
        }
    }
    None
}
