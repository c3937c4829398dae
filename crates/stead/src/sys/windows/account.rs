//! Accounts: names and the SIDs that they stand for.

use std::ffi::{OsStr, OsString};
use std::io;
use std::ptr::null;

use windows_sys::Win32::Foundation::{ERROR_INSUFFICIENT_BUFFER, ERROR_NONE_MAPPED};
use windows_sys::Win32::Security::{LookupAccountNameW, LookupAccountSidW, SidTypeUser};

use super::sid::Sid;
use super::token::SecurityContext;
use super::wide::{narrow, wide};
use crate::error::{Error, Result};

/// One account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountEntry {
    pub(crate) name: OsString,
    pub(crate) domain: OsString,
    pub(crate) sid: Sid,
    /// Whether it is a user, not a group, an alias or a computer.
    pub(crate) is_user: bool,
}

/// Names are at most 256 characters (`UNLEN`, lmcons.h), domains at most 255; what is longer is asked again.
const NAME: u32 = 257;
/// A SID is at most 68 bytes.
const SID: u32 = 68;

impl AccountEntry {
    /// The entry of a token's user.
    pub(crate) fn of_context(context: &SecurityContext) -> Result<Option<Self>> {
        Self::by_sid(&context.user)
            .map_err(|source| Error::system("looking up the token's account", "LookupAccountSidW", source))
    }

    /// Whether it is a user of this machine, of a domain or of Entra ID, whose logon a password decides. The
    /// system's own (SYSTEM, LOCAL SERVICE, NETWORK SERVICE, those of services, pools and virtual machines) log on by
    /// any ([LogonUserW](https://learn.microsoft.com/windows/win32/api/winbase/nf-winbase-logonuserw), dwLogonType).
    pub(crate) fn has_a_secret(&self) -> bool {
        let sid = self.sid.to_string();
        self.is_user && ["S-1-5-21-", "S-1-12-1-"].iter().any(|authority| sid.starts_with(authority))
    }

    /// Its name, without the domain.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// The account with this SID; `None` where nobody knows a name for it.
    ///
    /// Reference: [LookupAccountSidW](https://learn.microsoft.com/windows/win32/api/winbase/nf-winbase-lookupaccountsidw).
    pub(crate) fn by_sid(sid: &Sid) -> io::Result<Option<Self>> {
        let (mut name_length, mut domain_length) = (NAME, NAME);
        loop {
            let mut name = vec![0; name_length as usize];
            let mut domain = vec![0; domain_length as usize];
            let mut kind = 0;
            // SAFETY: the SID is valid and outlives the call, which does not write to it; both buffers are
            // writable for as many characters as is said.
            let done = unsafe {
                LookupAccountSidW(
                    null(),
                    sid.as_bytes().as_ptr().cast_mut().cast(),
                    name.as_mut_ptr(),
                    &raw mut name_length,
                    domain.as_mut_ptr(),
                    &raw mut domain_length,
                    &raw mut kind,
                )
            };
            if done != 0 {
                let is_user = kind == SidTypeUser;
                return Ok(Some(Self { name: narrow(&name), domain: narrow(&domain), sid: *sid, is_user }));
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error().map(i32::cast_unsigned) {
                Some(ERROR_NONE_MAPPED) => return Ok(None),
                Some(ERROR_INSUFFICIENT_BUFFER)
                    if name_length as usize > name.len() || domain_length as usize > domain.len() => {}
                _ => return Err(error),
            }
        }
    }

    /// The account with this name (`name`, `DOMAIN\name`, `name@domain`); `None` where there is none.
    ///
    /// Reference: [LookupAccountNameW](https://learn.microsoft.com/windows/win32/api/winbase/nf-winbase-lookupaccountnamew).
    pub(crate) fn by_name(name: &OsStr) -> io::Result<Option<Self>> {
        let Some(asked) = wide(name).filter(|name| name.len() > 1) else { return Ok(None) };
        let mut sid = [0_u8; SID as usize];
        let mut sid_length = SID;
        let mut domain_length = NAME;
        loop {
            let mut domain = vec![0; domain_length as usize];
            let mut kind = 0;
            // SAFETY: the name ends with NUL; both buffers are writable for as long as is said.
            let done = unsafe {
                LookupAccountNameW(
                    null(),
                    asked.as_ptr(),
                    sid.as_mut_ptr().cast(),
                    &raw mut sid_length,
                    domain.as_mut_ptr(),
                    &raw mut domain_length,
                    &raw mut kind,
                )
            };
            if done != 0 {
                let broken = || io::Error::new(io::ErrorKind::InvalidData, "an account without a valid SID");
                let sid = Sid::from_bytes(&sid).ok_or_else(broken)?;
                // The name as the account database writes it, not as it was asked.
                if let Some(known) = Self::by_sid(&sid)? {
                    return Ok(Some(known));
                }
                let (name, domain) = (name.to_owned(), narrow(&domain));
                return Ok(Some(Self { name, domain, sid, is_user: kind == SidTypeUser }));
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error().map(i32::cast_unsigned) {
                Some(ERROR_NONE_MAPPED) => return Ok(None),
                Some(ERROR_INSUFFICIENT_BUFFER) if domain_length as usize > domain.len() => sid_length = SID,
                _ => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_account_is_found_by_sid_and_by_name() {
        let own = super::super::token::own_context().unwrap();
        let account = AccountEntry::of_context(&own).unwrap().unwrap();
        assert_eq!(account.has_a_secret(), own.user.to_string().starts_with("S-1-5-21-"), "{account:?}");
        assert_eq!(AccountEntry::by_name(&account.name).unwrap().unwrap().sid, own.user);
    }

    #[test]
    fn no_account_of_the_systems_own_has_a_secret() {
        for sid in [
            Sid::LOCAL_SYSTEM,
            Sid::LOCAL_SERVICE,
            Sid::NETWORK_SERVICE,
            Sid::ADMINISTRATORS,
            Sid::USERS,
            Sid::EVERYONE,
        ] {
            if let Some(account) = AccountEntry::by_sid(&sid).unwrap() {
                assert!(!account.has_a_secret(), "{account:?}");
            }
        }
        for (sid, is_user, expected) in [
            ("S-1-5-21-1-2-3-1001", true, true),
            ("S-1-12-1-1-2-3-4", true, true),
            ("S-1-5-21-1-2-3-513", false, false),
            // As the system's own would be if it called them users: a service's, a pool's, a virtual machine's.
            ("S-1-5-19", true, false),
            ("S-1-5-80-1-2-3-4-5", true, false),
            ("S-1-5-82-1-2-3-4-5", true, false),
            ("S-1-5-83-1-2-3-4", true, false),
        ] {
            let sid = sid.parse().unwrap();
            let account = AccountEntry { name: "x".into(), domain: "y".into(), sid, is_user };
            assert_eq!(account.has_a_secret(), expected, "{account:?}");
        }
    }

    #[test]
    fn a_name_that_is_nobodys_is_none() {
        for name in ["", "no-such-account-anywhere", "a\0b"] {
            assert_eq!(AccountEntry::by_name(OsStr::new(name)).unwrap(), None, "{name:?}");
        }
        let nobody = "S-1-5-21-1-2-3-4".parse().unwrap();
        assert_eq!(AccountEntry::by_sid(&nobody).unwrap(), None);
    }
}
