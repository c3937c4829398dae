//! LsaLogonUser without a password (service for user).

use std::io;
use std::os::windows::io::{FromRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{
    HANDLE, LUID, NTSTATUS, RtlNtStatusToDosError, STATUS_ACCESS_DENIED, STATUS_PORT_CONNECTION_REFUSED,
    STATUS_PRIVILEGE_NOT_HELD,
};
use windows_sys::Win32::Security::Authentication::Identity::{
    KERB_S4U_LOGON, KERB_S4U_LOGON_FLAG_CHECK_LOGONHOURS, KerbS4ULogon, LSA_STRING, LSA_UNICODE_STRING,
    LsaDeregisterLogonProcess, LsaFreeReturnBuffer, LsaLogonUser, LsaLookupAuthenticationPackage,
    LsaRegisterLogonProcess, MSV1_0_S4U_LOGON, MSV1_0_S4U_LOGON_FLAG_CHECK_LOGONHOURS, MsV1_0S4ULogon,
    SECURITY_LOGON_TYPE,
};
use windows_sys::Win32::Security::{AllocateLocallyUniqueId, QUOTA_LIMITS, TOKEN_SOURCE};

use super::target::{Domain, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::logon::LogonType;

/// SECURITY_LOGON_TYPE (ntsecapi.h): what S4U is offered for.
const NETWORK: SECURITY_LOGON_TYPE = SECURITY_LOGON_TYPE(3);
const BATCH: SECURITY_LOGON_TYPE = SECURITY_LOGON_TYPE(4);

/// A connection to the local security authority, by which it trusts what the server says.
struct Authority(HANDLE);

impl Drop for Authority {
    fn drop(&mut self) {
        // SAFETY: the handle is this value's own, from LsaRegisterLogonProcess.
        unsafe { LsaDeregisterLogonProcess(self.0) };
    }
}

fn failed(status: NTSTATUS) -> io::Error {
    // SAFETY: the call takes a number and gives one.
    io::Error::from_raw_os_error(unsafe { RtlNtStatusToDosError(status) }.cast_signed())
}

fn ansi(text: &'static [u8]) -> LSA_STRING {
    let length = u16::try_from(text.len()).unwrap_or(0);
    LSA_STRING { Length: length, MaximumLength: length, Buffer: text.as_ptr().cast_mut() }
}

/// One attempt. What comes back is not known to be a token before it was read.
///
/// Reference: [LsaLogonUser](https://learn.microsoft.com/windows/win32/api/ntsecapi/nf-ntsecapi-lsalogonuser).
pub(super) fn log_on(target: &Target, kind: LogonType) -> Result<OwnedHandle> {
    let logon_type = match kind {
        LogonType::Network => NETWORK,
        LogonType::Batch => BATCH,
        _ => {
            let what = "without a password an account logs on by network or batch only".into();
            return Err(Error::new(target.doing(), ErrorKind::InvalidInput { what }));
        }
    };
    let refused = |call| move |status| target.refused(call, failed(status), kind);
    let check = |status: NTSTATUS| if status < 0 { Err(status) } else { Ok(()) };

    let mut raw: HANDLE = null_mut();
    let mut mode = 0;
    let name = ansi(b"stead");
    // SAFETY: the name outlives the call; what is written is written only by it. LsaConnectUntrusted would do
    // without SeTcbPrivilege, and give tokens for identification only.
    check(unsafe { LsaRegisterLogonProcess(&raw const name, &raw mut raw, &raw mut mode) }).map_err(
        |status| match status {
            // What it says without SeTcbPrivilege, which no other number of Win32's tells.
            STATUS_PORT_CONNECTION_REFUSED | STATUS_ACCESS_DENIED | STATUS_PRIVILEGE_NOT_HELD => {
                target.without_tcb().with_source(failed(status))
            }
            _ => refused("LsaRegisterLogonProcess")(status),
        },
    )?;
    let authority = Authority(raw);

    let package_name: &'static [u8] = match target.domain() {
        Domain::ThisMachine(_) => b"MICROSOFT_AUTHENTICATION_PACKAGE_V1_0",
        _ => b"Kerberos",
    };
    let mut package = 0;
    let package_name = ansi(package_name);
    // SAFETY: the name outlives the call; `package` is written only by it.
    check(unsafe { LsaLookupAuthenticationPackage(authority.0, &raw const package_name, &raw mut package) })
        .map_err(refused("LsaLookupAuthenticationPackage"))?;

    let request = Request::new(target).ok_or_else(|| {
        Error::new(target.doing(), ErrorKind::InvalidInput { what: "the name is too long".into() })
    })?;
    let mut source = TOKEN_SOURCE { SourceName: [0; 8], SourceIdentifier: LUID::default() };
    for (to, from) in source.SourceName.iter_mut().zip(b"stead") {
        *to = from.cast_signed();
    }
    // SAFETY: the number is written only by the call.
    unsafe { AllocateLocallyUniqueId(&raw mut source.SourceIdentifier) };
    let origin = ansi(b"stead");
    let (mut profile, mut profile_length) = (null_mut(), 0);
    let (mut logon_id, mut token, mut sub_status) = (LUID::default(), null_mut(), 0);
    let mut quotas = QUOTA_LIMITS::default();
    // SAFETY: the request is one block of the length that is said, whose strings lie within it; every other
    // argument outlives the call, and what is written is written only by it.
    let status = unsafe {
        LsaLogonUser(
            authority.0,
            &raw const origin,
            logon_type,
            package,
            request.block.as_ptr().cast(),
            request.length,
            null(),
            &raw const source,
            &raw mut profile,
            &raw mut profile_length,
            &raw mut logon_id,
            &raw mut token,
            &raw mut quotas,
            &raw mut sub_status,
        )
    };
    if !profile.is_null() {
        // SAFETY: the buffer came from LsaLogonUser, and is not used.
        unsafe { LsaFreeReturnBuffer(profile) };
    }
    if status < 0 {
        // STATUS_ACCOUNT_RESTRICTION says which by the second status.
        let told = if sub_status < 0 { sub_status } else { status };
        return Err(refused("LsaLogonUser")(told));
    }
    if token.is_null() {
        let what = "the call succeeded without a token".into();
        return Err(Error::new(target.doing(), ErrorKind::NoIdentity { what }));
    }
    // SAFETY: the call succeeded, so the handle is new and nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(token) })
}

/// What a package is asked: a structure and its strings, in one block as the authority requires.
struct Request {
    /// Words, so that the structure is aligned.
    block: Vec<usize>,
    length: u32,
}

impl Request {
    /// MSV1_0_S4U_LOGON and KERB_S4U_LOGON have one layout: kind, flags, the user, its domain or realm.
    fn new(target: &Target) -> Option<Self> {
        const { assert!(size_of::<MSV1_0_S4U_LOGON>() == size_of::<KERB_S4U_LOGON>()) };
        const { assert!(KerbS4ULogon == MsV1_0S4ULogon) };
        // The hours in which the account may log on hold without its password too.
        const { assert!(KERB_S4U_LOGON_FLAG_CHECK_LOGONHOURS == MSV1_0_S4U_LOGON_FLAG_CHECK_LOGONHOURS) };
        let header = size_of::<MSV1_0_S4U_LOGON>();
        let domain: &[u16] = match target.domain() {
            Domain::ThisMachine(domain) | Domain::Named(domain) => domain,
            Domain::OfPrincipal => &[],
        };
        let bytes = |text: &[u16]| u16::try_from(2 * text.len()).ok();
        let (user_bytes, domain_bytes) = (bytes(target.user())?, bytes(domain)?);
        let length = header + usize::from(user_bytes) + usize::from(domain_bytes);
        let mut block = vec![0_usize; length.div_ceil(size_of::<usize>())];
        let start = block.as_mut_ptr();
        // SAFETY: the block is `length` bytes long at least, and aligned for words: the structure lies at its
        // start, the strings of UTF-16 behind it, each at an even offset and within the block.
        unsafe {
            let user: *mut u16 = start.byte_add(header).cast();
            let realm: *mut u16 = start.byte_add(header + usize::from(user_bytes)).cast();
            user.copy_from_nonoverlapping(target.user().as_ptr(), target.user().len());
            realm.copy_from_nonoverlapping(domain.as_ptr(), domain.len());
            let string =
                |length, buffer| LSA_UNICODE_STRING { Length: length, MaximumLength: length, Buffer: buffer };
            start.cast::<MSV1_0_S4U_LOGON>().write(MSV1_0_S4U_LOGON {
                MessageType: MsV1_0S4ULogon,
                Flags: MSV1_0_S4U_LOGON_FLAG_CHECK_LOGONHOURS,
                UserPrincipalName: string(user_bytes, user),
                DomainName: string(domain_bytes, realm),
            });
        }
        Some(Self { block, length: u32::try_from(length).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;

    #[test]
    fn the_hours_of_an_account_hold_without_its_password_too() {
        for account in [Account::local("alice"), Account::upn("alice@example.com")] {
            let request = Request::new(&Target::of(&account).unwrap()).unwrap();
            // SAFETY: the block begins with this structure, and is aligned for it.
            let asked = unsafe { request.block.as_ptr().cast::<MSV1_0_S4U_LOGON>().read() };
            assert_eq!((asked.MessageType, asked.Flags), (MsV1_0S4ULogon, 2));
            assert_eq!(request.length as usize, {
                let strings = asked.UserPrincipalName.Length + asked.DomainName.Length;
                size_of::<MSV1_0_S4U_LOGON>() + usize::from(strings)
            });
        }
    }
}
