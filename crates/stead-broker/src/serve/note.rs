//! What goes into the audit log, from where it happens.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stead::os::linux::Uid;
use stead_protocol::{CreateProcess, Failure, FailureKind, OpenFile, Text};

use super::caller::Caller;
use super::ended::End;
use super::process::Record;
use super::service::Service;
use super::session;
use crate::audit::{self, Event, Inode, Outcome};
use crate::policy::{Decision, ProgramRequest, Request, RuleRef, Subject};
use crate::throttle::{About, Becomes};

impl Service {
    /// Writes what a caller did, if it counts for one that has room; how long that one is to wait, if it is written.
    fn note_for(&self, counted: Uid, about: About, record: audit::Record) -> Option<Duration> {
        let now = Instant::now();
        match self.records.take(now, counted, about, record.size()) {
            Becomes::Written(wait) => {
                self.audit.record(record);
                Some(wait)
            }
            Becomes::Folded => {
                if let Some(count) = self.records.folded_of(now, counted) {
                    self.note_folded(counted, count);
                }
                None
            }
        }
    }

    /// Writes what a call did; whether there was room for it.
    fn note(&self, caller: &Caller, about: About, record: audit::Record) -> bool {
        let wait = self.note_for(caller.counted, about, record);
        caller.must_wait(wait.unwrap_or_default());
        wait.is_some()
    }

    fn note_folded(&self, counted: Uid, count: u64) {
        let record = audit::Record::new(Event::Folded).caller(counted, None, None).count(count);
        self.audit.record(
            record.detail(format!("{count} more records of what it did without a rule, or was refused")),
        );
    }

    /// Tells of all that was counted in the place of being written.
    pub(super) fn note_all_folded(&self) {
        for (counted, count) in self.records.folded(Instant::now()) {
            self.note_folded(counted, count);
        }
    }

    /// The policy was asked, and the caller refused: by the policy, or for how it is confined. Whether there was room for it.
    pub(super) fn note_decision(
        &self,
        caller: &Caller,
        request: &Request<'_>,
        decision: &Decision,
        refused: Option<&Failure>,
    ) -> bool {
        let mut record = by(audit::Record::decision(request.privilege, decision), caller)
            .client(request.client.uid, Some(&request.client.name));
        // What is allowed has a record of its own when it is done.
        if let Some(ProgramRequest::Path(path)) = request.program.filter(|_| refused.is_some()) {
            record = record.program::<&str>(path, []);
        }
        // What the policy denies it says why itself.
        if decision.allowed && refused.is_some() {
            record = ended(record, refused);
        }
        let about = if refused.is_some() { About::Refused } else { by_rule(&decision.rule) };
        self.note(caller, about, record)
    }

    /// A logon was tried; which session it is.
    pub(super) fn note_logon(
        &self,
        caller: &Caller,
        client: &Subject,
        kind: &str,
        result: Result<String, &Failure>,
    ) {
        let record =
            by(audit::Record::new(Event::Logon), caller).client(client.uid, Some(&client.name)).logon(kind);
        let record = match result {
            Ok(session) => record.session(&session).outcome(Outcome::Ok),
            Err(failure) => ended(record, Some(failure)),
        };
        self.note(caller, About::Ruled, record);
    }

    /// A caller did something to a session, or could not.
    pub(super) fn note_session(
        &self,
        event: Event,
        caller: &Caller,
        session: &session::Record,
        failed: Option<&Failure>,
    ) {
        let about = of_its_own(session, caller.uid, failed);
        self.note(caller, about, ended(by(of_session(event, session), caller), failed));
    }

    /// A session is ended, for who held it is gone.
    pub(super) fn note_session_lost(&self, session: &session::Record) {
        let record = of_session(Event::SessionLost, session).outcome(Outcome::Ok);
        self.audit.record(record.detail("its caller went away without letting go of it"));
    }

    /// A file was opened with a token, if a rule says so, or could not be.
    pub(super) fn note_file(
        &self,
        caller: &Caller,
        client: &Subject,
        session: Option<String>,
        call: &OpenFile,
        rule: Option<&RuleRef>,
        failed: Option<&Failure>,
    ) {
        let how = [
            (call.read, "read"),
            (call.write, "write"),
            (call.append, "append"),
            (call.truncate, "truncate"),
            (call.create, "create"),
            (call.create_new, "create-new"),
        ];
        let access = how.into_iter().filter_map(|(asked, name)| asked.then_some(name));
        let mut record = by(audit::Record::new(Event::FileOpen), caller)
            .client(client.uid, Some(&client.name))
            .file(call.path.as_bytes(), access);
        if let Some(session) = session {
            record = record.session(&session);
        }
        if let Some(rule) = rule {
            record = record.rule(&rule.to_string());
        }
        self.note(caller, rule.map_or(About::Refused, by_rule), ended(record, failed));
    }

    /// A process was created, by this rule; of a file that was passed open, which one that is.
    pub(super) fn note_start(
        &self,
        caller: &Caller,
        process: &Record,
        call: &CreateProcess,
        pinned: Option<Inode>,
        rule: &RuleRef,
    ) {
        let mut record = by(of_process(Event::ProcessStart, process, &call.arguments), caller)
            .outcome(Outcome::Ok)
            .variables(call.environment.set.iter().map(|variable| variable.name.as_bytes()))
            .rule(&rule.to_string());
        if let Some(file) = pinned {
            record = record.pinned(file);
        }
        if let Some(directory) = &call.directory {
            record = record.directory(directory.as_bytes());
        }
        if let Some(desktop) = &call.desktop {
            record = record.desktop(desktop.as_bytes());
        }
        self.note(caller, by_rule(rule), record);
    }

    /// A process has ended.
    pub(super) fn note_end(&self, process: &Record, end: End) {
        let mut record = of_process(Event::ProcessEnd, process, &[]).detail(end.to_string());
        if let Some(owner) = Uid::new(process.owner) {
            record = record.caller(owner, None, None);
        }
        match Uid::new(process.counted()) {
            Some(counted) => drop(self.note_for(counted, of_own(process), record)),
            None => self.audit.record(record),
        }
    }

    /// A process was sent a signal, or its tree was ended.
    pub(super) fn note_signal(&self, caller: &Caller, process: &Record, what: &str) {
        let record = by(of_process(Event::Signal, process, &[]), caller);
        self.note(caller, of_own(process), record.outcome(Outcome::Ok).detail(what));
    }

    /// The service takes calls from now on.
    pub(super) fn note_begin(&self) {
        let (allow, deny) = self.policy().rule_counts();
        self.audit.record(audit::Record::new(Event::ServiceStart).pid(std::process::id()));
        self.note_policy(allow, deny);
    }

    /// It takes no more.
    pub(super) fn note_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.note_all_folded();
        self.audit.record(audit::Record::new(Event::ServiceStop).pid(std::process::id()));
        self.audit.flush(Duration::from_secs(1));
    }

    /// A policy came into force, with so many rules.
    pub(super) fn note_policy(&self, allow: usize, deny: usize) {
        let detail = format!("rules: {allow} to allow, {deny} to deny");
        self.audit.record(audit::Record::new(Event::PolicyLoaded).outcome(Outcome::Ok).detail(detail));
    }
}

fn by(record: audit::Record, caller: &Caller) -> audit::Record {
    record.caller(caller.uid, None, Some(caller.pid))
}

fn ended(record: audit::Record, failed: Option<&Failure>) -> audit::Record {
    match failed {
        None => record.outcome(Outcome::Ok),
        Some(failure) => {
            let outcome = if is_denied(failure) { Outcome::Denied } else { Outcome::Failed };
            record.outcome(outcome).detail(failure.to_string())
        }
    }
}

fn is_denied(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::PolicyDenied { .. })
}

fn by_rule(rule: &RuleRef) -> About {
    if *rule == RuleRef::Itself { About::Itself } else { About::Ruled }
}

/// A session's own user needs no rule to end it, again and again.
fn of_its_own(session: &session::Record, caller: Uid, failed: Option<&Failure>) -> About {
    let is_its_own = session.owner == caller.as_raw();
    if is_its_own && !failed.is_some_and(is_denied) { About::Ruled } else { About::Refused }
}

fn of_own(process: &Record) -> About {
    if process.own { About::Itself } else { About::Ruled }
}

/// A session, as what happens to it is recorded; the caller is who opened it, if nobody else is said to be.
pub(super) fn of_session(event: Event, session: &session::Record) -> audit::Record {
    let record = audit::Record::new(event)
        .client(Uid::new(session.uid), Some(&session.user_name.to_string_lossy()))
        .session(&session.id);
    match Uid::new(session.owner) {
        Some(owner) => record.caller(owner, None, None),
        None => record,
    }
}

fn of_process(event: Event, process: &Record, arguments: &[Text]) -> audit::Record {
    let mut record = audit::Record::new(event)
        .client(Uid::new(process.uid), None)
        .program(process.program.as_bytes(), arguments.iter().map(Text::as_bytes))
        .pid(process.pid);
    if let Some(session) = &process.session {
        record = record.session(session);
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_a_session_of_its_own_that_another_opened_has_no_rule_for_it() {
        let json = r#"{"id":"1","uid":1000,"user_name":"alice","owner":990,"logon_type":"batch","s4u":true,
            "lifetime":"detached","since":0}"#;
        let session: session::Record = serde_json::from_str(json).unwrap();
        let [portal, alice] = [990, 1000].map(|uid| Uid::new(uid).unwrap());
        let confined = FailureKind::ClientConfined { part: "seccomp".to_owned() }.while_doing("");
        let denied = FailureKind::PolicyDenied { privilege: "tcb".to_owned(), client: "alice".to_owned() };
        let denied = denied.while_doing("");
        assert_eq!(of_its_own(&session, portal, None), About::Ruled);
        assert_eq!(of_its_own(&session, portal, Some(&denied)), About::Refused);
        assert_eq!(of_its_own(&session, alice, None), About::Refused);
        assert_eq!(of_its_own(&session, alice, Some(&confined)), About::Refused);
    }
}
