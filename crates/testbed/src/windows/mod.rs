//! What tests on Windows and under Wine need: where they run, whose a token is, and tokens of other users.

mod mint;
mod object;
mod report;
mod seen;
mod sid;
mod stage;

pub use mint::{LOGON, Mint, USER};
pub use object::LockedEvent;
pub use report::{WinProbe, c_program, program};
pub use seen::{Seen, fresh_handle, inheritable_event, value};
pub use stage::Stage;

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr;
use windows_sys::Win32::Foundation::{ERROR_NOT_ALL_ASSIGNED, ERROR_SUCCESS, GetLastError, HANDLE};
use windows_sys::Win32::Security::{
    AdjustTokenPrivileges, LookupPrivilegeValueW, SE_PRIVILEGE_ENABLED, TOKEN_ADJUST_PRIVILEGES,
    TOKEN_PRIVILEGES, TOKEN_QUERY,
};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

/// Wine's version, such as `8.0`; `None` on Windows.
pub fn wine() -> Option<String> {
    let module: Vec<u16> = "ntdll.dll\0".encode_utf16().collect();
    // SAFETY: both names end with a zero; ntdll is never unloaded.
    let found =
        unsafe { GetProcAddress(GetModuleHandleW(module.as_ptr()), c"wine_get_version".as_ptr().cast()) }?;
    // SAFETY: only Wine's ntdll has a function of this name, and there it has this type; its text is static.
    let version = unsafe {
        let version: unsafe extern "C" fn() -> *const std::ffi::c_char = std::mem::transmute(found);
        std::ffi::CStr::from_ptr(version())
    };
    Some(version.to_string_lossy().into_owned())
}

/// Ends the test as skipped under Wine, whose answer proves nothing here; on Windows the test goes on.
#[macro_export]
macro_rules! skip_under_wine {
    ($($reason:tt)+) => {
        if $crate::windows::wine().is_some() {
            $crate::skip!("under Wine: {}", format_args!($($reason)+));
        }
    };
}

/// Name and password of the account that real logons are tested with, or the test is skipped: under Wine every logon
/// succeeds, whatever the password, and elsewhere somebody has to have made the account.
#[macro_export]
macro_rules! logon_account {
    () => {{
        $crate::skip_under_wine!("LogonUserW says yes to every password, and gives no token");
        match (std::env::var("STEAD_TEST_USER"), std::env::var("STEAD_TEST_PASSWORD")) {
            (Ok(name), Ok(password)) => (name, password),
            _ => $crate::skip!("STEAD_TEST_USER and STEAD_TEST_PASSWORD name no account to log on"),
        }
    }};
}

/// What this expression gives, or the test is skipped because no token of another user can be minted here.
#[macro_export]
macro_rules! minted {
    ($mint:expr) => {
        match $mint {
            Ok(token) => token,
            Err(error) => match $crate::windows::wine() {
                Some(version) if error.kind() == std::io::ErrorKind::Unsupported => {
                    $crate::skip!("under Wine {version}, which has no NtCreateToken and so no second user")
                }
                _ if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    $crate::skip!("SeCreateTokenPrivilege is not held, so no second user's token can be made")
                }
                _ => panic!("minting a token: {error}"),
            },
        }
    };
}

/// Enables a privilege of this process, where it holds it.
///
/// # Errors
///
/// `PermissionDenied` when the process does not hold it. Wine has no such privilege and asks for none: there nothing
/// is done.
pub fn enable_privilege(name: &str) -> io::Result<()> {
    if wine().is_some() {
        return Ok(());
    }
    let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
    let mut privileges = TOKEN_PRIVILEGES { PrivilegeCount: 1, ..Default::default() };
    privileges.Privileges[0].Attributes = SE_PRIVILEGE_ENABLED;
    let mut token: HANDLE = ptr::null_mut();
    // SAFETY: the name ends with a zero; the pointers are to live values.
    unsafe {
        if LookupPrivilegeValueW(ptr::null(), name.as_ptr(), &raw mut privileges.Privileges[0].Luid) == 0
            || OpenProcessToken(GetCurrentProcess(), TOKEN_ADJUST_PRIVILEGES | TOKEN_QUERY, &raw mut token)
                == 0
        {
            return Err(io::Error::last_os_error());
        }
        let token = OwnedHandle::from_raw_handle(token);
        AdjustTokenPrivileges(
            token.as_raw_handle(),
            0,
            &raw const privileges,
            0,
            ptr::null_mut(),
            ptr::null_mut(),
        );
        match GetLastError() {
            ERROR_SUCCESS => Ok(()),
            ERROR_NOT_ALL_ASSIGNED => Err(io::ErrorKind::PermissionDenied.into()),
            code => Err(io::Error::from_raw_os_error(code.cast_signed())),
        }
    }
}

/// A structure's length as Win32 wants it.
fn length_of<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("no structure is that long")
}
