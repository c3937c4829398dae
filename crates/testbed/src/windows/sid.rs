//! A SID in memory of the system's.

use std::io;
use std::ptr;
use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::Win32::Security::Authorization::{ConvertSidToStringSidW, ConvertStringSidToSidW};
use windows_sys::Win32::Security::PSID;

/// Freed with `LocalFree`.
pub(super) struct Sid(PSID);

impl Sid {
    pub(super) fn parse(text: &str) -> io::Result<Self> {
        let text: Vec<u16> = text.encode_utf16().chain([0]).collect();
        let mut sid = ptr::null_mut();
        // SAFETY: the text ends with a zero, `sid` takes the pointer.
        if unsafe { ConvertStringSidToSidW(text.as_ptr(), &raw mut sid) } == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(sid))
    }

    pub(super) fn as_ptr(&self) -> PSID {
        self.0
    }
}

impl Drop for Sid {
    fn drop(&mut self) {
        // SAFETY: it came from ConvertStringSidToSidW, and is freed once.
        unsafe { LocalFree(self.0) };
    }
}

/// A SID's text.
///
/// # Safety
///
/// `sid` must point to a valid SID.
pub(super) unsafe fn text(sid: PSID) -> io::Result<String> {
    let mut text = ptr::null_mut();
    // SAFETY: the caller's SID is valid; `text` takes the pointer.
    if unsafe { ConvertSidToStringSidW(sid, &raw mut text) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system's text ends with a zero, and is freed once.
    unsafe {
        let string = super::report::text(text);
        LocalFree(text.cast());
        Ok(string)
    }
}
