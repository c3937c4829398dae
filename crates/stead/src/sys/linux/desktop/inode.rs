//! The access list of one file, socket or device, held so that nobody can put another in its place.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::posix_acl::{Addition, Named, OthersHeldBack, Owners, PosixAcl, Rights};
use crate::desktop::{AccessEntry, Trustee};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::token::{Gid, Uid};

const ATTRIBUTE: &str = "system.posix_acl_access";
/// XATTR_SIZE_MAX: no attribute is longer.
const LONGEST: usize = 64 << 10;

/// Tells one inode from all others, as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InodeId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// An inode, held by a descriptor that has no effect on it.
#[derive(Debug)]
pub(super) struct Inode {
    held: OwnedFd,
    name: String,
    stat: Stat,
}

impl Inode {
    /// What is at this absolute path, on the way to which there may be no symbolic link.
    ///
    /// Its folder must be closed to everybody but the owner of what is in it, and root: who can write there, or
    /// put a link there, would otherwise choose which object is opened to others.
    pub(super) fn open(path: &Path, doing: &'static str) -> Result<Self> {
        let name = path.display().to_string();
        let refused = |why: &'static str, mend: Option<&'static str>| refusal(doing, &name, why, mend);
        let failed = |errno: Errno| match errno {
            Errno::NOENT | Errno::NOTDIR => {
                Error::new(doing, ErrorKind::NotFound { object: name.clone() }).with_source(errno)
            }
            Errno::LOOP => refused("a symbolic link leads there", Some("name it by its own path")),
            Errno::ACCESS => refused(
                "the server itself may not go there",
                Some("run the server as root, or give it CAP_DAC_READ_SEARCH"),
            ),
            Errno::NOSYS => {
                Error::new(doing, ErrorKind::KernelTooOld { needs: "openat2 (Linux 5.6)".into() })
            }
            errno => Error::system(doing, "openat2", errno),
        };
        let (Some(folder), Some(file)) = (path.parent(), path.file_name()) else {
            return Err(refused("it is no path of a file", None));
        };
        let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let folder = rustix::fs::openat2(CWD, folder, flags | OFlags::DIRECTORY, Mode::empty(), links)
            .map_err(failed)?;
        let held = rustix::fs::openat2(&folder, file, flags | OFlags::NOFOLLOW, Mode::empty(), links)
            .map_err(failed)?;
        let folder = rustix::fs::fstat(&folder).map_err(failed)?;
        let stat = rustix::fs::fstat(&held).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(refused("it is a symbolic link", Some("name it by its own path")));
        }
        if folder.st_mode & 0o022 != 0 || (folder.st_uid != 0 && folder.st_uid != stat.st_uid) {
            return Err(refused(
                "others than its owner can put something in its place",
                Some("it must lie in a directory that only its owner, or root, can write"),
            ));
        }
        Ok(Self { held, name, stat })
    }

    /// What is at this path, if it is that inode.
    pub(super) fn find(path: &Path, id: InodeId) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let held = rustix::fs::openat2(CWD, path, flags, Mode::empty(), links).ok()?;
        let stat = rustix::fs::fstat(&held).ok()?;
        let found = Self { held, name: path.display().to_string(), stat };
        (found.id() == id).then_some(found)
    }

    pub(super) fn id(&self) -> InodeId {
        InodeId { device: self.stat.st_dev, inode: self.stat.st_ino }
    }

    pub(super) fn held(&self) -> &OwnedFd {
        &self.held
    }

    pub(super) fn stat(&self) -> &Stat {
        &self.stat
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn owners(&self) -> Owners {
        Owners { uid: self.stat.st_uid, gid: self.stat.st_gid }
    }

    /// An O_PATH descriptor takes no attribute calls (open(2)); its name below /proc leads to the same inode. The thread's own,
    /// for those of the process end with its main thread.
    fn path(&self) -> String {
        format!("/proc/thread-self/fd/{}", self.held.as_raw_fd())
    }

    /// The list, as it is now.
    pub(super) fn list(&self, doing: &'static str) -> Result<PosixAcl> {
        let mut bytes = vec![0; 512];
        loop {
            match rustix::fs::getxattr(self.path(), ATTRIBUTE, &mut bytes[..]) {
                Ok(length) => {
                    return PosixAcl::parse(&bytes[..length]).map_err(|_| {
                        refusal(doing, &self.name, "its access list cannot be understood", None)
                    });
                }
                Err(Errno::RANGE) if bytes.len() < LONGEST => bytes.resize(LONGEST, 0),
                // Without a list the mode is all there is; and it may have changed since the inode was opened.
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {
                    let now = rustix::fs::fstat(&self.held)
                        .map_err(|errno| Error::system(doing, "fstat", errno))?;
                    return Ok(PosixAcl::of_mode(now.st_mode));
                }
                Err(errno) => return Err(Error::system(doing, "getxattr", errno)),
            }
        }
    }

    pub(super) fn set(&self, list: &PosixAcl, doing: &'static str) -> Result<()> {
        rustix::fs::setxattr(self.path(), ATTRIBUTE, &list.encode(), XattrFlags::empty()).map_err(|errno| {
            let (why, mend) = match errno {
                Errno::OPNOTSUPP => ("its file system has no access lists", None),
                Errno::PERM | Errno::ACCESS => (
                    "it belongs to somebody else, and the server has no CAP_FOWNER",
                    Some("run the server as root, or give its unit AmbientCapabilities=CAP_FOWNER"),
                ),
                Errno::ROFS => ("its file system is read-only", None),
                Errno::INVAL => ("the id that it is for is not mapped in this user namespace", None),
                errno => return Error::system(doing, "setxattr", errno),
            };
            refusal(doing, &self.name, why, mend).with_source(errno)
        })
    }

    /// The list with these rights for `who`, and what has to be done for it; none where they are there already.
    pub(super) fn change(
        &self,
        who: Named,
        wanted: Rights,
        doing: &'static str,
    ) -> Result<Option<(PosixAcl, Addition)>> {
        let list = self.list(doing)?;
        if who == Named::User(self.stat.st_uid) {
            // The kernel asks the owner's own entry and no other.
            let shut_out = || refusal(doing, &self.name, "its owner has shut himself out", None);
            return list.owner.contains(wanted).then_some(None).ok_or_else(shut_out);
        }
        list.with(who, wanted).map_err(|OthersHeldBack(other)| {
            let why = format!(
                "an entry for {who} would widen the mask of its access list, which keeps {other} back"
            );
            let mend = Some("take that entry out, or let the mask allow it, with setfacl".into());
            let object = self.name.clone();
            Error::new(doing, ErrorKind::DesktopAccess { object, why: why.into(), mend })
        })
    }

    /// Takes out what was added; what is there besides stays.
    pub(super) fn take_out(&self, addition: &Addition, doing: &'static str) -> Result<()> {
        match self.list(doing)?.without(addition) {
            Some(list) => self.set(&list, doing),
            None => Ok(()),
        }
    }

    /// The list in the words of every desktop's.
    pub(super) fn entries(&self, doing: &'static str) -> Result<Vec<AccessEntry>> {
        let list = self.list(doing)?;
        let entry =
            |trustee, rights: Rights| AccessEntry::new(self.name.clone(), trustee, rights.to_string());
        let other = |id: String| Trustee::Other(id);
        let mut entries = vec![
            entry(uid(self.stat.st_uid).map_or_else(|| other("the owner".into()), Trustee::User), list.owner),
            entry(
                gid(self.stat.st_gid).map_or_else(|| other("the owning group".into()), Trustee::Group),
                list.mask.map_or(list.group, |mask| list.group.and(mask)),
            ),
            entry(Trustee::Everyone, list.other),
        ];
        for who in list.named.keys() {
            let trustee = match *who {
                Named::User(id) => uid(id).map(Trustee::User),
                Named::Group(id) => gid(id).map(Trustee::Group),
            };
            let rights = list.effective(*who).unwrap_or_default();
            entries.push(entry(trustee.unwrap_or_else(|| other(who.to_string())), rights));
        }
        entries.retain(|entry| entry.rights() != Rights::NONE.to_string());
        Ok(entries)
    }
}

fn uid(raw: u32) -> Option<Uid> {
    Uid::new(raw)
}

fn gid(raw: u32) -> Option<Gid> {
    Gid::new(raw)
}

/// Whom an entry for this trustee names.
pub(super) fn named(trustee: &Trustee, doing: &'static str) -> Result<Named> {
    Ok(match trustee {
        Trustee::User(uid) => Named::User(uid.as_raw()),
        Trustee::Group(gid) => Named::Group(gid.as_raw()),
        Trustee::LogonSession(session) => Named::Group(session.gid().as_raw()),
        other => {
            let what = format!("an access list cannot name {other}").into();
            return Err(Error::new(doing, ErrorKind::InvalidInput { what }));
        }
    })
}

/// `DesktopAccess`, in constant words.
pub(super) fn refusal(
    doing: &'static str,
    object: &str,
    why: &'static str,
    mend: Option<&'static str>,
) -> Error {
    let object = object.to_owned();
    Error::new(doing, ErrorKind::DesktopAccess { object, why: why.into(), mend: mend.map(Into::into) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::DirBuilderExt;

    #[test]
    fn an_access_list_is_read_by_a_thread_whose_descriptors_are_not_the_processs() {
        const DOING: &str = "testing";
        let folder = std::env::temp_dir().join(format!("stead-inode-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        let path = folder.canonicalize().unwrap().join("file");
        std::fs::write(&path, "").unwrap();
        // As it is for all threads when the main one has ended: the process's own have gone with it.
        let list = testbed::confine::with_descriptors_of_its_own(|| {
            let mut inode = Inode::open(&path, DOING).unwrap();
            inode.held = rustix::io::fcntl_dupfd_cloexec(&inode.held, 900).unwrap();
            inode.list(DOING)
        });
        list.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
