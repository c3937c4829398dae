//! Whether the tests run under Wine, where some calls say that they succeeded and did nothing.

use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};

/// Wine exports its version; Windows has no such function.
pub(crate) fn is_wine() -> bool {
    // SAFETY: both names end with NUL; ntdll is loaded in every process and never unloaded.
    unsafe {
        let ntdll = GetModuleHandleA(c"ntdll.dll".as_ptr().cast());
        !ntdll.is_null() && GetProcAddress(ntdll, c"wine_get_version".as_ptr().cast()).is_some()
    }
}
