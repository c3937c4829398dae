//! What tokio's reactor waits for: the process's end, and its output.
#![forbid(unsafe_code)]

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;

use super::Running;
use super::status::timespec;

/// What waiting is done by.
pub(crate) const WAITING: &str = "epoll";

/// How often it is looked whether a tracer has let go of a process that has ended.
const HELD: Duration = Duration::from_millis(5);

/// Waits for the process to end, or until it is to be looked behind its pidfd; dropping the future loses nothing.
pub(crate) async fn ended(running: &Running) -> io::Result<()> {
    if running.is_held() {
        // Its pidfd says for as long as a tracer likes what is known already.
        let due = reactors(timer(Instant::now() + HELD)?)?;
        return due.readable().await.map(drop);
    }
    let pidfd = reactors(running.pidfd().try_clone_to_owned()?)?;
    // The runtime's own timers need not be enabled.
    let timer = running.next_look().map(timer).transpose()?.map(reactors).transpose()?;
    let mut ended = pin!(pidfd.readable());
    let mut due = pin!(async {
        match &timer {
            Some(timer) => timer.readable().await.map(drop),
            None => std::future::pending().await,
        }
    });
    poll_fn(|context| match ended.as_mut().poll(context) {
        Poll::Ready(ended) => Poll::Ready(ended.map(drop)),
        Poll::Pending => due.as_mut().poll(context),
    })
    .await
}

// tokio's sound successor of this call is an unsafe one, and new: an `OwnedFd` fulfils its contract by its type.
#[allow(deprecated)]
fn reactors(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

/// A descriptor that is readable from then on.
fn timer(when: Instant) -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    // Zero would mean never.
    let left = when.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let once = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(left) };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(timer)
}

/// The reactor's end of a pipe.
pub(crate) fn reader(pipe: OwnedFd) -> io::Result<Receiver> {
    Receiver::from_owned_fd(pipe)
}
