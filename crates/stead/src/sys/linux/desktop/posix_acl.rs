//! POSIX access lists: one entry put into a list, and taken out again so that the list is what it was.
//!
//! Pure: bytes in, bytes out. The form is that of the attribute `system.posix_acl_access`
//! (`include/uapi/linux/posix_acl_xattr.h`), the rules are those of acl(5).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;

/// `POSIX_ACL_XATTR_VERSION`, the first four bytes.
const VERSION: u32 = 2;
/// The id of an entry that names nobody.
const NOBODY: u32 = u32::MAX;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP: u16 = 0x04;
const NAMED_GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Read, write, execute, as in a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(crate) struct Rights(u8);

impl Rights {
    pub(crate) const NONE: Self = Self(0);
    /// To search a directory.
    pub(crate) const SEARCH: Self = Self(1);
    /// What connecting to a socket takes (unix(7)).
    pub(crate) const WRITE: Self = Self(2);
    pub(crate) const READ_WRITE: Self = Self(6);

    /// The lowest three bits.
    pub(crate) const fn of_bits(bits: u32) -> Self {
        Self((bits & 7) as u8)
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn bits(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
            write!(f, "{}", if self.0 & bit == 0 { '-' } else { letter })?;
        }
        Ok(())
    }
}

/// Whom an entry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Named {
    User(u32),
    Group(u32),
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "user:{uid}"),
            Self::Group(gid) => write!(f, "group:{gid}"),
        }
    }
}

/// An access list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PosixAcl {
    pub(crate) owner: Rights,
    pub(crate) group: Rights,
    pub(crate) other: Rights,
    pub(crate) named: BTreeMap<Named, Rights>,
    pub(crate) mask: Option<Rights>,
}

/// Bytes that are no access list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// An entry cannot be put in: the mask would have to be widened, and others' entries with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OthersHeldBack(pub(crate) Named);

/// What was put into a list: enough to take exactly that out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addition {
    pub(crate) who: Named,
    /// The rights that the entry did not have before.
    pub(crate) added: Rights,
    /// Whether there was an entry before.
    pub(crate) was_there: bool,
    /// Rights that stood in the mask without an entry to make use of them.
    pub(crate) idle_mask: Rights,
    /// Whether there was a mask although nobody was named.
    pub(crate) mask_alone: bool,
}

impl PosixAcl {
    /// The list that a mode stands for.
    pub(crate) fn of_mode(mode: u32) -> Self {
        Self {
            owner: Rights::of_bits(mode >> 6),
            group: Rights::of_bits(mode >> 3),
            other: Rights::of_bits(mode),
            named: BTreeMap::new(),
            mask: None,
        }
    }

    /// Reads the attribute.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (version, entries) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
            return Err(Malformed);
        }
        let (mut owner, mut group, mut other, mut mask) = (None, None, None, None);
        let mut named = BTreeMap::new();
        for entry in entries.chunks_exact(8) {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let rights = u16::from_le_bytes([entry[2], entry[3]]);
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            if rights > 7 {
                return Err(Malformed);
            }
            let rights = Rights::of_bits(rights.into());
            let before = match tag {
                OWNER => owner.replace(rights),
                GROUP => group.replace(rights),
                OTHER => other.replace(rights),
                MASK => mask.replace(rights),
                USER if id != NOBODY => named.insert(Named::User(id), rights),
                NAMED_GROUP if id != NOBODY => named.insert(Named::Group(id), rights),
                _ => return Err(Malformed),
            };
            if before.is_some() {
                return Err(Malformed);
            }
        }
        match (owner, group, other) {
            (Some(owner), Some(group), Some(other)) if named.is_empty() || mask.is_some() => {
                Ok(Self { owner, group, other, named, mask })
            }
            _ => Err(Malformed),
        }
    }

    /// The attribute, in the kernel's order: by tag, then by id.
    ///
    /// One without named entries and mask the kernel turns into the mode, and keeps no list.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        let mut put = |tag: u16, rights: Rights, id: u32| {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(rights.bits().to_le_bytes());
            bytes.extend(id.to_le_bytes());
        };
        put(OWNER, self.owner, NOBODY);
        for (who, rights) in &self.named {
            if let Named::User(uid) = who {
                put(USER, *rights, *uid);
            }
        }
        put(GROUP, self.group, NOBODY);
        for (who, rights) in &self.named {
            if let Named::Group(gid) = who {
                put(NAMED_GROUP, *rights, *gid);
            }
        }
        if let Some(mask) = self.mask {
            put(MASK, mask, NOBODY);
        }
        put(OTHER, self.other, NOBODY);
        bytes
    }

    /// Everything that the mask bounds: the named entries and the owning group.
    fn bounded(&self) -> Rights {
        self.named.values().fold(self.group, |all, rights| all.or(*rights))
    }

    /// What an entry is good for, under the mask.
    pub(crate) fn effective(&self, who: Named) -> Option<Rights> {
        self.named.get(&who).map(|rights| self.mask.map_or(*rights, |mask| rights.and(mask)))
    }

    /// Whether the kernel lets somebody with these ids do that (acl(5), "access check algorithm"; `posix_acl_permission`).
    pub(crate) fn admits(&self, file: Owners, uid: u32, gids: &[u32], wanted: Rights) -> bool {
        let under_mask = |rights: Rights| self.mask.map_or(rights, |mask| rights.and(mask));
        if uid == file.uid {
            return self.owner.contains(wanted);
        }
        if let Some(rights) = self.named.get(&Named::User(uid)) {
            return under_mask(*rights).contains(wanted);
        }
        let mut matching = self
            .named
            .iter()
            .filter_map(|(who, rights)| match who {
                Named::Group(gid) if gids.contains(gid) => Some(*rights),
                _ => None,
            })
            .chain(gids.contains(&file.gid).then_some(self.group))
            .peekable();
        match matching.peek() {
            Some(_) => matching.any(|rights| under_mask(rights).contains(wanted)),
            None => self.other.contains(wanted),
        }
    }

    /// The list with `wanted` for `who`, and what was done for it; `None` where it is there already.
    ///
    /// Nobody else gains or loses anything by it.
    pub(crate) fn with(
        &self,
        who: Named,
        wanted: Rights,
    ) -> Result<Option<(Self, Addition)>, OthersHeldBack> {
        if self.effective(who).is_some_and(|rights| rights.contains(wanted)) {
            return Ok(None);
        }
        let was = self.named.get(&who).copied();
        // An entry that matches hides what everybody has: it must not take that away.
        let rights = was.unwrap_or(self.other).or(wanted);
        let mask = self.mask.unwrap_or(self.group);
        let widened = rights.without(mask);
        let held_back = |rights: Rights| rights.and(widened) != Rights::NONE;
        let others = self.named.iter().filter(|(other, _)| **other != who);
        if let Some((held, _)) = others.clone().find(|(_, rights)| held_back(**rights)) {
            return Err(OthersHeldBack(*held));
        }
        // In a list without a mask the owning group's own entry bounds nothing.
        if self.mask.is_some() && held_back(self.group) || was.is_some_and(held_back) {
            return Err(OthersHeldBack(who));
        }
        let addition = Addition {
            who,
            added: rights.without(was.unwrap_or(Rights::NONE)),
            was_there: was.is_some(),
            idle_mask: self.mask.map_or(Rights::NONE, |mask| mask.without(self.bounded())),
            mask_alone: self.mask.is_some() && self.named.is_empty(),
        };
        let mut list = self.clone();
        list.named.insert(who, rights);
        list.mask = Some(mask.or(rights));
        Ok(Some((list, addition)))
    }

    /// The list without what was added; `None` where nothing of it is there any more.
    ///
    /// What others did to the list in between stays: nobody else's effective rights change.
    pub(crate) fn without(&self, addition: &Addition) -> Option<Self> {
        let now = *self.named.get(&addition.who)?;
        let left = now.without(addition.added);
        let mut list = self.clone();
        if left == Rights::NONE && !addition.was_there {
            list.named.remove(&addition.who);
        } else {
            list.named.insert(addition.who, left);
        }
        let mask = self.mask.unwrap_or(self.group);
        if list.named.is_empty() && !addition.mask_alone {
            // What chmod(1) took from the group class meanwhile, it took from the mask.
            list.group = self.group.and(mask);
            list.mask = None;
        } else {
            list.mask = Some(mask.and(list.bounded().or(addition.idle_mask)));
        }
        (list != *self).then_some(list)
    }
}

/// Whose a file is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owners {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl fmt::Display for PosixAcl {
    /// As getfacl(1) prints it on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user::{},group::{}", self.owner, self.group)?;
        for (who, rights) in &self.named {
            write!(f, ",{who}:{rights}")?;
        }
        if let Some(mask) = self.mask {
            write!(f, ",mask::{mask}")?;
        }
        write!(f, ",other::{}", self.other)
    }
}

/// Any attribute: what is read is written and read again as the same; and where an entry can be put in, nobody else
/// has more or less by it, neither then nor when it is taken out.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(data: &[u8]) {
    let Ok(list) = PosixAcl::parse(data) else { return };
    assert_eq!(PosixAcl::parse(&list.encode()).as_ref(), Ok(&list));
    let others = |list: &PosixAcl, who: Named| -> Vec<(Named, Rights)> {
        let all = list.named.keys().copied().filter(|other| *other != who);
        all.map(|other| (other, list.effective(other).unwrap_or(Rights::NONE))).collect()
    };
    let file = Owners { uid: 0, gid: 0 };
    let of_file = |list: &PosixAcl| [1, 2, 4].map(|bit| list.admits(file, 1, &[0], Rights::of_bits(bit)));
    let known = list.named.keys().copied().take(4);
    for who in known.chain([Named::User(47), Named::Group(47)]) {
        for wanted in [Rights::SEARCH, Rights::WRITE, Rights::READ_WRITE] {
            let Ok(Some((with, addition))) = list.with(who, wanted) else { continue };
            assert!(
                with.effective(who).is_some_and(|rights| rights.contains(wanted)),
                "{list} {who}: {with}"
            );
            let taken = with.without(&addition).unwrap_or_else(|| panic!("{with}: nothing to take out"));
            for changed in [&with, &taken] {
                assert_eq!(others(changed, who), others(&list, who), "{list} {who}: {changed}");
            }
            if who != Named::Group(0) && who != Named::User(1) {
                assert_eq!(
                    (of_file(&with), of_file(&taken)),
                    (of_file(&list), of_file(&list)),
                    "{list} {who}"
                );
            }
            assert_eq!(taken.effective(who), list.effective(who), "{list} {who}: {taken}");
        }
    }
}

#[cfg(test)]
#[path = "posix_acl_tests.rs"]
mod tests;
