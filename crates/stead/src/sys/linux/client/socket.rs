//! What a socket tells of its peer: raw answers of getsockopt(2), all as of connect.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::level;

/// Most of clients have fewer groups; more are asked for again.
const USUAL_GROUPS: usize = 64;

/// More than NGROUPS_MAX groups, or a label longer than a page, is no answer of the kernel's.
const LARGEST_ANSWER: usize = 65_536 * size_of::<u32>();

fn getsockopt(socket: BorrowedFd<'_>, option: libc::c_int, into: &mut [u32]) -> (libc::c_int, usize) {
    let mut length = libc::socklen_t::try_from(size_of_val(into)).unwrap_or(0);
    // SAFETY: `into` is writable for `length` bytes, which is its size, and any bytes make valid u32s; the
    // kernel writes no more than `length` bytes there, and the new length to `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            into.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result, length as usize)
}

fn words<const N: usize>(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<[u32; N]> {
    let mut answer = [0; N];
    let (result, length) = getsockopt(socket, option, &mut answer);
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if length != size_of_val(&answer) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(answer)
}

/// An answer of any length: the words, and the length in bytes.
fn any_length(socket: BorrowedFd<'_>, option: libc::c_int, usual: usize) -> io::Result<(Vec<u32>, usize)> {
    let mut answer = vec![0; usual];
    loop {
        let (result, length) = getsockopt(socket, option, &mut answer);
        if result == 0 {
            answer.truncate(length.div_ceil(size_of::<u32>()));
            return Ok((answer, length));
        }
        let error = io::Error::last_os_error();
        // The length that is needed comes back with ERANGE.
        let fits = length > size_of_val(answer.as_slice()) && length <= LARGEST_ANSWER;
        if error.raw_os_error() != Some(libc::ERANGE) || !fits {
            return Err(error);
        }
        answer.resize(length.div_ceil(size_of::<u32>()), 0);
    }
}

/// What kind of socket this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "five independent facts")]
pub(crate) struct Nature {
    pub(crate) unix: bool,
    /// Whether it, or the listener that accepted it, is bound to an address.
    pub(crate) named: bool,
    /// Whether it is a client's end, named to state a level.
    pub(crate) states_level: bool,
    /// SOCK_STREAM or SOCK_SEQPACKET.
    pub(crate) connection: bool,
    pub(crate) listening: bool,
}

pub(crate) fn nature(socket: BorrowedFd<'_>) -> io::Result<Nature> {
    let mut address = [0_u16; 64];
    let mut length: libc::socklen_t = size_of_val(&address).try_into().unwrap_or(0);
    // SAFETY: `address` is writable for `length` bytes, its size, and any bytes make valid u16s; sockaddr_un
    // needs an alignment of 2, which u16 has, and the kernel only copies bytes.
    let result =
        unsafe { libc::getsockname(socket.as_raw_fd(), address.as_mut_ptr().cast(), &raw mut length) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let unix = i32::from(address[0]) == libc::AF_UNIX;
    let [kind] = words(socket, libc::SO_TYPE)?;
    let [listening] = words(socket, libc::SO_ACCEPTCONN)?;
    let connection = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].iter().any(|one| one.cast_unsigned() == kind);
    let address: Vec<u8> = address.iter().flat_map(|word| word.to_ne_bytes()).take(length as usize).collect();
    let name = address.get(size_of::<u16>()..).filter(|_| unix).unwrap_or_default();
    Ok(Nature {
        unix,
        named: !name.is_empty(),
        states_level: name.strip_prefix(b"\0").is_some_and(level::is_statement),
        connection,
        listening: listening != 0,
    })
}

/// SO_PEERCRED: pid, uid, gid.
pub(crate) fn peer_ids(socket: BorrowedFd<'_>) -> io::Result<[u32; 3]> {
    words(socket, libc::SO_PEERCRED)
}

/// SO_PEERGROUPS (Linux 4.13).
pub(crate) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    any_length(socket, libc::SO_PEERGROUPS, USUAL_GROUPS).map(|(groups, _)| groups)
}

/// SO_PEERSEC: the peer's label; `None` where no security module keeps one for it.
pub(crate) fn peer_label(socket: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    match any_length(socket, libc::SO_PEERSEC, USUAL_GROUPS) {
        Ok((words, length)) => {
            let mut label: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            label.truncate(length);
            while label.last().is_some_and(|byte| matches!(byte, 0 | b'\n')) {
                label.pop();
            }
            Ok((!label.is_empty()).then_some(label))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// SO_PEERPIDFD (Linux 6.5).
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let [descriptor] = words(socket, libc::SO_PEERPIDFD)?;
    // SAFETY: on success the kernel has put a new descriptor into this process's table and told its number
    // to this call alone, so that nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor.cast_signed()) })
}
