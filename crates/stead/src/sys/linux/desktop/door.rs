//! A grant's own folder, in which one trustee finds one socket.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use super::inode::{Inode, refusal};
use super::posix_acl::{Named, PosixAcl, Rights};
use crate::error::{Error, Result};

/// What the socket is called there, whatever the compositor calls it.
const SOCKET: &str = "wayland-0";

/// The folder, which is made and removed with its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Door {
    folder: PathBuf,
}

impl Door {
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the client finds the socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }

    /// Lets `who` search the folder, and binds the socket into it.
    pub(super) fn open(&self, socket: &Inode, who: Named, doing: &'static str) -> Result<()> {
        let system = |call| move |errno: Errno| Error::system(doing, call, errno);
        if let Some((list, _)) = PosixAcl::of_mode(0o700).with(who, Rights::SEARCH).unwrap_or_default() {
            let attribute = "system.posix_acl_access";
            rustix::fs::setxattr(&self.folder, attribute, &list.encode(), XattrFlags::empty()).map_err(
                |errno| match errno {
                    Errno::OPNOTSUPP => {
                        let object = self.folder.display().to_string();
                        refusal(doing, &object, "its file system has no access lists", None)
                    }
                    errno => Error::system(doing, "setxattr", errno),
                },
            )?;
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::open(self.socket(), flags, Mode::empty()).map_err(system("open"))?;
        // The inode that is held, whatever its path leads to by now.
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let unmountable = |errno: Errno| {
            match errno {
            Errno::PERM => refusal(
                doing,
                &self.socket().display().to_string(),
                "the server has no CAP_SYS_ADMIN, without which the compositor's socket cannot be bound where the \
                 client may reach it",
                Some("run the server as root, or give its unit AmbientCapabilities=CAP_SYS_ADMIN"),
            )
            .with_source(errno),
            errno => Error::system(doing, "open_tree", errno),
        }
        };
        let tree = open_tree(socket.held(), "", flags).map_err(unmountable)?;
        move_mount(tree, "", CWD, self.socket(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(unmountable)
    }

    /// Takes the socket away, as far as it is there.
    pub(super) fn close(&self, doing: &'static str) -> Result<()> {
        // A client may hold it by a descriptor; what counts is the entry, which is gone already.
        match unmount(self.socket(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // No mount there, as after a crash or in another mount namespace; or not even a directory.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(Error::system(doing, "umount", errno)),
        }
        match rustix::fs::unlink(self.socket()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::system(doing, "unlink", errno)),
        }
    }

    /// The socket that is bound here, if one is.
    pub(super) fn bound(&self, id: super::inode::InodeId) -> Option<Inode> {
        Inode::find(&self.socket(), id).filter(|inode| inode.kind() == FileType::Socket)
    }
}
