//! One record.

use std::fmt;

use serde::Serialize;
use stead::os::linux::Uid;

use super::text::Text;
use crate::policy::{Decision, Privilege};

/// Arguments of one record, in bytes; what comes after is counted.
const MOST_OF_ARGUMENTS: usize = 4096;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The policy was asked.
    Decision,
    /// A logon was tried.
    Logon,
    /// A logon session ended.
    SessionEnd,
    /// A process was created.
    ProcessStart,
    /// A process ended.
    ProcessEnd,
    /// A process or its tree was sent a signal.
    Signal,
    /// A policy came into force.
    PolicyLoaded,
    /// A policy was refused, and the one before stays in force.
    PolicyRefused,
    /// The service began.
    ServiceStart,
    /// The service ends.
    ServiceStop,
    /// Records were lost.
    Lost,
}

impl Event {
    /// What records call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Logon => "logon",
            Self::SessionEnd => "session-end",
            Self::ProcessStart => "process-start",
            Self::ProcessEnd => "process-end",
            Self::Signal => "signal",
            Self::PolicyLoaded => "policy-loaded",
            Self::PolicyRefused => "policy-refused",
            Self::ServiceStart => "service-start",
            Self::ServiceStop => "service-stop",
            Self::Lost => "lost",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// It was allowed, or done.
    Ok,
    /// The policy refused it.
    Denied,
    /// It was allowed and could not be done; [`Record::detail`] says why.
    Failed,
}

impl Outcome {
    /// What records call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// A caller or a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Party {
    /// Its uid; none for a name without an account.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "raw_uid")]
    pub uid: Option<Uid>,
    /// Its name, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// Its process, for people to read: a pid is no identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

#[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref)] // serde passes a reference to the field.
fn raw_uid<S: serde::Serializer>(uid: &Option<Uid>, serializer: S) -> Result<S::Ok, S::Error> {
    uid.map(Uid::as_raw).serialize(serializer)
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.uid) {
            (Some(name), Some(uid)) => write!(f, "{name} (uid {uid})"),
            (Some(name), None) => write!(f, "{name} (no account)"),
            (None, Some(uid)) => write!(f, "uid {uid}"),
            (None, None) => f.write_str("somebody"),
        }
    }
}

/// What is recorded: who asked, as whom, what, by which rule, and the result. There is no place for a secret.
///
/// ```
/// use stead::os::linux::Uid;
/// use stead_broker::audit::{Event, Outcome, Record};
///
/// let record = Record::new(Event::ProcessStart)
///     .caller(Uid::new(990).unwrap(), Some("portal"), None)
///     .client(Uid::new(1000), Some("alice"))
///     .program("/usr/bin/report", ["report", "--today"])
///     .pid(4711)
///     .outcome(Outcome::Ok);
/// assert_eq!(
///     record.to_string(),
///     "process-start ok: portal (uid 990) as alice (uid 1000): /usr/bin/report, pid 4711"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Record {
    /// What happened.
    pub event: Event,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<Party>,
    /// As whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Party>,
    /// By which privilege.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privilege: Option<&'static str>,
    /// The logon type or PAM service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logon: Option<Text>,
    /// The program as it was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<Text>,
    /// Its arguments, the first of them its own name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Text>,
    /// How many arguments were left out at the end.
    #[serde(skip_serializing_if = "is_zero")]
    pub arguments_left_out: usize,
    /// By which rule: file and line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Text>,
    /// The logon session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Text>,
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How the process ended, why something failed, what a policy's error is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Text>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference to the field.
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Record {
    /// Something happened.
    pub fn new(event: Event) -> Self {
        Self {
            event,
            outcome: None,
            caller: None,
            client: None,
            privilege: None,
            logon: None,
            program: None,
            arguments: Vec::new(),
            arguments_left_out: 0,
            rule: None,
            session: None,
            pid: None,
            detail: None,
        }
    }

    /// The policy was asked for `privilege`, and said this.
    pub fn decision(privilege: Privilege, decision: &Decision) -> Self {
        let outcome = if decision.allowed { Outcome::Ok } else { Outcome::Denied };
        let mut record = Self::new(Event::Decision).outcome(outcome).detail(&decision.why);
        record.privilege = Some(privilege.name());
        record.rule(&decision.rule.to_string())
    }

    /// By this rule.
    #[must_use]
    pub fn rule(mut self, rule: &str) -> Self {
        self.rule = Some(rule.into());
        self
    }

    /// It ended so.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// This caller asked.
    #[must_use]
    pub fn caller(mut self, uid: Uid, name: Option<&str>, pid: Option<u32>) -> Self {
        self.caller = Some(Party { uid: Some(uid), name: name.map(Text::new), pid });
        self
    }

    /// It was to be done as this client.
    #[must_use]
    pub fn client(mut self, uid: Option<Uid>, name: Option<&str>) -> Self {
        self.client = Some(Party { uid, name: name.map(Text::new), pid: None });
        self
    }

    /// By this logon type or PAM service.
    #[must_use]
    pub fn logon(mut self, logon: &str) -> Self {
        self.logon = Some(logon.into());
        self
    }

    /// This program with these arguments; of very long arguments the end is left out.
    #[must_use]
    pub fn program<A: AsRef<[u8]>>(
        mut self,
        program: impl AsRef<[u8]>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.program = Some(Text::new(program));
        let mut room = MOST_OF_ARGUMENTS;
        for argument in arguments {
            let text = Text::new(argument);
            match room.checked_sub(text.as_str().len() + 1) {
                Some(left) if self.arguments_left_out == 0 => {
                    room = left;
                    self.arguments.push(text);
                }
                _ => self.arguments_left_out += 1,
            }
        }
        self
    }

    /// In this logon session.
    #[must_use]
    pub fn session(mut self, session: &str) -> Self {
        self.session = Some(session.into());
        self
    }

    /// This process.
    #[must_use]
    pub fn pid(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// With more to say.
    #[must_use]
    pub fn detail(mut self, detail: impl AsRef<[u8]>) -> Self {
        self.detail = Some(Text::new(detail));
        self
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.event.name())?;
        if let Some(outcome) = self.outcome {
            write!(f, " {}", outcome.name())?;
        }
        let mut separator = ": ";
        if let Some(caller) = &self.caller {
            write!(f, "{separator}{caller}")?;
            separator = " ";
        }
        if let Some(client) = &self.client {
            write!(f, "{separator}as {client}")?;
            separator = ": ";
        } else if self.caller.is_some() {
            separator = ": ";
        }
        let privilege = self.privilege.map(str::to_owned);
        let logon = self.logon.as_ref().map(ToString::to_string);
        let program = self.program.as_ref().map(ToString::to_string);
        let session = self.session.as_ref().map(|session| format!("session {session}"));
        let pid = self.pid.map(|pid| format!("pid {pid}"));
        let rule = self.rule.as_ref().map(|rule| format!("by {rule}"));
        let detail = self.detail.as_ref().map(ToString::to_string);
        for part in [privilege, logon, program, session, pid, rule, detail].into_iter().flatten() {
            write!(f, "{separator}{part}")?;
            separator = ", ";
        }
        Ok(())
    }
}
