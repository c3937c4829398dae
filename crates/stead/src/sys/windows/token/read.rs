//! Reading a token: every answer is taken apart by its documented layout, and no pointer in it is followed out of it.
//!
//! Reference: [GetTokenInformation](https://learn.microsoft.com/windows/win32/api/securitybaseapi/nf-securitybaseapi-gettokeninformation).

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr::null;
use std::sync::Arc;

use windows_sys::Win32::Foundation::LUID;
use windows_sys::Win32::Security::{
    IsTokenRestricted, LookupPrivilegeNameW, TOKEN_INFORMATION_CLASS, TokenAppContainerSid,
    TokenElevationType, TokenGroups, TokenIntegrityLevel, TokenIsAppContainer, TokenLinkedToken,
    TokenPrivileges, TokenRestrictedSids, TokenSessionId,
};

use super::super::sid::Sid;
use super::super::thread_token::{information, sid_at, statistics, user};
use super::super::wide::narrow;
use super::{Elevation, Group, SecurityContext, TokenPrivilege};

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// An answer of one 32-bit number.
fn number(token: BorrowedHandle<'_>, class: TOKEN_INFORMATION_CLASS) -> io::Result<u32> {
    let answer = information(token, class)?;
    let word = answer.first().ok_or_else(|| malformed("an empty answer"))?;
    let (low, _) =
        word.to_ne_bytes().split_first_chunk().map(|(low, rest)| (*low, rest.len())).unwrap_or_default();
    Ok(u32::from_ne_bytes(low))
}

impl SecurityContext {
    /// Takes the handle over, and reads what the token says.
    pub(crate) fn read(handle: OwnedHandle) -> io::Result<Self> {
        let token = handle.as_handle();
        let luid = statistics(token)?.AuthenticationId;
        // SAFETY: the handle is open, and the call only reads the token.
        let restricted = unsafe { IsTokenRestricted(token.as_raw_handle()) } != 0;
        Ok(Self {
            user: user(token)?,
            groups: groups(token, TokenGroups)?,
            privileges: privileges(token)?,
            integrity: integrity(token)?,
            session_id: number(token, TokenSessionId)?,
            logon_id: u64::from(luid.HighPart.cast_unsigned()) << 32 | u64::from(luid.LowPart),
            restricted,
            elevation: match number(token, TokenElevationType)? {
                2 => Elevation::Full,
                3 => Elevation::Limited,
                _ => Elevation::Default,
            },
            handle: Arc::new(handle),
        })
    }

    /// The restricting SIDs.
    pub(crate) fn restricting(&self) -> io::Result<Vec<Sid>> {
        Ok(groups(self.handle(), TokenRestrictedSids)?.into_iter().map(|group| group.sid).collect())
    }

    /// The AppContainer that its processes are in; `None` outside of all.
    pub(crate) fn container(&self) -> io::Result<Option<Sid>> {
        if number(self.handle(), TokenIsAppContainer)? == 0 {
            return Ok(None);
        }
        let answer = information(self.handle(), TokenAppContainerSid)?;
        sid_at(&answer, 0).map(Some).ok_or_else(|| malformed("an AppContainer without a SID"))
    }

    /// The other half of a split administrator, as the caller may have it; `None` without one.
    ///
    /// Without SeTcbPrivilege it is for identification only.
    pub(crate) fn linked(&self) -> io::Result<Option<OwnedHandle>> {
        if self.elevation == Elevation::Default {
            return Ok(None);
        }
        let answer = information(self.handle(), TokenLinkedToken)?;
        let raw = answer.first().copied().filter(|raw| *raw != 0);
        // SAFETY: TOKEN_LINKED_TOKEN is one handle, which the caller of GetTokenInformation has to close.
        Ok(raw.map(|raw| unsafe { OwnedHandle::from_raw_handle(std::ptr::with_exposed_provenance_mut(raw)) }))
    }
}

/// TOKEN_GROUPS: a number, then that many SID_AND_ATTRIBUTES, in words of the machine.
fn groups(token: BorrowedHandle<'_>, class: TOKEN_INFORMATION_CLASS) -> io::Result<Vec<Group>> {
    let answer = information(token, class)?;
    let first = |word: usize| answer.get(word).map(|word| *word & 0xffff_ffff);
    let count = first(0).ok_or_else(|| malformed("no groups"))?;
    (0..count)
        .map(|index| {
            let sid = sid_at(&answer, 1 + 2 * index).ok_or_else(|| malformed("a group without a SID"))?;
            let attributes = first(2 + 2 * index).and_then(|word| u32::try_from(word).ok());
            Ok(Group { sid, attributes: attributes.ok_or_else(|| malformed("a group cut off"))? })
        })
        .collect()
}

/// TOKEN_PRIVILEGES: a number, then that many LUID_AND_ATTRIBUTES of twelve bytes.
fn privileges(token: BorrowedHandle<'_>) -> io::Result<Vec<TokenPrivilege>> {
    let answer = information(token, TokenPrivileges)?;
    let bytes: Vec<u8> = answer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let numbers: Vec<u32> = bytes.as_chunks().0.iter().map(|four| u32::from_ne_bytes(*four)).collect();
    let (count, rest) = numbers.split_first().ok_or_else(|| malformed("no privileges"))?;
    let entries = rest.as_chunks::<3>().0;
    let entries = entries.get(..*count as usize).ok_or_else(|| malformed("privileges cut off"))?;
    Ok(entries
        .iter()
        .map(|&[low, high, attributes]| {
            let luid = u64::from(high) << 32 | u64::from(low);
            TokenPrivilege { name: privilege_name(low, high), luid, attributes }
        })
        .collect())
}

/// The name of a privilege; its number where it has none.
fn privilege_name(low: u32, high: u32) -> String {
    let luid = LUID { LowPart: low, HighPart: high.cast_signed() };
    // Documented names have some 40 characters at most.
    let mut name = [0; 128];
    let mut length = 128;
    // SAFETY: the buffer is writable for as many characters as is said.
    let done = unsafe { LookupPrivilegeNameW(null(), &raw const luid, name.as_mut_ptr(), &raw mut length) };
    if done == 0 {
        return format!("{:#x}", u64::from(high) << 32 | u64::from(low));
    }
    narrow(&name).to_string_lossy().into_owned()
}

/// TOKEN_MANDATORY_LABEL: one SID, whose last part is the level.
fn integrity(token: BorrowedHandle<'_>) -> io::Result<Option<u32>> {
    let answer = information(token, TokenIntegrityLevel)?;
    Ok(sid_at(&answer, 0).and_then(|sid| {
        let last = sid.as_bytes().last_chunk()?;
        Some(u32::from_le_bytes(*last))
    }))
}
