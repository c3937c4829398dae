//! What the service watches: the ends of processes, old records, its service manager.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{WaitId, WaitIdOptions, waitid};
use stead::os::linux::{LogonSessionExt, Uid};
use stead::{Child, LogonSession, LogonType};

use super::pidfd::readable;
use super::process::{Held, Record, Tracked};
use super::service::Service;
use super::tie;
use crate::throttle::{Held as Counted, Holding};

/// How often what is over is forgotten.
const SWEEP: Duration = Duration::from_secs(60);
/// How often it is looked which processes have ended without their pidfds saying so: a client can hold them back.
const LOOK: Duration = Duration::from_secs(5);
/// How long a logon has the machine to itself before the next one's worker is started.
const MAKE_READY: Duration = Duration::from_millis(20);
/// How long such a worker waits for its logon.
const READY: Duration = Duration::from_secs(600);

/// Collects the status of a process when it has ended.
pub(super) fn until_its_end(service: &Arc<Service>, tracked: &Arc<Tracked>) {
    let (service, tracked) = (Arc::clone(service), Arc::clone(tracked));
    let runtime = service.runtime().clone();
    runtime.spawn(async move {
        let ended = match tracked.pidfd() {
            Ok(Some(pidfd)) => tokio::select! {
                ended = readable(pidfd) => ended.map(drop),
                () = tracked.over() => Ok(()),
            },
            other => other.map(drop),
        };
        if let Err(error) = ended {
            tracing::error!(%error, "the end of a process cannot be waited for");
            return;
        }
        let collected = tokio::task::spawn_blocking(move || {
            let end = service.processes.ended(&tracked, &service.sessions);
            service.note_end(&tracked.record, end);
        });
        let _ = collected.await;
    });
}

/// Reaps the worker of a session as soon as it has ended, whoever still holds the session or if nobody does.
pub(super) fn reap_in_the_end(service: &Service, session: &LogonSession) {
    let worker = match session.worker() {
        Ok(Some(worker)) => worker,
        Ok(None) => return,
        Err(error) => return tracing::warn!(%error, "the worker of a session will be reaped late"),
    };
    service.runtime().spawn(async move {
        match readable(worker).await {
            // The library may have been first.
            Ok(worker) => {
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                let _ = waitid(WaitId::PidFd(worker.as_fd()), options);
            }
            Err(error) => tracing::warn!(%error, "the worker of a session will be reaped late"),
        }
    });
}

/// Starts a worker for the next logon of this type, once the one that was just opened has begun what it is for.
pub(super) fn make_ready(service: &Arc<Service>, kind: LogonType) {
    if !service.options.ready_workers {
        return;
    }
    let runtime = service.runtime().clone();
    let ready = service.ready.clone();
    runtime.spawn(async move {
        tokio::time::sleep(MAKE_READY).await;
        let kept = tokio::task::spawn_blocking(move || ready.keep(kind)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, "the next logon will wait for its worker");
        }
    });
}

/// Takes back what an earlier run had granted on desktops: its leases ended with it.
pub(super) fn sweep_desktops() {
    if let Err(error) = stead::desktop::sweep() {
        tracing::warn!(%error, "what an earlier run had granted on desktops could not all be taken back");
    }
}

/// Knows again what an earlier run of the service left, and goes on watching it.
pub(super) fn recover(service: &Arc<Service>) {
    if let Err(error) = service.sessions.recover(&service.quotas) {
        tracing::error!(%error, "the sessions of the service's last run cannot be found");
    }
    let written = service.processes.written();
    let unfinished = service.processes.unfinished();
    if !unfinished.is_empty() {
        end_unknown(service, &unfinished, &written);
    }
    service.processes.forget_unfinished();
    for record in written {
        let Some(id) = super::folder::parsed(&record.id) else { continue };
        if let Some(end) = record.end {
            service.processes.remember(&record, end);
            service.processes.count_tree(&record, counted_again(service, &record, false));
        } else {
            let tracked = service.processes.add(id, found_again(service, record));
            until_its_end(service, &tracked);
        }
    }
    // Only now: how the processes of a session that is over end is told like any other's.
    tie::recover(service);
}

/// Ends what an earlier run was creating when it was killed, and had not written down: whoever asked for it was told that
/// the connection failed, and nobody could ever find it.
fn end_unknown(service: &Service, unfinished: &[String], written: &[Record]) {
    for id in unfinished {
        if let Some(Err(error)) = service.processes.groups.kill_tree(id) {
            tracing::error!(%error, "a process that nobody knows could not be ended");
        }
    }
    // One in a session without groups is known to the session's worker.
    for (id, session) in service.sessions.all_attached() {
        for process in session.started() {
            let is_it = |one: &Record| {
                one.end.is_none() && one.session.as_ref() == Some(&id) && one.pid == process.pid()
            };
            if !written.iter().any(is_it) && matches!(process.exit_status(), Ok(None)) {
                tracing::warn!(pid = process.pid(), session = id, "ending a process that nobody knows");
                if let Err(error) = process.kill_tree() {
                    tracing::error!(%error, "a process that nobody knows could not be ended");
                }
            }
        }
    }
}

/// A process of an earlier run that was running in it: what lives of it, and who can tell how it ended.
fn found_again(service: &Service, record: Record) -> Tracked {
    let mut held = Held::default();
    if let Some(session) = record.session.as_ref().and_then(|id| service.sessions.attach_by_id(id)) {
        held.earlier = session.started().into_iter().find(|process| process.pid() == record.pid);
        held.session = Some(session);
    }
    let pidfd = record.proof.find(record.pid);
    if let Some(pidfd) = &pidfd {
        held.child = pidfd.as_fd().try_clone_to_owned().ok().and_then(|pidfd| Child::adopt(pidfd).ok());
    }
    held.counted = counted_again(service, &record, pidfd.is_some());
    // Without a pidfd it has ended while there was no service, and only its worker may know how.
    Tracked::new(record, pidfd, held)
}

/// What a process of an earlier run counts, while it, or anybody in its group, lives.
fn counted_again(service: &Service, record: &Record, lives: bool) -> Option<Counted> {
    let counts = lives || service.processes.groups.is_populated(&record.id);
    let counted = Uid::new(record.counted()).filter(|_| counts);
    counted.map(|uid| service.quotas.adopt(uid, Holding::Process))
}

/// Forgets what is over, now and then.
pub(super) async fn sweep(service: Arc<Service>) {
    let mut rounds = tokio::time::interval(SWEEP);
    loop {
        rounds.tick().await;
        let service = Arc::clone(&service);
        let swept = tokio::task::spawn_blocking(move || {
            service.processes.sweep();
            tie::sweep(&service);
            service.sessions.sweep();
            service.ready.let_go_after(READY);
            service.note_all_folded();
            // Where calls keep coming the threads that wait never all end.
            stead::memory::give_back();
        });
        let _ = swept.await;
    }
}

/// Looks after the ends of processes whose pidfds are silent.
pub(super) async fn look(service: Arc<Service>) {
    let mut rounds = tokio::time::interval(LOOK);
    loop {
        rounds.tick().await;
        let service = Arc::clone(&service);
        let _ = tokio::task::spawn_blocking(move || service.processes.look()).await;
    }
}

/// Tells the service manager that the service lives, twice as often as it asks to be told.
pub(super) async fn watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let mut rounds = tokio::time::interval(period / 2);
    loop {
        rounds.tick().await;
        // Said by a task, as connections are: threads that wait are callers' to keep waiting.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    }
}
