//! Where records go.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Mode, OFlags};
use serde::Serialize;
use stead::os::linux::Uid;

use super::journal::{self, Journal};
use super::record::{Event, Record};
use super::subscription::{Entry, Subscription, TooMany, Watchers};
use super::time::rfc3339;

/// Records that wait for the disk; what comes when it is full is lost, and counted.
const MOST_WAITING: usize = 8192;
/// For administrators: root and its group may read it.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP);

/// Where records go besides to watchers.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file of JSON lines; none is written where this is `None`.
    pub file: Option<PathBuf>,
    /// The journal's socket; nothing is sent where this is `None`, or where nothing listens.
    pub journal: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { file: None, journal: Some(journal::SOCKET.into()) }
    }
}

/// The audit log. Clones write to the same.
#[derive(Debug, Clone)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` once it is being closed.
    to_writer: Option<SyncSender<Order>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    watchers: Watchers,
    sequence: AtomicU64,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Order {
    Write(Arc<Entry>),
    Reopen,
    Flushed(SyncSender<()>),
}

/// A record with its number and moment.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    #[serde(flatten)]
    record: &'a Record,
}

impl Log {
    /// Opens the log.
    ///
    /// # Errors
    ///
    /// Why the file cannot be opened or its writer not be started. That the journal cannot be reached is none.
    pub fn open(options: Options) -> io::Result<Self> {
        let file = options.file.as_deref().map(open_file).transpose()?;
        let (to_writer, orders) = sync_channel(MOST_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let mut writer = Writer {
            journal: options.journal.as_deref().and_then(Journal::connect),
            options,
            file,
            torn: false,
            lost: lost.clone(),
        };
        let thread = std::thread::Builder::new().name("audit".to_owned());
        let writer = Mutex::new(Some(thread.spawn(move || writer.run(&orders))?));
        let (watchers, sequence) = Default::default();
        Ok(Self(Arc::new(Inner { to_writer: Some(to_writer), writer, watchers, sequence, lost })))
    }

    /// Writes one record. It waits for nobody: a record for which there is no room is lost, and that is recorded.
    pub fn record(&self, record: Record) {
        let inner = &self.0;
        let lost = inner.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let detail = format!("{lost} records were lost: the disk is full or too slow, or the journal is");
            self.put(Record::new(Event::Lost).detail(&detail), Some(lost));
        }
        self.put(record, None);
    }

    fn put(&self, record: Record, lost: Option<u64>) {
        let inner = &self.0;
        let sequence = inner.sequence.fetch_add(1, Ordering::Relaxed);
        let line = Line { time: rfc3339(SystemTime::now()), sequence, lost, record: &record };
        // Nothing in a record can fail to be JSON.
        let json = serde_json::to_string(&line).unwrap_or_default();
        let weight = lost.unwrap_or(1);
        let entry = Arc::new(Entry { record, json, weight });
        inner.watchers.tell(&entry);
        let sent =
            inner.to_writer.as_ref().is_some_and(|writer| writer.try_send(Order::Write(entry)).is_ok());
        if !sent {
            inner.lost.fetch_add(weight, Ordering::Relaxed);
        }
    }

    /// The records from now on: all of them, or those that `only` asked for. The watcher counts for `counted`.
    ///
    /// # Errors
    ///
    /// [`TooMany`] watchers.
    pub fn subscribe(&self, only: Option<Uid>, counted: Uid) -> Result<Subscription, TooMany> {
        self.0.watchers.add(only, counted)
    }

    /// Opens the file anew: after it was moved away (logrotate).
    pub fn reopen(&self) {
        if let Some(writer) = &self.0.to_writer {
            let _ = writer.try_send(Order::Reopen);
        }
    }

    /// Waits until what was recorded so far is written, at most this long; says whether it is.
    pub fn flush(&self, at_most: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        let asked =
            self.0.to_writer.as_ref().is_some_and(|writer| writer.try_send(Order::Flushed(done)).is_ok());
        asked && wait.recv_timeout(at_most).is_ok()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer ends with the last record that waits for it.
        self.to_writer = None;
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        drop(writer.map(JoinHandle::join));
    }
}

/// The thread that waits for disks, so that nobody else does.
struct Writer {
    options: Options,
    file: Option<File>,
    journal: Option<Journal>,
    /// A line's end is missing in the file.
    torn: bool,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(&mut self, orders: &Receiver<Order>) {
        for order in orders {
            match order {
                Order::Write(entry) => self.write(&entry),
                Order::Reopen => self.reopen(),
                Order::Flushed(done) => drop(done.send(())),
            }
        }
    }

    fn write(&mut self, entry: &Entry) {
        let in_file = self.file.as_mut().map(|file| {
            // One call for one line: records of two services in one file do not mix.
            let line = if self.torn { format!("\n{}\n", entry.json) } else { format!("{}\n", entry.json) };
            let written = file.write_all(line.as_bytes());
            self.torn = written.is_err();
            written.is_ok()
        });
        let in_journal = self.in_journal(entry);
        // Where there is a file it has all of them. What the journal took it may still drop, of whomever it has too many from
        // (RateLimitBurst= in journald.conf(5)).
        if in_file.or(in_journal) == Some(false) {
            self.lost.fetch_add(entry.weight, Ordering::Relaxed);
        }
    }

    /// Whether the journal took it; `None` where there is none. One that was started anew is found again.
    fn in_journal(&mut self, entry: &Entry) -> Option<bool> {
        let path = self.options.journal.as_deref()?;
        if self.journal.as_ref().is_some_and(|journal| journal.write(&entry.record, &entry.json)) {
            return Some(true);
        }
        self.journal = Journal::connect(path);
        self.journal.as_ref().map(|journal| journal.write(&entry.record, &entry.json))
    }

    fn reopen(&mut self) {
        let Some(path) = &self.options.file else { return };
        match open_file(path) {
            Ok(file) => (self.file, self.torn) = (Some(file), false),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the audit file cannot be opened anew; the old one is kept");
            }
        }
    }
}

/// The file of JSON lines, made where it is not there. A link is not followed, and what is no file is refused.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, FILE_MODE)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the audit file is no regular file"));
    }
    Ok(File::from(file))
}
