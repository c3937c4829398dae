//! One connection: its calls, one after the other.
//!
//! The task itself never waits for anything but the socket. A call is handled on a thread that may wait, with
//! the connection's state, and with the descriptors that came with the call, which are closed there too. A
//! caller has a bounded number of such threads at a time.

use std::os::fd::AsFd;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use stead::os::linux::Uid;
use stead_protocol::{Failure, FailureKind, NotDecoded, Request};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::accounts::User;
use super::answer::Answer;
use super::given::Given;
use super::service::Service;
use super::session::Closer;
use super::slots::{ConnectionSlot, Kind};
use super::state::State;
use super::transport::{self, Arrived, Connection, Transport};
use super::{calls, introspect, stream};

/// What a call looks like before its method is known.
#[derive(Debug, Deserialize)]
struct Incoming {
    method: String,
    parameters: Option<Box<RawValue>>,
}

/// Serves one connection to its end.
pub(super) async fn serve(service: Arc<Service>, stream: UnixStream, user: User, slot: ConnectionSlot) {
    let transport = Transport::new(stream);
    let arrived = transport.arrived();
    let socket = transport.stream();
    let mut connection = Connection::new(transport);
    let mut state = None;
    let end = answer_calls(&service, &mut connection, &arrived, &socket, user, &mut state).await;
    if let Err(error) = end {
        tracing::debug!(uid = %user.uid, %error, "a connection was ended");
    }
    drop(connection);
    let rest = arrived.take(u64::MAX);
    // Tokens may hold sessions open, and descriptors may belong to file systems of the caller.
    let _ = service.on_a_thread(move || drop((state, rest))).await;
    drop(slot);
}

async fn answer_calls(
    service: &Arc<Service>,
    connection: &mut Connection,
    arrived: &Arc<Arrived>,
    socket: &Arc<UnixStream>,
    user: User,
    kept: &mut Option<State>,
) -> zlink::Result<()> {
    for number in 0_u64.. {
        let received = connection.receive_call::<Incoming>().await.map(|(call, _)| call);
        let given = Given::new(arrived.take(number));
        let call = match received {
            Ok(call) => call,
            Err(error) => {
                discard(service, user, given).await;
                return match error {
                    zlink::Error::UnexpectedEof => Ok(()),
                    error => Err(error),
                };
            }
        };
        let (oneway, more) = (call.oneway(), call.more());
        let Incoming { method, parameters } = call.method();
        let parameters = parameters.as_ref().map(|raw| raw.get());
        let request = match introspect::answer(method, parameters) {
            Some(answer) => Err(answer),
            None => unharmed(|| decode(method, parameters)).map_err(Err),
        };
        // These two need nothing of the caller but its uid; which must be known to be its own all the same.
        if kept.is_none() && matches!(request, Ok(Request::Monitor(_) | Request::WaitProcess(_))) {
            let of = Arc::clone(socket);
            match service.blocking(user.counted, move || State::of(&of)).await.and_then(|known| known) {
                Ok(state) => *kept = Some(state),
                Err(failure) => {
                    discard(service, user, given).await;
                    reply(service, user, connection, socket, oneway, Err(failure)).await?;
                    continue;
                }
            }
        }
        #[cfg(feature = "fuzzing")]
        if let Ok(request @ Request::WaitProcess(_)) = &request {
            super::fuzzing::panic_if_asked(request);
        }
        let result = match request {
            Ok(Request::Monitor(_)) if more => {
                discard(service, user, given).await;
                return stream::monitor(service, connection, socket, user).await;
            }
            Ok(Request::Monitor(_)) => {
                discard(service, user, given).await;
                Err(FailureKind::ExpectedMore {}.while_doing(""))
            }
            Ok(Request::WaitProcess(call)) => {
                discard(service, user, given).await;
                stream::wait(service, socket, user.uid, &call).await
            }
            Ok(request) => match handle(service, user, socket, kept.take(), request, given).await {
                Ok((state, result)) => {
                    *kept = state;
                    result
                }
                Err(failure) => return reply(service, user, connection, socket, oneway, Err(failure)).await,
            },
            Err(result) => {
                discard(service, user, given).await;
                result
            }
        };
        reply(service, user, connection, socket, oneway, result).await?;
    }
    Ok(())
}

/// Closes what came with a call that takes none, or what was sent, on a thread that may wait.
async fn discard(service: &Service, user: User, given: Given) {
    if !given.is_empty() {
        let _ = service.blocking_in(Kind::Files, user.counted, move || drop(given)).await;
    }
}

/// The connection's state afterwards, and the result. An error is of the service, and the state is lost.
type Handled = Result<(Option<State>, Result<Answer, Failure>), Failure>;

async fn handle(
    service: &Arc<Service>,
    user: User,
    socket: &Arc<UnixStream>,
    state: Option<State>,
    request: Request,
    given: Given,
) -> Handled {
    let mut pause = Duration::from_millis(20);
    let (mut state, mut request, mut given) = (state, request, given);
    loop {
        let again = match &request {
            Request::CloseSession(call) => Some(Request::CloseSession(call.clone())),
            _ => None,
        };
        let handled = once(service, user, socket, state, request, given).await;
        let let_go = match &handled {
            Ok((Some(state), Err(Failure { kind: FailureKind::DeadlinePassed { .. }, .. }))) => {
                state.closing.as_ref().map(Closer::let_go)
            }
            _ => None,
        };
        match (handled, again, let_go) {
            // Others still hold the session, or it has processes: no thread waits for them.
            (Ok((same, _)), Some(call), Some(let_go)) if !stream::is_gone(socket) => {
                let_go.wait(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
                (state, request, given) = (same, call, Given::new(Vec::new()));
            }
            (handled, ..) => return handled,
        }
    }
}

async fn once(
    service: &Arc<Service>,
    user: User,
    socket: &Arc<UnixStream>,
    state: Option<State>,
    request: Request,
    mut given: Given,
) -> Handled {
    let began = Instant::now();
    let kind = calls::slot_of(&request);
    let explains = matches!(request, Request::ExplainPolicy(_));
    if let Err(failure) = service.require_room(user) {
        discard(service, user, given).await;
        return Ok((state, Err(failure)));
    }
    let (inner, of) = (Arc::clone(service), Arc::clone(socket));
    let work = move || {
        // The caller becomes known with its first call, on the same thread: each handing over costs time.
        let mut state = match state.map_or_else(|| State::of(&of), Ok) {
            Ok(state) => state,
            Err(failure) => return (None, Err(failure)),
        };
        let result = unharmed(|| calls::handle(&inner, &mut state, request, &mut given));
        drop(given);
        (Some(state), result)
    };
    let (state, result) = service.blocking_in(kind, user.counted, work).await?;
    if let Some(known) = &state {
        // Who has much written down waits for it here, and keeps no thread and nobody else from anything.
        let wait = known.caller.take_wait();
        if !wait.is_zero() && !stream::stays(socket, wait).await {
            // Nothing of it is kept for so long.
            let _ = service.on_a_thread(move || drop((state, result))).await;
            let text = "the caller has closed its end while its call waited for room in the audit log";
            return Err(FailureKind::Other { text: text.to_owned() }.while_doing("handling a call"));
        }
    }
    let denied = match &result {
        Err(failure) => {
            matches!(failure.kind, FailureKind::PolicyDenied { .. } | FailureKind::TryLater { .. })
        }
        // What a denial does not tell, its explanation does not, either. Root may ask of everybody.
        Ok(answer) => explains && user.uid != Uid::ROOT && answer.parameters["allowed"] == false,
    };
    if denied {
        service.settle_denial(began).await;
    }
    Ok((state, result))
}

/// What one call gets wrong fails that call. The connection goes on, and the sessions that it holds: they belong to
/// processes that have done nothing.
///
/// What such a call leaves is whole: a connection's state is changed by single steps, and locks that it held are
/// taken all the same.
fn unharmed<R>(work: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        // Dropping it could panic again.
        std::mem::forget(panic);
        tracing::error!("a call could not be handled: this is an error in the service");
        let text =
            "the service itself failed in this call, and may have done a part of it; its log says where";
        Err(FailureKind::Other { text: text.to_owned() }.while_doing("handling a call"))
    })
}

fn decode(method: &str, parameters: Option<&str>) -> Result<Request, Failure> {
    Request::decode(method, parameters).map_err(|error| match error {
        NotDecoded::Parameters(parameter) => FailureKind::InvalidParameter { parameter }.while_doing(""),
        NotDecoded::NoSuchMethod => introspect::unknown(method),
    })
}

async fn reply(
    service: &Service,
    user: User,
    connection: &mut Connection,
    socket: &UnixStream,
    oneway: bool,
    result: Result<Answer, Failure>,
) -> zlink::Result<()> {
    match result {
        Ok(Answer { parameters, descriptors, of_files: true }) => {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            let sent =
                if oneway { Ok(()) } else { transport::send_reply(socket, parameters, &borrowed).await };
            discard(service, user, Given::new(descriptors)).await;
            Ok(sent?)
        }
        _ if oneway => Ok(()),
        Ok(Answer { parameters, descriptors, of_files: false }) => {
            connection.send_reply(&zlink::Reply::new(Some(parameters)), descriptors).await
        }
        Err(failure) => connection.send_error(&failure, Vec::new()).await,
    }
}
