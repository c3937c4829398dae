//! One record.

use std::fmt;

use serde::{Deserialize, Serialize};
use stead::os::linux::Uid;

use super::text::Text;
use crate::policy::{Decision, Privilege};

/// Arguments of one record, in bytes; what comes after is counted.
const MOST_OF_ARGUMENTS: usize = 4096;
/// Names of variables of one record, the same way.
const MOST_OF_VARIABLES: usize = 1024;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The policy was asked.
    Decision,
    /// A logon was tried.
    Logon,
    /// A logon session was opened that there was already.
    SessionOpen,
    /// The processes of a logon session were ended.
    SessionTerminate,
    /// A caller let go of a logon session.
    SessionClose,
    /// A logon session is ended because its caller went away.
    SessionLost,
    /// A logon session has ended.
    SessionEnd,
    /// A file was opened.
    FileOpen,
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
    /// Records were counted in the place of being written: their caller made very many.
    Folded,
    /// Records were lost.
    Lost,
}

impl Event {
    /// What records call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Logon => "logon",
            Self::SessionOpen => "session-open",
            Self::SessionTerminate => "session-terminate",
            Self::SessionClose => "session-close",
            Self::SessionLost => "session-lost",
            Self::SessionEnd => "session-end",
            Self::FileOpen => "file-open",
            Self::ProcessStart => "process-start",
            Self::ProcessEnd => "process-end",
            Self::Signal => "signal",
            Self::PolicyLoaded => "policy-loaded",
            Self::PolicyRefused => "policy-refused",
            Self::ServiceStart => "service-start",
            Self::ServiceStop => "service-stop",
            Self::Folded => "folded",
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
        match (self.name.as_ref().map(Text::among_words), self.uid) {
            (Some(name), Some(uid)) => write!(f, "{name} (uid {uid})"),
            (Some(name), None) => write!(f, "{name} (no uid)"),
            (None, Some(uid)) => write!(f, "uid {uid}"),
            (None, None) => f.write_str("somebody"),
        }
    }
}

/// A file that was passed open, as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    /// Its device: the major and the minor number.
    pub device: (u32, u32),
    /// Its number there.
    pub inode: u64,
}

impl fmt::Display for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device: (major, minor), inode } = self;
        write!(f, "inode {inode} of device {major}:{minor}")
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
    /// The program's file, where it was not named but passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Inode>,
    /// The names of the variables that the caller set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Text>,
    /// How many variables were left out at the end.
    #[serde(skip_serializing_if = "is_zero")]
    pub variables_left_out: usize,
    /// The directory that the caller chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<Text>,
    /// The desktop that the process may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desktop: Option<Text>,
    /// The file that was opened; a relative path begins at the client's home directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Text>,
    /// What for: `read`, `write`, `append`, `truncate`, `create`, `create-new`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<&'static str>,
    /// By which rule: file and line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Text>,
    /// The logon session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Text>,
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How many records this one stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// How the process ended, why something failed, what a policy's error is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Text>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference to the field.
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The texts that there is room for, and how many come after them.
fn within<A: AsRef<[u8]>>(most: usize, texts: impl IntoIterator<Item = A>) -> (Vec<Text>, usize) {
    let (mut room, mut kept, mut left_out) = (most, Vec::new(), 0);
    for text in texts {
        let text = Text::new(text);
        match room.checked_sub(text.as_str().len() + 1) {
            Some(left) if left_out == 0 => {
                room = left;
                kept.push(text);
            }
            _ => left_out += 1,
        }
    }
    (kept, left_out)
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
            pinned: None,
            variables: Vec::new(),
            variables_left_out: 0,
            directory: None,
            desktop: None,
            file: None,
            access: Vec::new(),
            rule: None,
            session: None,
            pid: None,
            count: None,
            detail: None,
        }
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        const NAMES_AND_NUMBERS: usize = 256;
        let parties =
            [&self.caller, &self.client].into_iter().flatten().filter_map(|party| party.name.as_ref());
        let fields = [
            &self.logon,
            &self.program,
            &self.directory,
            &self.desktop,
            &self.file,
            &self.rule,
            &self.session,
            &self.detail,
        ];
        let texts = fields.into_iter().flatten().chain(parties).chain(&self.arguments).chain(&self.variables);
        texts.map(|text| text.as_str().len()).sum::<usize>() + NAMES_AND_NUMBERS
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
        self.caller = Some(Party { uid: Some(uid), name: name.map(Text::name), pid });
        self
    }

    /// It was to be done as this client.
    #[must_use]
    pub fn client(mut self, uid: Option<Uid>, name: Option<&str>) -> Self {
        self.client = Some(Party { uid, name: name.map(Text::name), pid: None });
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
        (self.arguments, self.arguments_left_out) = within(MOST_OF_ARGUMENTS, arguments);
        self
    }

    /// Whose program was passed as this open file.
    #[must_use]
    pub fn pinned(mut self, file: Inode) -> Self {
        self.pinned = Some(file);
        self
    }

    /// With variables of these names; of very many the end is left out.
    #[must_use]
    pub fn variables<A: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = A>) -> Self {
        (self.variables, self.variables_left_out) = within(MOST_OF_VARIABLES, names);
        self
    }

    /// In this directory.
    #[must_use]
    pub fn directory(mut self, directory: impl AsRef<[u8]>) -> Self {
        self.directory = Some(Text::new(directory));
        self
    }

    /// On this desktop.
    #[must_use]
    pub fn desktop(mut self, desktop: impl AsRef<[u8]>) -> Self {
        self.desktop = Some(Text::new(desktop));
        self
    }

    /// This file, for this.
    #[must_use]
    pub fn file(mut self, path: impl AsRef<[u8]>, access: impl IntoIterator<Item = &'static str>) -> Self {
        self.file = Some(Text::new(path));
        self.access = access.into_iter().collect();
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

    /// Which stands for so many.
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
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
        let word = |text: &Option<Text>| text.as_ref().map(|text| text.among_words().into_owned());
        let (logon, program) = (word(&self.logon), word(&self.program));
        let file = word(&self.file).map(|file| match &*self.access {
            [] => file,
            access => format!("{file} ({})", access.join(" ")),
        });
        let pinned = self.pinned.as_ref().map(ToString::to_string);
        let directory = word(&self.directory).map(|directory| format!("in {directory}"));
        let desktop = word(&self.desktop).map(|desktop| format!("on desktop {desktop}"));
        let session = self.session.as_ref().map(|session| format!("session {session}"));
        let pid = self.pid.map(|pid| format!("pid {pid}"));
        let rule = self.rule.as_ref().map(|rule| format!("by {rule}"));
        let detail = self.detail.as_ref().map(ToString::to_string);
        let names: Vec<_> = self.variables.iter().map(Text::among_words).collect();
        let variables = (!names.is_empty()).then(|| format!("with {}", names.join(" ")));
        let what = [privilege, logon, program, pinned, file, directory, desktop, variables];
        for part in what.into_iter().chain([session, pid, rule, detail]).flatten() {
            write!(f, "{separator}{part}")?;
            separator = ", ";
        }
        Ok(())
    }
}
