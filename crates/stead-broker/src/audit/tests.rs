//! The log against a file, a journal's socket and watchers of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use stead::os::linux::Uid;

use super::{Event, Log, Options, Outcome, Record, Text, TooMany, journal};

const SOON: Duration = Duration::from_secs(20);

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("stead-audit-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn log(&self) -> Log {
        let (file, journal) = (Some(self.0.join("audit.jsonl")), Some(self.0.join("journal")));
        Log::open(Options { file, journal }).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.0.join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn record(name: &str) -> Record {
    Record::new(Event::ProcessStart)
        .caller(Uid::new(990).unwrap(), Some("portal"), Some(1))
        .client(Uid::new(1000), Some(name))
        .outcome(Outcome::Ok)
}

#[test]
fn each_record_is_one_line_that_only_administrators_may_read() {
    let scratch = Scratch::new();
    let log = scratch.log();
    log.record(record("alice").program("/bin/sh", ["sh", "-c", "echo \"x\"\n{\"event\":\"decision\"}"]));
    log.record(record("bob").pid(7));
    assert!(log.flush(SOON));
    let lines = scratch.lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["arguments"][2], "echo \"x\"\\n{\"event\":\"decision\"}");
    assert_eq!(lines[0]["client"]["uid"], 1000);
    assert_eq!((&lines[0]["sequence"], &lines[1]["sequence"]), (&Value::from(0), &Value::from(1)));
    assert_eq!(lines[1]["pid"], 7);
    let mode = fs::metadata(scratch.0.join("audit.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o037, 0, "{mode:o}");
}

#[test]
fn the_journal_gets_fields_and_no_client_can_add_one() {
    let scratch = Scratch::new();
    let journal = UnixDatagram::bind(scratch.0.join("journal")).unwrap();
    journal.set_read_timeout(Some(SOON)).unwrap();
    let log = scratch.log();
    log.record(record("alice\nSTEAD_OUTCOME=denied\n\nMESSAGE=forged"));
    let mut buffer = vec![0; 65_536];
    let length = journal.recv(&mut buffer).unwrap();
    let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
    let fields: Vec<(&str, &str)> = text.lines().map(|line| line.split_once('=').unwrap()).collect();
    let values =
        |name| fields.iter().filter(|(known, _)| *known == name).map(|(_, value)| *value).collect::<Vec<_>>();
    assert_eq!(values("STEAD_OUTCOME"), ["ok"]);
    assert_eq!(values("MESSAGE").len(), 1);
    assert_eq!(values("STEAD_CLIENT"), [r"alice\nSTEAD_OUTCOME=denied\n\nMESSAGE=forged"]);
    assert_eq!(values("STEAD_CALLER_UID"), ["990"]);
    assert_eq!(values("SYSLOG_IDENTIFIER"), ["stead"]);
}

#[test]
fn a_journal_that_was_started_anew_is_found_again() {
    let scratch = Scratch::new();
    let path = scratch.0.join("journal");
    let first = UnixDatagram::bind(&path).unwrap();
    let log = scratch.log();
    log.record(record("alice"));
    assert!(log.flush(SOON));
    first.recv(&mut [0; 16]).unwrap();
    drop(first);
    fs::remove_file(&path).unwrap();
    let second = UnixDatagram::bind(&path).unwrap();
    second.set_read_timeout(Some(SOON)).unwrap();
    log.record(record("alice"));
    second.recv(&mut [0; 16]).unwrap();
}

#[test]
fn a_journal_that_reads_nothing_holds_nobody_and_what_it_loses_is_told() {
    let scratch = Scratch::new();
    let journal = UnixDatagram::bind(scratch.0.join("journal")).unwrap();
    let log = Log::open(Options { file: None, journal: Some(scratch.0.join("journal")) }).unwrap();
    for _ in 0..5000 {
        log.record(record("alice"));
    }
    assert!(log.flush(SOON), "the writer waits for the journal");
    let mut watcher = log.subscribe(None, Uid::ROOT).unwrap();
    log.record(record("alice"));
    let told = watcher.next_now().unwrap();
    assert_eq!(told.entry.record.event, Event::Lost);
    assert!(told.entry.json.contains("\"lost\":"));
    drop(journal);
}

/// A file that refuses what is written to it, as one on a full disk does; and a journal that takes all of it, and may yet
/// drop it.
#[test]
fn what_a_full_disk_does_not_take_is_counted_as_lost_whatever_the_journal_took() {
    let scratch = Scratch::new();
    let _journal = UnixDatagram::bind(scratch.0.join("journal")).unwrap();
    let refuses = Some(PathBuf::from("/proc/self/oom_score_adj"));
    let log = Log::open(Options { file: refuses, journal: Some(scratch.0.join("journal")) }).unwrap();
    let mut watcher = log.subscribe(None, Uid::ROOT).unwrap();
    for _ in 0..3 {
        log.record(record("alice"));
    }
    assert!(log.flush(SOON));
    log.record(record("alice"));
    assert!(log.flush(SOON));
    log.record(record("alice"));
    let told: Vec<u64> = std::iter::from_fn(|| watcher.next_now())
        .filter(|seen| seen.entry.record.event == Event::Lost)
        .map(|seen| serde_json::from_str::<Value>(&seen.entry.json).unwrap()["lost"].as_u64().unwrap())
        .collect();
    // Until it is in the file that they were lost, they are told of again, with those that came since.
    assert_eq!(told.last(), Some(&4), "{told:?}");
}

#[test]
fn a_slow_watcher_is_told_how_many_it_lost_and_holds_nobody() {
    let log = Log::open(Options { file: None, journal: None }).unwrap();
    let mut slow = log.subscribe(None, Uid::ROOT).unwrap();
    for _ in 0..3000 {
        log.record(record("alice"));
    }
    let mut seen = 0;
    while slow.next_now().is_some() {
        seen += 1;
    }
    log.record(record("bob"));
    let next = slow.next_now().unwrap();
    assert_eq!(next.lost + seen, 3000);
    assert!(next.lost > 0);
}

#[test]
fn a_watcher_of_one_caller_sees_no_others() {
    let log = Log::open(Options { file: None, journal: None }).unwrap();
    let mut own = log.subscribe(Uid::new(1000), Uid::new(1000).unwrap()).unwrap();
    log.record(record("alice"));
    log.record(Record::new(Event::ServiceStart));
    assert!(own.next_now().is_none());
    log.record(Record::new(Event::Decision).caller(Uid::new(1000).unwrap(), None, None));
    assert!(own.next_now().is_some());
}

#[test]
fn watchers_are_bounded_and_those_that_are_gone_make_room() {
    let log = Log::open(Options { file: None, journal: None }).unwrap();
    let all: Vec<_> = (0..64).map(|_| log.subscribe(None, Uid::ROOT).unwrap()).collect();
    assert!(log.subscribe(None, Uid::ROOT).is_err());
    drop(all);
    assert!(log.subscribe(None, Uid::ROOT).is_ok());
}

#[test]
fn one_user_has_a_few_watchers_and_all_users_together_none_of_roots() {
    let log = Log::open(Options { file: None, journal: None }).unwrap();
    let watch = |user: u32| log.subscribe(Uid::new(user), Uid::new(user).unwrap());
    let first: Vec<_> = (0..4).map(|_| watch(1000).unwrap()).collect();
    assert_eq!(watch(1000).unwrap_err(), TooMany(4));
    let others: Vec<_> = (0..60).map(|number| watch(2000 + number / 4).unwrap()).collect();
    assert_eq!(watch(3000).unwrap_err(), TooMany(64));
    let roots: Vec<_> = (0..64).map(|_| log.subscribe(None, Uid::ROOT).unwrap()).collect();
    drop((first, others));
    assert!(watch(3000).is_ok(), "root takes no place of theirs, either");
    drop(roots);
}

#[test]
fn after_the_file_was_moved_away_a_new_one_is_written() {
    let scratch = Scratch::new();
    let log = scratch.log();
    log.record(record("alice"));
    assert!(log.flush(SOON));
    fs::rename(scratch.0.join("audit.jsonl"), scratch.0.join("audit.jsonl.1")).unwrap();
    log.reopen();
    log.record(record("bob"));
    assert!(log.flush(SOON));
    assert_eq!(scratch.lines().len(), 1);
}

#[test]
fn the_last_records_are_written_before_the_log_is_gone() {
    let scratch = Scratch::new();
    let log = scratch.log();
    for _ in 0..500 {
        log.record(record("alice"));
    }
    drop(log);
    assert_eq!(scratch.lines().len(), 500);
}

#[test]
fn a_link_in_the_place_of_the_file_is_not_followed() {
    let scratch = Scratch::new();
    let elsewhere = scratch.0.join("elsewhere");
    fs::write(&elsewhere, "").unwrap();
    std::os::unix::fs::symlink(&elsewhere, scratch.0.join("audit.jsonl")).unwrap();
    let options = Options { file: Some(scratch.0.join("audit.jsonl")), journal: None };
    assert!(Log::open(options).is_err());
}

#[test]
fn very_long_arguments_are_cut_and_counted() {
    let record = record("alice").program("x".repeat(5000), vec!["y".repeat(900); 100]);
    assert!(record.program.as_ref().unwrap().as_str().ends_with('…'));
    assert_eq!(record.arguments.len() + record.arguments_left_out, 100);
    assert!(record.arguments.iter().map(|text| text.as_str().len()).sum::<usize>() <= 4096);
    let json = serde_json::to_string(&record).unwrap().len();
    assert!((json / 2..json * 2).contains(&record.size()), "{json} bytes, said to be {}", record.size());
}

#[test]
fn no_name_reads_as_more_of_a_record_than_a_name() {
    let forger = "root (uid 0): tcb, by /etc/stead/policy.toml:3, allowed";
    let message = record(forger).program("/bin/x, pid 1, by \"me\"", ["x"]).pid(7).to_string();
    let expected = "process-start ok: portal (uid 990) as \"root (uid 0): tcb, by /etc/stead/policy.toml:3, allowed\" \
                    (uid 1000): \"/bin/x, pid 1, by \\\"me\\\"\", pid 7";
    assert_eq!(message, expected);
}

/// Nothing that ends a line, moves a cursor, or changes the direction of what follows.
fn is_one_printable_line(text: &str) -> bool {
    let hidden = |c: char| {
        ('\u{200b}'..='\u{200f}').contains(&c)
            || ('\u{2028}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    text.chars().all(|c| !c.is_control() && !hidden(c))
}

proptest! {
    #[test]
    fn whatever_bytes_a_client_chooses_a_record_is_one_printable_line(
        name in proptest::collection::vec(any::<u8>(), 0..1500),
        argument in any::<String>(),
    ) {
        let text = Text::new(&name);
        prop_assert!(is_one_printable_line(text.as_str()));
        let record = record("alice").program(&name, [&argument]).detail(&argument).logon(&argument);
        let line = record.to_string();
        prop_assert!(is_one_printable_line(&line));
        let datagram = journal::datagram(&record, "{}");
        prop_assert_eq!(datagram.lines().filter(|line| line.starts_with("MESSAGE=")).count(), 1);
        for line in datagram.lines() {
            let (field, _) = line.split_once('=').unwrap();
            prop_assert!(field.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'));
        }
    }

    #[test]
    fn two_different_texts_never_look_alike(
        one in proptest::collection::vec(any::<u8>(), 0..20),
        other in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        prop_assert_eq!(one == other, Text::new(&one) == Text::new(&other));
    }
}
