//! One connection.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{Address, ConnectOptions};
use crate::client::{Client, Confinement};
use crate::error::{Error, ErrorKind, Result};
use crate::sys;
use crate::sys::token::Uid;

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: UnixStream,
}

impl Stream {
    pub(crate) fn connect(address: &Address, options: &ConnectOptions) -> Result<Self> {
        let doing = || format!("connecting to {address}");
        let system = |call| move |errno: rustix::io::Errno| Error::system(doing(), call, errno);
        let target = SocketAddrUnix::new(address.as_path()).map_err(|errno| {
            let what = format!("{address} is no path for a socket").into();
            Error::new(doing(), ErrorKind::InvalidInput { what }).with_source(errno)
        })?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(system("socket"))?;
        // What is granted is a property of the connection from its first moment.
        sys::client::level::state(&socket, options.level).map_err(system("bind"))?;
        set_socket_timeout(&socket, Timeout::Send, Some(options.timeout))
            .map_err(system("setsockopt(SO_SNDTIMEO)"))?;
        rustix::net::connect(&socket, &target).map_err(|errno| match errno {
            rustix::io::Errno::AGAIN => {
                let waiting_for = "room for one more connection to the server".into();
                Error::new(doing(), ErrorKind::DeadlinePassed { waiting_for }).with_source(errno)
            }
            rustix::io::Errno::ACCESS => {
                let object = address.to_string();
                Error::new(doing(), ErrorKind::AccessDenied { object }).with_source(errno)
            }
            _ => Error::system(doing(), "connect", errno),
        })?;
        // By the kernel's word: whoever called listen(2).
        if let Some(wanted) = options.server {
            let [_, uid, _] = sys::client::peer_ids(socket.as_fd())
                .map_err(|source| Error::system(doing(), "getsockopt(SO_PEERCRED)", source))?;
            if Uid::new(uid) != Some(wanted) {
                let object = address.to_string();
                let why = io::Error::other(format!("its server has uid {uid}, not {wanted}"));
                return Err(Error::new(doing(), ErrorKind::AccessDenied { object }).with_source(why));
            }
        }
        set_socket_timeout(&socket, Timeout::Send, None).map_err(system("setsockopt(SO_SNDTIMEO)"))?;
        Ok(Self { socket: socket.into() })
    }

    /// A server's end that was accepted elsewhere.
    pub(crate) fn of(descriptor: OwnedFd) -> Result<Self> {
        sys::client::require_accepted(descriptor.as_fd())?;
        Ok(Self { socket: descriptor.into() })
    }

    pub(crate) fn client_with(&self, confinement: Confinement) -> Result<Client> {
        Client::with(confinement).of(&self.socket)
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(timeout)
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_write_timeout(timeout)
    }

    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.socket).read(buffer)
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.socket).write(bytes)
    }
}
