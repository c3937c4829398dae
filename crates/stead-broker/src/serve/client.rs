//! The caller's own token, and that of a client of its own.

use std::os::fd::{AsFd, BorrowedFd};

use stead::os::linux::Uid;
use stead::{Client, Confinement, ImpersonationLevel};
use stead_protocol::{ClientToken, Failure, FailureKind, OpenedToken, OwnToken};

use super::connection::State;
use super::diag::{self, Bound};
use super::failure::{failure, invalid, system};
use super::given::Given;
use super::limits;
use super::service::{Service, denied};
use super::token::{AnyToken, Held, Origin, from_wire};
use crate::policy::{Privilege, Request};

const DOING: &str = "taking a caller's client";

pub(super) fn own_token(state: &mut State, _call: &OwnToken) -> Result<OpenedToken, Failure> {
    let token = state.caller.token().map_err(|error| failure(&error))?;
    // What it may use at most is what the caller's process may use.
    let limits = limits::of_caller(&state.caller)?;
    state.keep(Held { token: AnyToken::Impersonation(token), origin: Origin::Own(limits.into()) })
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
    let level = call.level.map_or(ImpersonationLevel::Delegation, from_wire);
    let client =
        Client::with(Confinement::Refuse).level(level).of(socket).map_err(|error| failure(&error))?;
    let token = client.token().map_err(|error| failure(&error))?;
    let held = Held { token: AnyToken::Impersonation(token), origin: Origin::Client };
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
    let (of_listener, of_socket) = (look_up(listener)?, look_up(socket)?);
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
    Ok(())
}

fn look_up(socket: BorrowedFd<'_>) -> Result<Bound, Failure> {
    diag::look_up(socket.as_fd()).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            invalid(DOING, "it is no Unix socket of the service's network namespace")
        }
        _ => system(DOING, "NETLINK_SOCK_DIAG", error),
    })
}
