//! The client of a connection that the server accepted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use stead_protocol::ClientToken;

use super::connection::{Line, PATIENCE, Service};
use super::token::described;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::client::{Peer, require_listening};
use crate::sys::elsewhere::ClientElsewhere;
use crate::token::{Impersonation, ImpersonationLevel, Token};

/// What the service is shown for a client's token: it looks at the connection itself.
struct Accepted {
    socket: OwnedFd,
    listener: OwnedFd,
    service: Arc<Service>,
}

/// The client at the other end of `socket`, which `listener` accepted, and the level that it granted.
pub(crate) fn client_of(
    service: &Arc<Service>,
    socket: BorrowedFd<'_>,
    listener: BorrowedFd<'_>,
) -> Result<(Peer, ImpersonationLevel)> {
    const DOING: &str = "identifying a client";
    require_listening(listener)?;
    // What the kernel tells everybody; whether the process is pinned is the service's to insist on.
    let (mut peer, level) = Peer::of(socket, true)?;
    let own = |descriptor: BorrowedFd<'_>| {
        descriptor.try_clone_to_owned().map_err(|source| {
            let limit = "descriptors of this process".into();
            Error::new(DOING, ErrorKind::LimitReached { limit }).with_source(source)
        })
    };
    let accepted = Accepted { socket: own(socket)?, listener: own(listener)?, service: Arc::clone(service) };
    peer.elsewhere = Some(Box::new(accepted));
    Ok((peer, level))
}

impl ClientElsewhere for Accepted {
    fn token(&self, granted: ImpersonationLevel) -> Result<Token<Impersonation>> {
        const DOING: &str = "making a client's token through the service";
        let line = Line::new(&self.service)?;
        let call = ClientToken { socket: 0, listener: 1, level: Some(granted.into()) };
        let descriptors = [self.socket.as_fd(), self.listener.as_fd()];
        let (opened, _) = line.call(DOING, &call, &descriptors, Some(PATIENCE))?;
        let reached = ImpersonationLevel::from(opened.context.level).min(granted);
        described(&Arc::new(line), &opened, reached, None, DOING)
    }
}
