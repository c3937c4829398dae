//! An object whose DACL names one SID and nobody else.

use super::{length_of, sid::Sid};
use std::io;
use std::os::windows::io::{FromRawHandle, OwnedHandle};
use std::sync::atomic::{AtomicU32, Ordering};
use windows_sys::Win32::Security::{
    ACL, ACL_REVISION, AddAccessAllowedAce, InitializeAcl, InitializeSecurityDescriptor, SECURITY_ATTRIBUTES,
    SECURITY_DESCRIPTOR, SetSecurityDescriptorDacl,
};
use windows_sys::Win32::System::SystemServices::SECURITY_DESCRIPTOR_REVISION;
use windows_sys::Win32::System::Threading::{CreateEventW, EVENT_ALL_ACCESS, EVENT_MODIFY_STATE, OpenEventW};

/// A named event that only the holder of one SID can open.
pub struct LockedEvent {
    name: Vec<u16>,
    _event: OwnedHandle,
}

impl LockedEvent {
    /// A fresh one.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn only_for(sid: &str) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name =
            format!("stead-test-{}-{number}\0", std::process::id()).encode_utf16().collect::<Vec<u16>>();
        let sid = Sid::parse(sid)?;
        let mut acl = [0_u64; 32];
        let acl_pointer = acl.as_mut_ptr().cast::<ACL>();
        let mut descriptor = SECURITY_DESCRIPTOR::default();
        let pointer = (&raw mut descriptor).cast();
        // SAFETY: an aligned buffer of the length that is said; everything outlives the calls.
        let event = unsafe {
            if InitializeAcl(acl_pointer, 256, ACL_REVISION) == 0
                || AddAccessAllowedAce(acl_pointer, ACL_REVISION, EVENT_ALL_ACCESS, sid.as_ptr()) == 0
                || InitializeSecurityDescriptor(pointer, SECURITY_DESCRIPTOR_REVISION) == 0
                || SetSecurityDescriptorDacl(pointer, 1, acl_pointer, 0) == 0
            {
                return Err(io::Error::last_os_error());
            }
            let attributes = SECURITY_ATTRIBUTES {
                nLength: length_of::<SECURITY_ATTRIBUTES>(),
                lpSecurityDescriptor: pointer,
                bInheritHandle: 0,
            };
            CreateEventW(&raw const attributes, 1, 0, name.as_ptr())
        };
        if event.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh handle that nobody else has.
        Ok(Self { name, _event: unsafe { OwnedHandle::from_raw_handle(event) } })
    }

    /// Opens it as whoever this thread is.
    ///
    /// # Errors
    ///
    /// The system's: 5 for those whom the DACL does not name.
    pub fn open(&self) -> io::Result<()> {
        // SAFETY: the name ends with a zero.
        let event = unsafe { OpenEventW(EVENT_MODIFY_STATE, 0, self.name.as_ptr()) };
        if event.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh handle that nobody else has.
        drop(unsafe { OwnedHandle::from_raw_handle(event) });
        Ok(())
    }
}
