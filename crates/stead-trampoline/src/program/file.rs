//! Small files of /proc.

use core::ffi::CStr;

use crate::syscall::{Result, errno};

/// `O_WRONLY | O_CLOEXEC`.
pub const WRITE: usize = 0o2_000_001;
/// `O_RDONLY | O_CLOEXEC | O_NONBLOCK`: nothing that is opened to be looked at may block.
pub const LOOK: usize = 0o2_004_000;
/// `O_RDWR | O_CLOEXEC`.
pub const BOTH: usize = 0o2_000_002;
/// Relative to the current directory.
pub const AT_FDCWD: usize = -100_isize as usize;

/// Opens a file.
pub fn open(path: &CStr, flags: usize) -> Result<u32> {
    // SAFETY: NUL-terminated.
    unsafe { system_call!(OPENAT, AT_FDCWD, path.as_ptr(), flags, 0) }.map(|descriptor| descriptor as u32)
}

/// Closes a descriptor of our own.
pub fn close(descriptor: u32) {
    // SAFETY: the caller has no more use of it; the kernel frees the number whatever it returns.
    let _ = unsafe { system_call!(CLOSE, descriptor) };
}

/// Makes a file of /proc say this number, if it does not already.
pub fn set_number(path: &CStr, value: i64) -> Result<()> {
    let mut room = [0u8; 24];
    set(path, |text| parse(text) == Some(value), decimal(value, &mut room))
}

/// Makes a file of /proc hold this text, if what it holds is not right already.
pub fn set(path: &CStr, is_right: impl FnOnce(&[u8]) -> bool, text: &[u8]) -> Result<()> {
    let descriptor = open(path, BOTH)?;
    let outcome = set_open(descriptor, is_right, text);
    close(descriptor);
    outcome
}

fn set_open(descriptor: u32, is_right: impl FnOnce(&[u8]) -> bool, text: &[u8]) -> Result<()> {
    let mut found = [0u8; 24];
    // SAFETY: room for the bytes asked for.
    let length = unsafe { system_call!(READ, descriptor, found.as_mut_ptr(), found.len()) }?;
    if is_right(found.get(..length).unwrap_or_default()) {
        return Ok(());
    }
    write(descriptor, text)
}

/// Writes a number to a file of /proc that is open.
pub fn write_number(descriptor: u32, value: i64) -> Result<()> {
    let mut room = [0u8; 24];
    write(descriptor, decimal(value, &mut room))
}

fn write(descriptor: u32, text: &[u8]) -> Result<()> {
    // At offset 0: the login uid is taken only there.
    // SAFETY: readable for its length.
    let written = unsafe { system_call!(PWRITE64, descriptor, text.as_ptr(), text.len(), 0) }?;
    if written == text.len() { Ok(()) } else { Err(errno::EINVAL) }
}

/// A decimal number, with a sign or not, up to the end of the line.
fn parse(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut value: i64 = 0;
    let mut any = false;
    for byte in digits {
        match byte {
            b'0'..=b'9' => value = value.checked_mul(10)?.checked_add(i64::from(byte - b'0'))?,
            b'\n' => break,
            _ => return None,
        }
        any = true;
    }
    any.then_some(if negative { -value } else { value })
}

/// A number in decimal.
pub fn decimal(value: i64, room: &mut [u8; 24]) -> &[u8] {
    let mut rest = value.unsigned_abs();
    let mut start = room.len();
    let mut put = |byte: u8| {
        start -= 1;
        if let Some(place) = room.get_mut(start) {
            *place = byte;
        }
    };
    loop {
        put(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        put(b'-');
    }
    room.get(start..).unwrap_or_default()
}
