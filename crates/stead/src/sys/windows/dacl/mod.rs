//! Access control lists, built, read and compared as bytes; and the security descriptors that hold them.
//!
//! No SDDL (its reader knows more than is meant) and no SetEntriesInAcl (it merges and reorders): what is written
//! is what stands here, in this order, and what is read is kept as it is, also where it is of no kind known here.
//!
//! Reference: [\[MS-DTYP\] 2.4.4 to 2.4.6](https://learn.microsoft.com/openspecs/windows_protocols/ms-dtyp/20233ed8-a6c6-4097-aafa-dd545ed24428).

#[cfg(windows)]
mod descriptor;
mod form;

use std::fmt;
use std::io;
#[cfg(windows)]
use std::os::windows::io::AsHandle;

use super::sid::Sid;
#[cfg(windows)]
use crate::error::{Error, Result};

#[cfg(windows)]
pub(crate) use descriptor::Attributes;
#[cfg(any(windows, feature = "fuzzing"))]
pub(crate) use form::Descriptor;

/// What a client of a pipe needs: to read, to write, to look at it and to wait for it. `FILE_GENERIC_WRITE`
/// would add FILE_APPEND_DATA, which on a pipe is FILE_CREATE_PIPE_INSTANCE: the right to be its server
/// ([Named Pipe Security and Access Rights](https://learn.microsoft.com/windows/win32/ipc/named-pipe-security-and-access-rights)).
pub(crate) const PIPE_CLIENT: u32 = 0x0012_019b;

/// The server's own: a client's, and FILE_CREATE_PIPE_INSTANCE for every next instance.
pub(crate) const PIPE_SERVER: u32 = PIPE_CLIENT | 0x4;

/// FILE_ALL_ACCESS: what is denied whole, and what a folder's owner has.
pub(crate) const FILE_ALL_ACCESS: u32 = 0x001f_01ff;

/// OBJECT_INHERIT_ACE and CONTAINER_INHERIT_ACE: for what is created inside, too.
pub(crate) const INHERITED_BY_ALL: u8 = 0x3;

const INHERIT_ONLY_ACE: u8 = 0x8;
const INHERITED_ACE: u8 = 0x10;
const GENERIC_ALL: u32 = 0x1000_0000;
const ACL_REVISION: u8 = 2;
const ACL_HEADER: usize = 8;
const ACE_HEADER: usize = 8;

/// What an access control entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AceKind {
    /// `ACCESS_ALLOWED_ACE`.
    Allow,
    /// `ACCESS_DENIED_ACE`.
    Deny,
    /// Another `ACE_HEADER.AceType`, kept as it is: it means more than a mask and a SID.
    Other(u8),
}

/// One access control entry.
///
/// Reference: [ACE](https://learn.microsoft.com/windows/win32/secauthz/access-control-entries).
///
/// ```
/// # #[cfg(windows)] {
/// use stead::os::windows::{Ace, Sid};
/// let entry = Ace::allow(Sid::LOCAL_SYSTEM, 0x20001);
/// assert_eq!(entry.to_string(), "allow S-1-5-18 0x20001");
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[doc(alias = "ACCESS_ALLOWED_ACE")]
#[doc(alias = "ACCESS_DENIED_ACE")]
#[doc(alias = "ACE_HEADER")]
pub struct Ace {
    pub(crate) kind: AceKind,
    pub(crate) flags: u8,
    pub(crate) mask: u32,
    pub(crate) sid: Option<Sid>,
    /// What stands after the SID, or after the mask of an entry of another kind.
    rest: Vec<u8>,
}

impl Ace {
    fn new(kind: AceKind, sid: Sid, mask: u32) -> Self {
        Self { kind, flags: 0, mask, sid: Some(sid), rest: Vec::new() }
    }

    /// An entry that allows `sid` what `mask` says.
    #[doc(alias = "AddAccessAllowedAce")]
    #[must_use]
    pub fn allow(sid: Sid, mask: u32) -> Self {
        Self::new(AceKind::Allow, sid, mask)
    }

    /// An entry that denies it.
    #[doc(alias = "AddAccessDeniedAce")]
    #[must_use]
    pub fn deny(sid: Sid, mask: u32) -> Self {
        Self::new(AceKind::Deny, sid, mask)
    }

    /// The same with these flags: `OBJECT_INHERIT_ACE` and the others of `ACE_HEADER.AceFlags`.
    #[must_use]
    pub fn with_flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// What it does.
    pub fn kind(&self) -> AceKind {
        self.kind
    }

    /// How it is inherited: 0 on what nothing inherits from.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// The rights, as a mask whose meaning the kind of object gives.
    #[doc(alias = "ACCESS_MASK")]
    pub fn mask(&self) -> u32 {
        self.mask
    }

    /// Whom it names; `None` in an entry of another kind.
    pub fn sid(&self) -> Option<&Sid> {
        self.sid.as_ref()
    }

    /// Whether it stands for what it was inherited from.
    pub(crate) fn is_inherited(&self) -> bool {
        self.flags & INHERITED_ACE != 0
    }

    /// Its bytes, as they stand in a list.
    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let kind = match self.kind {
            AceKind::Allow => 0,
            AceKind::Deny => 1,
            AceKind::Other(kind) => kind,
        };
        let sid = self.sid.as_ref().map(Sid::as_bytes).unwrap_or_default();
        let size = ACE_HEADER + sid.len() + self.rest.len();
        let size = u16::try_from(size).map_err(|_| invalid("an entry is too long"))?;
        let mut bytes = vec![kind, self.flags];
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&self.mask.to_le_bytes());
        bytes.extend_from_slice(sid);
        bytes.extend_from_slice(&self.rest);
        Ok(bytes)
    }

    /// The entry at the beginning of `bytes`, and what comes after it.
    pub(crate) fn parse(bytes: &[u8]) -> io::Result<(Self, &[u8])> {
        let size = usize::from(u16_at(bytes, 2)?);
        let ace = bytes.get(..size).filter(|ace| ace.len() >= ACE_HEADER);
        let ace = ace.ok_or_else(|| invalid("an entry is cut off"))?;
        let (flags, mask, body) = (ace[1], u32_at(ace, 4)?, &ace[ACE_HEADER..]);
        let (kind, sid) = match ace[0] {
            0 => (AceKind::Allow, true),
            1 => (AceKind::Deny, true),
            other => (AceKind::Other(other), false),
        };
        let sid = sid.then(|| Sid::from_bytes(body).ok_or_else(|| invalid("an entry's SID is none")));
        let sid = sid.transpose()?;
        let length = sid.as_ref().map_or(0, |sid| sid.as_bytes().len());
        Ok((Self { kind, flags, mask, sid, rest: body[length..].to_vec() }, &bytes[size..]))
    }
}

impl fmt::Display for Ace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            AceKind::Allow => f.write_str("allow")?,
            AceKind::Deny => f.write_str("deny")?,
            AceKind::Other(kind) => write!(f, "kind {kind}")?,
        }
        if let Some(sid) = &self.sid {
            write!(f, " {sid}")?;
        }
        write!(f, " {:#x}", self.mask)?;
        if self.flags != 0 {
            write!(f, " (flags {:#x})", self.flags)?;
        }
        Ok(())
    }
}

/// An access control list, in the order in which the system reads it.
///
/// Two are equal when they have the same entries in the same order. An object without any list, to which everybody
/// has every access, is `None` of one; an empty list lets nobody in.
///
/// Reference: [DACLs and ACEs](https://learn.microsoft.com/windows/win32/secauthz/dacls-and-aces).
///
/// ```
/// # #[cfg(windows)] {
/// use stead::os::windows::{Ace, Dacl, Sid};
/// let list = Dacl::new([Ace::deny(Sid::NETWORK, 0x1), Ace::allow(Sid::EVERYONE, 0x3)]);
/// assert_eq!(list.to_string(), "deny S-1-5-2 0x1, allow S-1-1-0 0x3");
/// assert_eq!(list.allowed(&[Sid::EVERYONE, Sid::NETWORK]), 0x2);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[doc(alias = "ACL")]
pub struct Dacl {
    revision: u8,
    pub(crate) entries: Vec<Ace>,
}

impl Default for Dacl {
    fn default() -> Self {
        Self::new([])
    }
}

impl Dacl {
    /// A list of these entries, in this order.
    #[doc(alias = "InitializeAcl")]
    pub fn new(entries: impl IntoIterator<Item = Ace>) -> Self {
        Self { revision: ACL_REVISION, entries: entries.into_iter().collect() }
    }

    /// The list of an object that was opened with `READ_CONTROL`: a file, an event, a process; `None` where it has
    /// none at all.
    ///
    /// Window stations and desktops are read by [`DesktopExt::dacls`](crate::os::windows::DesktopExt::dacls).
    ///
    /// # Errors
    ///
    /// [`System`](crate::ErrorKind::System), with what the system said.
    ///
    /// Reference: [GetKernelObjectSecurity](https://learn.microsoft.com/windows/win32/api/securitybaseapi/nf-securitybaseapi-getkernelobjectsecurity).
    #[cfg(windows)]
    #[doc(alias = "GetKernelObjectSecurity")]
    #[doc(alias = "GetSecurityInfo")]
    pub fn of(object: impl AsHandle) -> Result<Option<Self>> {
        Descriptor::of(object.as_handle()).map(|found| found.dacl).map_err(|source| {
            Error::system("reading an access control list", "GetKernelObjectSecurity", source)
        })
    }

    /// Puts the list on an object that was opened with `READ_CONTROL` and `WRITE_DAC`, and reads it back.
    ///
    /// What the object's parent has is not inherited from then on.
    ///
    /// # Errors
    ///
    /// [`System`](crate::ErrorKind::System), with what the system said, or where what is read back is another list.
    ///
    /// Reference: [SetKernelObjectSecurity](https://learn.microsoft.com/windows/win32/api/securitybaseapi/nf-securitybaseapi-setkernelobjectsecurity).
    #[cfg(windows)]
    #[doc(alias = "SetKernelObjectSecurity")]
    #[doc(alias = "SetSecurityInfo")]
    pub fn put_on(&self, object: impl AsHandle) -> Result<()> {
        let system =
            |source| Error::system("writing an access control list", "SetKernelObjectSecurity", source);
        let descriptor = Descriptor { owner: None, dacl: Some(self.clone()) };
        descriptor.set_dacl(object.as_handle()).map_err(system)?;
        match Descriptor::of(object.as_handle()).map_err(system)?.dacl {
            Some(found) if found == *self => Ok(()),
            _ => Err(system(invalid("the list read back is not the one that was written"))),
        }
    }

    /// Its entries, in the order in which the system reads them.
    #[doc(alias = "GetAce")]
    pub fn entries(&self) -> &[Ace] {
        &self.entries
    }

    /// The rights that somebody with these SIDs gets by the list alone, as the system counts: the first entry that
    /// speaks of a right decides it. The rights that an object's owner has, and those of privileges, are not in it.
    ///
    /// `GENERIC_ALL` stands for every right.
    #[doc(alias = "GetEffectiveRightsFromAcl")]
    #[doc(alias = "AccessCheck")]
    pub fn allowed(&self, sids: &[Sid]) -> u32 {
        self.entries.iter().fold((0, 0), |(allowed, denied), ace| count(ace, sids, allowed, denied)).0
    }

    /// Whether what denies comes before what allows, and what is inherited last.
    pub fn is_canonical(&self) -> bool {
        let rank = |ace: &Ace| (ace.is_inherited(), ace.kind != AceKind::Deny);
        self.entries.iter().is_sorted_by_key(rank)
    }

    /// Adds an entry that allows where the canonical order has it: after what is not inherited.
    pub(crate) fn add(&mut self, ace: Ace) {
        let at = self.entries.iter().position(Ace::is_inherited).unwrap_or(self.entries.len());
        self.entries.insert(at, ace);
    }

    /// Takes the last entry that is equal to this one in every bit; whether there was one.
    pub(crate) fn remove(&mut self, ace: &Ace) -> bool {
        let found = self.entries.iter().rposition(|one| one == ace);
        found.map(|at| self.entries.remove(at)).is_some()
    }

    /// How many entries are equal to this one in every bit.
    pub(crate) fn count(&self, ace: &Ace) -> usize {
        self.entries.iter().filter(|one| *one == ace).count()
    }

    /// That of a server's pipe: nobody over the network; the server's user as a server; as clients the system
    /// and the administrators, and if it is open to all, whoever is logged on.
    ///
    /// Neither Everyone (it has the anonymous and guests in it) nor ALL APPLICATION PACKAGES.
    pub(crate) fn of_pipe(server: &Sid, everyone: bool) -> Self {
        let mut list = Self::new([
            Ace::deny(Sid::NETWORK, FILE_ALL_ACCESS),
            Ace::allow(*server, PIPE_SERVER),
            Ace::allow(Sid::LOCAL_SYSTEM, PIPE_CLIENT),
            Ace::allow(Sid::ADMINISTRATORS, PIPE_CLIENT),
        ]);
        if everyone {
            list.entries.push(Ace::allow(Sid::AUTHENTICATED_USERS, PIPE_CLIENT));
        }
        list
    }

    /// Its bytes, as they stand in a descriptor.
    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![self.revision, 0, 0, 0, 0, 0, 0, 0];
        for ace in &self.entries {
            bytes.extend(ace.to_bytes()?);
        }
        let size = u16::try_from(bytes.len()).map_err(|_| invalid("an access control list is too long"))?;
        let count = u16::try_from(self.entries.len()).map_err(|_| invalid("too many entries"))?;
        bytes[2..4].copy_from_slice(&size.to_le_bytes());
        bytes[4..6].copy_from_slice(&count.to_le_bytes());
        Ok(bytes)
    }

    /// The list at the beginning of `bytes`.
    pub(crate) fn parse(bytes: &[u8]) -> io::Result<Self> {
        let size = usize::from(u16_at(bytes, 2)?);
        let count = u16_at(bytes, 4)?;
        let mut rest = bytes.get(ACL_HEADER..size).ok_or_else(|| invalid("the list is cut off"))?;
        // No more room than the bytes can fill: the count only promises.
        let mut entries = Vec::with_capacity(usize::from(count).min(rest.len() / ACE_HEADER));
        for _ in 0..count {
            let (ace, after) = Ace::parse(rest)?;
            entries.push(ace);
            rest = after;
        }
        Ok(Self { revision: bytes[0], entries })
    }
}

/// What is allowed and denied after one more entry.
fn count(ace: &Ace, sids: &[Sid], allowed: u32, denied: u32) -> (u32, u32) {
    let names = ace.sid.is_some_and(|sid| sids.contains(&sid));
    if !names || ace.flags & INHERIT_ONLY_ACE != 0 {
        return (allowed, denied);
    }
    let mask = if ace.mask & GENERIC_ALL == 0 { ace.mask } else { u32::MAX };
    match ace.kind {
        AceKind::Allow => (allowed | mask & !denied, denied),
        AceKind::Deny => (allowed, denied | mask & !allowed),
        AceKind::Other(_) => (allowed, denied),
    }
}

impl fmt::Display for Dacl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, ace) in self.entries.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{ace}")?;
        }
        Ok(())
    }
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

    fn user() -> Sid {
        "S-1-5-21-1-2-3-1000".parse().unwrap()
    }

    #[test]
    fn a_pipes_clients_cannot_become_its_server() {
        const FILE_CREATE_PIPE_INSTANCE: u32 = 0x4;
        const WRITE_DAC_AND_OWNER: u32 = 0x000c_0000;
        let dacl = Dacl::of_pipe(&user(), true);
        let first = &dacl.entries[0];
        assert_eq!((first.kind, first.sid), (AceKind::Deny, Some(Sid::NETWORK)), "{dacl}");
        for ace in dacl.entries.iter().filter(|ace| ace.kind == AceKind::Allow) {
            assert_eq!(ace.mask & WRITE_DAC_AND_OWNER, 0, "{ace}");
            assert_eq!(ace.mask & FILE_CREATE_PIPE_INSTANCE != 0, ace.sid == Some(user()), "{ace}");
        }
    }

    #[test]
    fn the_first_entry_that_speaks_of_a_right_decides_it() {
        let list = Dacl::new([
            Ace::allow(user(), 0x1),
            Ace::deny(user(), 0x3),
            Ace::allow(Sid::EVERYONE, 0x6),
            Ace::allow(user(), 0x10).with_flags(INHERIT_ONLY_ACE),
        ]);
        assert_eq!(list.allowed(&[user(), Sid::EVERYONE]), 0x5);
        assert_eq!(list.allowed(&[Sid::EVERYONE]), 0x6);
        assert_eq!(list.allowed(&[]), 0);
        assert!(!list.is_canonical());
        assert_eq!(Dacl::new([Ace::allow(user(), GENERIC_ALL)]).allowed(&[user()]), u32::MAX);
    }

    #[test]
    fn what_is_added_stands_before_what_is_inherited_and_is_taken_away_alone() {
        let inherited = Ace::allow(user(), 0x1).with_flags(INHERITED_ACE);
        let before = Dacl::new([Ace::deny(Sid::NETWORK, 1), Ace::allow(user(), 1), inherited]);
        let mut list = before.clone();
        list.add(Ace::allow(user(), 1));
        assert!(list.is_canonical());
        assert_eq!(list.count(&Ace::allow(user(), 1)), 2);
        assert_ne!(list, before);
        assert!(list.remove(&Ace::allow(user(), 1)));
        assert_eq!(list, before);
        assert!(!list.remove(&Ace::allow(user(), 3)));
    }

    #[test]
    fn an_entry_of_an_unknown_kind_is_kept_bit_for_bit() {
        // ACCESS_ALLOWED_OBJECT_ACE, with an object's GUID before the SID.
        let strange = Ace {
            kind: AceKind::Other(5),
            flags: 0,
            mask: 0x100,
            sid: None,
            rest: vec![
                1, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0,
                0,
            ],
        };
        let list = Dacl { revision: 4, entries: vec![strange, Ace::allow(user(), 1)] };
        assert_eq!(Dacl::parse(&list.to_bytes().unwrap()).unwrap(), list);
    }
}
