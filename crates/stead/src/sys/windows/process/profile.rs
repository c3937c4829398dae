//! The profile of a token's user: loaded before its environment is asked for, unloaded after its processes have ended.
//!
//! Reference: [LoadUserProfileW](https://learn.microsoft.com/windows/win32/api/userenv/nf-userenv-loaduserprofilew).

use std::io;
use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_FILE_NOT_FOUND, ERROR_PRIVILEGE_NOT_HELD, HANDLE,
};
use windows_sys::Win32::System::Registry::{HKEY, HKEY_USERS, KEY_READ, RegCloseKey, RegOpenKeyExW};
use windows_sys::Win32::UI::Shell::{LoadUserProfileW, PROFILEINFOW, UnloadUserProfile};

use crate::error::{Error, ErrorKind, Result};
use crate::privilege::Privilege;
use crate::sys::token::{SecurityContext, own_context};
use crate::sys::wide::wide;
use crate::token::{Primary, Token};

/// No messages on anybody's screen (`PI_NOUI`, userenv.h).
const PI_NOUI: u32 = 1;

/// A profile that is loaded; the system counts who has loaded it.
#[derive(Debug)]
pub(super) struct Profile {
    token: OwnedHandle,
    /// Of the user's part of the registry. Kept as a number: it is used only to give it back.
    key: usize,
}

impl Profile {
    /// Loads it. The calling thread is the server.
    pub(super) fn load(token: &Token<Primary>, doing: &str) -> Result<Self> {
        let context = &token.data().context;
        let system = |call| move |source| Error::system(doing.to_owned(), call, source);
        let Some(account) = token.account()? else {
            let name = context.user.to_string();
            return Err(Error::new(doing.to_owned(), ErrorKind::AccountUnknown { name }));
        };
        let mut name = wide(account.name())
            .ok_or_else(|| system("LoadUserProfileW")(io::ErrorKind::InvalidData.into()))?;
        let own = context.handle().try_clone_to_owned().map_err(system("DuplicateHandle"))?;
        let mut info = PROFILEINFOW {
            dwSize: u32::try_from(size_of::<PROFILEINFOW>()).unwrap_or(0),
            dwFlags: PI_NOUI,
            lpUserName: name.as_mut_ptr(),
            ..Default::default()
        };
        // SAFETY: the handle is open; the structure is as long as it says, its name ends with NUL and outlives the
        // call, and nothing else is in it.
        if unsafe { LoadUserProfileW(own.as_raw_handle(), &raw mut info) } == 0 {
            return Err(refused(doing, io::Error::last_os_error()));
        }
        let profile = Self { token: own, key: info.hProfile.expose_provenance() };
        // Wine says TRUE for whomever, and loads nothing.
        if info.hProfile.is_null() || !is_loaded(context).map_err(system("RegOpenKeyExW"))? {
            let what =
                format!("the profile of {} was loaded, as the system says, and is not there", context.user);
            let source = io::Error::new(io::ErrorKind::NotFound, what);
            return Err(system("LoadUserProfileW")(source));
        }
        Ok(profile)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let key: HANDLE = std::ptr::with_exposed_provenance_mut(self.key);
        // SAFETY: both came from the call that loaded it, are open, and are not used after this.
        if unsafe { UnloadUserProfile(self.token.as_raw_handle(), key) } == 0 {
            let error = io::Error::last_os_error();
            tracing::warn!(%error, "a user's profile could not be unloaded");
        }
    }
}

/// Whether the user's part of the registry is there.
fn is_loaded(context: &SecurityContext) -> io::Result<bool> {
    let name = wide(context.user.to_string()).ok_or(io::ErrorKind::InvalidData)?;
    let mut key: HKEY = null_mut();
    // SAFETY: the name ends with NUL; `key` is written only by this call.
    match unsafe { RegOpenKeyExW(HKEY_USERS, name.as_ptr(), 0, KEY_READ, &raw mut key) } {
        0 => {
            // SAFETY: the call succeeded, so the key is new and nobody else's.
            unsafe { RegCloseKey(key) };
            Ok(true)
        }
        ERROR_FILE_NOT_FOUND => Ok(false),
        code => Err(io::Error::from_raw_os_error(code.cast_signed())),
    }
}

/// It takes SeBackupPrivilege and SeRestorePrivilege, which it enables by itself; what it says without them is one
/// of two errors.
fn refused(doing: &str, source: io::Error) -> Error {
    let code = source.raw_os_error().map(i32::cast_unsigned);
    let own = own_context().ok();
    let held = |name: &str| {
        own.as_ref().is_none_or(|own| own.privileges.iter().any(|privilege| privilege.name == name))
    };
    let missing = ["SeBackupPrivilege", "SeRestorePrivilege"].into_iter().find(|name| !held(name));
    let kind = match (code, missing) {
        (Some(ERROR_PRIVILEGE_NOT_HELD | ERROR_ACCESS_DENIED), Some(missing)) => {
            ErrorKind::PrivilegeMissing {
                privilege: Privilege::Logon,
                missing: missing.into(),
                held: false,
                enabled: false,
            }
        }
        _ => ErrorKind::System { call: "LoadUserProfileW" },
    };
    Error::new(doing.to_owned(), kind).with_source(source)
}
