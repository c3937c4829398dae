//! The account database (NSS), asked by name or by uid.
//!
//! `getpwnam_r(3)` accepts more than names: some NSS modules fold case or cut domains off, and a
//! numeric name is one keystroke from a uid (CVE-2017-1000082). The entry that comes back therefore
//! counts only if it is the one that was asked for.

use std::ffi::OsStr;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use super::token::{Gid, SecurityContext, Uid};
use crate::error::{Error, Result};

/// One entry of the account database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountEntry {
    pub(crate) name: CString,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) home: CString,
    pub(crate) shell: CString,
}

/// What an entry's strings take at first; grown while the answer is ERANGE.
const FIRST_BUFFER: usize = 1024;
/// No honest entry is larger; NSS modules that always answer ERANGE exist.
const LARGEST_BUFFER: usize = 1 << 20;

/// Errors by which systems say that there is no such account (getpwnam(3)), and this one that it cannot tell.
const LIKE_NOT_FOUND: [c_int; 4] = [libc::ENOENT, libc::ESRCH, libc::EBADF, libc::EPERM];

impl AccountEntry {
    /// The entry of a token's user. Many have none, as in a container, and it says nothing of what they may do: so a
    /// database that [cannot answer](LIKE_NOT_FOUND) for one knows none.
    pub(crate) fn of_context(context: &SecurityContext) -> Result<Option<Self>> {
        match Self::by_uid(context.uid) {
            Err(error) if error.raw_os_error().is_some_and(|errno| LIKE_NOT_FOUND.contains(&errno)) => {
                Ok(None)
            }
            found => {
                found.map_err(|source| Error::system("looking up the token's account", "getpwuid_r", source))
            }
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.name.as_bytes())
    }

    /// The entry whose name is `name`, byte for byte.
    pub(crate) fn by_name(name: &CStr) -> io::Result<Option<Self>> {
        Ok(Self::by_any_name(name)?.filter(|entry| entry.name.as_c_str() == name))
    }

    /// The entry that the database has for `name`, under whatever spelling: for names with a domain,
    /// which sssd and winbind know in several.
    pub(crate) fn by_any_name(name: &CStr) -> io::Result<Option<Self>> {
        if name.is_empty() {
            return Ok(None);
        }
        look_up(|entry, buffer, length, found| {
            // SAFETY: `name` is NUL-terminated, and `look_up` gives pointers to a passwd, to `length`
            // writable bytes and to a result, all valid for the call.
            unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer, length, found) }
        })
    }

    /// The entry whose uid is `uid`.
    pub(crate) fn by_uid(uid: Uid) -> io::Result<Option<Self>> {
        let entry = look_up(|entry, buffer, length, found| {
            // SAFETY: as in `by_any_name`.
            unsafe { libc::getpwuid_r(uid.as_raw(), entry, buffer, length, found) }
        })?;
        Ok(entry.filter(|entry| entry.uid == uid))
    }
}

type Call<'a> = &'a dyn Fn(*mut libc::passwd, *mut c_char, usize, *mut *mut libc::passwd) -> c_int;

fn look_up(
    call: impl Fn(*mut libc::passwd, *mut c_char, usize, *mut *mut libc::passwd) -> c_int,
) -> io::Result<Option<AccountEntry>> {
    look_up_dyn(&call)
}

fn look_up_dyn(call: Call<'_>) -> io::Result<Option<AccountEntry>> {
    let mut buffer: Vec<c_char> = Vec::new();
    let mut size = FIRST_BUFFER;
    loop {
        buffer.resize(size, 0);
        // SAFETY: a passwd is plain pointers and integers, for which zero is a value.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::passwd = ptr::null_mut();
        match call(&raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) {
            // What getpwnam(3) has besides is of other systems. The GNU library says 0 where the last source that it asked
            // knows no such account, and an error only where that one cannot tell (nss/getXXbyYY_r.c): sssd that does not
            // run is ENOENT.
            0 if found.is_null() => return Ok(None),
            0 => return copy(&entry),
            libc::EINTR => {}
            libc::ERANGE if size < LARGEST_BUFFER => size *= 4,
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Whether any group has this gid.
pub(crate) fn group_exists(gid: u32) -> io::Result<bool> {
    let mut buffer: Vec<c_char> = vec![0; FIRST_BUFFER];
    loop {
        // SAFETY: a group is plain pointers and an integer, for which zero is a value.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::group = ptr::null_mut();
        // SAFETY: entry, buffer and result are valid for the call.
        let result = unsafe {
            libc::getgrgid_r(gid, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        };
        match result {
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(!found.is_null()),
            libc::EINTR => {}
            // A group's members stand in the buffer too: large, but there.
            libc::ERANGE if buffer.len() < LARGEST_BUFFER => buffer.resize(buffer.len() * 4, 0),
            libc::ERANGE => return Ok(true),
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// The entry with its strings owned; none when an id is -1, which is no identity.
fn copy(entry: &libc::passwd) -> io::Result<Option<AccountEntry>> {
    let (Some(uid), Some(gid)) = (Uid::new(entry.pw_uid), Gid::new(entry.pw_gid)) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the account's uid or gid is -1"));
    };
    let string = |pointer: *const c_char| {
        if pointer.is_null() {
            CString::default()
        } else {
            // SAFETY: a filled passwd points to NUL-terminated strings in the buffer that is still held.
            unsafe { CStr::from_ptr(pointer) }.to_owned()
        }
    };
    Ok(Some(AccountEntry {
        name: string(entry.pw_name),
        uid,
        gid,
        home: string(entry.pw_dir),
        shell: string(entry.pw_shell),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_by_uid() {
        let by_name = AccountEntry::by_name(c"root").unwrap().unwrap();
        assert_eq!(by_name.uid, Uid::ROOT);
        assert_eq!(AccountEntry::by_uid(Uid::ROOT).unwrap().unwrap(), by_name);
    }

    #[test]
    fn a_database_that_cannot_answer_does_not_say_that_there_is_nobody() {
        let answers = |errno: c_int| {
            look_up(|_, _, _, found| {
                // SAFETY: `look_up` gives a pointer to a result that is valid for the call.
                unsafe { *found = ptr::null_mut() };
                errno
            })
        };
        assert_eq!(answers(0).unwrap(), None);
        for errno in LIKE_NOT_FOUND {
            assert_eq!(answers(errno).unwrap_err().raw_os_error(), Some(errno));
        }
    }

    #[test]
    fn a_name_is_never_parsed_as_a_number() {
        for name in [c"0", c"0x0", c"00", c"4294967295", c"-1", c""] {
            assert_eq!(AccountEntry::by_name(name).unwrap(), None, "{name:?}");
        }
    }
}
