//! The group database (NSS), asked for names that people read.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::ptr;

use super::token::{Gid, GroupSet};

/// Where lookups begin; a group's members share the buffer with its name.
const FIRST_BUFFER: usize = 1024;
/// A group with more members than this goes without a name.
const LARGEST_BUFFER: usize = 1 << 20;

/// More groups than the kernel lets a process have (NGROUPS_MAX).
const MOST_GROUPS: usize = 65_536;

/// The name of a group; `None` where the group database has none.
pub(crate) fn group_name(gid: Gid) -> io::Result<Option<CString>> {
    let found = look_up(&|entry, buffer, length, found| {
        // SAFETY: `look_up` gives pointers to a group, to `length` writable bytes and to a result, all valid for the call.
        unsafe { libc::getgrgid_r(gid.as_raw(), entry, buffer, length, found) }
    })?;
    Ok(found.filter(|(found, _)| *found == gid.as_raw()).map(|(_, name)| name))
}

/// The gid of the group whose name is `name`, byte for byte; -1 is no group.
pub(crate) fn group_by_name(name: &CStr) -> io::Result<Option<Gid>> {
    if name.is_empty() {
        return Ok(None);
    }
    let found = look_up(&|entry, buffer, length, found| {
        // SAFETY: as in `group_name`; `name` is NUL-terminated.
        unsafe { libc::getgrnam_r(name.as_ptr(), entry, buffer, length, found) }
    })?;
    Ok(found.filter(|(_, found)| found.as_c_str() == name).and_then(|(gid, _)| Gid::new(gid)))
}

/// All groups that the databases have a user in, with its primary one.
pub(crate) fn groups_of(name: &CStr, primary: Gid) -> io::Result<GroupSet> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = c_int::try_from(groups.len()).unwrap_or(c_int::MAX);
        // SAFETY: `name` is NUL-terminated, and there is room for `count` gids.
        let result = unsafe {
            libc::getgrouplist(name.as_ptr(), primary.as_raw(), groups.as_mut_ptr(), &raw mut count)
        };
        if result >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            // One that no process can have: without it the user would have one group fewer.
            let whole: Option<GroupSet> = groups.into_iter().map(Gid::new).collect();
            return whole.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL));
        }
        if groups.len() >= MOST_GROUPS {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        groups.resize(groups.len() * 4, 0);
    }
}

type Call<'a> = &'a dyn Fn(*mut libc::group, *mut c_char, usize, *mut *mut libc::group) -> c_int;

fn look_up(call: Call<'_>) -> io::Result<Option<(libc::gid_t, CString)>> {
    let mut buffer: Vec<c_char> = Vec::new();
    let mut size = FIRST_BUFFER;
    loop {
        buffer.resize(size, 0);
        // SAFETY: a group is plain pointers and integers, for which zero is a value.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::group = ptr::null_mut();
        match call(&raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) {
            // "Not found" is 0 with no result, or one of these, as getgrgid(3) says.
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM if found.is_null() => return Ok(None),
            0 if entry.gr_name.is_null() => return Ok(None),
            // SAFETY: a filled group points to a NUL-terminated name in the buffer, which is still held.
            0 => return Ok(Some((entry.gr_gid, unsafe { CStr::from_ptr(entry.gr_name) }.to_owned()))),
            libc::EINTR => {}
            libc::ERANGE if size < LARGEST_BUFFER => size *= 4,
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_exact_name_only() {
        assert_eq!(group_by_name(c"root").unwrap(), Some(Gid::ROOT));
        for name in [c"0", c"0x0", c"-1", c""] {
            assert_eq!(group_by_name(name).unwrap(), None, "{name:?}");
        }
    }

    #[test]
    fn a_users_groups_have_the_primary_one_among_them() {
        let odd = Gid::new(54_321).unwrap();
        assert!(groups_of(c"root", odd).unwrap().contains(odd));
    }
}
