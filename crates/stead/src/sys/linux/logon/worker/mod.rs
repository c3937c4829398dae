//! The session worker: one process for one logon session.
//!
//! PAM modules change the process that calls them (login uid, once; cgroup; keyring; umask; limits), so each
//! logon session has a process of its own. It owns the PAM handle, is the parent, subreaper and reaper of the
//! session's processes, and ends the session in order after the last of them. It is single-threaded, starts
//! with an empty environment, and never waits on anything that a client can stop.

mod asker;
mod host;
mod kernel;
mod keyring;
mod log_on;
#[cfg(test)]
mod model;
mod pam;
mod prepared;
mod serve;
mod signals;
mod slim;
mod tree;
mod watch;

use std::ffi::c_int;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use super::message::{Failure, Phase, Reply, Request, Why};
use super::wire;
use prepared::Prepared;

#[cfg(feature = "fuzzing")]
pub(in crate::sys) use slim::fuzz as fuzz_mappings;

/// The worker's `argv[0]`, and the small program's file name.
pub(in crate::sys) const NAME: &str = "stead-session";
/// The number of its socket.
pub(in crate::sys) const SOCKET: u32 = 3;

/// Whether this process was started to be a session worker: by its name, with nothing in its environment,
/// and with the socket that only the parent can have handed over.
///
/// Whoever imitates that gets a worker with his own rights; in a set-user-ID program nobody does.
pub(crate) fn was_asked_for() -> bool {
    let mut arguments = std::env::args_os();
    let named = arguments.next().is_some_and(|name| name.as_bytes() == NAME.as_bytes());
    if !named || arguments.next().is_some() || std::env::vars_os().next().is_some() {
        return false;
    }
    // SAFETY: getauxval has no preconditions.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    !secure
        && option(libc::SO_DOMAIN) == Some(libc::AF_UNIX)
        && option(libc::SO_TYPE) == Some(libc::SOCK_STREAM)
}

/// An option of what may be a socket under the agreed number.
fn option(name: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of::<c_int>()).ok()?;
    // SAFETY: value and length are valid for the call; a number that is no socket gives an error.
    let result = unsafe {
        libc::getsockopt(
            SOCKET.cast_signed(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(value)
}

/// The whole life of a worker; only after [`was_asked_for`] said so, and once.
pub(crate) fn run() -> u8 {
    harden();
    hold_signals();
    // SAFETY: `was_asked_for` found a socket under this number, and nothing else in this process owns it.
    let socket = Rc::new(unsafe { OwnedFd::from_raw_fd(SOCKET.cast_signed()) });
    if rustix::io::fcntl_setfd(&*socket, rustix::io::FdFlags::CLOEXEC).is_err() {
        return 1;
    }
    let Some((mut request, mut server)) = receive(&socket) else { return 1 };
    let server_uid = rustix::process::getuid();
    let mut ready = None;
    if let Request::Prepare(service) = request {
        let prepared = become_root().ok().and_then(|()| Prepared::start(&service, &socket));
        let Some((Request::Check, _)) = receive(&socket) else { return 1 };
        ready = prepared.and_then(Prepared::still);
        let (answer, goes_on) = if ready.is_some() { (Reply::Done, true) } else { (Reply::Stale, false) };
        if send(&socket, &answer, &[]).is_err() || !goes_on {
            return 0;
        }
        let Some(next) = receive(&socket) else { return 1 };
        (request, server) = next;
        // Started with one service, it is for no other.
        if !matches!(&request, Request::Open(open) if open.service == service) {
            return 1;
        }
    } else if let Err(error) = become_root() {
        let _ = send(&socket, &Reply::Failed(system(Phase::Start, "setresuid", &error)), &[]);
        return 0;
    }
    let (Request::Open(open), Some(server)) = (request, server) else { return 1 };
    match log_on::log_on(*open, &socket, ready) {
        Ok(session) => serve::serve(session, socket, server, server_uid),
        Err(failure) => {
            let _ = send(&socket, &Reply::Failed(failure), &[]);
            0
        }
    }
}

/// One request, and the descriptor that came with it.
fn receive(socket: &Rc<OwnedFd>) -> Option<(Request, Option<OwnedFd>)> {
    let frame = wire::receive_or_tell(&**socket).ok()??;
    let request = Request::decode(frame.kind, &frame.body)?;
    Some((request, frame.descriptors.into_iter().next()))
}

/// PAM modules are written for uid 0: pam_unix only reads the shadow file as root. A server with CAP_SETUID and
/// another uid could take on uid 0 at any time; its worker does, with the capabilities that it was given.
fn become_root() -> std::io::Result<()> {
    // SAFETY: the worker has one thread, and the call changes nothing but its uids.
    if !rustix::process::getuid().is_root() && unsafe { libc::setresuid(0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Does something with another effective uid, for files that are that user's.
fn as_user<R>(uid: rustix::process::Uid, act: impl FnOnce() -> R) -> std::io::Result<R> {
    if uid.is_root() {
        return Ok(act());
    }
    // SAFETY: the worker has one thread; real and saved uid stay 0, so that the next call leads back.
    if unsafe { libc::seteuid(uid.as_raw()) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let result = act();
    // SAFETY: as above.
    if unsafe { libc::seteuid(0) } != 0 {
        // Neither the server's nor root's work could be done rightly any more.
        std::process::abort();
    }
    Ok(result)
}

/// Signals that end a worker in the middle of PAM would leave half a session behind: they are heard later, in the
/// loop. Handled rather than ignored or blocked, because programs that modules start would inherit that.
fn hold_signals() {
    extern "C" fn nothing(_signal: c_int) {}
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGPIPE] {
        // SAFETY: a sigaction is plain data, for which zero is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the action is whole, and its handler does nothing.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

/// No core dump, no ptrace by whoever shares a uid, one small heap.
fn harden() {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // SAFETY: mallopt has no preconditions before threads exist.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 * 1024);
        libc::mallopt(libc::M_TOP_PAD, 4 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 * 1024);
    }
}

fn send(socket: &OwnedFd, reply: &Reply, descriptors: &[std::os::fd::BorrowedFd<'_>]) -> std::io::Result<()> {
    let (kind, body) = reply.encode();
    wire::send(socket, kind, &body, descriptors)
}

/// A failure that the system caused.
fn system(phase: Phase, call: &str, error: &std::io::Error) -> Failure {
    Failure { phase, why: Why::System, code: error.raw_os_error().unwrap_or(0), text: call.to_owned() }
}

fn stated(phase: Phase, why: Why, text: impl Into<String>) -> Failure {
    Failure { phase, why, code: 0, text: text.into() }
}
