//! Sessions that end with who holds them, as those of a privileged server end with it.
//!
//! A holder is known by its connection. A connection that is lost says nothing; who wants the processes to go on lets go
//! of the session first. Connections end with the service, too: so the processes that made them are written down, and the
//! next run waits for these to end in place of their connections.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use stead::LogonSession;
use stead_protocol::{Failure, FailureKind};

use super::caller::Caller;
use super::failure::system;
use super::holders::{Holder, Holding};
use super::pidfd::readable;
use super::service::Service;
use super::session::Known;

/// How long processes have to end by themselves, as a session worker gives them whose server is lost.
const GRACE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(10);
/// When what could not be waited for is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl Known {
    /// Changes who holds the session, and writes that down where other processes do than before.
    fn change(&self, service: &Service, change: impl FnOnce(&mut Holding)) -> Result<(), Failure> {
        let mut holding = self.holders.lock();
        change(&mut holding);
        let all = holding.all();
        if all != holding.written {
            let written = service.sessions.rewrite(self, &all);
            written.map_err(|error| system("writing down who holds a session", "write", error))?;
            holding.written = all;
        }
        Ok(())
    }

    /// The same, where nothing but a log can be told that the next run will believe what was before.
    fn change_or_warn(&self, service: &Service, change: impl FnOnce(&mut Holding)) {
        if let Err(error) = self.change(service, change) {
            tracing::warn!(session = self.record.id, %error, "the end of a tie could not be written down");
        }
    }

    /// A hold is lost; whether it was the last one. That is not written down: until the session has ended its record names
    /// who is gone, and a run of the service that ends before is followed by one that ends the session.
    fn lose(&self, service: &Service, lose: impl FnOnce(&mut Holding)) -> bool {
        let mut holding = self.holders.lock();
        let before = holding.is_empty();
        lose(&mut holding);
        let last = holding.is_empty();
        drop(holding);
        if !last {
            self.change_or_warn(service, |_| ());
        }
        last && !before
    }

    /// A process wants the session no more that held it by a connection to an earlier run of the service.
    pub(super) fn let_go_earlier(&self, service: &Service, caller: &Caller) {
        if !self.holders.lock().earlier.is_empty() {
            let holder = Holder::of(caller);
            self.change_or_warn(service, |holding| {
                holding.forget_earlier(holder);
                holding.let_go();
            });
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
    /// Holds no more, as its holder wants it.
    fn let_go(&self) {
        self.known.change_or_warn(&self.service, |holding| {
            holding.disconnect(self.holder);
            holding.let_go();
        });
    }

    /// Holds no more, for its holder is gone; whether it was the last.
    fn lose(&self) -> bool {
        self.known.lose(&self.service, |holding| holding.disconnect(self.holder))
    }
}

/// The tied sessions that a connection holds.
#[derive(Debug, Default)]
pub(super) struct Ties(Vec<Tie>);

impl Ties {
    /// The connection holds a session from now on, if it did not before; one that is not tied to anybody needs no holding.
    pub(super) fn hold(
        &mut self,
        service: &Arc<Service>,
        known: &Arc<Known>,
        caller: &Caller,
    ) -> Result<bool, Failure> {
        let held = self.0.iter().any(|tie| Arc::ptr_eq(&tie.known, known));
        let new = known.is_tied() && !held;
        if new {
            let holder = Holder::of(caller);
            self.0.push(Tie { service: Arc::clone(service), known: Arc::clone(known), holder });
            known.change(service, |holding| {
                // Perhaps just now.
                if holding.is_let_go {
                    return;
                }
                // From now on it is known better: by this connection.
                holding.forget_earlier(holder);
                holding.connected.push(holder);
            })?;
        }
        Ok(new)
    }

    /// The connection was to hold a session, and cannot be given it: as if it had been lost.
    pub(super) fn lose(&mut self, id: &str) {
        Self::lose_all(self.0.extract_if(.., |tie| tie.known.record.id == id).collect());
    }

    /// The connection wants a session no more: its processes may go on.
    pub(super) fn let_go(&mut self, id: &str) {
        self.0.retain(|tie| {
            let other = tie.known.record.id != id;
            if !other {
                tie.let_go();
            }
            other
        });
    }

    /// The connection is lost: what nobody else holds ends, with its processes.
    pub(super) fn lost(&mut self) {
        Self::lose_all(std::mem::take(&mut self.0));
    }

    fn lose_all(ties: Vec<Tie>) {
        // A restart of the service is nobody's going away.
        let ties = ties.into_iter().filter(|tie| !tie.service.is_stopping());
        let last: Vec<Tie> = ties.filter(Tie::lose).collect();
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

/// Holds the sessions of an earlier run for the processes that did, each until it ends.
pub(super) fn recover(service: &Arc<Service>) {
    for known in service.sessions.all() {
        hold_again(service, &known);
    }
}

fn hold_again(service: &Arc<Service>, known: &Arc<Known>) {
    if !known.is_tied() {
        return;
    }
    let mut holding = known.holders.lock();
    holding.earlier.clone_from(&known.record.holders);
    // A holder that is lost stays written down until the session has ended.
    holding.let_go();
    drop(holding);
    for holder in known.record.holders.clone() {
        let (service, weak) = (Arc::clone(service), Arc::downgrade(known));
        let runtime = service.runtime().clone();
        runtime.spawn(async move {
            // One that is not found has ended while there was no service.
            while let Some(process) = holder.find() {
                match readable(process).await {
                    Ok(_) => break,
                    Err(error) => {
                        tracing::error!(%error, "the end of who holds a session cannot be waited for yet");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
            let Some(known) = weak.upgrade() else { return };
            let gone = tokio::task::spawn_blocking(move || {
                let last = known.lose(&service, |holding| holding.forget_earlier(holder));
                if last && !service.is_stopping() {
                    end(&service, [&known]);
                }
            });
            let _ = gone.await;
        });
    }
}

/// Ends the sessions that could not be ended when their last holder was lost.
pub(super) fn sweep(service: &Service) {
    let sessions = service.sessions.all();
    let lost: Vec<&Arc<Known>> = sessions.iter().filter(|known| known.holders.take_to_be_ended()).collect();
    if !service.is_stopping() {
        end(service, lost);
    }
}

/// Ends sessions that nobody holds any more.
fn end<'a>(service: &Service, sessions: impl IntoIterator<Item = &'a Arc<Known>>) {
    let attached = |known: &'a Arc<Known>| match service.sessions.attach(known) {
        Ok(session) => Some((known, session)),
        Err(failure) if failure.kind == (FailureKind::SessionEnded {}) => None,
        Err(failure) => {
            tracing::warn!(session = known.record.id, %failure, "a session cannot be ended yet");
            known.holders.leave_to_be_ended();
            None
        }
    };
    let sessions: Vec<(&Arc<Known>, Arc<LogonSession>)> = sessions.into_iter().filter_map(attached).collect();
    for (known, session) in &sessions {
        if known.holders.are_lost() {
            service.note_session_lost(&known.record);
            hang_up(session);
        }
    }
    let give_up = Instant::now() + GRACE;
    for (known, session) in sessions {
        while session.processes().is_ok_and(|pids| !pids.is_empty()) && Instant::now() < give_up {
            std::thread::sleep(LOOK);
        }
        // Who opened it again meanwhile keeps it, or has let go of it.
        if known.holders.are_lost()
            && let Err(error) = session.terminate()
        {
            tracing::warn!(session = known.record.id, %error, "a session cannot be ended yet");
            known.holders.leave_to_be_ended();
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
