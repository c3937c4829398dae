//! The service: `stead serve`.
//!
//! One process takes calls, asks the policy, and has the library do what it allows. PAM is called, and sessions are
//! kept, by a worker process for each session; files are opened by a helper that is the client. So nothing that a
//! client controls is parsed here but the messages themselves, and what happens to this process ends nobody's
//! session: the next run finds sessions and processes again.

mod accounts;
mod answer;
mod caller;
mod calls;
mod connection;
mod diag;
mod ended;
mod failure;
mod folder;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod given;
mod groups;
mod helper;
mod holders;
mod introspect;
mod limits;
mod listen;
mod newcomers;
mod note;
mod options;
mod pidfd;
mod process;
mod proof;
mod service;
mod session;
mod slots;
mod state;
mod stream;
mod tie;
mod token;
mod transport;
mod watch;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use stead::os::linux::{ClientExt, Uid, occupy_low_descriptors};
use stead_protocol::FailureKind;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::policy::Caller;
use accounts::User;
pub use options::{Options, ServeError};
use service::Service;
use slots::ConnectionSlot;

/// Threads that may wait, of all users together; each user has its own share of them.
const WAITING_THREADS: usize = 2048;
/// How long such a thread waits for more work. As long as it lives it keeps some of what was freed on it.
const IDLE: Duration = Duration::from_secs(2);
/// How long what is under way may take when the service ends.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// Lets the program be the service's helpers: call it first in `main`, before any thread is started.
///
/// It contains [`stead::init`]. In a process that is no helper it returns at once.
pub fn init() {
    stead::init();
    helper::run_if_asked();
}

/// Runs the service until it is told to end (SIGTERM, SIGINT). SIGHUP lets it read its policy anew.
///
/// [`init`] must have been called before.
///
/// # Errors
/// Why it could not begin.
pub fn run(options: Options) -> Result<(), ServeError> {
    limits::make_room();
    // Before there are any of callers'.
    occupy_low_descriptors().map_err(ServeError::Library)?;
    stead::memory::keep_little();
    let threads = std::thread::available_parallelism().map_or(2, |number| number.get().clamp(2, 8));
    let (started, ended) = counted(threads);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(WAITING_THREADS)
        .thread_keep_alive(IDLE)
        .on_thread_start(started)
        .on_thread_stop(ended)
        .enable_all()
        .build()
        .map_err(ServeError::System)?;
    let signals = runtime.block_on(async { Signals::take() }).map_err(ServeError::System)?;
    stead::Privilege::AssignPrimaryToken.require().map_err(ServeError::Library)?;
    let _only = listen::only_one(&options.state)?;
    let (listener, bound) = listen::listener(&options.socket)?;
    // As a task like the connections', on the threads that take calls: this one would have to be woken for each connection.
    let ended = runtime.block_on(runtime.spawn(serve(options, listener, signals)));
    let ended = ended.unwrap_or_else(|error| Err(ServeError::System(io::Error::other(error))));
    runtime.shutdown_timeout(LAST_CALLS);
    drop(bound);
    ended
}

/// What each thread does when it starts and when it ends: with the last one that waited for something, what many callers
/// at once had taken goes back to the system.
fn counted(always: usize) -> (impl Fn() + Send + Sync, impl Fn() + Send + Sync) {
    let alive = Arc::new(AtomicUsize::new(0));
    let ending = Arc::clone(&alive);
    let started = move || {
        alive.fetch_add(1, Ordering::Relaxed);
    };
    let ended = move || {
        if ending.fetch_sub(1, Ordering::Relaxed) == always + 1 {
            stead::memory::give_back();
        }
    };
    (started, ended)
}

/// The signals that the service takes. They are taken before anything else: whoever finds the service's process or its
/// socket may tell it to read its policy anew, and SIGHUP would end a process that does not take it.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn take() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

async fn serve(
    options: Options,
    listener: std::os::unix::net::UnixListener,
    mut signals: Signals,
) -> Result<(), ServeError> {
    let begun = tokio::task::spawn_blocking(move || {
        let service = Arc::new(Service::begin(options)?);
        watch::recover(&service);
        Ok(service)
    });
    let begun = tokio::select! {
        begun = begun => begun,
        _ = signals.terminate.recv() => return Ok(()),
        _ = signals.interrupt.recv() => return Ok(()),
    };
    let service = begun.map_err(|error| ServeError::System(io::Error::other(error)))??;
    let listener = UnixListener::from_std(listener).map_err(ServeError::System)?;
    tokio::spawn(watch::sweep(Arc::clone(&service)));
    tokio::spawn(watch::look(Arc::clone(&service)));
    tokio::spawn(watch::watchdog());
    // Some of what it takes back may take a while, where an X server does not answer.
    tokio::task::spawn_blocking(watch::sweep_desktops);
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    service.note_begin();
    if let Some(path) = listener.local_addr().ok().as_ref().and_then(|address| address.as_pathname()) {
        tracing::info!("listening at {}", path.display());
    }
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => take(&service, stream),
                // No descriptor left: what is open must end first.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            _ = signals.hangup.recv() => {
                let mut state = vec![NotifyState::Reloading];
                state.extend(NotifyState::monotonic_usec_now());
                let _ = sd_notify::notify(&state);
                let service = Arc::clone(&service);
                let _ = tokio::task::spawn_blocking(move || service.reload()).await;
                let _ = sd_notify::notify(&[NotifyState::Ready]);
            }
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    service.note_stop();
    Ok(())
}

/// Takes a connection, unless its user has as many as it may have.
fn take(service: &Arc<Service>, stream: UnixStream) {
    let Some(uid) = stream.peer_cred().ok().and_then(|peer| Uid::new(peer.uid())) else { return };
    if let Some(counted) = service.accounts.counted(uid) {
        return admit(service, stream, User { uid, counted });
    }
    let newcomer = match service.accounts.newcomer(uid) {
        Ok(newcomer) => newcomer,
        Err(most) => return refuse(&stream, most),
    };
    let service = Arc::clone(service);
    tokio::spawn(async move {
        let counted = service.accounts.ask(newcomer).await;
        admit(&service, stream, User { uid, counted });
    });
}

/// Serves a connection, if who it counts for has a place for it.
fn admit(service: &Arc<Service>, stream: UnixStream, user: User) {
    match place(service, &stream, user) {
        (Some(slot), _) => {
            tokio::spawn(connection::serve(Arc::clone(service), stream, user, slot));
        }
        (None, most) => refuse(&stream, most),
    }
}

/// A place for a connection of this user, and how many who it counts for may have.
fn place(service: &Arc<Service>, stream: &UnixStream, user: User) -> (Option<ConnectionSlot>, usize) {
    let User { uid, counted } = user;
    let policy = service.policy();
    let quota = |caller: &Caller| policy.quota(caller).connections as usize;
    let most = quota(&Caller::new(uid, []));
    if let Some(slot) = service.slots.connection(counted, most) {
        return (Some(slot), most);
    }
    // A rule for one of its groups may give it more: those are only asked for when it comes to that.
    let most = caller::identified(stream)
        .ok()
        .and_then(|client| {
            let identity = client.identity().ok()?;
            Some(quota(&Caller::new(uid, caller::with(identity.groups, identity.gid))))
        })
        .map_or(most, |more| more.max(most));
    (service.slots.connection(counted, most), most)
}

/// Says that a connection is not served because there are so many, if that can be said without waiting.
fn refuse(stream: &UnixStream, most: usize) {
    let kind = FailureKind::QuotaReached { of: "connections".to_owned(), most: most as u64 };
    if let Ok(mut message) = serde_json::to_vec(&kind.while_doing("connecting to the service")) {
        message.push(0);
        let _ = rustix::net::send(
            stream,
            &message,
            rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL,
        );
    }
}
