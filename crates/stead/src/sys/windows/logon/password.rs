//! LogonUserW.

use std::io;
use std::os::windows::io::{FromRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Security::{
    LOGON32_LOGON, LOGON32_LOGON_BATCH, LOGON32_LOGON_INTERACTIVE, LOGON32_LOGON_NETWORK,
    LOGON32_LOGON_NETWORK_CLEARTEXT, LOGON32_LOGON_SERVICE, LOGON32_PROVIDER_DEFAULT, LogonUserW,
};
use zeroize::Zeroizing;

use super::{Target, terminated};
use crate::error::{Error, ErrorKind, Result};
use crate::logon::{LogonType, Secret};

fn native(kind: LogonType) -> LOGON32_LOGON {
    match kind {
        LogonType::Interactive => LOGON32_LOGON_INTERACTIVE,
        LogonType::Network => LOGON32_LOGON_NETWORK,
        LogonType::NetworkCleartext => LOGON32_LOGON_NETWORK_CLEARTEXT,
        LogonType::Batch => LOGON32_LOGON_BATCH,
        LogonType::Service => LOGON32_LOGON_SERVICE,
    }
}

/// The type's name in the documentation.
pub(super) fn type_name(kind: LogonType) -> &'static str {
    match kind {
        LogonType::Interactive => "LOGON32_LOGON_INTERACTIVE",
        LogonType::Network => "LOGON32_LOGON_NETWORK",
        LogonType::NetworkCleartext => "LOGON32_LOGON_NETWORK_CLEARTEXT",
        LogonType::Batch => "LOGON32_LOGON_BATCH",
        LogonType::Service => "LOGON32_LOGON_SERVICE",
    }
}

/// One attempt. What comes back is not known to be a token before it was read.
///
/// Reference: [LogonUserW](https://learn.microsoft.com/windows/win32/api/winbase/nf-winbase-logonuserw).
pub(super) fn log_on(target: &Target, secret: Secret, kind: LogonType) -> Result<OwnedHandle> {
    let user = terminated(&target.user);
    let domain = target.domain.as_deref().map(terminated);
    let password = password(target, secret)?;
    let mut raw: HANDLE = null_mut();
    // SAFETY: the three strings end with NUL, are only read, and outlive the call; `raw` is written only by it.
    let done = unsafe {
        LogonUserW(
            user.as_ptr(),
            domain.as_ref().map_or(null(), Vec::as_ptr),
            password.as_ptr(),
            native(kind),
            LOGON32_PROVIDER_DEFAULT,
            &raw mut raw,
        )
    };
    let error = io::Error::last_os_error();
    drop(password);
    if done == 0 {
        return Err(target.refused("LogonUserW", error, kind));
    }
    if raw.is_null() || raw == INVALID_HANDLE_VALUE {
        let what = "the call succeeded without a token".into();
        return Err(Error::new(target.doing(), ErrorKind::NoIdentity { what }));
    }
    // SAFETY: the call succeeded, so the handle is new and nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
}

/// The secret as UTF-16, wiped when it is dropped; it is never moved by growing.
fn password(target: &Target, secret: Secret) -> Result<Zeroizing<Vec<u16>>> {
    let invalid =
        |what: &'static str| Error::new(target.doing(), ErrorKind::InvalidInput { what: what.into() });
    let bytes = secret.into_bytes();
    let text = std::str::from_utf8(&bytes).map_err(|_| invalid("the secret is no text (UTF-8)"))?;
    if text.contains('\0') {
        return Err(invalid("the secret contains a NUL byte"));
    }
    // No text has more UTF-16 units than UTF-8 bytes.
    let mut wide = Zeroizing::new(Vec::with_capacity(bytes.len() + 1));
    wide.extend(text.encode_utf16());
    wide.push(0);
    Ok(wide)
}
