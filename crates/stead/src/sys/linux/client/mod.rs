//! Who is at the other end of a Unix socket, and how its process is confined.

mod confinement;
mod identity;
pub(crate) mod level;
mod pidfd;
mod process;
mod socket;
mod take;
#[cfg(test)]
mod tests;

#[cfg(feature = "service")]
pub(crate) use confinement::BY_WEIGHT;
pub(crate) use confinement::Policy;
pub(crate) use identity::{Peer, require_accepted, require_listening};
pub(crate) use process::{process_context, shown_context};
pub(crate) use socket::peer_ids;
/// The ids of the process that a pidfd pins; `None` when it has ended.
pub(crate) fn ids(pidfd: std::os::fd::BorrowedFd<'_>) -> std::io::Result<Option<pidfd::Ids>> {
    pidfd::ids(pidfd, None)
}

/// What a client's connection is made from.
pub(crate) use std::os::fd::AsFd as AsConnection;
