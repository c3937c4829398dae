//! The level that a client grants, told by the name of its end of the connection.
//!
//! A client that wants less than impersonation binds its socket to an abstract name which says so, before it
//! connects; the server reads the peer's name. Nothing travels in the stream, so that every server of Unix
//! sockets and every protocol has it, and a client that knows nothing of it grants impersonation, as a
//! client of a named pipe does that sets no SECURITY_SQOS_PRESENT.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, bind, getpeername};

use crate::ImpersonationLevel;

/// What names of ours begin with; the level's digit follows, then what makes the name unique.
const PREFIX: &[u8] = b"stead/level/";

/// Names the socket so that its peer learns `level`; impersonation needs no name.
pub(crate) fn state(socket: impl AsFd, level: ImpersonationLevel) -> Result<(), Errno> {
    let digit = match level {
        ImpersonationLevel::Anonymous => 0,
        ImpersonationLevel::Identification => 1,
        ImpersonationLevel::Impersonation => return Ok(()),
        ImpersonationLevel::Delegation => 3,
    };
    // Anybody may take any abstract name, also beforehand: it is one that nobody can guess.
    for _ in 0..8 {
        let mut random = [0; 16];
        let length = rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())?;
        if length < random.len() {
            continue;
        }
        let mut name = PREFIX.to_vec();
        name.extend_from_slice(format!("{digit}/{:032x}", u128::from_ne_bytes(random)).as_bytes());
        match bind(&socket, &SocketAddrUnix::new_abstract_name(&name)?) {
            Err(Errno::ADDRINUSE) => {}
            done => return done,
        }
    }
    Err(Errno::ADDRINUSE)
}

/// The level that the socket's peer stated.
pub(crate) fn stated(socket: impl AsFd) -> Result<ImpersonationLevel, Errno> {
    let Some(peer) = getpeername(socket)? else { return Ok(ImpersonationLevel::Impersonation) };
    let peer = SocketAddrUnix::try_from(peer)?;
    Ok(peer.abstract_name().map_or(ImpersonationLevel::Impersonation, of_name))
}

/// Whether an abstract name is one that [`state`] gives.
pub(super) fn is_statement(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

fn of_name(name: &[u8]) -> ImpersonationLevel {
    let Some(rest) = name.strip_prefix(PREFIX) else { return ImpersonationLevel::Impersonation };
    match rest.get(..2) {
        Some(b"1/") => ImpersonationLevel::Identification,
        Some(b"3/") => ImpersonationLevel::Delegation,
        // Also what is not understood: a client that states something grants no more than it is known to.
        _ => ImpersonationLevel::Anonymous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_are_alike_and_none_can_be_taken_beforehand() {
        let name = || {
            let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
            state(&one, ImpersonationLevel::Identification).unwrap();
            let address = SocketAddrUnix::try_from(rustix::net::getsockname(&one).unwrap()).unwrap();
            let name = address.abstract_name().unwrap().to_vec();
            assert_eq!(of_name(&name), ImpersonationLevel::Identification);
            let own = rustix::process::getpid().to_string();
            assert_eq!(name.len(), PREFIX.len() + 2 + 32, "random, and not {own} and a count");
            name
        };
        assert_ne!(name(), name());
    }

    #[test]
    fn only_what_is_understood_grants_anything() {
        assert_eq!(of_name(b"someone/else"), ImpersonationLevel::Impersonation);
        assert_eq!(of_name(b"stead/level/1/7-0"), ImpersonationLevel::Identification);
        assert_eq!(of_name(b"stead/level/3/7-0"), ImpersonationLevel::Delegation);
        for name in [
            &b"stead/level/"[..],
            b"stead/level/1",
            b"stead/level/11/",
            b"stead/level/x/1",
            b"stead/level/0/1",
        ] {
            assert_eq!(of_name(name), ImpersonationLevel::Anonymous, "{name:?}");
        }
    }
}
