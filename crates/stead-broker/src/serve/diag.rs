//! What the kernel's socket diagnostics say of a Unix socket: whether it listens, and where it is bound.
//!
//! Reference: [sock_diag(7)](https://man7.org/linux/man-pages/man7/sock_diag.7.html), net/unix/diag.c.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// A socket as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    /// Whether it listens.
    pub(super) listens: bool,
    /// Device and inode of the file that it, or the listener that accepted it, is bound to.
    pub(super) file: Option<(u32, u32)>,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const UDIAG_SHOW_VFS: u32 = 2;
const UNIX_DIAG_VFS: u16 = 1;
const TCP_LISTEN: u8 = 10;
const AF_UNIX: u8 = 1;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// It and `struct unix_diag_req`.
const LENGTH: u32 = 40;
/// `struct unix_diag_msg`.
const MESSAGE: usize = 16;

/// What the kernel says of `socket`, in this process's network namespace.
pub(super) fn look_up(socket: BorrowedFd<'_>) -> io::Result<Bound> {
    // With the cookie the answer is this socket's, or none. It comes first: nothing else than a socket has one, and a file
    // system of the caller's could keep what fstat(2) asks it to itself.
    let cookie = rustix::net::sockopt::socket_cookie(socket)?;
    let inode = u32::try_from(rustix::fs::fstat(socket)?.st_ino).map_err(|_| malformed())?;
    let request = request(inode, cookie);
    let diag = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::SOCK_DIAG),
    )?;
    rustix::net::sendto(&diag, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    // The kernel answers while it is asked: the answer is there.
    let mut answer = [0; 4096];
    let (_, length) = rustix::net::recv(&diag, &mut answer, RecvFlags::empty())?;
    parse(answer.get(..length).ok_or_else(malformed)?, inode)
}

fn request(inode: u32, cookie: u64) -> Vec<u8> {
    let mut message = Vec::with_capacity(LENGTH as usize);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([1_u32, 0].map(u32::to_ne_bytes).concat()); // its number; to the kernel
    message.extend([AF_UNIX, 0, 0, 0]);
    message.extend([u32::MAX, inode, UDIAG_SHOW_VFS].map(u32::to_ne_bytes).concat()); // in any state
    let [low, high] =
        [cookie & u64::from(u32::MAX), cookie >> 32].map(|half| u32::try_from(half).unwrap_or(0));
    message.extend([low, high].map(u32::to_ne_bytes).concat());
    message
}

fn parse(answer: &[u8], inode: u32) -> io::Result<Bound> {
    let short = |at: usize| -> io::Result<u16> {
        let bytes = answer.get(at..at + 2).ok_or_else(malformed)?;
        Ok(u16::from_ne_bytes([bytes[0], bytes[1]]))
    };
    let long = |at: usize| -> io::Result<u32> {
        let bytes = answer.get(at..at + 4).ok_or_else(malformed)?;
        Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let end = (long(0)? as usize).min(answer.len());
    match short(4)? {
        SOCK_DIAG_BY_FAMILY => {}
        NLMSG_ERROR => {
            return Err(io::Error::from_raw_os_error(long(HEADER)?.cast_signed().wrapping_neg()));
        }
        _ => return Err(malformed()),
    }
    if long(HEADER + 4)? != inode {
        return Err(malformed());
    }
    let listens = answer.get(HEADER + 2) == Some(&TCP_LISTEN);
    let mut file = None;
    let mut at = HEADER + MESSAGE;
    while at + 4 <= end {
        let (length, kind) = (usize::from(short(at)?), short(at + 2)?);
        if length < 4 {
            break;
        }
        if kind == UNIX_DIAG_VFS && length >= 12 {
            file = Some((long(at + 8)?, long(at + 4)?));
        }
        at += length.next_multiple_of(4);
    }
    Ok(Bound { listens, file })
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "socket diagnostics said what no kernel says")
}

/// Any answer of socket diagnostics.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(data: &[u8]) {
    for inode in [1, 0x0101_0101] {
        let _ = parse(data, inode);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(answer in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&answer, 1);
        }
    }

    #[test]
    fn an_accepted_socket_is_bound_where_its_listener_is_and_a_connecting_one_is_not() {
        let path = std::env::temp_dir().join(format!("stead-diag-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let connecting = UnixStream::connect(&path).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        std::fs::remove_file(&path).unwrap();
        let of = |socket: BorrowedFd<'_>| look_up(socket).unwrap();
        let listener = of(listener.as_fd());
        assert!(listener.listens && listener.file.is_some());
        assert_eq!(of(accepted.as_fd()), Bound { listens: false, ..listener });
        assert_eq!(of(connecting.as_fd()), Bound { listens: false, file: None });
    }
}
