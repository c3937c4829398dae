//! What a socket tells of its peer: raw answers of getsockopt(2), all as of connect.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use stead_trampoline::system_call;

use super::level;

/// Most of clients have no more groups than this, nor longer labels; more is asked for again.
const USUAL_WORDS: usize = 64;

/// More than NGROUPS_MAX groups, or a label longer than a page, is no answer of the kernel's.
const LARGEST_ANSWER: usize = 65_536 * size_of::<u32>();

/// The length of the answer; with the error the length that it would have needed, where the kernel told.
fn getsockopt(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
    into: &mut [u32],
) -> Result<usize, (io::Error, usize)> {
    let mut length = libc::socklen_t::try_from(size_of_val(into)).unwrap_or(0);
    // SAFETY: `into` is writable for `length` bytes, which is its size, and any bytes make valid u32s; the
    // kernel writes no more than `length` bytes there, and the new length to `length`.
    let result = unsafe {
        system_call!(
            GETSOCKOPT,
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            into.as_mut_ptr(),
            &raw mut length,
        )
    };
    match result {
        Ok(_) => Ok(length as usize),
        Err(errno) => Err((io::Error::from_raw_os_error(errno), length as usize)),
    }
}

fn words<const N: usize>(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<[u32; N]> {
    let mut answer = [0; N];
    match getsockopt(socket, option, &mut answer) {
        Ok(length) if length == size_of_val(&answer) => Ok(answer),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err((error, _)) => Err(error),
    }
}

/// An answer of any length: the words, and the length in bytes.
fn any_length(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<(Vec<u32>, usize)> {
    let mut usual = [0; USUAL_WORDS];
    let mut longer = Vec::new();
    let mut answer = &mut usual[..];
    loop {
        match getsockopt(socket, option, answer) {
            Ok(length) => {
                let words = answer.get(..length.div_ceil(size_of::<u32>())).unwrap_or_default();
                return Ok((words.to_vec(), length));
            }
            // The length that is needed comes back with ERANGE.
            Err((error, length))
                if error.raw_os_error() == Some(libc::ERANGE)
                    && length > size_of_val(answer)
                    && length <= LARGEST_ANSWER =>
            {
                longer.resize(length.div_ceil(size_of::<u32>()), 0);
                answer = &mut longer;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// What kind of socket this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts")]
pub(crate) struct Nature {
    pub(crate) unix: bool,
    /// Whether it, or the listener that accepted it, is bound to an address.
    pub(crate) named: bool,
    /// Whether it is a client's end, named to state a level.
    pub(crate) states_level: bool,
    /// SOCK_STREAM or SOCK_SEQPACKET.
    pub(crate) connection: bool,
}

pub(crate) fn nature(socket: BorrowedFd<'_>) -> io::Result<Nature> {
    let mut address = [0_u8; 128];
    let mut length: libc::socklen_t = size_of_val(&address).try_into().unwrap_or(0);
    // SAFETY: `address` is writable for `length` bytes, its size; the kernel only copies bytes.
    unsafe {
        system_call!(GETSOCKNAME, socket.as_raw_fd(), address.as_mut_ptr(), &raw mut length)
            .map_err(io::Error::from_raw_os_error)?;
    }
    let unix = i32::from(u16::from_ne_bytes([address[0], address[1]])) == libc::AF_UNIX;
    let [kind] = words(socket, libc::SO_TYPE)?;
    let connection = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].iter().any(|one| one.cast_unsigned() == kind);
    let name = address.get(size_of::<u16>()..length as usize).filter(|_| unix).unwrap_or_default();
    Ok(Nature {
        unix,
        named: !name.is_empty(),
        states_level: name.strip_prefix(b"\0").is_some_and(level::is_statement),
        connection,
    })
}

/// SO_ACCEPTCONN: whether the socket is a listener.
pub(crate) fn is_listening(socket: BorrowedFd<'_>) -> io::Result<bool> {
    words(socket, libc::SO_ACCEPTCONN).map(|[listening]| listening != 0)
}

/// SO_PEERCRED: pid, uid, gid.
pub(crate) fn peer_ids(socket: BorrowedFd<'_>) -> io::Result<[u32; 3]> {
    words(socket, libc::SO_PEERCRED)
}

/// SO_PEERGROUPS (Linux 4.13).
pub(crate) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    any_length(socket, libc::SO_PEERGROUPS).map(|(groups, _)| groups)
}

/// SO_PEERSEC: the peer's label; `None` where no security module keeps one for it.
pub(crate) fn peer_label(socket: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    match any_length(socket, libc::SO_PEERSEC) {
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
