//! Sessions that end with the connections that hold them, as those of a privileged server end with it.
//!
//! A connection that is lost says nothing; who wants the processes to go on lets go of the session first.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use stead::LogonSession;

use super::service::Service;
use super::session::Known;

/// How long processes have to end by themselves, as a session worker gives them whose server is lost.
const GRACE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(10);

/// How many connections hold a session.
#[derive(Debug, Default)]
pub(super) struct Holders(Mutex<usize>);

impl Holders {
    fn one_more(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    /// One less; whether it was the last.
    fn one_less(&self) -> bool {
        let mut number = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *number = number.saturating_sub(1);
        *number == 0
    }

    fn are_none(&self) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) == 0
    }
}

/// A connection's hold on one session.
#[derive(Debug)]
struct Tie {
    service: Arc<Service>,
    known: Arc<Known>,
}

/// The tied sessions that a connection holds.
#[derive(Debug, Default)]
pub(super) struct Ties(Vec<Tie>);

impl Ties {
    /// The connection holds a session from now on; one that is not tied to anybody needs no holding.
    pub(super) fn hold(&mut self, service: &Arc<Service>, known: &Arc<Known>) {
        let held = self.0.iter().any(|tie| Arc::ptr_eq(&tie.known, known));
        if known.is_tied() && !held {
            known.holders.one_more();
            self.0.push(Tie { service: Arc::clone(service), known: Arc::clone(known) });
        }
    }

    /// The connection wants a session no more: its processes may go on.
    pub(super) fn let_go(&mut self, id: &str) {
        self.0.retain(|tie| {
            let other = tie.known.record.id != id;
            if !other {
                tie.known.holders.one_less();
            }
            other
        });
    }

    /// The connection is lost: what nobody else holds ends, with its processes.
    pub(super) fn lost(&mut self) {
        let last = self.0.drain(..).filter(|tie| tie.known.holders.one_less());
        // A restart of the service is nobody's going away.
        let last: Vec<Tie> = last.filter(|tie| !tie.service.is_stopping()).collect();
        let sessions: Vec<(Tie, Arc<LogonSession>)> = last
            .into_iter()
            .filter_map(|tie| {
                let session = tie.service.sessions.attach(&tie.known).ok()?;
                Some((tie, session))
            })
            .collect();
        for (tie, session) in &sessions {
            tie.service.note_session_lost(&tie.known.record);
            hang_up(session);
        }
        let give_up = Instant::now() + GRACE;
        for (tie, session) in sessions {
            while session.processes().is_ok_and(|pids| !pids.is_empty()) && Instant::now() < give_up {
                std::thread::sleep(LOOK);
            }
            // Who opened it again meanwhile keeps it.
            if tie.known.holders.are_none()
                && let Err(error) = session.terminate()
            {
                tracing::warn!(session = tie.known.record.id, %error, "a session could not be ended");
            }
        }
    }
}

impl Drop for Ties {
    fn drop(&mut self) {
        self.lost();
    }
}

/// Tells the processes of a session that nobody is there any more.
fn hang_up(session: &LogonSession) {
    let listed = || session.processes().unwrap_or_default();
    let pin = |pid: u32| -> Option<(u32, OwnedFd)> {
        let number = Pid::from_raw(pid.cast_signed())?;
        Some((pid, pidfd_open(number, PidfdFlags::empty()).ok()?))
    };
    let pinned: Vec<(u32, OwnedFd)> = listed().into_iter().filter_map(pin).collect();
    // A number that was given to another process meanwhile is not the session's any more (CVE-2017-2616).
    let still = listed();
    for (_, pidfd) in pinned.iter().filter(|(pid, _)| still.contains(pid)) {
        for signal in [Signal::HUP, Signal::CONT] {
            // One that has ended needs not be told.
            let _ = pidfd_send_signal(pidfd, signal);
        }
    }
}
