//! LogonUserW, and NetUserChangePassword where it says that the password has expired.

use std::io;
use std::os::windows::io::{FromRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::NetworkManagement::NetManagement::NetUserChangePassword;
use windows_sys::Win32::Security::{
    LOGON32_LOGON, LOGON32_LOGON_BATCH, LOGON32_LOGON_INTERACTIVE, LOGON32_LOGON_NETWORK,
    LOGON32_LOGON_NETWORK_CLEARTEXT, LOGON32_LOGON_SERVICE, LOGON32_PROVIDER_DEFAULT, LogonUserW,
};
use zeroize::Zeroizing;

use super::target::{Domain, Target};
use super::terminated;
use crate::error::{AccountRestriction, Error, ErrorKind, Result};
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
pub(super) fn log_on(target: &Target, password: &Password, kind: LogonType) -> Result<OwnedHandle> {
    if password.is_everybodys() {
        let what = "the password is the one by which a machine's managed service accounts log on";
        return Err(Error::new(target.doing(), ErrorKind::LogonFailed).with_source(io::Error::other(what)));
    }
    let user = terminated(target.user());
    let domain = target.domain().for_logon().map(terminated);
    let mut raw: HANDLE = null_mut();
    // SAFETY: the three strings end with NUL, are only read, and outlive the call; `raw` is written only by it.
    let done = unsafe {
        LogonUserW(
            user.as_ptr(),
            domain.as_ref().map_or(null(), Vec::as_ptr),
            password.0.as_ptr(),
            native(kind),
            LOGON32_PROVIDER_DEFAULT,
            &raw mut raw,
        )
    };
    if done == 0 {
        return Err(target.refused("LogonUserW", io::Error::last_os_error(), kind));
    }
    if raw.is_null() || raw == INVALID_HANDLE_VALUE {
        let what = "the call succeeded without a token".into();
        return Err(Error::new(target.doing(), ErrorKind::NoIdentity { what }));
    }
    // SAFETY: the call succeeded, so the handle is new and nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
}

/// A new password in an expired one's place.
///
/// Reference: [NetUserChangePassword](https://learn.microsoft.com/windows/win32/api/lmaccess/nf-lmaccess-netuserchangepassword).
pub(super) fn change(target: &Target, old: &Password, new: &Password) -> Result<()> {
    let (place, user) = match target.domain() {
        Domain::ThisMachine(domain) | Domain::Named(domain) => (domain.clone(), target.user().to_vec()),
        Domain::OfPrincipal => {
            let mut parts = target.user().split(|unit| *unit == u16::from(b'@'));
            let user = parts.next().unwrap_or_default().to_vec();
            (parts.next_back().unwrap_or_default().to_vec(), user)
        }
    };
    let (place, user) = (terminated(&place), terminated(&user));
    // SAFETY: the four strings end with NUL, are only read, and outlive the call.
    let code =
        unsafe { NetUserChangePassword(place.as_ptr(), user.as_ptr(), old.0.as_ptr(), new.0.as_ptr()) };
    if code == 0 {
        return Ok(());
    }
    let kind = match code {
        // ERROR_INVALID_PASSWORD
        86 => ErrorKind::LogonFailed,
        // NERR_InvalidComputer, NERR_DCNotFound
        2351 | 2453 => ErrorKind::LogonServerUnavailable,
        // ERROR_PASSWORD_RESTRICTION, NERR_PasswordTooShort, .. and what else stands in its way: the old one is
        // still expired.
        _ => ErrorKind::AccountRestriction { restriction: AccountRestriction::PasswordExpired },
    };
    Err(Error::new(target.doing(), kind).with_source(io::Error::from_raw_os_error(code.cast_signed())))
}

/// A password as UTF-16 with a NUL at its end, wiped when it is dropped; it is never moved by growing.
#[derive(Clone)]
pub(super) struct Password(Zeroizing<Vec<u16>>);

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl Password {
    pub(super) fn of(doing: impl Fn() -> String, secret: Secret) -> Result<Self> {
        let invalid = |what: &'static str| Error::new(doing(), ErrorKind::InvalidInput { what: what.into() });
        let bytes = secret.into_bytes();
        let text = std::str::from_utf8(&bytes).map_err(|_| invalid("the secret is no text (UTF-8)"))?;
        if text.contains('\0') {
            return Err(invalid("the secret contains a NUL byte"));
        }
        // No text has more UTF-16 units than UTF-8 bytes.
        let mut wide = Zeroizing::new(Vec::with_capacity(bytes.len() + 1));
        wide.extend(text.encode_utf16());
        wide.push(0);
        Ok(Self(wide))
    }

    /// Whether it is SERVICE_ACCOUNT_PASSWORD (lmaccess.h): published, and right for each managed service account
    /// that is installed on the machine.
    pub(super) fn is_everybodys(&self) -> bool {
        const PUBLISHED: &str = "_SA_{262E99C9-6160-4871-ACEC-4E61736B6F21}";
        let lower = |unit: u16| u8::try_from(unit).map_or(unit, |unit| unit.to_ascii_lowercase().into());
        let published = PUBLISHED.encode_utf16().chain([0]).map(lower);
        self.0.iter().copied().map(lower).eq(published)
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        String::from_utf16_lossy(self.0.strip_suffix(&[0]).unwrap_or(&self.0))
    }
}
