//! Sessions that outlive their server, found again under `/run/stead/sessions`.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::PidfdFlags;

use super::message::{Reply, Request};
use super::session::{SessionHandle, send, within};
use super::wire;
use crate::error::{Error, ErrorKind, Result};

const RUNTIME: &str = "/run/stead";
const SESSIONS: &str = "/run/stead/sessions";
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a new detached session will listen.
pub(super) fn socket_for(id: u64) -> Result<CString> {
    let doing = "preparing a detached session";
    folder().map_err(|error| Error::system(doing, "mkdir /run/stead/sessions", error))?;
    Ok(CString::new(path_of(id)).expect("a path without NUL"))
}

fn path_of(id: u64) -> String {
    format!("{SESSIONS}/{id:016x}.sock")
}

/// The server's own folder: nobody else can put a socket there.
fn folder() -> io::Result<OwnedFd> {
    // Only the last part is secret: others may look for what else is under /run/stead.
    let runtime = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
    for (path, mode) in [(RUNTIME, runtime), (SESSIONS, Mode::RWXU)] {
        match rustix::fs::mkdir(path, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        check(path)?;
    }
    check(SESSIONS)
}

fn check(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    let status = rustix::fs::fstat(&folder)?;
    if status.st_uid != rustix::process::geteuid().as_raw() || status.st_mode & 0o022 != 0 {
        let what = format!("{path} can be written by others than the server");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(folder)
}

/// The detached sessions that live; sockets of those that do not are removed.
pub(crate) fn detached_sessions() -> Result<Vec<u64>> {
    const DOING: &str = "listing the detached sessions";
    crate::sys::impersonate::as_server(|| {
        match check(SESSIONS) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::system(DOING, "open /run/stead/sessions", error)),
        }
        let entries = std::fs::read_dir(SESSIONS).map_err(|error| Error::system(DOING, "readdir", error))?;
        let mut sessions = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".sock")).and_then(parse_id)
            else {
                continue;
            };
            match connect(id, SocketFlags::NONBLOCK) {
                // One whose worker lets nobody in just now lives, too, and nobody waits for it.
                Ok(_) | Err(Errno::AGAIN) => sessions.push(id),
                Err(Errno::CONNREFUSED) => {
                    let _ = std::fs::remove_file(Path::new(SESSIONS).join(&name));
                }
                Err(_) => {}
            }
        }
        sessions.sort_unstable();
        Ok(sessions)
    })
}

/// A session's number, in exactly the form that it is written in.
fn parse_id(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok().filter(|id| format!("{id:016x}") == text)
}

fn connect(id: u64, flags: SocketFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // It bounds connect(2), too (unix(7)).
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path_of(id))?)?;
    Ok(socket)
}

/// Takes a detached session over: the same token, the same processes.
pub(crate) fn reattach(id: u64) -> Result<SessionHandle> {
    const DOING: &str = "attaching to a detached session";
    let system = |call| move |errno: Errno| Error::system(DOING, call, errno);
    let socket = crate::sys::impersonate::as_server(|| {
        check(SESSIONS).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::new(DOING, ErrorKind::SessionEnded),
            _ => Error::system(DOING, "open /run/stead/sessions", error),
        })?;
        connect(id, SocketFlags::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::CONNREFUSED => Error::new(DOING, ErrorKind::SessionEnded),
            Errno::AGAIN => {
                Error::new(DOING, ErrorKind::WorkerUnavailable { why: "it lets nobody in".into() })
            }
            errno => Error::system(DOING, "connect", errno),
        })
    })?;
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .map_err(system("pidfd_open"))?;
    let lost = |error: io::Error| {
        let why = if wire::OtherVersion::is(&error) {
            "it was started by another version of this library: end the session with that one, and log on anew".into()
        } else {
            "it did not take the server on".into()
        };
        Error::new(DOING, ErrorKind::WorkerUnavailable { why }).with_source(error)
    };
    send(&socket, &Request::Attach, &[own.as_fd()]).map_err(lost)?;
    within(&socket, PATIENCE).map_err(lost)?;
    let Some(frame) = wire::receive(&socket).map_err(lost)? else {
        return Err(Error::new(DOING, ErrorKind::SessionEnded));
    };
    match Reply::decode(frame.kind, &frame.body) {
        Some(Reply::Opened(snapshot)) if snapshot.id == id => Ok(SessionHandle::new(socket, None, *snapshot)),
        Some(Reply::Failed(failure)) => {
            Err(Error::new(DOING, ErrorKind::WorkerUnavailable { why: failure.text.into() }))
        }
        _ => Err(lost(io::ErrorKind::InvalidData.into())),
    }
}
