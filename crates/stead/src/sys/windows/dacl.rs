//! Security descriptors, in their self-relative form: built, read and compared as bytes.
//!
//! No SDDL (its reader knows more than is meant) and no SetEntriesInAcl (it merges and reorders): what is written
//! is what stands here, in this order, and what is read is shown as it is.
//!
//! Reference: [\[MS-DTYP\] 2.4.4 to 2.4.6](https://learn.microsoft.com/openspecs/windows_protocols/ms-dtyp/20233ed8-a6c6-4097-aafa-dd545ed24428).

use std::fmt;
use std::io;
use std::os::windows::io::{AsRawHandle, BorrowedHandle};

use windows_sys::Win32::Foundation::ERROR_INSUFFICIENT_BUFFER;
use windows_sys::Win32::Security::{
    DACL_SECURITY_INFORMATION, GetKernelObjectSecurity, OWNER_SECURITY_INFORMATION, SECURITY_ATTRIBUTES,
    SetKernelObjectSecurity,
};

use super::sid::Sid;

/// What a client of a pipe needs: to read, to write, to look at it and to wait for it. `FILE_GENERIC_WRITE`
/// would add FILE_APPEND_DATA, which on a pipe is FILE_CREATE_PIPE_INSTANCE: the right to be its server
/// ([Named Pipe Security and Access Rights](https://learn.microsoft.com/windows/win32/ipc/named-pipe-security-and-access-rights)).
pub(crate) const PIPE_CLIENT: u32 = 0x0012_019b;

/// The server's own: a client's, and FILE_CREATE_PIPE_INSTANCE for every next instance.
pub(crate) const PIPE_SERVER: u32 = PIPE_CLIENT | 0x4;

/// FILE_ALL_ACCESS: what is denied whole.
const FILE_ALL_ACCESS: u32 = 0x001f_01ff;

/// Revision 1, self-relative, and a DACL that is there.
const REVISION: u8 = 1;
const SE_DACL_PRESENT: u16 = 0x0004;
const SE_DACL_PROTECTED: u16 = 0x1000;
const SE_SELF_RELATIVE: u16 = 0x8000;
const ACL_REVISION: u8 = 2;
const DESCRIPTOR_HEADER: usize = 20;
const ACL_HEADER: usize = 8;
const ACE_HEADER: usize = 8;

/// What an access control entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum AceKind {
    Allow,
    Deny,
}

/// One access control entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Ace {
    pub(crate) kind: AceKind,
    /// Inheritance: 0 on what nothing inherits from.
    pub(crate) flags: u8,
    pub(crate) mask: u32,
    pub(crate) sid: Sid,
}

impl Ace {
    pub(crate) fn allow(sid: Sid, mask: u32) -> Self {
        Self { kind: AceKind::Allow, flags: 0, mask, sid }
    }

    pub(crate) fn deny(sid: Sid, mask: u32) -> Self {
        Self { kind: AceKind::Deny, flags: 0, mask, sid }
    }
}

impl fmt::Display for Ace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            AceKind::Allow => "allow",
            AceKind::Deny => "deny",
        };
        write!(f, "{kind} {} {:#x}", self.sid, self.mask)?;
        if self.flags != 0 {
            write!(f, " (flags {:#x})", self.flags)?;
        }
        Ok(())
    }
}

/// An access control list that someone is named in, in the order in which it is read by the system.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Dacl(pub(crate) Vec<Ace>);

impl Dacl {
    /// That of a server's pipe: nobody over the network; the server's user as a server; as clients the system
    /// and the administrators, and if it is open to all, whoever is logged on.
    ///
    /// Neither Everyone (it has the anonymous and guests in it) nor ALL APPLICATION PACKAGES.
    pub(crate) fn of_pipe(server: &Sid, everyone: bool) -> Self {
        let mut entries = vec![
            Ace::deny(Sid::NETWORK, FILE_ALL_ACCESS),
            Ace::allow(*server, PIPE_SERVER),
            Ace::allow(Sid::LOCAL_SYSTEM, PIPE_CLIENT),
            Ace::allow(Sid::ADMINISTRATORS, PIPE_CLIENT),
        ];
        if everyone {
            entries.push(Ace::allow(Sid::AUTHENTICATED_USERS, PIPE_CLIENT));
        }
        Self(entries)
    }

    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![ACL_REVISION, 0, 0, 0, 0, 0, 0, 0];
        for ace in &self.0 {
            let sid = ace.sid.as_bytes();
            let size = u16::try_from(ACE_HEADER + sid.len()).map_err(|_| invalid("a SID is too long"))?;
            bytes.push(match ace.kind {
                AceKind::Allow => 0,
                AceKind::Deny => 1,
            });
            bytes.push(ace.flags);
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(&ace.mask.to_le_bytes());
            bytes.extend_from_slice(sid);
        }
        let size = u16::try_from(bytes.len()).map_err(|_| invalid("an access control list is too long"))?;
        let count = u16::try_from(self.0.len()).map_err(|_| invalid("too many entries"))?;
        bytes[2..4].copy_from_slice(&size.to_le_bytes());
        bytes[4..6].copy_from_slice(&count.to_le_bytes());
        Ok(bytes)
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let size = usize::from(u16_at(bytes, 2)?);
        let count = u16_at(bytes, 4)?;
        let mut rest = bytes.get(ACL_HEADER..size).ok_or_else(|| invalid("the list is cut off"))?;
        let mut entries = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let size = usize::from(u16_at(rest, 2)?);
            let ace = rest.get(..size).filter(|ace| ace.len() >= ACE_HEADER);
            let ace = ace.ok_or_else(|| invalid("an entry is cut off"))?;
            let kind = match ace[0] {
                0 => AceKind::Allow,
                1 => AceKind::Deny,
                // Object and callback entries mean more than a mask and a SID; to leave them out would show
                // a list that it is not.
                _ => return Err(invalid("an entry that is neither allow nor deny")),
            };
            let sid = Sid::from_bytes(&ace[ACE_HEADER..]).ok_or_else(|| invalid("an entry's SID is none"))?;
            entries.push(Ace { kind, flags: ace[1], mask: u32_at(ace, 4)?, sid });
            rest = &rest[size..];
        }
        Ok(Self(entries))
    }
}

impl fmt::Display for Dacl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, ace) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{ace}")?;
        }
        Ok(())
    }
}

/// An owner and a DACL, as they are on an object or are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) owner: Option<Sid>,
    /// `None` where there is no list at all: then everybody may do everything.
    pub(crate) dacl: Option<Dacl>,
}

impl Descriptor {
    /// Owner and DACL of the object behind `handle`, which must have been opened with READ_CONTROL.
    pub(crate) fn of(handle: BorrowedHandle<'_>) -> io::Result<Self> {
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
                return Self::parse(&bytes);
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
    #[cfg_attr(not(test), expect(dead_code, reason = "for desktops"))]
    pub(crate) fn set_dacl(&self, handle: BorrowedHandle<'_>) -> io::Result<()> {
        let bytes = self.to_attributes()?;
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
        let mut bytes = vec![0; DESCRIPTOR_HEADER];
        bytes[0] = REVISION;
        let mut control = SE_SELF_RELATIVE;
        if let Some(owner) = &self.owner {
            let offset = offset(&bytes)?;
            bytes[4..8].copy_from_slice(&offset);
            bytes.extend_from_slice(owner.as_bytes());
        }
        if let Some(dacl) = &self.dacl {
            control |= SE_DACL_PRESENT | SE_DACL_PROTECTED;
            let offset = offset(&bytes)?;
            bytes[16..20].copy_from_slice(&offset);
            bytes.extend(dacl.to_bytes()?);
        }
        bytes[2..4].copy_from_slice(&control.to_le_bytes());
        let word = |chunk: &[u8]| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_ne_bytes(word)
        };
        Ok(Attributes { words: bytes.chunks(4).map(word).collect() })
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let control = u16_at(bytes, 2)?;
        let part = |at: usize| -> io::Result<Option<&[u8]>> {
            match u32_at(bytes, at)? as usize {
                0 => Ok(None),
                offset => bytes.get(offset..).map(Some).ok_or_else(|| invalid("an offset leads outside")),
            }
        };
        let owner = part(4)?
            .map(|bytes| Sid::from_bytes(bytes).ok_or_else(|| invalid("the owner's SID is none")))
            .transpose()?;
        let dacl = match part(16)? {
            Some(bytes) if control & SE_DACL_PRESENT != 0 => Some(Dacl::parse(bytes)?),
            _ => None,
        };
        Ok(Self { owner, dacl })
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

fn offset(bytes: &[u8]) -> io::Result<[u8; 4]> {
    u32::try_from(bytes.len()).map(u32::to_le_bytes).map_err(|_| invalid("the descriptor is too long"))
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    let word = bytes.get(at..at + 2).and_then(|word| word.try_into().ok());
    word.map(u16::from_le_bytes).ok_or_else(|| invalid("the descriptor is cut off"))
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map(u32::from_le_bytes).ok_or_else(|| invalid("the descriptor is cut off"))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {

    use super::*;
    use std::os::windows::io::{AsHandle, FromRawHandle, OwnedHandle};
    use windows_sys::Win32::System::Threading::CreateEventW;

    fn user() -> Sid {
        "S-1-5-21-1-2-3-1000".parse().unwrap()
    }

    fn bytes(descriptor: &Descriptor) -> Vec<u8> {
        let words = descriptor.to_attributes().unwrap().words;
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for everyone in [false, true] {
            let whole = Descriptor { owner: Some(user()), dacl: Some(Dacl::of_pipe(&user(), everyone)) };
            assert_eq!(Descriptor::parse(&bytes(&whole)).unwrap(), whole);
        }
        let none = Descriptor { owner: None, dacl: None };
        assert_eq!(Descriptor::parse(&bytes(&none)).unwrap(), none);
        let nobody = Descriptor { owner: None, dacl: Some(Dacl::default()) };
        assert_eq!(Descriptor::parse(&bytes(&nobody)).unwrap(), nobody, "an empty list is not no list");
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let whole = Descriptor { owner: Some(user()), dacl: Some(Dacl::of_pipe(&user(), true)) };
        let bytes = bytes(&whole);
        for end in 0..bytes.len() {
            let _ = Descriptor::parse(&bytes[..end]);
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = Descriptor::parse(&changed);
            }
        }
    }

    #[test]
    fn a_pipes_clients_cannot_become_its_server() {
        const FILE_CREATE_PIPE_INSTANCE: u32 = 0x4;
        const WRITE_DAC_AND_OWNER: u32 = 0x000c_0000;
        let dacl = Dacl::of_pipe(&user(), true);
        let first = &dacl.0[0];
        assert_eq!((first.kind, &first.sid), (AceKind::Deny, &Sid::NETWORK), "{dacl}");
        for ace in dacl.0.iter().filter(|ace| ace.kind == AceKind::Allow) {
            assert_eq!(ace.mask & WRITE_DAC_AND_OWNER, 0, "{ace}");
            assert_eq!(ace.mask & FILE_CREATE_PIPE_INSTANCE != 0, ace.sid == user(), "{ace}");
        }
    }

    #[test]
    fn an_object_has_the_list_that_it_was_created_with_and_then_given() {
        let own = super::super::thread_token::process_user().unwrap();
        let all = 0x001f_0003;
        let first = Descriptor { owner: Some(own), dacl: Some(Dacl(vec![Ace::allow(own, all)])) };
        let attributes = first.to_attributes().unwrap();
        let raw_attributes = attributes.raw();
        // SAFETY: the attributes live until the call returns; on success the handle is new and nobody else's.
        let event = unsafe {
            let raw = CreateEventW(&raw const raw_attributes, 1, 0, std::ptr::null());
            assert!(!raw.is_null(), "{}", io::Error::last_os_error());
            OwnedHandle::from_raw_handle(raw)
        };
        assert_eq!(Descriptor::of(event.as_handle()).unwrap(), first);
        let entries = vec![Ace::deny(Sid::NETWORK, all), Ace::allow(own, all)];
        let second = Descriptor { owner: None, dacl: Some(Dacl(entries)) };
        second.set_dacl(event.as_handle()).unwrap();
        let found = Descriptor::of(event.as_handle()).unwrap();
        assert_eq!((found.owner, found.dacl), (Some(own), second.dacl));
    }
}
