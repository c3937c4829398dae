//! Logon gids: a gid of its own for each logon session that asks for one.
//!
//! A user can keep a gid alive for ever in a set-group-ID file, so no gid is ever given out twice: the counter
//! is on disk, with its directory entry, before the gid is used, it never goes back, and a damaged or missing
//! counter is an error, not a new beginning.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::fs;
use std::io::{self, Read, Write};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::sys::subordinate;

const COUNTER: &str = "logon-gid";
const NEW_COUNTER: &str = "logon-gid.new";
/// Says that there has been a counter, so that its loss is noticed.
const MARKER: &str = "logon-gid.in-use";
/// Whoever allocates holds a lock on it. Not on the directory, which others may be allowed to open, and so to
/// lock for as long as they like.
const LOCK: &str = "logon-gid.lock";
const PREFIX: &str = "stead logon gid 1, next ";

/// Takes the next gid of `range`; the counter in `directory` is past it when this returns.
pub(super) fn allocate(directory: &CStr, range: RangeInclusive<u32>) -> Result<u32, String> {
    let outside = ids_in_namespace()?;
    let subordinate = subordinate_ranges(&lines_of("/etc/subgid")?)?;
    let primary = primary_gids(&lines_of("/etc/passwd")?);
    let taken = |gid| match crate::sys::account::group_exists(gid) {
        Ok(exists) => Ok(exists || primary.contains(&gid)),
        Err(error) => Err(format!("whether the gid {gid} is a group's cannot be told: {error}")),
    };
    allocate_checked(directory, range, &outside, &subordinate, &taken)
}

/// A file of accounts: bytes, for names may be in any encoding. Only one that is not there is empty.
fn lines_of(path: &str) -> Result<Vec<u8>, String> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found.map_err(|error| format!("{path}: {error}")),
    }
}

fn allocate_checked(
    directory: &CStr,
    range: RangeInclusive<u32>,
    mapped: &[RangeInclusive<u32>],
    subordinate: &[RangeInclusive<u32>],
    taken: &dyn Fn(u32) -> Result<bool, String>,
) -> Result<u32, String> {
    let (first, last) = (*range.start(), *range.end());
    if first == 0 || first > last || last == u32::MAX {
        return Err(format!("the range of logon gids {first}..={last} is none"));
    }
    let store = Store::open(directory)?;
    let mut gid = store.read()?.map_or(first, |next| next.max(first));
    loop {
        if gid > last {
            return Err(format!("all logon gids of {first}..={last} have been given out; set another range"));
        }
        if !mapped.iter().any(|range| range.contains(&gid)) {
            let maps: Vec<String> =
                mapped.iter().map(|range| format!("{}..={}", range.start(), range.end())).collect();
            return Err(format!(
                "logon gid {gid} is not mapped in this user namespace; set a range of logon gids within {}",
                maps.join(", ")
            ));
        }
        if let Some(range) = subordinate.iter().find(|range| range.contains(&gid)) {
            // Below u32::MAX, as `subordinate::ranges` sees to.
            gid = range.end() + 1;
        } else if taken(gid)? {
            gid += 1;
        } else {
            break;
        }
    }
    store.write(gid + 1)?;
    Ok(gid)
}

/// The gids of accounts in a text like `/etc/passwd`: an account may have one that no group has.
fn primary_gids(text: &[u8]) -> Vec<u32> {
    let gid = |line: &[u8]| decimal(line.split(|byte| *byte == b':').nth(3)?);
    text.split(|byte| *byte == b'\n').filter_map(gid).collect()
}

fn decimal(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The gids that this user namespace has.
fn ids_in_namespace() -> Result<Vec<RangeInclusive<u32>>, String> {
    let text =
        fs::read_to_string("/proc/self/gid_map").map_err(|error| format!("/proc/self/gid_map: {error}"))?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
            let (first, _, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
            Some(first..=first.checked_add(count.checked_sub(1)?)?)
        })
        .collect())
}

/// The ranges of `/etc/subgid`. A line that is not understood here may be one to newgidmap(1), which then gives its gids away.
fn subordinate_ranges(text: &[u8]) -> Result<Vec<RangeInclusive<u32>>, String> {
    subordinate::ranges(text).collect::<Result<_, _>>().map_err(|place| {
        format!("line {place} of /etc/subgid is not understood: it must be NAME:FIRST:COUNT")
    })
}

/// The directory with the counter, and the lock that is held on it.
struct Store(OwnedFd, #[expect(dead_code, reason = "held until it is dropped")] OwnedFd);

impl Store {
    fn open(directory: &CStr) -> Result<Self, String> {
        let shown = directory.to_string_lossy();
        let fail = |what: &str, errno: Errno| format!("{shown}: {what}: {errno}");
        match rustix::fs::mkdir(directory, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fail("cannot be created", errno)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::empty())
            .map_err(|errno| fail("cannot be opened", errno))?;
        own(&opened, &shown)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let lock = rustix::fs::openat(&opened, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| fail("cannot be locked", errno))?;
        own(&lock, LOCK)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|errno| fail("cannot be locked", errno))?;
        Ok(Self(opened, lock))
    }

    /// The next gid; none where there has never been a counter.
    fn read(&self) -> Result<Option<u32>, String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.0, COUNTER, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => {
                return match rustix::fs::statat(&self.0, MARKER, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => Ok(None),
                    _ => Err("the counter of logon gids is missing though it has been in use".to_owned()),
                };
            }
            Err(errno) => return Err(format!("the counter of logon gids cannot be opened: {errno}")),
        };
        own(&file, COUNTER)?;
        let mut text = String::new();
        let damaged = || "the counter of logon gids is damaged".to_owned();
        fs::File::from(file).take(256).read_to_string(&mut text).map_err(|_| damaged())?;
        let next: u32 = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_suffix('\n'))
            .and_then(|number| number.parse().ok())
            .ok_or_else(damaged)?;
        // Only what `write` writes: no signs, no leading zeros.
        if text == format!("{PREFIX}{next}\n") { Ok(Some(next)) } else { Err(damaged()) }
    }

    /// Puts the counter on disk: contents, name and directory.
    fn write(&self, next: u32) -> Result<(), String> {
        self.try_write(next).map_err(|error| format!("the counter of logon gids cannot be written: {error}"))
    }

    fn try_write(&self, next: u32) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        // What a crash left behind was never the counter.
        match rustix::fs::unlinkat(&self.0, NEW_COUNTER, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut file = fs::File::from(rustix::fs::openat(&self.0, NEW_COUNTER, flags, mode)?);
        file.write_all(format!("{PREFIX}{next}\n").as_bytes())?;
        file.sync_all()?;
        rustix::fs::renameat(&self.0, NEW_COUNTER, &self.0, COUNTER)?;
        match rustix::fs::openat(&self.0, MARKER, flags, mode) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(rustix::fs::fsync(&self.0)?)
    }
}

/// The worker's own, and nobody else's to write.
fn own(file: &OwnedFd, name: &str) -> Result<(), String> {
    let status = rustix::fs::fstat(file).map_err(|errno| format!("{name}: {errno}"))?;
    if status.st_uid != rustix::process::geteuid().as_raw() {
        return Err(format!("{name} belongs to uid {}", status.st_uid));
    }
    if status.st_mode & 0o022 != 0 {
        return Err(format!("{name} can be written by others"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
