//! What the program's runtime gives its steps, here: the end of the process ends the run.

use super::Run;

/// Ends the process.
pub fn exit() -> ! {
    std::panic::resume_unwind(Box::new(Run::Ended))
}

/// Bytes before the final NUL.
///
/// # Safety
///
/// `string` is NUL-terminated.
pub unsafe fn strlen(string: *const u8) -> usize {
    // SAFETY: the caller's promise.
    unsafe { std::ffi::CStr::from_ptr(string.cast()) }.count_bytes()
}
