//! `bench identify`: who is at the other end of a connection, beside the bare calls that ask the kernel.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use stead::{Client, Token};
use stead_trampoline::system_call;

use crate::Outcome;
use crate::credentials::Credentials;
use crate::measure::Method;
use crate::report::{Bench, Scenario};

const UID: u32 = 64_321;

/// So many are one measurement: one is short beside the clock.
const BATCH: u32 = 50;

/// Clients with few groups and with many.
pub(crate) fn run(bench: &mut Bench) -> Outcome {
    for groups in [0, 16, 64] {
        let path = bench.bed.scratch("identify").join("server");
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        let user = Credentials { uid: UID, gid: UID, groups: (0..groups).map(|index| UID + index).collect() };
        // It ends with this.
        let _process = user.run(|| {
            let _connection = UnixStream::connect(&path);
            loop {
                std::thread::park();
            }
        })?;
        let (stream, _) = listener.accept()?;
        let scenario = Scenario {
            part: "identify",
            name: format!("a client with {groups} groups"),
            rounds: 500,
            time: Duration::from_secs(15),
        };
        let client = Client::of(&stream)?;
        bench.measure(
            &scenario,
            vec![
                Method::batch("bare calls", BATCH, || bare_calls(&stream)),
                Method::batch("bare calls, with those that tell a client", BATCH, || telling_calls(&stream))
                    .note("nothing is compared"),
                Method::batch("SO_PEERCRED and /proc/PID/status", BATCH, || from_proc(&stream))
                    .note("whoever has the pid by now"),
                Method::batch("stead, Client::of", BATCH, || {
                    Client::of(&stream).map(drop).map_err(io::Error::other)
                }),
                Method::batch("stead, Client::token", BATCH, || {
                    client.token().map(|token: Token<_>| drop(token)).map_err(io::Error::other)
                })
                .note("how every thread of it is confined"),
            ],
        )?;
    }
    Ok(())
}

fn option(socket: &UnixStream, option: libc::c_int, into: &mut [u32]) -> Result<usize, i32> {
    let mut length = libc::socklen_t::try_from(size_of_val(into)).unwrap_or(0);
    // SAFETY: `into` is writable for `length` bytes, which is its size.
    unsafe {
        system_call!(
            GETSOCKOPT,
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            into.as_mut_ptr(),
            &raw mut length
        )?;
    }
    Ok(length as usize)
}

/// Ids, groups and label as of connect, a pidfd, and the ids of its process now; nothing is compared.
fn bare_calls(socket: &UnixStream) -> io::Result<()> {
    asking_calls(socket).map(drop)
}

/// The same, and what tells a client that is there from the server itself, a socket that nobody accepted, a process that has
/// ended, and a level that was stated. The bound: whoever checks makes these calls.
fn telling_calls(socket: &UnixStream) -> io::Result<()> {
    let own_name = socket.local_addr()?;
    let mut kind = [0];
    option(socket, libc::SO_TYPE, &mut kind).map_err(io::Error::from_raw_os_error)?;
    let its_name = socket.peer_addr()?;
    let own = std::process::id();
    let pidfd = asking_calls(socket)?;
    let mut watched = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, as is said, of an open descriptor.
    let ended = unsafe { libc::poll(&raw mut watched, 1, 0) };
    std::hint::black_box((own_name, kind, its_name, own, ended));
    Ok(())
}

fn asking_calls(socket: &UnixStream) -> io::Result<OwnedFd> {
    let failed = io::Error::from_raw_os_error;
    let (mut ids, mut groups, mut label, mut number) = ([0; 3], [0; 64], [0; 64], [0]);
    option(socket, libc::SO_PEERCRED, &mut ids).map_err(failed)?;
    option(socket, libc::SO_PEERGROUPS, &mut groups).map_err(failed)?;
    // Where no security module keeps labels the call fails.
    let labelled = option(socket, libc::SO_PEERSEC, &mut label).is_ok();
    option(socket, libc::SO_PEERPIDFD, &mut number).map_err(failed)?;
    // SAFETY: the kernel has just made this descriptor for this call.
    let pidfd = unsafe { OwnedFd::from_raw_fd(number[0].cast_signed()) };
    // PIDFD_INFO_PID and PIDFD_INFO_CREDS of a `struct pidfd_info` of 64 bytes.
    let mut info = [3_u64, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: `info` is as large as the request's number says.
    unsafe { system_call!(IOCTL, pidfd.as_raw_fd(), 0xC040_FF0B_u32, info.as_mut_ptr()) }.map_err(failed)?;
    std::hint::black_box((ids, groups[0], labelled, info));
    Ok(pidfd)
}

/// What many a server does.
fn from_proc(socket: &UnixStream) -> io::Result<()> {
    let mut ids = [0; 3];
    option(socket, libc::SO_PEERCRED, &mut ids).map_err(io::Error::from_raw_os_error)?;
    let status = fs::read_to_string(format!("/proc/{}/status", ids[0]))?;
    std::hint::black_box(status.lines().find(|line| line.starts_with("Groups:")).map(str::len));
    Ok(())
}
