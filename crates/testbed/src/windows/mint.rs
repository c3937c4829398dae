//! Tokens of users that log on nowhere, by `NtCreateToken`.
//!
//! Wine knows one user and no logon, and a test machine's passwords are nobody's business: what the library does
//! with *another* user's token is tested on minted ones. Wine 10 creates them; Wine 8 has no such call; Windows
//! asks for SeCreateTokenPrivilege.

use super::{length_of, sid::Sid};
use std::ffi::c_void;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr;
use windows_sys::Win32::Foundation::{GENERIC_ALL, HANDLE, LUID, RtlNtStatusToDosError};
use windows_sys::Win32::Security::{
    ACL, ACL_REVISION, AddAccessAllowedAce, DuplicateTokenEx, InitializeAcl, LUID_AND_ATTRIBUTES,
    LookupPrivilegeValueW, SE_PRIVILEGE_ENABLED, SECURITY_QUALITY_OF_SERVICE, SID_AND_ATTRIBUTES,
    SecurityImpersonation, TOKEN_ALL_ACCESS, TOKEN_DEFAULT_DACL, TOKEN_OWNER, TOKEN_PRIMARY_GROUP,
    TOKEN_SOURCE, TOKEN_USER, TokenImpersonation, TokenPrimary,
};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};
use windows_sys::Win32::System::SystemServices::{
    SE_GROUP_ENABLED, SE_GROUP_ENABLED_BY_DEFAULT, SE_GROUP_LOGON_ID, SE_GROUP_MANDATORY,
};

const IN_FORCE: u32 = (SE_GROUP_MANDATORY | SE_GROUP_ENABLED_BY_DEFAULT | SE_GROUP_ENABLED).cast_unsigned();

/// A user of no machine's, whose tokens are minted.
pub const USER: &str = "S-1-5-21-1000-2000-3000-4711";

/// A logon session of that user's.
pub const LOGON: &str = "S-1-5-5-0-4711";

/// What a minted token says.
#[derive(Debug, Clone)]
pub struct Mint {
    user: String,
    logon: Option<String>,
    groups: Vec<String>,
    privileges: Vec<String>,
}

impl Mint {
    /// A token of the user with this SID, member of Everyone and Users, with no logon SID and no privileges.
    pub fn new(user: &str) -> Self {
        let groups = ["S-1-1-0", "S-1-5-32-545"].map(str::to_owned).to_vec();
        Self { user: user.to_owned(), logon: None, groups, privileges: Vec::new() }
    }

    /// With a logon SID, such as `S-1-5-5-0-4711`.
    #[must_use]
    pub fn logon(mut self, sid: &str) -> Self {
        self.logon = Some(sid.to_owned());
        self
    }

    /// In one more group.
    #[must_use]
    pub fn group(mut self, sid: &str) -> Self {
        self.groups.push(sid.to_owned());
        self
    }

    /// With a privilege, enabled.
    #[must_use]
    pub fn privilege(mut self, name: &str) -> Self {
        self.privileges.push(name.to_owned());
        self
    }

    /// The primary token.
    ///
    /// # Errors
    ///
    /// `Unsupported` where there is no NtCreateToken, `PermissionDenied` without SeCreateTokenPrivilege.
    pub fn primary(&self) -> io::Result<OwnedHandle> {
        create(self)
    }

    /// A duplicate of the primary token, for impersonation: one minted as such comes out anonymous under Wine.
    ///
    /// # Errors
    ///
    /// As for [`primary`](Self::primary).
    pub fn impersonation(&self) -> io::Result<OwnedHandle> {
        let primary = self.primary()?;
        let mut handle: HANDLE = ptr::null_mut();
        // SAFETY: the handle is open, `handle` takes the new one.
        let done = unsafe {
            DuplicateTokenEx(
                primary.as_raw_handle(),
                TOKEN_ALL_ACCESS,
                ptr::null(),
                SecurityImpersonation,
                TokenImpersonation,
                &raw mut handle,
            )
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh handle that nobody else has.
        Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
    }
}

/// TOKEN_GROUPS and TOKEN_PRIVILEGES with room for as many as anybody needs here.
const ROOM: usize = 16;

#[repr(C)]
struct Groups {
    count: u32,
    list: [SID_AND_ATTRIBUTES; ROOM],
}

#[repr(C)]
struct Privileges {
    count: u32,
    list: [LUID_AND_ATTRIBUTES; ROOM],
}

#[repr(C)]
struct ObjectAttributes {
    length: u32,
    root: HANDLE,
    name: *const c_void,
    attributes: u32,
    descriptor: *const c_void,
    quality: *const SECURITY_QUALITY_OF_SERVICE,
}

/// <https://learn.microsoft.com/openspecs/windows_protocols> does not have it; the parameters are those of ntifs.h and
/// of Wine's include/winternl.h.
type NtCreateToken = unsafe extern "system" fn(
    *mut HANDLE,
    u32,
    *const ObjectAttributes,
    i32,
    *const LUID,
    *const i64,
    *const TOKEN_USER,
    *const Groups,
    *const Privileges,
    *const TOKEN_OWNER,
    *const TOKEN_PRIMARY_GROUP,
    *const TOKEN_DEFAULT_DACL,
    *const TOKEN_SOURCE,
) -> i32;

fn find() -> Option<NtCreateToken> {
    let module: Vec<u16> = "ntdll.dll\0".encode_utf16().collect();
    // SAFETY: both names end with a zero; ntdll is never unloaded.
    let found =
        unsafe { GetProcAddress(GetModuleHandleW(module.as_ptr()), c"NtCreateToken".as_ptr().cast()) }?;
    // SAFETY: the function of that name has this type.
    Some(unsafe { std::mem::transmute::<unsafe extern "system" fn() -> isize, NtCreateToken>(found) })
}

fn create(mint: &Mint) -> io::Result<OwnedHandle> {
    let Some(nt_create_token) = find() else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "ntdll has no NtCreateToken"));
    };
    super::enable_privilege("SeCreateTokenPrivilege")?;
    let user = Sid::parse(&mint.user)?;
    let logon = mint.logon.as_deref().map(Sid::parse).transpose()?;
    let named = mint.groups.iter().map(|group| Sid::parse(group)).collect::<io::Result<Vec<_>>>()?;
    let system = Sid::parse("S-1-5-18")?;

    let none = SID_AND_ATTRIBUTES { Sid: ptr::null_mut(), Attributes: 0 };
    let mut groups = Groups { count: 0, list: [none; ROOM] };
    let logon_attributes = IN_FORCE | SE_GROUP_LOGON_ID.cast_unsigned();
    let all = named.iter().map(|sid| (sid, IN_FORCE)).chain(logon.iter().map(|sid| (sid, logon_attributes)));
    for (slot, (sid, attributes)) in groups.list.iter_mut().zip(all) {
        *slot = SID_AND_ATTRIBUTES { Sid: sid.as_ptr(), Attributes: attributes };
        groups.count += 1;
    }
    let nothing = LUID_AND_ATTRIBUTES { Luid: LUID { LowPart: 0, HighPart: 0 }, Attributes: 0 };
    let mut privileges = Privileges { count: 0, list: [nothing; ROOM] };
    for (slot, name) in privileges.list.iter_mut().zip(&mint.privileges) {
        let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
        // SAFETY: the name ends with a zero.
        if unsafe { LookupPrivilegeValueW(ptr::null(), name.as_ptr(), &raw mut slot.Luid) } == 0 {
            return Err(io::Error::last_os_error());
        }
        slot.Attributes = SE_PRIVILEGE_ENABLED;
        privileges.count += 1;
    }

    // New objects of the minted user: for himself, his logon and the system.
    let mut acl = [0_u64; 64];
    let acl_pointer = acl.as_mut_ptr().cast::<ACL>();
    // SAFETY: an aligned buffer of the length that is said; the SIDs are valid for the calls.
    let filled = unsafe {
        InitializeAcl(acl_pointer, 512, ACL_REVISION) != 0
            && [Some(&user), Some(&system), logon.as_ref()]
                .into_iter()
                .flatten()
                .all(|sid| AddAccessAllowedAce(acl_pointer, ACL_REVISION, GENERIC_ALL, sid.as_ptr()) != 0)
    };
    if !filled {
        return Err(io::Error::last_os_error());
    }

    let quality = SECURITY_QUALITY_OF_SERVICE {
        Length: length_of::<SECURITY_QUALITY_OF_SERVICE>(),
        ImpersonationLevel: SecurityImpersonation,
        ContextTrackingMode: 0,
        EffectiveOnly: false,
    };
    let attributes = ObjectAttributes {
        length: length_of::<ObjectAttributes>(),
        root: ptr::null_mut(),
        name: ptr::null(),
        attributes: 0,
        descriptor: ptr::null(),
        quality: &raw const quality,
    };
    let authentication = LUID { LowPart: 0x3e7, HighPart: 0 }; // SYSTEM's logon, which every machine has
    let never = i64::MAX;
    let token_user = TOKEN_USER { User: SID_AND_ATTRIBUTES { Sid: user.as_ptr(), Attributes: 0 } };
    let owner = TOKEN_OWNER { Owner: user.as_ptr() };
    let primary_group = TOKEN_PRIMARY_GROUP { PrimaryGroup: named[0].as_ptr() };
    let default_dacl = TOKEN_DEFAULT_DACL { DefaultDacl: acl_pointer };
    let source = TOKEN_SOURCE {
        SourceName: b"testbed\0".map(u8::cast_signed),
        SourceIdentifier: LUID { LowPart: 0, HighPart: 0 },
    };
    let mut handle: HANDLE = ptr::null_mut();
    // SAFETY: every pointer is to a live value of the type that the function reads.
    let status = unsafe {
        nt_create_token(
            &raw mut handle,
            TOKEN_ALL_ACCESS,
            &raw const attributes,
            TokenPrimary,
            &raw const authentication,
            &raw const never,
            &raw const token_user,
            &raw const groups,
            &raw const privileges,
            &raw const owner,
            &raw const primary_group,
            &raw const default_dacl,
            &raw const source,
        )
    };
    if status != 0 {
        // SAFETY: a pure function.
        let code = unsafe { RtlNtStatusToDosError(status) };
        return Err(io::Error::from_raw_os_error(code.cast_signed()));
    }
    // SAFETY: a fresh handle that nobody else has.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}
