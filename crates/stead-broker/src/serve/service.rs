//! What all connections share.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use stead::os::linux::{ReadyWorkers, Uid};
use stead_protocol::{Failure, FailureKind, GetStatus, Status};
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::accounts::{Accounts, User};
use super::caller::Caller;
use super::failure::system;
use super::folder::now;
use super::groups::Groups;
use super::helper::Helpers;
use super::options::{Options, ServeError};
use super::process::Processes;
use super::session::Sessions;
use super::slots::{Kind, Slots};
use crate::audit::{self, Event, Log, Outcome};
use crate::policy::{Decision, Policy, Privilege, Request, RuleRef};
use crate::throttle::{Attempt, Failures, Held, Holding, Quotas, Records, Wait};

/// From its arrival to its answer a denial takes at least this long: longer than the account database usually takes
/// to know a user, or not to.
const DENIAL: Duration = Duration::from_millis(100);

const RECORDING: &str = "recording what the caller does";
/// When a caller may try again whose refusals the audit log has no room for: there is for some, then.
const LATER: Duration = Duration::from_secs(1);

/// What all connections share.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) options: Options,
    policy: RwLock<Arc<Policy>>,
    pub(super) slots: Arc<Slots>,
    pub(super) accounts: Accounts,
    pub(super) quotas: Quotas,
    failures: Mutex<Failures>,
    pub(super) sessions: Sessions,
    pub(super) processes: Processes,
    pub(super) helpers: Helpers,
    /// Workers for the next logons, of the types that there were some of lately.
    pub(super) ready: ReadyWorkers,
    pub(super) audit: Log,
    /// How much of it each caller may fill.
    pub(super) records: Records,
    runtime: Handle,
    since: u64,
    /// It takes no more calls: connections end because it does.
    pub(super) stopping: AtomicBool,
}

impl Service {
    /// Reads the policy, and finds again what an earlier run left.
    pub(super) fn begin(options: Options) -> Result<Self, ServeError> {
        let policy = Policy::load(&options.policy).map_err(ServeError::Policy)?;
        let failures = Mutex::new(Failures::new(policy.failed_logons()));
        let folder = |error| ServeError::State { path: options.state.clone(), error };
        let audit = Log::open(options.audit.clone()).map_err(ServeError::Audit)?;
        let sessions = Sessions::at(&options.state.join("sessions"), audit.clone()).map_err(folder)?;
        let processes = Processes::at(&options.state.join("processes"), Groups::find()).map_err(folder)?;
        let ready = ReadyWorkers::new();
        let ready = options.worker.iter().fold(ready, ReadyWorkers::worker);
        Ok(Self {
            audit,
            runtime: Handle::current(),
            options,
            policy: RwLock::new(Arc::new(policy)),
            slots: Arc::default(),
            accounts: Accounts::default(),
            quotas: Quotas::default(),
            records: Records::default(),
            failures,
            sessions,
            processes,
            helpers: Helpers::default(),
            ready,
            since: now(),
            stopping: AtomicBool::new(false),
        })
    }

    /// The policy as it is now.
    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the policy anew: all of it, or nothing changes.
    pub(super) fn reload(&self) {
        // The same signal follows a log that was moved away.
        self.audit.reopen();
        match Policy::load(&self.options.policy) {
            Ok(policy) => {
                self.failures().set(policy.failed_logons());
                let (allow, deny) = policy.rule_counts();
                *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
                self.note_policy(allow, deny);
                tracing::info!(allow, deny, "the policy was read anew");
            }
            Err(errors) => {
                let record = audit::Record::new(Event::PolicyRefused).outcome(Outcome::Failed);
                let all: Vec<String> = errors.as_slice().iter().map(ToString::to_string).collect();
                self.audit.record(record.detail(all.join("; ")));
                tracing::error!("the policy stays as it was: the new one has errors");
                for error in all {
                    tracing::error!("{error}");
                }
            }
        }
    }

    /// Failed logons.
    pub(super) fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt to log a user on, unless too many have failed.
    pub(super) fn attempt(&self, caller: Uid, user: &str, doing: &str) -> Result<Attempt, Failure> {
        let begun = self.failures().begin(std::time::Instant::now(), caller, user);
        begun.map_err(|Wait(wait)| later(wait, doing))
    }

    /// Counts one more that the caller holds, unless it has as many as it may have.
    pub(super) fn take(&self, caller: &Caller, holding: Holding) -> Result<Held, Failure> {
        let quota = self.policy().quota(&caller.policy);
        self.quotas.take(caller.counted, holding, quota).map_err(|exceeded| {
            let of = match exceeded.holding {
                Holding::Session => "sessions",
                Holding::Process => "processes",
                _ => "connections",
            };
            let kind = FailureKind::QuotaReached { of: of.to_owned(), most: exceeded.most.into() };
            kind.while_doing("counting what the caller holds")
        })
    }

    /// Does what may wait on a thread for it, within what the user may occupy.
    pub(super) async fn blocking<R: Send + 'static>(
        &self,
        uid: Uid,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Failure> {
        self.blocking_in(Kind::Call, uid, work).await
    }

    /// The same, for a kind of work.
    pub(super) async fn blocking_in<R: Send + 'static>(
        &self,
        kind: Kind,
        uid: Uid,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Failure> {
        let permit = self.slots.work(kind, uid).await;
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "a call could not be handled");
            system("handling a call", "spawn_blocking", std::io::Error::other("the service failed"))
        };
        // The thread goes on with the call, and another one takes over what it did: no handing over there and back.
        if let Some(_place) = self.slots.in_place(kind) {
            let done = tokio::task::block_in_place(|| std::panic::catch_unwind(AssertUnwindSafe(work)));
            return done.map_err(|panic| {
                // Dropping it could panic again.
                std::mem::forget(panic);
                failed(&"it panicked")
            });
        }
        let work = move || {
            let result = work();
            drop(permit);
            result
        };
        self.on_a_thread(work).await.map_err(|error| failed(&error))
    }

    /// Does what may wait for a caller's files on a thread of its own.
    pub(super) async fn on_a_thread<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, JoinError> {
        let thread = self.slots.thread().await;
        let work = move || {
            let result = work();
            drop(thread);
            result
        };
        tokio::task::spawn_blocking(work).await
    }

    /// Waits until a denial may be told: that a user exists must not show in how long it took.
    pub(super) async fn settle_denial(&self, began: Instant) {
        tokio::time::sleep_until(began + DENIAL).await;
    }

    /// Asks the policy, and writes down what it says.
    pub(super) fn decide(&self, caller: &Caller, request: &Request<'_>) -> Result<Decision, Failure> {
        let policy = self.policy();
        let mut decision = policy.decide(&caller.policy, request);
        let mut refused = None;
        if decision.rule == RuleRef::Itself
            && let Err(confined) = caller.require_free()
        {
            // What needs no rule rests on what the caller's process could do by itself: a confined one less. What a rule
            // gives is given to its user.
            let by_a_rule = policy.decide_by_a_rule(&caller.policy, request);
            if by_a_rule.allowed {
                decision = by_a_rule;
            } else {
                refused = Some(confined);
            }
        }
        if !decision.allowed {
            refused = Some(denied(request.privilege, &request.client.name));
        }
        let is_recorded = self.note_decision(caller, request, &decision, refused.as_ref());
        match refused {
            None => Ok(decision),
            Some(refused) if is_recorded => Err(refused),
            Some(_) => Err(later(LATER, RECORDING)),
        }
    }

    /// Fails for a caller that did not wait for what a rule gave it, until that has its room in the audit log.
    pub(super) fn require_room(&self, user: User) -> Result<(), Failure> {
        let after = self.records.try_after(std::time::Instant::now(), user.counted);
        after.map_or(Ok(()), |wait| Err(later(wait, RECORDING)))
    }

    /// Whether connections end because the service does, and not because their callers went away.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Where tasks of the service run.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn status(&self, caller: &Caller, _call: &GetStatus) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            since: self.since,
            connections: self.slots.connections() as u64,
            sessions: self.sessions.count() as u64,
            processes: self.processes.running() as u64,
            caller: caller.uid.as_raw(),
            confined: caller.confined(),
        }
    }
}

fn later(wait: Duration, doing: &str) -> Failure {
    let after = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    FailureKind::TryLater { after }.while_doing(doing)
}

/// The one answer to whoever is not entitled: it says what was asked, and nothing of whether there is such a user.
pub(super) fn denied(privilege: Privilege, client: &str) -> Failure {
    let kind =
        FailureKind::PolicyDenied { privilege: privilege.name().to_owned(), client: client.to_owned() };
    kind.while_doing("asking the policy")
}
