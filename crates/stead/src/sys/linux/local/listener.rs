//! Where clients connect.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{Address, Stream};
use crate::error::{Error, ErrorKind, Result};

/// As many as std's listeners keep waiting.
const BACKLOG: i32 = 128;

/// A listening socket, and what it put into the file system.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: UnixListener,
    /// Held for its drop.
    _bound: Option<Bound>,
}

/// The socket in the file system, to be taken out at the end.
#[derive(Debug)]
struct Bound {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for Bound {
    fn drop(&mut self) {
        let same = |found: &std::fs::Metadata| (found.dev(), found.ino()) == self.identity;
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| same(&found)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What binding to one address takes.
struct Binding<'address> {
    address: &'address Address,
}

impl Binding<'_> {
    fn system(&self, call: &'static str, source: impl Into<io::Error>) -> Error {
        Error::system(format!("listening at {}", self.address), call, source)
    }

    fn invalid(&self, what: String) -> Error {
        Error::new(format!("listening at {}", self.address), ErrorKind::InvalidInput { what: what.into() })
    }

    /// Nobody but root and the server's own user may be able to replace the socket.
    fn require_safe_directory(&self) -> Result<()> {
        let directory = match self.address.as_path().parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let found = std::fs::metadata(directory).map_err(|source| self.system("stat", source))?;
        let own = rustix::process::geteuid().as_raw();
        let sticky = found.mode() & 0o1000 != 0;
        if ![0, own].contains(&found.uid()) || (found.mode() & 0o022 != 0 && !sticky) {
            let what = format!("others can replace what is in {}", directory.display());
            return Err(self.invalid(what));
        }
        Ok(())
    }

    /// Removes a socket of the server's own user that nobody listens at, as a crash leaves it.
    fn remove_own_leftover(&self) -> Result<()> {
        let path = self.address.as_path();
        let found = match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(|source| self.system("lstat", source))?,
        };
        if !found.file_type().is_socket() {
            return Err(self.invalid("something that is no socket is there".into()));
        }
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(self.invalid(format!("a socket of uid {} is there", found.uid())));
        }
        match self.try_connect() {
            Err(Errno::CONNREFUSED) => {
                std::fs::remove_file(path).map_err(|source| self.system("unlink", source))
            }
            // Gone meanwhile.
            Err(Errno::NOENT) => Ok(()),
            // EAGAIN too: its queue is full.
            _ => Err(self.invalid("another server listens there".into())),
        }
    }

    fn socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
    }

    /// Whether anybody listens, without waiting for a place in the queue.
    fn try_connect(&self) -> Result<(), Errno> {
        let target = SocketAddrUnix::new(self.address.as_path())?;
        rustix::net::connect(Self::socket(SocketFlags::NONBLOCK)?, &target)
    }

    fn bind(&self, everyone: bool) -> Result<(UnixListener, Bound)> {
        let path = self.address.as_path();
        let target = SocketAddrUnix::new(path)
            .map_err(|_| self.invalid("that is no path for a socket (108 bytes at most)".into()))?;
        let socket = Self::socket(SocketFlags::empty()).map_err(|errno| self.system("socket", errno))?;
        // The file gets the socket's own mode (unix_bind_bsd, net/unix/af_unix.c), less the umask, which is
        // the whole process's and not ours to change.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|errno| self.system("fchmod", errno))?;
        rustix::net::bind(&socket, &target).map_err(|errno| self.system("bind", errno))?;
        let bound = self.bound(everyone)?;
        rustix::net::listen(&socket, BACKLOG).map_err(|errno| self.system("listen", errno))?;
        Ok((socket.into(), bound))
    }

    /// Notes what was bound, and opens it to everyone if it is to be.
    fn bound(&self, everyone: bool) -> Result<Bound> {
        let path = self.address.as_path();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| self.system("open", errno))?;
        let found = rustix::fs::fstat(&file).map_err(|errno| self.system("fstat", errno))?;
        let socket = FileType::from_raw_mode(found.st_mode) == FileType::Socket;
        if !socket || found.st_uid != rustix::process::geteuid().as_raw() {
            return Err(self.invalid("the socket was replaced".into()));
        }
        if everyone {
            // By descriptor, so that nobody can lead us to another file (CVE-2023-41915); fchmod takes no
            // O_PATH descriptor.
            let path = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
            rustix::fs::chmod(path, Mode::from_raw_mode(0o666))
                .map_err(|errno| self.system("chmod", errno))?;
        }
        Ok(Bound { path: path.to_owned(), identity: (found.st_dev, found.st_ino) })
    }
}

/// Creates the directory and what is missing above it; what was there already is left as it is.
fn create_for_all(directory: &Path) -> io::Result<()> {
    let missing = directory.ancestors().take_while(|one| !one.exists());
    for one in missing.collect::<Vec<_>>().into_iter().rev() {
        match std::fs::create_dir(one) {
            // The umask may have taken too much: clients have to get through.
            Ok(()) => std::fs::set_permissions(one, std::fs::Permissions::from_mode(0o755))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Listener {
    pub(crate) fn bind(address: &Address, everyone: bool) -> Result<Self> {
        let binding = Binding { address };
        if let Some(directory) = address.own_directory() {
            create_for_all(directory).map_err(|source| binding.system("mkdir", source))?;
        }
        binding.require_safe_directory()?;
        binding.remove_own_leftover()?;
        let (socket, bound) = binding.bind(everyone)?;
        Ok(Self { socket, _bound: Some(bound) })
    }

    /// One from elsewhere (systemd's socket activation); it is left in the file system.
    pub(crate) fn of(descriptor: OwnedFd) -> Result<Self> {
        crate::sys::client::require_listening(descriptor.as_fd())?;
        Ok(Self { socket: descriptor.into(), _bound: None })
    }

    pub(crate) fn accept(&self) -> io::Result<Stream> {
        let (socket, _) = self.socket.accept()?;
        Ok(Stream { socket })
    }

    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }
}
