//! The helper that opens a file as a client: the service's own program, executed again as that client.
//!
//! It has the client's rights and nothing else, so that nothing of a path can be aimed at the service; and when the
//! client's own file system keeps it waiting, it is the helper that waits. The client must not be able to put
//! another descriptor in the place of the one that was opened: the program is executed from a copy that the client
//! may execute and not read, which the kernel then keeps from being traced (`would_dump` in fs/exec.c).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{CWD, FileType, MemfdFlags, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Deserialize, Serialize};
use stead::os::linux::Uid;
use stead_protocol::OpenFile;

/// How the program is told that it is the helper.
pub(super) const ARGUMENT: &str = "--stead-internal-open-file";
/// A path, and options.
const LARGEST: usize = 64 << 10;
/// Helpers that run as one user at a time, whoever asked for them.
const AT_ONCE: usize = 16;

/// What the helper answers; an opened file comes beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Told {
    /// It is open.
    Opened,
    /// A call failed.
    Failed { call: String, errno: i32 },
    /// It is neither a file nor a directory.
    Special,
    /// Options that contradict each other.
    Options(String),
}

/// The helpers, and what they are executed from.
#[derive(Debug, Default)]
pub(super) struct Helpers {
    program: OnceLock<OwnedFd>,
    of_user: Arc<Mutex<HashMap<Uid, usize>>>,
}

/// One helper's place.
#[derive(Debug)]
pub(super) struct Place {
    of_user: Arc<Mutex<HashMap<Uid, usize>>>,
    uid: Uid,
}

impl Helpers {
    /// A place for one more as this user, if there is one.
    pub(super) fn place(&self, uid: Uid) -> Option<Place> {
        let mut of_user = self.of_user.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_user.entry(uid).or_default();
        if *count >= AT_ONCE {
            return None;
        }
        *count += 1;
        Some(Place { of_user: Arc::clone(&self.of_user), uid })
    }

    /// What they are executed from.
    pub(super) fn program(&self) -> io::Result<OwnedFd> {
        if let Some(program) = self.program.get() {
            return program.try_clone();
        }
        let program = copy_of_this_program()?;
        self.program.get_or_init(|| program).try_clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut of_user = self.of_user.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_user.get_mut(&self.uid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                of_user.remove(&self.uid);
            }
        }
    }
}

/// Is the helper, where the program was executed as that: it then never returns.
pub(super) fn run_if_asked() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT) {
        let served = serve();
        std::process::exit(i32::from(served.is_err()));
    }
}

/// One request over standard input, which is a socket.
fn serve() -> io::Result<()> {
    let socket = io::stdin();
    let mut bytes = vec![0; LARGEST];
    let (_, length) = rustix::net::recv(&socket, &mut bytes, RecvFlags::empty())?;
    let request: OpenFile = serde_json::from_slice(bytes.get(..length).unwrap_or_default())?;
    let (told, file) = match open(&request) {
        Ok(file) => (Told::Opened, Some(file)),
        Err(told) => (told, None),
    };
    let answer = serde_json::to_vec(&told)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = file.iter().map(AsFd::as_fd).collect();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    rustix::net::sendmsg(&socket, &[IoSlice::new(&answer)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn call(name: &str) -> impl Fn(Errno) -> Told {
    move |errno| Told::Failed { call: name.to_owned(), errno: errno.raw_os_error() }
}

/// As the library opens files for an impersonated client: what a path leads to is held first, and looked at, so that
/// a device or a FIFO is not opened by accident. It is the client's own rights that count, whatever is opened.
fn open(request: &OpenFile) -> Result<OwnedFd, Told> {
    let flags = flags_of(request)?;
    let path = request.path.as_os_str();
    for _ in 0..16 {
        if !request.create_new {
            let mut held = OFlags::PATH | OFlags::CLOEXEC;
            held.set(OFlags::NOFOLLOW, request.no_follow);
            match rustix::fs::openat2(CWD, path, held, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
                Ok(found) => return open_held(&found, flags, request),
                Err(Errno::NOENT) if request.create => {}
                Err(errno) => return Err(call("openat2")(errno)),
            }
        }
        let flags = flags | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::from_raw_mode(request.mode.unwrap_or(0o666) & 0o7777);
        match rustix::fs::openat2(CWD, path, flags, mode, ResolveFlags::NO_MAGICLINKS) {
            Ok(created) => return Ok(created),
            Err(Errno::EXIST) if !request.create_new => {}
            Err(errno) => return Err(call("openat2")(errno)),
        }
    }
    Err(call("openat2")(Errno::EXIST))
}

fn open_held(found: &OwnedFd, flags: OFlags, request: &OpenFile) -> Result<OwnedFd, Told> {
    // As where the library opens it: what procfs shows of its reader it would show of the helper.
    if rustix::fs::fstatfs(found).map_err(call("fstatfs"))?.f_type == PROC_SUPER_MAGIC {
        return Err(call("openat2")(Errno::ACCESS));
    }
    let kind = FileType::from_raw_mode(rustix::fs::fstat(found).map_err(call("fstat"))?.st_mode);
    let special = match kind {
        FileType::RegularFile | FileType::Directory => false,
        FileType::Symlink => return Err(call("openat2")(Errno::LOOP)),
        _ if request.special_files => true,
        _ => return Err(Told::Special),
    };
    let link = format!("/proc/thread-self/fd/{}", found.as_raw_fd());
    let opened = rustix::fs::open(link, flags | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())
        .map_err(call("open"))?;
    if !special {
        rustix::fs::fcntl_setfl(&opened, flags & OFlags::APPEND).map_err(call("fcntl(F_SETFL)"))?;
    }
    Ok(opened)
}

fn flags_of(request: &OpenFile) -> Result<OFlags, Told> {
    let wrong = |what: &str| Err(Told::Options(what.to_owned()));
    let access = match (request.read, request.write || request.append) {
        (true, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
        (true, true) => OFlags::RDWR,
        (false, false) => return wrong("neither read nor write"),
    };
    let changes = request.truncate || request.create || request.create_new;
    if changes && access == OFlags::RDONLY {
        return wrong("truncate or create without write");
    }
    if request.truncate && request.append && !request.create_new {
        return wrong("truncate with append");
    }
    let mut flags = access | OFlags::CLOEXEC;
    flags.set(OFlags::APPEND, request.append);
    flags.set(OFlags::TRUNC, request.truncate && !request.create_new);
    Ok(flags)
}

/// A copy of this program that others may execute and not read.
fn copy_of_this_program() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // From Linux 6.3 on a memory file has to say that it is to be executed.
    let copy = match rustix::fs::memfd_create("stead-open-file", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create("stead-open-file", flags)?,
        created => created?,
    };
    io::copy(&mut File::open("/proc/self/exe")?, &mut File::from(copy.try_clone()?))?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o511))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    // One that was open for writing cannot be executed (ETXTBSY).
    let path = format!("/proc/thread-self/fd/{}", copy.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
