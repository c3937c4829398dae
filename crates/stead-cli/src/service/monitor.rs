//! `stead monitor`: what the service does, as it does it.

use std::fmt::Write as _;

use serde_json::Value;
use stead_protocol::{Monitor, Record};

use super::{Line, path, unreachable};
use crate::arguments::Form;
use crate::ending::{Ending, Failure};
use crate::output;

/// Prints record after record, until the service or the reader ends.
pub fn monitor(form: Form) -> Result<Ending, Failure> {
    let path = path();
    // Records come when something happens: there is no time in which one must.
    let Line(mut connection) = Line::connect(&path, None).map_err(|error| unreachable(&path, &error))?;
    connection.call_more(&Monitor {}).map_err(Failure::new)?;
    loop {
        let (Record { record, missed }, more) = connection.next_reply::<Monitor>().map_err(Failure::new)?;
        let text = if form.json { format!("{}\n", record.get()) } else { line(record.get()) };
        if missed > 0 {
            output::complain(&format!("{missed} records were not sent, for they were not read in time"));
        }
        match output::page(&text)? {
            Ending::Code(0) if more => {}
            ending => return Ok(ending),
        }
    }
}

/// A record as one line for people.
fn line(record: &str) -> String {
    let Ok(record) = serde_json::from_str::<Value>(record) else { return format!("{record}\n") };
    let text = |name: &str| record.get(name).and_then(Value::as_str);
    let mut line = String::new();
    for part in ["time", "event", "outcome"].into_iter().filter_map(text) {
        let _ = write!(line, "{part} ");
    }
    line.pop();
    let parties = [party(&record["caller"]), party(&record["client"])];
    match parties {
        [Some(caller), Some(client)] => drop(write!(line, ": {caller} as {client}")),
        [Some(one), None] | [None, Some(one)] => drop(write!(line, ": {one}")),
        [None, None] => {}
    }
    let number = record.get("pid").and_then(Value::as_u64).map(|pid| format!("pid {pid}"));
    let parts = [
        text("privilege").map(str::to_owned),
        text("logon").map(str::to_owned),
        text("program").map(str::to_owned),
        text("session").map(|session| format!("session {session}")),
        number,
        text("rule").map(|rule| format!("by {rule}")),
        text("detail").map(str::to_owned),
    ];
    for part in parts.into_iter().flatten() {
        let _ = write!(line, ", {part}");
    }
    // Programs and names are other people's to choose.
    let mut line = output::printable(&line).into_owned();
    line.push('\n');
    line
}

fn party(party: &Value) -> Option<String> {
    let name = party.get("name").and_then(Value::as_str);
    let uid = party.get("uid").and_then(Value::as_u64);
    match (name, uid) {
        (Some(name), Some(uid)) => Some(format!("{name} ({uid})")),
        (Some(name), None) => Some(name.to_owned()),
        (None, Some(uid)) => Some(uid.to_string()),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_record_is_one_line_without_control_characters() {
        let record = r#"{"time":"2026-11-21T09:30:00Z","event":"process-start","outcome":"ok",
            "caller":{"uid":990,"name":"portal"},"client":{"uid":1000,"name":"alice"},
            "program":"/bin/re\u001b[2Jport","pid":4711,"rule":"policy.toml:3"}"#;
        let line = super::line(record);
        let expected = "2026-11-21T09:30:00Z process-start ok: portal (990) as alice (1000), \
                        /bin/re\\u{1b}[2Jport, pid 4711, by policy.toml:3\n";
        assert_eq!(line, expected);
    }
}
