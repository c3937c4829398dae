//! What was granted, written down before it is granted, so that the next start can undo what a crash leaves.
//!
//! Each grant has a folder of its own under `/run/stead/desktops`, with an unguessable name, and in it the file
//! `record`, which nobody else can read. Whoever made it holds a lock (flock) on it for as long as he lives, in
//! whatever PID namespace; a record without a lock is a dead server's.
//!
//! The folder may also hold what the process needs (an authority file, a socket). Only who is named by its owner,
//! group or access list can enter it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, fsync, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};

const RUNTIME: &str = "/run/stead";
const DESKTOPS: &str = "/run/stead/desktops";
/// Held while records are made or looked through, never while anything is undone.
const LOCK: &str = ".lock";
const FILE: &str = "record";
/// The first line; another version's records are left alone.
const VERSION: &str = "stead desktop record 1";
/// No record is longer.
const LONGEST: u64 = 64 << 10;
const DOING: &str = "writing down what is granted on a desktop";

/// What a record says: names with values, which may hold any bytes.
pub(super) type Fields = BTreeMap<String, Vec<u8>>;

/// The record of one grant. Dropping it without [`remove`](Self::remove) leaves it to be swept.
#[derive(Debug)]
pub(super) struct Record {
    desktops: OwnedFd,
    name: String,
    folder: OwnedFd,
    file: File,
    fields: Fields,
}

impl Record {
    /// Makes a folder with a record that says this, on disk when it returns. The folder is the server's alone.
    pub(super) fn write(fields: Fields) -> Result<Self> {
        let desktops = desktops().map_err(failed)?;
        Self::try_write(desktops, fields).map_err(failed)
    }

    fn try_write(desktops: OwnedFd, fields: Fields) -> io::Result<Self> {
        let lock = lock(&desktops)?;
        let name = random_name()?;
        mkdirat(&desktops, &name, Mode::RWXU)?;
        let folder = open_folder(&desktops, &name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&folder, FILE, flags, Mode::RUSR | Mode::WUSR)?);
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        drop(lock);
        let mut record = Self { desktops, name, folder, file, fields: Fields::new() };
        record.append(&format!("{VERSION}\n"))?;
        record.update(fields)?;
        fsync(&record.folder)?;
        fsync(&record.desktops)?;
        Ok(record)
    }

    /// Says more, on disk when it returns. It is only ever appended to: what a crash cuts off is a line without its
    /// end, which does not count.
    pub(super) fn update(&mut self, fields: Fields) -> io::Result<()> {
        self.append(&print(&fields))?;
        self.fields.extend(fields);
        Ok(())
    }

    fn append(&mut self, lines: &str) -> io::Result<()> {
        self.file.seek(io::SeekFrom::End(0))?;
        self.file.write_all(lines.as_bytes())?;
        self.file.sync_all()
    }

    /// What it says.
    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// A field as text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.fields.get(name)?).ok()
    }

    /// The folder, to be opened to the trustee and filled.
    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Its path.
    pub(super) fn path(&self) -> PathBuf {
        Path::new(DESKTOPS).join(&self.name)
    }

    /// What it was for has been undone: takes the folder and everything in it away.
    pub(super) fn remove(self) -> io::Result<()> {
        remove(&self.desktops, &self.name, &self.folder)
    }
}

/// What a record that is somebody else's, or a dead server's, says.
fn read(file: &mut File) -> io::Result<Option<Fields>> {
    let mut text = String::new();
    match file.take(LONGEST).read_to_string(&mut text) {
        Ok(_) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

fn print(fields: &Fields) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for (name, value) in fields {
        text.push_str(name);
        text.push(' ');
        for byte in value {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

/// The whole lines; `None` for a record of another version. One that was cut off says less, never something else.
fn parse(text: &str) -> Option<Fields> {
    let rest = text.strip_prefix(VERSION)?;
    let rest = rest.strip_prefix('\n').or_else(|| rest.is_empty().then_some(""))?;
    let mut fields = Fields::new();
    for line in rest.split_inclusive('\n') {
        let Some((name, value)) = line.strip_suffix('\n').and_then(|line| line.split_once(' ')) else {
            break;
        };
        let Some(value) = unhex(value) else { break };
        fields.insert(name.to_owned(), value);
    }
    Some(fields)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| if let [high, low] = pair { Some(digit(*high)? << 4 | digit(*low)?) } else { None })
        .collect()
}

/// What every record says that is held by a living server, this one's among them.
pub(super) fn living() -> io::Result<Vec<Fields>> {
    let Some(desktops) = existing()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for name in names(&desktops)? {
        let Ok(folder) = open_folder(&desktops, &name) else { continue };
        let Ok(mut file) = open_record(&folder) else { continue };
        // Shared, so that two who look at once do not take each other for the holder.
        if flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK) {
            found.extend(read(&mut file)?);
        }
    }
    Ok(found)
}

/// The records of servers that are gone, each held by this one from now on. What was made in vain is removed.
pub(super) fn abandoned() -> io::Result<Vec<Record>> {
    let Some(desktops) = existing()? else { return Ok(Vec::new()) };
    let _lock = lock(&desktops)?;
    let mut found = Vec::new();
    for name in names(&desktops)? {
        let Ok(folder) = open_folder(&desktops, &name) else { continue };
        let mut file = match open_record(&folder) {
            Ok(file) => file,
            Err(Errno::NOENT) => {
                // Ended between the two steps: nothing was granted.
                remove(&desktops, &name, &folder)?;
                continue;
            }
            Err(errno) => return Err(errno.into()),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => continue,
            Err(errno) => return Err(errno.into()),
        }
        match read(&mut file)? {
            Some(fields) => {
                let desktops = desktops.try_clone()?;
                found.push(Record { desktops, name, folder, file, fields });
            }
            None if file.metadata()?.len() == 0 => remove(&desktops, &name, &folder)?,
            None => {
                tracing::warn!(%name, "a record of a desktop grant was written by another version: left alone");
            }
        }
    }
    Ok(found)
}

fn remove(desktops: &OwnedFd, name: &str, folder: &OwnedFd) -> io::Result<()> {
    // The record last: until then the rest is known to be ours.
    let mut inside = names(folder)?;
    inside.sort_by_key(|name| name == FILE);
    for name in inside {
        unlinkat(folder, &name, AtFlags::empty())?;
    }
    unlinkat(desktops, name, AtFlags::REMOVEDIR)?;
    Ok(())
}

fn names(folder: &OwnedFd) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        if let Ok(name) = entry?.file_name().to_str()
            && !matches!(name, "." | ".." | LOCK)
        {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

fn open_record(folder: &OwnedFd) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    openat(folder, FILE, flags, Mode::empty()).map(File::from)
}

fn open_folder(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn lock(desktops: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(desktops, LOCK, flags, Mode::RUSR | Mode::WUSR)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// The folder of all records: to be entered by everyone who knows a name in it, and read by nobody.
fn desktops() -> io::Result<OwnedFd> {
    for (path, mode) in [(RUNTIME, 0o755), (DESKTOPS, 0o711)] {
        match mkdirat(CWD, path, Mode::from_raw_mode(mode)) {
            // The server's umask may have taken bits away.
            Ok(()) => rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    existing()?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The same where it is there already; only as the server's own.
fn existing() -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for path in [RUNTIME, DESKTOPS] {
        let folder = match openat(CWD, path, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let status = rustix::fs::fstat(&folder)?;
        let own = rustix::process::geteuid().as_raw();
        let owner = status.st_uid == own || (path == RUNTIME && status.st_uid == 0);
        if !owner || status.st_mode & 0o022 != 0 {
            let what = format!("{path} can be written by others than the server");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        if path == DESKTOPS {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

fn failed(error: io::Error) -> Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Error::system(DOING, DESKTOPS, error);
    }
    let kind = ErrorKind::DesktopAccess {
        object: DESKTOPS.into(),
        why: "nothing is granted that cannot be written down before, in a folder that only the server can write".into(),
        mend: Some("run the server as root, or make /run/stead its own (RuntimeDirectory=stead in its unit)".into()),
    };
    Error::new(DOING, kind).with_source(error)
}

/// Any text; what is read is written and read again as the same.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(fields) = parse(text) {
        assert_eq!(parse(&format!("{VERSION}\n{}", print(&fields))), Some(fields));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written_and_cut_off_says_less(
            fields in proptest::collection::btree_map("[a-z]{1,8}", proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 0_usize..400,
        ) {
            let text = format!("{VERSION}\n{}", print(&fields));
            prop_assert_eq!(parse(&text), Some(fields.clone()));
            let cut = cut.min(text.len());
            if let Some(less) = parse(&text[..cut]) {
                prop_assert!(less.iter().all(|(name, value)| fields.get(name) == Some(value)));
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC*") {
            let _ = parse(&text);
            let _ = parse(&format!("{VERSION}\n{text}"));
        }
    }
}
