//! Files and sockets, reached as the client that is on the thread.
//!
//! Every path is walked by openat2 with `RESOLVE_NO_MAGICLINKS`, and what it leads to is first held by an `O_PATH`
//! descriptor, which has no effect on the object: whether it is one that may be opened is asked of the very
//! object that is then opened, so that the client cannot change it in between.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::thread::raw;
use crate::error::{Error, ErrorKind};
use crate::impersonate::{Access, OpenOptions};
use crate::sys::account::AccountEntry;
use crate::sys::local::Stream;
use crate::token::{Impersonation, Token};

/// What only Linux can be asked when a file is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NativeOptions {
    /// Fail where the last component is a symbolic link.
    pub(crate) no_follow: bool,
    /// Accept FIFOs, devices: what is neither a file nor a directory.
    pub(crate) special_files: bool,
    /// Of a file that is created, before the umask.
    pub(crate) mode: u32,
}

impl NativeOptions {
    /// Nothing is asked for.
    pub(crate) const fn new() -> Self {
        Self { no_follow: false, special_files: false, mode: 0o666 }
    }
}

/// Where relative paths of a client start.
pub(crate) fn home<'a>(_token: &Token<Impersonation>, account: Option<&'a AccountEntry>) -> Option<&'a Path> {
    account.map(|account| Path::new(OsStr::from_bytes(account.home.as_bytes())))
}

/// Why an object was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A call failed.
    Call { call: &'static str, errno: Errno },
    /// procfs: `/proc/self` is the server's, whoever is on the thread.
    Procfs,
    /// `/dev/tty`: the controlling terminal of the process, whoever is on the thread.
    Terminal,
    /// Neither a file nor a directory, and special files were not asked for.
    Special,
    /// Options that contradict each other.
    Options(&'static str),
}

impl Refused {
    /// The error that says so: `path` as the server named it.
    pub(crate) fn into_error(self, doing: String, path: &Path) -> Error {
        let object = || path.display().to_string();
        let kind = match self {
            Self::Procfs => {
                let object = format!("{} (procfs shows the server's own)", path.display());
                return Error::new(doing, ErrorKind::AccessDenied { object });
            }
            Self::Terminal => {
                let object = format!("{} (it is the server's own terminal)", path.display());
                return Error::new(doing, ErrorKind::AccessDenied { object });
            }
            Self::Special => {
                let what = format!("{} is neither a file nor a directory", path.display());
                return Error::new(doing, ErrorKind::InvalidInput { what: what.into() });
            }
            Self::Options(what) => {
                return Error::new(doing, ErrorKind::InvalidInput { what: what.into() });
            }
            Self::Call { errno, call } => match errno {
                // ELOOP: a magic link, or too many symbolic ones.
                Errno::ACCESS | Errno::PERM | Errno::LOOP => ErrorKind::AccessDenied { object: object() },
                Errno::NOENT | Errno::NOTDIR => ErrorKind::NotFound { object: object() },
                Errno::NOSYS if call == "openat2" => {
                    ErrorKind::KernelTooOld { needs: "openat2 (Linux 5.6)".into() }
                }
                Errno::NOSYS if call == "faccessat2" => {
                    ErrorKind::KernelTooOld { needs: "faccessat2 (Linux 5.8)".into() }
                }
                // What rustix says of a NUL before it asks the kernel.
                Errno::INVAL if path.as_os_str().as_bytes().contains(&0) => {
                    ErrorKind::InvalidInput { what: "the path holds a NUL".into() }
                }
                _ => ErrorKind::System { call },
            },
        };
        let Self::Call { errno, .. } = self else {
            return Error::new(doing, kind);
        };
        Error::new(doing, kind).with_source(errno)
    }
}

fn in_call(call: &'static str) -> impl Fn(Errno) -> Refused {
    move |errno| Refused::Call { call, errno }
}

/// Holds the object at `path` without opening it.
pub(crate) fn locate(path: &Path, no_follow: bool) -> Result<OwnedFd, Refused> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, no_follow);
    // /proc/PID/{cwd,root,exe,fd/N,..} jump to objects that the path does not name, past the permissions of
    // the directories on the way: proc(5), path_resolution(7).
    let found = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .map_err(in_call("openat2"))?;
    // What procfs shows of its reader it shows of the server: the process is the same, and the kernel lets
    // every thread of it in (`same_thread_group` in ptrace_may_access and proc_fd_permission).
    if rustix::fs::fstatfs(&found).map_err(in_call("fstatfs"))?.f_type == PROC_SUPER_MAGIC {
        return Err(Refused::Procfs);
    }
    Ok(found)
}

pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<File, Refused> {
    let flags = flags(options)?;
    // More than one round only where somebody creates and removes the file meanwhile.
    for _ in 0..16 {
        if !options.create_new {
            match locate(path, options.native.no_follow) {
                Ok(found) => return open_located(&found, flags, options),
                Err(Refused::Call { errno: Errno::NOENT, .. }) if options.create => {}
                Err(refused) => return Err(refused),
            }
        }
        // O_EXCL: what is opened here is a regular file that did not exist a moment ago.
        let flags = flags | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::from_raw_mode(options.native.mode & 0o7777);
        match rustix::fs::openat2(CWD, path, flags, mode, ResolveFlags::NO_MAGICLINKS) {
            Ok(created) => return Ok(created.into()),
            Err(Errno::EXIST) if !options.create_new => {}
            Err(errno) => return Err(in_call("openat2")(errno)),
        }
    }
    // A symbolic link to nowhere is always there and never found.
    Err(in_call("openat2")(Errno::EXIST))
}

/// Opens the object that is held, with the permissions of its inode.
fn open_located(found: &OwnedFd, flags: OFlags, options: &OpenOptions) -> Result<File, Refused> {
    let stat = rustix::fs::fstat(found).map_err(in_call("fstat"))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    // Everybody may open it, and each process gets its own (tty(4)).
    if kind == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(5, 0) {
        return Err(Refused::Terminal);
    }
    let special = match kind {
        FileType::RegularFile | FileType::Directory => false,
        FileType::Symlink => return Err(in_call("openat2")(Errno::LOOP)),
        _ if options.native.special_files => true,
        _ => return Err(Refused::Special),
    };
    // O_NONBLOCK: nothing that the client owns makes the open wait, be it a FIFO without a writer or a lease
    // (F_SETLEASE, up to 45 s). O_NOCTTY: a terminal of the client's never becomes the server's.
    let opened = rustix::fs::open(link_to(found), flags | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())
        .map_err(in_call("open"))?;
    if !special {
        // Files do not block in this sense; what the server does with the descriptor should not meet the flag.
        rustix::fs::fcntl_setfl(&opened, flags & OFlags::APPEND).map_err(in_call("fcntl(F_SETFL)"))?;
    }
    Ok(opened.into())
}

/// The name by which the kernel finds the object behind a descriptor of this thread.
///
/// `thread-self`: `self` shows nothing when the main thread has ended.
fn link_to(descriptor: &OwnedFd) -> String {
    format!("/proc/thread-self/fd/{}", descriptor.as_raw_fd())
}

fn flags(options: &OpenOptions) -> Result<OFlags, Refused> {
    let access = match (options.read, options.write || options.append) {
        (true, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
        (true, true) => OFlags::RDWR,
        (false, false) => return Err(Refused::Options("neither read nor write")),
    };
    let changes = options.truncate || options.create || options.create_new;
    if changes && access == OFlags::RDONLY {
        return Err(Refused::Options("truncate or create without write"));
    }
    if options.truncate && options.append && !options.create_new {
        return Err(Refused::Options("truncate with append"));
    }
    let mut flags = access | OFlags::CLOEXEC;
    flags.set(OFlags::APPEND, options.append);
    flags.set(OFlags::TRUNC, options.truncate && !options.create_new);
    Ok(flags)
}

/// Connects a stream socket to the one bound at `path`.
pub(crate) fn connect(path: &Path) -> Result<Stream, Refused> {
    let found = locate(path, false)?;
    // By the descriptor's own name: connect(2) would follow magic links in a path, and takes 107 bytes.
    let address = SocketAddrUnix::new(link_to(&found)).map_err(in_call("connect"))?;
    // A full queue of connections makes connect(2) wait for the client; this fails with EAGAIN instead.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(in_call("socket"))?;
    rustix::net::connect(&socket, &address).map_err(in_call("connect"))?;
    rustix::io::ioctl_fionbio(&socket, false).map_err(in_call("ioctl(FIONBIO)"))?;
    Ok(Stream { socket: socket.into() })
}

/// Whether the kernel would let the thread's effective ids do so.
pub(crate) fn may(path: &Path, rights: Access) -> Result<bool, Refused> {
    let found = match locate(path, false) {
        Ok(found) => found,
        Err(Refused::Call { errno: Errno::ACCESS | Errno::PERM, .. }) => return Ok(false),
        Err(refused) => return Err(refused),
    };
    let mut mode = libc::F_OK;
    for (wanted, bit) in [(rights.read, libc::R_OK), (rights.write, libc::W_OK), (rights.execute, libc::X_OK)]
    {
        mode |= if wanted { bit } else { 0 };
    }
    match effective_access(found.as_fd(), mode) {
        Ok(_) => Ok(true),
        // EROFS: a file system mounted read-only; ETXTBSY: a program that is running.
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => Ok(false),
        Err(errno) => Err(in_call("faccessat2")(errno)),
    }
}

/// access(2) asks for the real ids, which are the server's; this asks for the effective ones.
fn effective_access(object: BorrowedFd<'_>, mode: i32) -> Result<usize, Errno> {
    let flags = libc::AT_EACCESS | libc::AT_EMPTY_PATH;
    raw!(FACCESSAT2(object.as_raw_fd(), c"".as_ptr(), mode, flags))
}

/// What fstat says of the object at `path`.
pub(crate) fn metadata(path: &Path, no_follow: bool) -> Result<std::fs::Metadata, Refused> {
    let found = File::from(locate(path, no_follow)?);
    found.metadata().map_err(|error| Refused::Call {
        call: "statx",
        errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })
}

/// The entries of a directory that the client may read.
pub(crate) fn read_dir(path: &Path) -> Result<Names, Refused> {
    let found = locate(path, false)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(link_to(&found), flags, Mode::empty()).map_err(in_call("open"))?;
    Dir::new(opened).map(Names).map_err(in_call("getdents64"))
}

/// The names in a directory, without `.` and `..`.
#[derive(Debug)]
pub(crate) struct Names(Dir);

impl Iterator for Names {
    type Item = Result<OsString, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            return match self.0.next()? {
                Ok(entry) => match entry.file_name().to_bytes() {
                    b"." | b".." => continue,
                    name => Some(Ok(OsString::from_vec(name.to_vec()))),
                },
                Err(errno) => Some(Err(in_call("getdents64")(errno))),
            };
        }
    }
}
