//! What the worker's loop asks of the system, one call at a time.
//!
//! Apart from the loop itself (`serve`), which the tests run against a system that fails and lies (`model`).

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Uid, WaitId, WaitIdOptions};

use super::{as_user, signals};
use crate::sys::logon::wire::{self, Frame};
pub(super) use crate::sys::process::launch;

/// Orphans of the session become this process's children from now on.
pub(super) fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// The signals of the loop, by descriptor from now on.
pub(super) fn signals() -> io::Result<OwnedFd> {
    signals::descriptor()
}

/// The next signal that has come.
pub(super) fn next_signal(signals: &OwnedFd) -> Option<i32> {
    let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
    let whole = rustix::io::read(signals, &mut info).is_ok_and(|length| length == info.len());
    // ssi_signo is the first field.
    whole.then(|| u32::from_ne_bytes([info[0], info[1], info[2], info[3]]).cast_signed())
}

/// Signals come as they did before.
pub(super) fn give_signals_back() {
    signals::unblock();
}

/// Which signals are ignored stays as it is now; unless a module started a thread that goes on.
pub(super) fn fix_ignored_signals() {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1) {
        crate::sys::process::only_ignores(signals::ignored());
    }
}

/// Listens as the server: the folder and the socket in it are the server's own.
///
/// It has its name only when it listens: one that does not is taken for a dead session's by whoever lists them, and removed.
pub(super) fn listen(path: &CStr, server: Uid) -> io::Result<OwnedFd> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    let first_name = path.with_extension("new");
    as_user(server, || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(&first_name)?)?;
        let named = rustix::net::listen(&socket, 4).map_err(io::Error::from);
        named.and_then(|()| std::fs::rename(&first_name, path)).inspect_err(|_| {
            let _ = std::fs::remove_file(&first_name);
        })?;
        Ok(socket)
    })?
}

/// Removes the socket's name, as the server.
pub(super) fn unlink(path: &CStr, server: Uid) {
    let path = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    let _ = as_user(server, || std::fs::remove_file(path));
}

/// Which of the descriptors are readable, or hung up; none when the time is over.
pub(super) fn wait<const N: usize>(
    sources: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> [bool; N] {
    let mut polled: Vec<PollFd<'_>> =
        sources.iter().flatten().map(|source| PollFd::from_borrowed_fd(*source, PollFlags::IN)).collect();
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    if poll(&mut polled, timeout.as_ref()).is_err() {
        return [false; N];
    }
    let mut polled = polled.iter();
    sources.map(|source| source.is_some() && polled.next().is_some_and(|polled| !polled.revents().is_empty()))
}

/// Who connects: the socket and the kernel's word for whose it is.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<(OwnedFd, Uid)> {
    let socket = rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?;
    let uid = socket_peercred(&socket)?.uid;
    Ok((socket, uid))
}

/// How long the other side may take to say something.
pub(super) fn be_patient(socket: &OwnedFd, time: Option<Duration>) -> io::Result<()> {
    Ok(set_socket_timeout(socket, Timeout::Recv, time)?)
}

/// One frame of the server's.
pub(super) fn receive(socket: &OwnedFd) -> io::Result<Option<Frame>> {
    wire::receive(socket)
}

/// One frame of somebody's who may be of another version, and is told so.
pub(super) fn receive_or_tell(socket: &OwnedFd) -> io::Result<Option<Frame>> {
    wire::receive_or_tell(socket)
}

/// Whether this process has a child, alive or not yet collected.
pub(super) fn has_children() -> bool {
    let flags = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(WaitId::All, flags), Err(rustix::io::Errno::CHILD))
}

/// Collects any child that has ended: its pid and wait status. A child that this process traces is also told of when it
/// stops, and so is each of its threads.
pub(super) fn collect_any() -> Option<(i32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: status is valid for the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid > 0 {
            return Some((pid, status));
        }
        if pid == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
}

/// An idle process gives back memory that it does not need.
pub(super) fn slim() {
    super::slim::slim();
}

pub(super) fn now() -> Instant {
    Instant::now()
}

pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    #[test]
    fn a_session_has_its_name_only_when_it_listens() {
        if !rustix::process::geteuid().is_root() {
            testbed::skip!("a worker is root");
        }
        let folder = std::env::temp_dir().join(format!("stead-listen-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("1.sock");
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        let own = rustix::process::geteuid();
        let refused = {
            let name = name.clone();
            // As it is for whoever looks between the two calls.
            let thread = std::thread::spawn(move || {
                rustix::thread::set_no_new_privs(true).unwrap();
                testbed::confine::Filter::new()
                    .deny(libc::SYS_listen, libc::EPERM)
                    .install_on_this_thread()
                    .unwrap();
                listen(&name, own).map(drop)
            });
            thread.join().unwrap()
        };
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        let listener = listen(&name, own).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(listener);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
