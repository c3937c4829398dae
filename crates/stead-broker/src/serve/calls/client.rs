//! The caller's own token, and that of a client of its own.

use std::io::{self, ErrorKind::NotFound};
use std::os::fd::BorrowedFd;

use rustix::net::{AddressFamily, SocketAddrUnix};
use stead::error::ConfinedPart;
use stead::os::linux::Uid;
use stead::{Client, Confinement, ImpersonationLevel};
use stead_protocol::{ClientToken, Failure, FailureKind, OpenedToken, OwnToken, name_of};

use crate::policy::{Privilege, Request};
use crate::serve::diag::{self, Bound};
use crate::serve::failure::{failure, invalid, system};
use crate::serve::given::Given;
use crate::serve::limits;
use crate::serve::service::{Service, denied};
use crate::serve::state::State;
use crate::serve::token::{AnyToken, Held, Origin};

const DOING: &str = "taking a caller's client";
/// What the name of a client's end begins with where it says which level the client grants.
const STATES_LEVEL: &[u8] = b"stead/level/";

pub(super) fn own_token(state: &mut State, _call: &OwnToken) -> Result<OpenedToken, Failure> {
    let token = state.caller.token()?;
    // What it may use at most is what the caller's process may use.
    let limits = limits::of_caller(&state.caller)?;
    state.keep(Held::whole(AnyToken::Impersonation(token), Origin::Own(limits.into())))
}

pub(super) fn client_token(
    service: &Service,
    state: &mut State,
    call: &ClientToken,
    given: &Given,
) -> Result<OpenedToken, Failure> {
    let caller = &state.caller;
    let (socket, listener) = (given.get(call.socket)?, given.get(call.listener)?);
    require_accepted_by(socket, listener, caller.uid)?;
    let level = call.level.map_or(ImpersonationLevel::Delegation, ImpersonationLevel::from);
    let client =
        Client::with(Confinement::Refuse).level(level).of(socket).map_err(|error| failure(&error))?;
    let token = client.token().map_err(|error| failure(&error))?;
    let held = Held::whole(AnyToken::Impersonation(token), Origin::Client);
    let subject = held.subject()?;
    let request = Request::new(Privilege::Impersonate, &subject);
    // Whose socket it is the caller knows; what the service calls that user it need not be told.
    service.decide(caller, &request).map_err(|refused| match refused.kind {
        FailureKind::PolicyDenied { .. } => denied(Privilege::Impersonate, ""),
        _ => refused,
    })?;
    state.keep(held)
}

/// Fails unless `socket` was accepted by `listener`, and `caller` may speak for that listener.
///
/// Whoever holds a connecting end could otherwise be taken for whom it connected to: root, of all.
fn require_accepted_by(socket: BorrowedFd<'_>, listener: BorrowedFd<'_>, caller: Uid) -> Result<(), Failure> {
    let listens = rustix::net::sockopt::socket_acceptconn(listener)
        .map_err(|_| invalid(DOING, "the listener is no socket"))?;
    if !listens {
        return Err(invalid(DOING, "what was passed as the listener does not listen"));
    }
    let (of_listener, of_socket) = (look_up(listener)?, look_up_accepted(socket)?);
    let Some(file) = of_listener.file.filter(|_| of_listener.listens) else {
        return Err(invalid(
            DOING,
            "the listener is bound to no file: an unnamed or abstract socket is not proof enough",
        ));
    };
    if of_socket.listens || of_socket.file != Some(file) {
        return Err(invalid(DOING, "the socket was not accepted by that listener"));
    }
    // Who called listen(2), by the kernel's word. The system's service manager listens for its services.
    let made_by = rustix::net::sockopt::socket_peercred(listener)
        .map_err(|errno| system(DOING, "getsockopt(SO_PEERCRED)", errno))?
        .uid
        .as_raw();
    if made_by != caller.as_raw() && made_by != Uid::ROOT.as_raw() {
        let object = "the listener, which is another user's".to_owned();
        return Err(FailureKind::AccessDenied { object }.while_doing(DOING));
    }
    require_no_connecting_end(socket)?;
    // Who called accept(2); of one of a pair, who made the pair (`sock_alloc` in net/socket.c).
    let accepted_by = rustix::fs::fstat(socket).map_err(|errno| system(DOING, "fstat", errno))?.st_uid;
    if accepted_by != caller.as_raw() {
        let object = "the socket, which another user accepted".to_owned();
        return Err(FailureKind::AccessDenied { object }.while_doing(DOING));
    }
    Ok(())
}

/// Fails if a listener can be at the other end.
///
/// Two files may have one number: a file system in user space says what it likes, and the diagnostics tell half of
/// it. But whoever connects has a peer with its listener's name, and nobody listens without one.
fn require_no_connecting_end(socket: BorrowedFd<'_>) -> Result<(), Failure> {
    let Some(peer) = rustix::net::getpeername(socket).map_err(|errno| system(DOING, "getpeername", errno))?
    else {
        return Ok(());
    };
    // Without a name there is the family alone (unix(7)).
    if peer.addr_len() as usize == size_of::<u16>() {
        return Ok(());
    }
    let peer = SocketAddrUnix::try_from(peer).map_err(|errno| system(DOING, "getpeername", errno))?;
    if peer.abstract_name().is_some_and(|name| name.starts_with(STATES_LEVEL)) {
        return Ok(());
    }
    Err(invalid(DOING, "the other end has a name, as a listener's has: it may be what was connected to"))
}

/// The same of a socket that a listener accepted: it is of the network namespace of whoever connected
/// (`unix_stream_connect` in net/unix/af_unix.c).
fn look_up_accepted(socket: BorrowedFd<'_>) -> Result<Bound, Failure> {
    let of_unix = || rustix::net::sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX);
    match diag::look_up(socket) {
        Err(error) if error.kind() == NotFound && of_unix() => {
            let part = name_of(ConfinedPart::NetworkNamespace);
            Err(FailureKind::ClientConfined { part }.while_doing(DOING))
        }
        found => found.map_err(not_found),
    }
}

fn look_up(socket: BorrowedFd<'_>) -> Result<Bound, Failure> {
    diag::look_up(socket).map_err(not_found)
}

fn not_found(error: io::Error) -> Failure {
    match error.kind() {
        NotFound => invalid(DOING, "it is no Unix socket of the service's network namespace"),
        _ => system(DOING, "NETLINK_SOCK_DIAG", error),
    }
}
