//! An entry in an access list, with the record that lets another server take it out again.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::inode::{Inode, InodeId};
use super::posix_acl::{Addition, Named, Rights};
use super::record::{Fields, Record, living};
use crate::error::{Error, Result};

/// Held while an access list, and what the records say of it, is looked at and changed: two calls to the kernel.
const LOCK: &str = "/run/stead/desktops/.access-lists";

/// What a record says of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    id: InodeId,
    who: Named,
    /// What was added; nothing where the rights were there already.
    addition: Option<Addition>,
}

impl Entry {
    fn fields(&self, kind: &str) -> Fields {
        let field = |name: &str, value: String| (name.to_owned(), value.into_bytes());
        Fields::from([
            field("kind", kind.to_owned()),
            field("device", self.id.device.to_string()),
            field("inode", self.id.inode.to_string()),
            field("who", self.who.to_string()),
            ("path".to_owned(), self.path.as_os_str().as_bytes().to_vec()),
        ])
    }

    /// One field, so that a line that a crash cuts off says nothing rather than a part.
    fn addition_field(addition: &Addition) -> Fields {
        let Addition { added, was_there, idle_mask, mask_alone, .. } = *addition;
        let (added, idle_mask) = (added.bits(), idle_mask.bits());
        let text = format!("{added} {} {idle_mask} {}", u8::from(was_there), u8::from(mask_alone));
        Fields::from([("added".to_owned(), text.into_bytes())])
    }

    fn of(fields: &Fields) -> Option<Self> {
        let text = |name| std::str::from_utf8(fields.get(name)?).ok();
        let who = match text("who")?.split_once(':')? {
            ("user", uid) => Named::User(uid.parse().ok()?),
            ("group", gid) => Named::Group(gid.parse().ok()?),
            _ => return None,
        };
        let addition = text("added").and_then(|text| {
            let mut numbers = text.split(' ').map(str::parse::<u32>);
            let mut next = || numbers.next()?.ok();
            Some(Addition {
                who,
                added: Rights::of_bits(next()?),
                was_there: next()? != 0,
                idle_mask: Rights::of_bits(next()?),
                mask_alone: next()? != 0,
            })
        });
        let id = InodeId { device: text("device")?.parse().ok()?, inode: text("inode")?.parse().ok()? };
        let path = OsString::from_vec(fields.get("path")?.clone()).into();
        Some(Self { path, id, who, addition })
    }
}

/// An entry that this server has made, or relies on.
#[derive(Debug)]
pub(super) struct Held {
    inode: Inode,
    entry: Entry,
    record: Record,
}

impl Held {
    /// Gives `who` these rights, having written that down.
    ///
    /// Where another lease has made the entry already both rely on it, and the last one takes it out.
    pub(super) fn grant(
        kind: &'static str,
        path: &Path,
        inode: Inode,
        who: Named,
        rights: Rights,
        doing: &'static str,
    ) -> Result<Self> {
        let mut entry = Entry { path: path.to_owned(), id: inode.id(), who, addition: None };
        let mut record = Record::write(entry.fields(kind))?;
        let granted = alone(doing).and_then(|_alone| {
            let change = inode.change(who, rights, doing)?;
            entry.addition = match &change {
                Some((_, addition)) => Some(*addition),
                None => same(&entry).map_err(|error| unreadable(doing, error))?.find_map(|one| one.addition),
            };
            if let Some(addition) = &entry.addition {
                record
                    .update(Entry::addition_field(addition))
                    .map_err(|error| Error::system(doing, "write /run/stead/desktops", error))?;
            }
            change.map_or(Ok(()), |(list, _)| inode.set(&list, doing))
        });
        match granted {
            Ok(()) => Ok(Self { inode, entry, record }),
            Err(error) => {
                let _ = record.remove();
                Err(error)
            }
        }
    }

    pub(super) fn inode(&self) -> &Inode {
        &self.inode
    }

    /// The grant's own folder, which nobody else can enter yet.
    pub(super) fn folder(&self) -> PathBuf {
        self.record.path()
    }

    /// Whether the object is still there under its name: one that was made anew has no entry.
    pub(super) fn is_alive(&self) -> bool {
        Inode::find(&self.entry.path, self.entry.id).is_some()
    }

    /// Takes the entry out, then does the rest, then forgets the record.
    pub(super) fn take_back(self, doing: &'static str, rest: impl FnOnce() -> Result<()>) -> Result<()> {
        let Self { inode, entry, record } = self;
        let taken_out = take_out(&entry, Some(&inode), doing);
        forget(record, taken_out.and(rest()), doing)
    }
}

/// Takes out the entry of a server that is gone. What it is in is looked for where `elsewhere` says that it can be
/// found, and at its own place.
pub(super) fn undo(
    record: Record,
    elsewhere: impl FnOnce(InodeId) -> Option<Inode>,
    doing: &'static str,
    rest: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let Some(entry) = Entry::of(record.fields()) else { return forget(record, rest(), doing) };
    let inode = elsewhere(entry.id).or_else(|| Inode::find(&entry.path, entry.id));
    let taken_out = take_out(&entry, inode.as_ref(), doing);
    forget(record, taken_out.and(rest()), doing)
}

/// What could not be undone keeps its record.
fn forget(record: Record, undone: Result<()>, doing: &'static str) -> Result<()> {
    undone?;
    record.remove().map_err(|error| Error::system(doing, "unlink in /run/stead/desktops", error))
}

fn take_out(entry: &Entry, inode: Option<&Inode>, doing: &'static str) -> Result<()> {
    let (Some(addition), Some(inode)) = (&entry.addition, inode) else { return Ok(()) };
    let _alone = alone(doing)?;
    // This record is one of them.
    let relied_on = same(entry).map_err(|error| unreadable(doing, error))?.count() > 1;
    if relied_on { Ok(()) } else { inode.take_out(addition, doing) }
}

/// What the records that servers hold now say of the same entry.
fn same(entry: &Entry) -> std::io::Result<impl Iterator<Item = Entry>> {
    let (id, who) = (entry.id, entry.who);
    Ok(living()?
        .into_iter()
        .filter_map(|fields| Entry::of(&fields))
        .filter(move |one| (one.id, one.who) == (id, who)))
}

fn unreadable(doing: &'static str, error: std::io::Error) -> Error {
    Error::system(doing, "read /run/stead/desktops", error)
}

/// Waits until no other thread or server changes an entry.
fn alone(doing: &'static str) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(LOCK, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| Error::system(doing, "open /run/stead/desktops/.access-lists", errno))?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::system(doing, "flock", errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_record_says_of_an_entry_is_read_again() {
        let addition = Addition {
            who: Named::Group(1_879_048_192),
            added: Rights::WRITE,
            was_there: false,
            idle_mask: Rights::SEARCH,
            mask_alone: true,
        };
        for addition in [None, Some(addition)] {
            let entry = Entry {
                path: "/run/user/1000/wayland-0".into(),
                id: InodeId { device: 77, inode: u64::MAX },
                who: Named::Group(1_879_048_192),
                addition,
            };
            let mut fields = entry.fields("wayland");
            fields.extend(addition.iter().flat_map(Entry::addition_field));
            assert_eq!(Entry::of(&fields), Some(entry));
        }
        assert_eq!(Entry::of(&Fields::from([("who".to_owned(), b"somebody:7".to_vec())])), None);
    }
}
