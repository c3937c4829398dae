//! `stead monitor`: what the service does, as it does it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;

use serde_json::Value;
use stead_broker::audit::{Inode, among_words};
use stead_protocol::{Monitor, Record};

use super::{Line, named, path, unreachable};
use crate::arguments::Form;
use crate::ending::{Ending, Failure};
use crate::output;

/// Prints record after record, until the service or the reader ends.
pub fn monitor(form: Form) -> Result<Ending, Failure> {
    let path = path();
    // Records come when something happens: there is no time in which one must.
    let Line(mut connection) = Line::connect(&path, None).map_err(|error| unreachable(&path, &error))?;
    connection.call_more(&Monitor {}).map_err(Failure::new)?;
    let mut names = Names::default();
    loop {
        let (Record { record, missed }, more) = connection.next_reply::<Monitor>().map_err(Failure::new)?;
        let text = if form.json {
            format!("{}\n", output::printable_json(record.get()))
        } else {
            line(record.get(), &mut names)
        };
        if missed > 0 {
            output::complain(&format!("{missed} records were not sent, for they were not read in time"));
        }
        match output::page(&text)? {
            Ending::Code(0) if more => {}
            ending => return Ok(ending),
        }
    }
}

/// Users and their names, where a record has only the number. Each is looked up once.
#[derive(Default)]
struct Names(HashMap<u64, String>);

impl Names {
    fn of(&mut self, uid: u64) -> &str {
        self.0.entry(uid).or_insert_with(|| u32::try_from(uid).map_or_else(|_| uid.to_string(), named))
    }

    fn party(&mut self, party: &Value) -> Option<String> {
        let name = party.get("name").and_then(Value::as_str);
        match (name, party.get("uid").and_then(Value::as_u64)) {
            (Some(name), Some(uid)) => Some(format!("{} ({uid})", word(name))),
            (Some(name), None) => Some(format!("{} (no uid)", word(name))),
            (None, Some(uid)) => Some(self.of(uid).to_owned()),
            (None, None) => None,
        }
    }
}

/// A record as one line for people.
fn line(record: &str, names: &mut Names) -> String {
    let Ok(record) = serde_json::from_str::<Value>(record) else { return format!("{record}\n") };
    let text = |name: &str| record.get(name).and_then(Value::as_str);
    let mut line = String::new();
    for part in ["time", "event", "outcome"].into_iter().filter_map(text) {
        let _ = write!(line, "{part} ");
    }
    line.pop();
    let parties = [names.party(&record["caller"]), names.party(&record["client"])];
    match parties {
        [Some(caller), Some(client)] => drop(write!(line, ": {caller} as {client}")),
        [Some(one), None] | [None, Some(one)] => drop(write!(line, ": {one}")),
        [None, None] => {}
    }
    let number = record.get("pid").and_then(Value::as_u64).map(|pid| format!("pid {pid}"));
    let end = text("detail").and_then(ended);
    let (rule, detail) = (text("rule"), end.as_deref().or(text("detail")));
    let parts = [
        text("privilege").map(str::to_owned),
        text("logon").map(word),
        text("program").map(word),
        pinned(&record["pinned"]),
        text("file").map(|file| match &*words(&record["access"]) {
            "" => word(file),
            access => format!("{} ({access})", word(file)),
        }),
        text("directory").map(|directory| format!("in {}", word(directory))),
        text("desktop").map(|desktop| format!("on desktop {}", word(desktop))),
        Some(words(&record["variables"]))
            .filter(|names| !names.is_empty())
            .map(|names| format!("with {names}")),
        text("session").map(|session| format!("session {session}")),
        number,
        // A decision's reason names the rule itself.
        rule.filter(|rule| !detail.is_some_and(|detail| detail.contains(rule)))
            .map(|rule| format!("by {rule}")),
        detail.map(str::to_owned),
    ];
    for part in parts.into_iter().flatten() {
        let _ = write!(line, ", {part}");
    }
    // Programs and names are other people's to choose.
    let mut line = output::printable(&line).into_owned();
    line.push('\n');
    line
}

/// What somebody chose, in quotes where it could be taken for more of the line than that.
fn word(text: &str) -> String {
    among_words(text).into_owned()
}

/// A list of words.
fn words(list: &Value) -> String {
    let words: Vec<String> =
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(word).collect();
    words.join(" ")
}

/// The file that was passed as a program.
fn pinned(file: &Value) -> Option<String> {
    serde_json::from_value::<Inode>(file.clone()).ok().map(|file| file.to_string())
}

/// How a process ended, of what wait(2) says of it.
fn ended(detail: &str) -> Option<String> {
    let status = i32::from_str_radix(detail.strip_prefix("wait status 0x")?, 16).ok()?;
    let status = std::process::ExitStatus::from_raw(status);
    match (status.code(), status.signal()) {
        (Some(code), _) => Some(format!("exit status {code}")),
        (None, Some(signal)) => {
            let name = signal_hook::low_level::signal_name(signal).map(|name| format!(" ({name})"));
            Some(format!("ended by signal {signal}{}", name.unwrap_or_default()))
        }
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Names, ended, line};

    #[test]
    fn the_end_of_a_process_is_told_in_words() {
        assert_eq!(ended("wait status 0x0000").unwrap(), "exit status 0");
        assert_eq!(ended("wait status 0x0700").unwrap(), "exit status 7");
        assert_eq!(ended("wait status 0x0009").unwrap(), "ended by signal 9 (SIGKILL)");
        assert_eq!(ended("wait status 0x008b").unwrap(), "ended by signal 11 (SIGSEGV)");
        assert_eq!((ended("something else"), ended("wait status 0x")), (None, None));
    }

    #[test]
    fn a_record_is_one_line_without_control_characters() {
        let record = r#"{"time":"2026-11-21T09:30:00Z","event":"process-start","outcome":"ok",
            "caller":{"uid":990,"name":"portal"},"client":{"uid":1000,"name":"alice"},
            "program":"/bin/re\u001b[2J\u202eport","pid":4711,"rule":"policy.toml:3"}"#;
        let expected = "2026-11-21T09:30:00Z process-start ok: portal (990) as alice (1000), \
                        /bin/re\\u{1b}[2J\\u{202e}port, pid 4711, by policy.toml:3\n";
        assert_eq!(line(record, &mut Names::default()), expected);
    }

    #[test]
    fn files_and_what_a_caller_chose_for_a_process_are_shown() {
        let opened = r#"{"event":"file-open","outcome":"ok","client":{"uid":1000,"name":"alice"},
            "file":".profile","access":["write","create"],"session":"d4be1ef372e960c2"}"#;
        let expected = "file-open ok: alice (1000), .profile (write create), session d4be1ef372e960c2\n";
        assert_eq!(line(opened, &mut Names::default()), expected);
        let started = r#"{"event":"process-start","program":"(an open file)","directory":"/srv","desktop":":1",
            "pinned":{"device":[8,1],"inode":42},"variables":["LANG","TERM"],"pid":7}"#;
        let expected = "process-start, \"(an open file)\", inode 42 of device 8:1, in /srv, on desktop :1, \
                        with LANG TERM, pid 7\n";
        assert_eq!(line(started, &mut Names::default()), expected);
    }

    #[test]
    fn no_name_reads_as_more_of_a_line_than_a_name() {
        let record = r#"{"event":"decision","outcome":"denied","caller":{"uid":0},"privilege":"tcb",
            "client":{"name":"root (0), tcb, allowed by \"x\""}}"#;
        let expected = "decision denied: root (0) as \"root (0), tcb, allowed by \\\"x\\\"\" (no uid), tcb\n";
        assert_eq!(line(record, &mut Names::default()), expected);
    }

    #[test]
    fn a_user_without_a_name_gets_it_and_a_rule_is_named_once() {
        let record = r#"{"event":"decision","outcome":"ok","caller":{"uid":0},"client":{"name":"nobody-here"},
            "privilege":"tcb","rule":"policy.toml:3","detail":"allowed by policy.toml:3 (portal)"}"#;
        let expected =
            "decision ok: root (0) as nobody-here (no uid), tcb, allowed by policy.toml:3 (portal)\n";
        assert_eq!(line(record, &mut Names::default()), expected);
    }
}
