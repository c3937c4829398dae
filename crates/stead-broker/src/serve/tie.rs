//! Sessions that end with who holds them, as those of a privileged server end with it.
//!
//! A holder is known by its connection. A connection that is lost says nothing; who wants the processes to go on lets go
//! of the session first. Connections end with the service, too: so the processes that made them are written down, and the
//! next run waits for these to end in place of their connections.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use stead::LogonSession;
use stead_protocol::Failure;

use super::caller::Caller;
use super::failure::system;
use super::process::Proof;
use super::service::Service;
use super::session::Known;
use super::watch::readable;

/// How long processes have to end by themselves, as a session worker gives them whose server is lost.
const GRACE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(10);

/// A process that holds a session: it made the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    pid: u32,
    proof: Proof,
}

impl Holder {
    pub(super) fn of(caller: &Caller) -> Self {
        let proof = caller.pidfd().map(|pidfd| Proof::of(pidfd, caller.pid));
        Self { pid: caller.pid, proof: proof.unwrap_or_default() }
    }
}

/// Who holds a session.
#[derive(Debug, Default)]
pub(super) struct Holders(Mutex<Holding>);

#[derive(Debug, Default)]
struct Holding {
    /// One for each connection.
    connected: Vec<Holder>,
    /// Those whose connections ended with an earlier run of the service.
    earlier: Vec<Holder>,
    /// What is written down.
    written: Vec<Holder>,
}

impl Holding {
    fn is_empty(&self) -> bool {
        self.connected.is_empty() && self.earlier.is_empty()
    }

    /// Each process once.
    fn all(&self) -> Vec<Holder> {
        let mut all: Vec<Holder> = Vec::new();
        for holder in self.connected.iter().chain(&self.earlier) {
            if !all.contains(holder) {
                all.push(*holder);
            }
        }
        all
    }

    /// One connection of this process less.
    fn disconnect(&mut self, holder: Holder) {
        if let Some(at) = self.connected.iter().position(|one| *one == holder) {
            self.connected.swap_remove(at);
        }
    }

    /// A process that holds by none but an earlier run's connection holds no more; whether it did.
    fn forget_earlier(&mut self, holder: Holder) -> bool {
        let before = self.earlier.len();
        self.earlier.retain(|one| *one != holder);
        self.earlier.len() < before
    }
}

impl Holders {
    /// As they are written down for a session that was opened just now, or by an earlier run.
    pub(super) fn written(holders: &[Holder]) -> Self {
        Self(Mutex::new(Holding { written: holders.to_vec(), ..Holding::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Holding> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn are_none(&self) -> bool {
        self.lock().is_empty()
    }
}

impl Known {
    /// Changes who holds the session, and writes that down where other processes do than before.
    fn change<R>(&self, service: &Service, change: impl FnOnce(&mut Holding) -> R) -> Result<R, Failure> {
        let mut holding = self.holders.lock();
        let result = change(&mut holding);
        let all = holding.all();
        if all != holding.written {
            let written = service.sessions.rewrite(self, &all);
            written.map_err(|error| system("writing down who holds a session", "write", error))?;
            holding.written = all;
        }
        Ok(result)
    }

    /// The same, where nothing but a log can be told that the next run will believe what was before.
    fn change_or_warn<R: Default>(&self, service: &Service, change: impl FnOnce(&mut Holding) -> R) -> R {
        let mut result = R::default();
        if let Err(error) = self.change(service, |holding| result = change(holding)) {
            tracing::warn!(session = self.record.id, %error, "the end of a tie could not be written down");
        }
        result
    }

    /// A process wants the session no more that held it by a connection to an earlier run of the service.
    pub(super) fn let_go_earlier(&self, service: &Service, caller: &Caller) {
        if !self.holders.lock().earlier.is_empty() {
            let holder = Holder::of(caller);
            self.change_or_warn(service, |holding| holding.forget_earlier(holder));
        }
    }
}

/// A connection's hold on one session.
#[derive(Debug)]
struct Tie {
    service: Arc<Service>,
    known: Arc<Known>,
    holder: Holder,
}

impl Tie {
    /// Holds no more; whether it was the last.
    fn end(&self) -> bool {
        self.known.change_or_warn(&self.service, |holding| {
            holding.disconnect(self.holder);
            holding.is_empty()
        })
    }
}

/// The tied sessions that a connection holds.
#[derive(Debug, Default)]
pub(super) struct Ties(Vec<Tie>);

impl Ties {
    /// The connection holds a session from now on; one that is not tied to anybody needs no holding.
    pub(super) fn hold(
        &mut self,
        service: &Arc<Service>,
        known: &Arc<Known>,
        caller: &Caller,
    ) -> Result<(), Failure> {
        let held = self.0.iter().any(|tie| Arc::ptr_eq(&tie.known, known));
        if known.is_tied() && !held {
            let holder = Holder::of(caller);
            self.0.push(Tie { service: Arc::clone(service), known: Arc::clone(known), holder });
            known.change(service, |holding| {
                // From now on it is known better: by this connection.
                holding.forget_earlier(holder);
                holding.connected.push(holder);
            })?;
        }
        Ok(())
    }

    /// The connection wants a session no more: its processes may go on.
    pub(super) fn let_go(&mut self, id: &str) {
        self.0.retain(|tie| {
            let other = tie.known.record.id != id;
            if !other {
                tie.end();
            }
            other
        });
    }

    /// The connection is lost: what nobody else holds ends, with its processes.
    pub(super) fn lost(&mut self) {
        // A restart of the service is nobody's going away.
        let ties = self.0.drain(..).filter(|tie| !tie.service.is_stopping());
        let last: Vec<Tie> = ties.filter(Tie::end).collect();
        if let Some(service) = last.first().map(|tie| Arc::clone(&tie.service)) {
            end(&service, last.iter().map(|tie| &tie.known));
        }
    }
}

impl Drop for Ties {
    fn drop(&mut self) {
        self.lost();
    }
}

/// Holds a session of an earlier run for the processes that did, each until it ends.
pub(super) fn recover(service: &Arc<Service>, known: &Arc<Known>) {
    if !known.is_tied() {
        return;
    }
    known.holders.lock().earlier.clone_from(&known.record.holders);
    for holder in known.record.holders.clone() {
        let process = holder.proof.find(holder.pid);
        let (service, weak) = (Arc::clone(service), Arc::downgrade(known));
        let runtime = service.runtime().clone();
        runtime.spawn(async move {
            // One that is not found has ended while there was no service.
            if let Some(process) = process
                && let Err(error) = readable(process).await
            {
                tracing::error!(%error, "the end of who holds a session cannot be waited for");
                return;
            }
            let Some(known) = weak.upgrade() else { return };
            let gone = tokio::task::spawn_blocking(move || {
                let last = known
                    .change_or_warn(&service, |holding| holding.forget_earlier(holder) && holding.is_empty());
                if last && !service.is_stopping() {
                    end(&service, [&known]);
                }
            });
            let _ = gone.await;
        });
    }
}

/// Ends sessions that nobody holds any more.
fn end<'a>(service: &Service, sessions: impl IntoIterator<Item = &'a Arc<Known>>) {
    let attached = |known: &'a Arc<Known>| Some((known, service.sessions.attach(known).ok()?));
    let sessions: Vec<(&Arc<Known>, Arc<LogonSession>)> = sessions.into_iter().filter_map(attached).collect();
    for (known, session) in &sessions {
        service.note_session_lost(&known.record);
        hang_up(session);
    }
    let give_up = Instant::now() + GRACE;
    for (known, session) in sessions {
        while session.processes().is_ok_and(|pids| !pids.is_empty()) && Instant::now() < give_up {
            std::thread::sleep(LOOK);
        }
        // Who opened it again meanwhile keeps it.
        if known.holders.are_none()
            && let Err(error) = session.terminate()
        {
            tracing::warn!(session = known.record.id, %error, "a session could not be ended");
        }
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
