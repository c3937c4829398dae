//! Strings as Win32 takes and gives them: UTF-16, ended by NUL.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::windows::ffi::{OsStrExt, OsStringExt};

/// With a NUL at its end; `None` when it holds one already, at which Win32 would cut it.
pub(crate) fn wide(text: impl AsRef<OsStr>) -> Option<Vec<u16>> {
    let mut units: Vec<u16> = text.as_ref().encode_wide().collect();
    if units.contains(&0) {
        return None;
    }
    units.push(0);
    Some(units)
}

/// Up to the first NUL.
pub(crate) fn narrow(units: &[u16]) -> OsString {
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    OsString::from_wide(&units[..end])
}
