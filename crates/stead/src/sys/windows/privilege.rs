//! Privileges of the token that counts for the calling thread.
//!
//! Nothing here changes the process's token: its privileges are those of all threads, and two that each enable and
//! disable one around their own calls take it from each other.

use std::borrow::Cow;
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle};
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{ERROR_NOT_ALL_ASSIGNED, ERROR_SUCCESS, GetLastError, LUID};
use windows_sys::Win32::Security::{
    AdjustTokenPrivileges, LUID_AND_ATTRIBUTES, LookupPrivilegeValueW, SE_PRIVILEGE_ENABLED,
    TOKEN_ADJUST_PRIVILEGES, TOKEN_DUPLICATE, TOKEN_PRIVILEGES, TOKEN_QUERY, TokenImpersonation,
    TokenPrivileges,
};

use super::impersonate::thread::{PutBack, outer, take_on};
use super::thread_token::{Identity, OnThread, USUAL, duplicate, information, on_thread, process};
use crate::error::{Error, ErrorKind, Result};
use crate::privilege::{Privilege, PrivilegeStatus};
use crate::token::ImpersonationLevel;

const DOING: &str = "reading and enabling privileges";

/// What a privilege is called on Windows; `None` where none is needed: a client's token tells how it is confined.
fn name(privilege: Privilege) -> Option<&'static str> {
    match privilege {
        Privilege::AssignPrimaryToken => Some("SeAssignPrimaryTokenPrivilege"),
        Privilege::IncreaseQuota => Some("SeIncreaseQuotaPrivilege"),
        Privilege::Impersonate => Some("SeImpersonatePrivilege"),
        Privilege::InspectClient => None,
        // Only a logon without a password needs it.
        Privilege::Logon => Some("SeTcbPrivilege"),
    }
}

fn system(call: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::system(DOING, call, source)
}

/// What the calling thread has of a privilege: by the token that is on it, or else by the process's.
pub(crate) fn status(privilege: Privilege) -> Result<PrivilegeStatus> {
    let Some(name) = name(privilege) else {
        return Ok(PrivilegeStatus { privilege, held: true, enabled: true, missing: Vec::new() });
    };
    let attributes = match on_thread(TOKEN_QUERY).map_err(system("OpenThreadToken"))? {
        OnThread::Token(token) => attributes(token.as_handle(), name)?,
        OnThread::Anonymous => None,
        OnThread::Nothing => {
            attributes(process(TOKEN_QUERY).map_err(system("OpenProcessToken"))?.as_handle(), name)?
        }
    };
    let enabled = attributes.is_some_and(|attributes| attributes & SE_PRIVILEGE_ENABLED != 0);
    let missing = if enabled { Vec::new() } else { vec![Cow::Borrowed(name)] };
    Ok(PrivilegeStatus { privilege, held: attributes.is_some(), enabled, missing })
}

/// The privilege's attributes in a token; `None` where it is not held.
fn attributes(token: BorrowedHandle<'_>, name: &str) -> Result<Option<u32>> {
    let wanted = luid(name)?;
    let answer = information(token, TokenPrivileges).map_err(system("GetTokenInformation"))?;
    // TOKEN_PRIVILEGES: a number, then that many LUID_AND_ATTRIBUTES of twelve bytes.
    let bytes: Vec<u8> = answer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let numbers: Vec<u32> = bytes.as_chunks().0.iter().map(|four| u32::from_ne_bytes(*four)).collect();
    let Some((count, rest)) = numbers.split_first() else { return Ok(None) };
    let entries = rest.as_chunks::<3>().0.iter().take(*count as usize);
    let same = |entry: &&[u32; 3]| entry[0] == wanted.LowPart && entry[1].cast_signed() == wanted.HighPart;
    Ok(entries.clone().find(same).map(|entry| entry[2]))
}

fn luid(name: &str) -> Result<LUID> {
    let wide: Vec<u16> = name.encode_utf16().chain([0]).collect();
    let mut luid = LUID::default();
    // SAFETY: the name ends with NUL and is only read; `luid` is written only by this call.
    let done = unsafe { LookupPrivilegeValueW(null(), wide.as_ptr(), &raw mut luid) };
    if done == 0 { Err(system("LookupPrivilegeValueW")(io::Error::last_os_error())) } else { Ok(luid) }
}

/// Enables the privilege for the calling thread alone, until the guard is dropped: in a copy of the process's
/// token, which is put on the thread.
///
/// The caller has seen that it is held, and that the thread does not impersonate.
pub(crate) fn enable(privilege: Privilege) -> Result<Enabled> {
    let Some(name) = name(privilege) else { return Ok(Enabled { _back: None }) };
    if status(privilege)?.enabled {
        return Ok(Enabled { _back: None });
    }
    let own = process(TOKEN_QUERY | TOKEN_DUPLICATE).map_err(system("OpenProcessToken"))?;
    let level = ImpersonationLevel::Impersonation;
    let copy = duplicate(own.as_handle(), USUAL | TOKEN_ADJUST_PRIVILEGES, level, TokenImpersonation)
        .map_err(system("DuplicateTokenEx"))?;
    adjust(copy.as_handle(), name).map_err(system("AdjustTokenPrivileges"))?;
    let identity = Identity::of(copy.as_handle()).map_err(system("GetTokenInformation"))?;
    let changed = |fault: super::impersonate::thread::Fault| {
        Error::new(DOING, ErrorKind::ImpersonationChanged { what: fault.to_string().into() })
    };
    let back = PutBack(outer().map_err(changed)?);
    take_on(copy.as_handle(), &identity).map_err(changed)?;
    Ok(Enabled { _back: Some(back) })
}

fn adjust(token: BorrowedHandle<'_>, name: &str) -> io::Result<()> {
    let luid = luid(name).map_err(|error| io::Error::other(error.to_string()))?;
    let wanted = TOKEN_PRIVILEGES {
        PrivilegeCount: 1,
        Privileges: [LUID_AND_ATTRIBUTES { Luid: luid, Attributes: SE_PRIVILEGE_ENABLED }],
    };
    // SAFETY: one privilege is given, and no former state is asked for; the handle is borrowed and so open.
    let (done, error) = unsafe {
        let done =
            AdjustTokenPrivileges(token.as_raw_handle(), 0, &raw const wanted, 0, null_mut(), null_mut());
        (done, GetLastError())
    };
    // It succeeds where it has enabled nothing, and says so by the last error alone.
    if done != 0 && error == ERROR_SUCCESS {
        return Ok(());
    }
    debug_assert!(done == 0 || error == ERROR_NOT_ALL_ASSIGNED);
    Err(io::Error::from_raw_os_error(error.cast_signed()))
}

/// What was enabled for one closure.
pub(crate) struct Enabled {
    /// Held for its drop.
    _back: Option<PutBack>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privilege_is_held_and_enabled_on_this_thread_alone() {
        let held = Privilege::ALL.iter().find(|privilege| {
            let status = status(**privilege).unwrap();
            status.held && !status.enabled
        });
        let Some(privilege) = held.copied() else {
            println!("skipped: this token holds no privilege that is not enabled");
            return;
        };
        let enabled = enable(privilege).unwrap();
        assert!(status(privilege).unwrap().enabled);
        assert!(!std::thread::spawn(move || status(privilege).unwrap().enabled).join().unwrap());
        drop(enabled);
        assert!(!status(privilege).unwrap().enabled);
    }

    #[test]
    fn what_is_missing_has_its_name() {
        for privilege in Privilege::ALL {
            let status = status(*privilege).unwrap();
            assert_eq!(status.enabled, status.missing.is_empty(), "{status:?}");
            assert!(status.held || !status.enabled, "{status:?}");
        }
    }

    #[test]
    fn a_privilege_that_is_not_in_a_token_is_not_enabled_in_it() {
        let own = process(TOKEN_QUERY | TOKEN_DUPLICATE | TOKEN_ADJUST_PRIVILEGES).unwrap();
        let name = "SeCreateTokenPrivilege";
        if attributes(own.as_handle(), name).unwrap().is_none() {
            let error = adjust(own.as_handle(), name).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(ERROR_NOT_ALL_ASSIGNED.cast_signed()));
        }
    }
}
