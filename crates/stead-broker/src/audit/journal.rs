//! The journal, by its native protocol: one datagram of `FIELD=value` lines.
//!
//! Reference: [JOURNAL_NATIVE_PROTOCOL](https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).

use std::fmt::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::record::{Event, Outcome, Record};

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// A connection to the journal that never waits.
#[derive(Debug)]
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// The journal at `path`; `None` where nothing listens.
    pub(super) fn connect(path: &Path) -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect(path).ok()?;
        Some(Self(socket))
    }

    /// Writes one record; says whether the journal took it.
    pub(super) fn write(&self, record: &Record, json: &str) -> bool {
        self.0.send(datagram(record, json).as_bytes()).is_ok()
    }
}

/// The fields. Every value is either ours or a [`Text`](super::Text), which has no line end: none can begin a field
/// of its own.
pub(super) fn datagram(record: &Record, json: &str) -> String {
    let mut fields = String::with_capacity(json.len() * 2 + 256);
    let mut field = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(fields, "{name}={value}");
    };
    field("MESSAGE", record);
    field("PRIORITY", &priority(record));
    field("SYSLOG_IDENTIFIER", &"stead");
    // LOG_AUTHPRIV: what only administrators should read.
    field("SYSLOG_FACILITY", &10);
    field("STEAD_EVENT", &record.event.name());
    for (party, name) in [(&record.caller, "CALLER"), (&record.client, "CLIENT")] {
        if let Some(uid) = party.as_ref().and_then(|party| party.uid) {
            field(&format!("STEAD_{name}_UID"), &uid);
        }
        if let Some(text) = party.as_ref().and_then(|party| party.name.as_ref()) {
            field(&format!("STEAD_{name}"), text);
        }
    }
    let texts = [
        ("STEAD_LOGON", &record.logon),
        ("STEAD_PROGRAM", &record.program),
        ("STEAD_FILE", &record.file),
        ("STEAD_DIRECTORY", &record.directory),
        ("STEAD_DESKTOP", &record.desktop),
        ("STEAD_RULE", &record.rule),
        ("STEAD_SESSION", &record.session),
        ("STEAD_DETAIL", &record.detail),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            field(name, text);
        }
    }
    if let Some(outcome) = record.outcome {
        field("STEAD_OUTCOME", &outcome.name());
    }
    if let Some(privilege) = record.privilege {
        field("STEAD_PRIVILEGE", &privilege);
    }
    if let Some(pid) = record.pid {
        field("STEAD_PID", &pid);
    }
    field("STEAD_RECORD", &json);
    fields
}

/// As syslog's levels.
fn priority(record: &Record) -> u8 {
    const WARNING: u8 = 4;
    const NOTICE: u8 = 5;
    const INFO: u8 = 6;
    match (record.event, record.outcome) {
        (Event::Lost | Event::PolicyRefused, _) => WARNING,
        (Event::Folded, _) | (_, Some(Outcome::Denied | Outcome::Failed)) => NOTICE,
        _ => INFO,
    }
}
