//! The group database (NSS), asked for names that people read.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::ptr;

use super::token::Gid;

/// Where lookups begin; a group's members share the buffer with its name.
const FIRST_BUFFER: usize = 1024;
/// A group with more members than this goes without a name.
const LARGEST_BUFFER: usize = 1 << 20;

/// The name of a group; `None` where the group database has none.
pub(crate) fn group_name(gid: Gid) -> io::Result<Option<CString>> {
    let mut buffer: Vec<c_char> = Vec::new();
    let mut size = FIRST_BUFFER;
    loop {
        buffer.resize(size, 0);
        // SAFETY: a group is plain pointers and integers, for which zero is a value.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::group = ptr::null_mut();
        // SAFETY: the entry, the buffer of that length and the result are writable for the call.
        let error = unsafe {
            libc::getgrgid_r(gid.as_raw(), &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        };
        match error {
            // "Not found" is 0 with no result, or one of these, as getgrgid(3) says.
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM if found.is_null() => return Ok(None),
            0 if entry.gr_gid != gid.as_raw() || entry.gr_name.is_null() => return Ok(None),
            // SAFETY: a filled group points to a NUL-terminated name in the buffer, which is still held.
            0 => return Ok(Some(unsafe { CStr::from_ptr(entry.gr_name) }.to_owned())),
            libc::EINTR => {}
            libc::ERANGE if size < LARGEST_BUFFER => size *= 4,
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}
