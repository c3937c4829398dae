//! What the system says of a token, a thread and a process, asked without the library under test.

use super::sid;
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr;
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Security::{
    GetTokenInformation, SECURITY_ATTRIBUTES, SID_AND_ATTRIBUTES, TOKEN_GROUPS, TOKEN_INFORMATION_CLASS,
    TOKEN_QUERY, TOKEN_USER, TokenGroups, TokenUser,
};
use windows_sys::Win32::System::SystemServices::SE_GROUP_LOGON_ID;
use windows_sys::Win32::System::Threading::{
    CreateEventW, GetCurrentProcess, GetCurrentThread, OpenProcess, OpenProcessToken, OpenThreadToken,
    PROCESS_QUERY_LIMITED_INFORMATION,
};

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The user's SID.
    pub user: String,
    /// The groups' SIDs.
    pub groups: Vec<String>,
    /// The logon SID.
    pub logon: Option<String>,
}

impl Seen {
    /// Of a token.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn token(token: BorrowedHandle<'_>) -> io::Result<Self> {
        let user = information(token, TokenUser)?;
        let groups = information(token, TokenGroups)?;
        // SAFETY: the system filled the buffers with these structures, which point into them.
        unsafe {
            let user = sid::text((*user.as_ptr().cast::<TOKEN_USER>()).User.Sid)?;
            let groups = groups.as_ptr().cast::<TOKEN_GROUPS>();
            let list = std::slice::from_raw_parts(
                (&raw const (*groups).Groups).cast::<SID_AND_ATTRIBUTES>(),
                (*groups).GroupCount as usize,
            );
            let logon = SE_GROUP_LOGON_ID.cast_unsigned();
            let found = list.iter().find(|group| group.Attributes & logon == logon);
            Ok(Self {
                user,
                groups: list.iter().map(|group| sid::text(group.Sid)).collect::<io::Result<_>>()?,
                logon: found.map(|group| sid::text(group.Sid)).transpose()?,
            })
        }
    }

    /// Of this process.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn own() -> io::Result<Self> {
        // SAFETY: the pseudo-handle is always valid.
        let token = open(|token| unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, token) })?;
        Self::token(token.as_handle())
    }

    /// Of this thread, while it impersonates.
    ///
    /// # Errors
    ///
    /// The system's; 1008 when the thread has no token.
    pub fn thread() -> io::Result<Self> {
        // SAFETY: the pseudo-handle is always valid.
        let token = open(|token| unsafe { OpenThreadToken(GetCurrentThread(), TOKEN_QUERY, 1, token) })?;
        Self::token(token.as_handle())
    }

    /// Of another process.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn process(id: u32) -> io::Result<Self> {
        // SAFETY: plain numbers go in.
        let process = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, id) };
        if process.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh handle that nobody else has.
        let process = unsafe { OwnedHandle::from_raw_handle(process) };
        // SAFETY: the handle is open.
        let token = open(|token| unsafe { OpenProcessToken(process.as_raw_handle(), TOKEN_QUERY, token) })?;
        Self::token(token.as_handle())
    }
}

fn open(call: impl FnOnce(*mut HANDLE) -> i32) -> io::Result<OwnedHandle> {
    let mut handle: HANDLE = ptr::null_mut();
    if call(&raw mut handle) == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh handle that nobody else has.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// The value of a handle made now. It rises when handles leak: under Wine the count that GetProcessHandleCount
/// gives is always 0.
///
/// # Errors
///
/// The system's.
pub fn fresh_handle() -> io::Result<usize> {
    event(0).map(|event| value(&event))
}

/// An event that new processes inherit, unless they are kept from it.
///
/// # Errors
///
/// The system's.
pub fn inheritable_event() -> io::Result<OwnedHandle> {
    event(1)
}

/// A handle's number.
pub fn value(handle: &OwnedHandle) -> usize {
    handle.as_raw_handle().expose_provenance()
}

fn event(inherit: i32) -> io::Result<OwnedHandle> {
    let attributes = SECURITY_ATTRIBUTES {
        nLength: super::length_of::<SECURITY_ATTRIBUTES>(),
        lpSecurityDescriptor: ptr::null_mut(),
        bInheritHandle: inherit,
    };
    // SAFETY: the attributes live until the call returns; no name.
    let event = unsafe { CreateEventW(&raw const attributes, 1, 0, ptr::null()) };
    if event.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh handle that nobody else has.
    Ok(unsafe { OwnedHandle::from_raw_handle(event) })
}

/// Of `u64`s, so that the structures in it are aligned; on the heap, for they point into it.
fn information(token: BorrowedHandle<'_>, class: TOKEN_INFORMATION_CLASS) -> io::Result<Vec<u64>> {
    let mut buffer = vec![0_u64; 2048];
    let mut length = 0;
    // SAFETY: the buffer is as long as is said.
    let done = unsafe {
        let size = super::length_of::<[u64; 2048]>();
        GetTokenInformation(token.as_raw_handle(), class, buffer.as_mut_ptr().cast(), size, &raw mut length)
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(buffer) }
}
