//! Security descriptors of objects: read, written, changed.

use std::io;
use std::os::windows::io::{AsRawHandle, BorrowedHandle};

use windows_sys::Win32::Foundation::ERROR_INSUFFICIENT_BUFFER;
use windows_sys::Win32::Security::{
    DACL_SECURITY_INFORMATION, GetKernelObjectSecurity, OWNER_SECURITY_INFORMATION, SECURITY_ATTRIBUTES,
    SetKernelObjectSecurity,
};

use super::form::{Descriptor, SE_DACL_PROTECTED};
use super::{Ace, Dacl, invalid, u16_at};

/// How often a change is made anew when somebody else's comes in between.
const TRIES: usize = 5;

impl Descriptor {
    /// Owner and DACL of the object behind `handle`, which must have been opened with READ_CONTROL.
    pub(crate) fn of(handle: BorrowedHandle<'_>) -> io::Result<Self> {
        Ok(Self::read(handle)?.0)
    }

    /// The same, and whether the list is protected from what its parent would have it inherit.
    fn read(handle: BorrowedHandle<'_>) -> io::Result<(Self, bool)> {
        let mut words = vec![0_u32; 64];
        loop {
            let size = size_of_val(words.as_slice());
            let mut needed = 0;
            // SAFETY: `words` is writable for `size` bytes and aligned for a descriptor; the handle is borrowed
            // and so open.
            let done = unsafe {
                GetKernelObjectSecurity(
                    handle.as_raw_handle(),
                    OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION,
                    words.as_mut_ptr().cast(),
                    u32::try_from(size).unwrap_or(u32::MAX),
                    &raw mut needed,
                )
            };
            if done != 0 {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                let protected = u16_at(&bytes, 2)? & SE_DACL_PROTECTED != 0;
                return Ok((Self::parse(&bytes)?, protected));
            }
            let error = io::Error::last_os_error();
            let grown = (needed as usize).div_ceil(size_of::<u32>());
            let short = error.raw_os_error() == Some(ERROR_INSUFFICIENT_BUFFER.cast_signed());
            if !short || grown <= words.len() {
                return Err(error);
            }
            words.resize(grown, 0);
        }
    }

    /// Puts the DACL on the object behind `handle`, which must have been opened with WRITE_DAC.
    ///
    /// SetKernelObjectSecurity, also for window stations and desktops: SetUserObjectSecurity says TRUE under Wine
    /// and does nothing. What was written is read back by the caller.
    pub(crate) fn set_dacl(&self, handle: BorrowedHandle<'_>) -> io::Result<()> {
        self.put(handle, true)
    }

    /// Adds an entry to the list of the object behind `handle`, opened with READ_CONTROL and WRITE_DAC, and reads back
    /// that it is there. An object without a list stays without.
    pub(crate) fn add(handle: BorrowedHandle<'_>, ace: &Ace) -> io::Result<()> {
        Self::change(handle, ace, |list| list.add(ace.clone()), |before, after| after > before)
    }

    /// Takes one entry that is equal in every bit from it, if there is one.
    pub(crate) fn remove(handle: BorrowedHandle<'_>, ace: &Ace) -> io::Result<()> {
        let done = |before: usize, after: usize| before == 0 || after < before;
        Self::change(handle, ace, |list| _ = list.remove(ace), done)
    }

    fn change(
        handle: BorrowedHandle<'_>,
        ace: &Ace,
        change: impl Fn(&mut Dacl),
        done: impl Fn(usize, usize) -> bool,
    ) -> io::Result<()> {
        // Whoever else changes it does so without asking: what was read may be old when it is written.
        for _ in 0..TRIES {
            let (mut descriptor, protected) = Self::read(handle)?;
            descriptor.owner = None;
            let Some(list) = &mut descriptor.dacl else { return Ok(()) };
            let before = list.count(ace);
            change(list);
            if Some(&*list) == Self::of(handle)?.dacl.as_ref() {
                return Ok(());
            }
            descriptor.put(handle, protected)?;
            if Self::of(handle)?.dacl.is_none_or(|after| done(before, after.count(ace))) {
                return Ok(());
            }
        }
        Err(invalid("the list read back is not the one that was written"))
    }

    fn put(&self, handle: BorrowedHandle<'_>, protected: bool) -> io::Result<()> {
        let bytes = self.attributes(protected)?;
        // SAFETY: the descriptor is whole, self-relative and aligned; the handle is borrowed and so open.
        let done = unsafe {
            SetKernelObjectSecurity(
                handle.as_raw_handle(),
                DACL_SECURITY_INFORMATION,
                bytes.words.as_ptr().cast_mut().cast(),
            )
        };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The same, for the call that creates an object.
    pub(crate) fn to_attributes(&self) -> io::Result<Attributes> {
        self.attributes(true)
    }

    fn attributes(&self, protected: bool) -> io::Result<Attributes> {
        let word = |chunk: &[u8]| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_ne_bytes(word)
        };
        Ok(Attributes { words: self.to_bytes(protected)?.chunks(4).map(word).collect() })
    }
}

/// A descriptor in the form that system calls take.
#[derive(Debug)]
pub(crate) struct Attributes {
    /// Words, so that it is aligned as SECURITY_DESCRIPTOR_RELATIVE is.
    words: Vec<u32>,
}

impl Attributes {
    /// For one call: it points into this value. What is created is not inherited by child processes.
    pub(crate) fn raw(&self) -> SECURITY_ATTRIBUTES {
        SECURITY_ATTRIBUTES {
            nLength: u32::try_from(size_of::<SECURITY_ATTRIBUTES>()).unwrap_or(0),
            lpSecurityDescriptor: self.words.as_ptr().cast_mut().cast(),
            bInheritHandle: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sid::Sid;
    use std::os::windows::io::{AsHandle, FromRawHandle, OwnedHandle};
    use windows_sys::Win32::System::Threading::CreateEventW;

    #[test]
    fn an_object_has_the_list_that_it_was_created_with_and_then_given() {
        let own = crate::sys::thread_token::process_user().unwrap();
        let all = 0x001f_0003;
        let first = Descriptor { owner: Some(own), dacl: Some(Dacl::new([Ace::allow(own, all)])) };
        let attributes = first.to_attributes().unwrap();
        let raw_attributes = attributes.raw();
        // SAFETY: the attributes live until the call returns; on success the handle is new and nobody else's.
        let event = unsafe {
            let raw = CreateEventW(&raw const raw_attributes, 1, 0, std::ptr::null());
            assert!(!raw.is_null(), "{}", io::Error::last_os_error());
            OwnedHandle::from_raw_handle(raw)
        };
        assert_eq!(Descriptor::of(event.as_handle()).unwrap(), first);
        let entries = [Ace::deny(Sid::NETWORK, all), Ace::allow(own, all)];
        let second = Descriptor { owner: None, dacl: Some(Dacl::new(entries)) };
        second.set_dacl(event.as_handle()).unwrap();
        let found = Descriptor::of(event.as_handle()).unwrap();
        assert_eq!((found.owner, found.dacl), (Some(own), second.dacl));
    }
}
