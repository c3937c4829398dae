//! Reading what `/proc` says of a process: pure functions on bytes, and the few files they are for.
//!
//! The process that is read about may be hostile, and chooses its own name. The kernel escapes newlines in
//! `status` (`proc_task_name`, fs/proc/array.c); still nothing here rests on that: a key that stands there
//! twice is refused. `stat`, where the name is not escaped (CVE-2017-1000367), is never read.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::AsFd;

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use rustix::io::{read, retry_on_intr};
use rustix::process::Pid;

/// What of `/proc/PID/status` matters here, in the kernel's raw numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    /// The state's letter: `Z` and `X` are dead.
    pub(crate) state: u8,
    /// The process's id, as seen from the procfs instance's own PID namespace.
    pub(crate) tgid: u32,
    /// How many threads the process has, a first one that has ended among them; 0 of a thread that is just going.
    pub(crate) threads: usize,
    /// How many PID namespaces see it, from the procfs instance's own inwards (Linux 4.1).
    pub(crate) pid_namespaces: usize,
    /// Real, effective, saved and file system uid.
    pub(crate) uids: [u32; 4],
    /// Real, effective, saved and file system gid.
    pub(crate) gids: [u32; 4],
    /// The supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// The inheritable set.
    pub(crate) inheritable: u64,
    /// The permitted set.
    pub(crate) permitted: u64,
    /// The effective set.
    pub(crate) effective: u64,
    /// The bounding set.
    pub(crate) bounding: u64,
    /// The ambient set (Linux 4.3).
    pub(crate) ambient: u64,
    /// no_new_privs (Linux 4.10).
    pub(crate) no_new_privs: bool,
    /// The seccomp mode: 0 none, 1 strict, 2 filters; always 0 where the kernel has no seccomp.
    pub(crate) seccomp: u32,
    /// How many seccomp filters there are (Linux 5.9).
    pub(crate) seccomp_filters: Option<u32>,
}

impl Status {
    /// Whether the thread has ended.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// `/proc/PID/status` or `/proc/PID/task/TID/status`; `None` where it is not what the kernel writes.
pub(crate) fn parse_status(text: &[u8]) -> Option<Status> {
    Some(Status {
        state: *trim(required(text, b"State")?).first()?,
        tgid: decimal(trim(required(text, b"Tgid")?))?,
        threads: usize::try_from(decimal(trim(required(text, b"Threads")?))?).ok()?,
        pid_namespaces: numbers(required(text, b"NStgid")?).collect::<Option<Vec<u32>>>()?.len(),
        uids: four(required(text, b"Uid")?)?,
        gids: four(required(text, b"Gid")?)?,
        groups: numbers(required(text, b"Groups")?).collect::<Option<Vec<u32>>>()?,
        inheritable: hexadecimal(required(text, b"CapInh")?)?,
        permitted: hexadecimal(required(text, b"CapPrm")?)?,
        effective: hexadecimal(required(text, b"CapEff")?)?,
        bounding: hexadecimal(required(text, b"CapBnd")?)?,
        ambient: hexadecimal(required(text, b"CapAmb")?)?,
        no_new_privs: match trim(required(text, b"NoNewPrivs")?) {
            b"0" => false,
            b"1" => true,
            _ => return None,
        },
        seccomp: optional(text, b"Seccomp")?.map_or(Some(0), |value| decimal(trim(value)))?,
        seccomp_filters: match optional(text, b"Seccomp_filters")? {
            Some(value) => Some(decimal(trim(value))?),
            None => None,
        },
    })
}

/// A file with one decimal number; `/proc/PID/loginuid` has -1, "not set", as `u32::MAX`.
pub(crate) fn parse_number(text: &[u8]) -> Option<u32> {
    decimal(trim(text))
}

/// Whether `/proc/PID/uid_map` or `gid_map` is that of the initial namespace: every id, to itself.
pub(crate) fn maps_every_id(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !trim(line).is_empty());
    let Some(line) = lines.next() else { return false };
    let fields: Option<Vec<u32>> = numbers(line).collect();
    lines.next().is_none() && fields.as_deref() == Some(&[0, 0, u32::MAX])
}

/// The `pos`, `flags`, `mnt_id`, `Pid` lines of `/proc/self/fdinfo/N`: the value of one.
pub(crate) fn parse_fdinfo(text: &[u8], key: &[u8]) -> Option<i64> {
    std::str::from_utf8(trim(required(text, key)?)).ok()?.parse().ok()
}

/// When a process started, by its `/proc/PID/stat`.
pub(crate) fn parse_start_time(stat: &[u8]) -> Option<u64> {
    stat_field(stat, 22)
}

/// Its controlling terminal: major and minor number, as the kernel packs them (`new_encode_dev` in linux/kdev_t.h).
pub(crate) fn parse_terminal(stat: &[u8]) -> Option<(u32, u32)> {
    let packed = u32::try_from(stat_field(stat, 7)?).ok().filter(|packed| *packed != 0)?;
    Some(((packed >> 8) & 0xfff, (packed & 0xff) | ((packed >> 12) & 0xf_ff00)))
}

/// Its scheduling policy.
pub(crate) fn parse_policy(stat: &[u8]) -> Option<u64> {
    stat_field(stat, 41)
}

/// A field of `/proc/PID/stat` by its number in proc_pid_stat(5), counted after the last parenthesis: the name may contain
/// anything (CVE-2017-1000367).
fn stat_field(stat: &[u8], number: usize) -> Option<u64> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(&stat[after_name..]).ok()?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// The parent in `/proc/PID/status`, from the one line that no process can write.
pub(crate) fn parse_parent(status: &[u8]) -> Option<i32> {
    i32::try_from(decimal(trim(required(status, b"PPid")?))?).ok()
}

/// The children of a process: of each of its threads (`CONFIG_PROC_CHILDREN`).
pub(crate) fn children_of(pid: Pid) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read_to_string(task?.path().join("children")) {
            Ok(list) => {
                found.extend(list.split_ascii_whitespace().filter_map(|word| word.parse::<i32>().ok()));
            }
            // The thread has ended; `ESRCH` where it did so between open and read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The value after `key:`, where the key stands there exactly once.
fn required<'text>(text: &'text [u8], key: &[u8]) -> Option<&'text [u8]> {
    optional(text, key)?
}

/// The same for a key that older kernels lack: `Some(None)` without it, `None` when it is there twice.
#[expect(clippy::option_option, reason = "missing, and there twice, are different answers")]
fn optional<'text>(text: &'text [u8], key: &[u8]) -> Option<Option<&'text [u8]>> {
    let mut values =
        text.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(key)?.strip_prefix(b":"));
    let value = values.next();
    values.next().is_none().then_some(value)
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

fn numbers(text: &[u8]) -> impl Iterator<Item = Option<u32>> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(decimal)
}

fn four(text: &[u8]) -> Option<[u32; 4]> {
    let all: Option<Vec<u32>> = numbers(text).collect();
    all?.try_into().ok()
}

/// Digits only: `u32::from_str` would take a sign too.
fn decimal(word: &[u8]) -> Option<u32> {
    if !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn hexadecimal(text: &[u8]) -> Option<u64> {
    let word = trim(text);
    if !word.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()
}

/// Reads a whole file of procfs below `directory`; these are small and of no known length, which `read_to_end` of std's
/// would ask for.
pub(crate) fn read_at(directory: impl AsFd, path: &str) -> io::Result<Vec<u8>> {
    let file = rustix::fs::openat(directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::with_capacity(2048);
    while retry_on_intr(|| read(&file, spare_capacity(&mut text)))? > 0 {
        text.reserve(1);
    }
    Ok(text)
}

/// What [`io::ErrorKind::InvalidData`] is for: procfs wrote what no kernel writes.
pub(crate) fn malformed(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not what the kernel writes"))
}

#[cfg(test)]
mod tests;
