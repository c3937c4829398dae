//! What was granted, written down before it is granted: one file for each grant, in a folder of ours.
//!
//! The holder keeps its record open, and lets nobody else write it: a record that can be opened for writing has no
//! holder any more. No number of a process is compared, for numbers are used again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::windows::fs::{MetadataExt, OpenOptionsExt};
use std::os::windows::io::{AsHandle, AsRawHandle};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

use windows_sys::Win32::Foundation::{ERROR_ALREADY_EXISTS, ERROR_SHARING_VIOLATION};
use windows_sys::Win32::Storage::FileSystem::{
    CreateDirectoryW, FILE_ATTRIBUTE_REPARSE_POINT, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_SHARE_READ, LOCKFILE_EXCLUSIVE_LOCK, LockFileEx,
};
use windows_sys::Win32::System::Com::CoTaskMemFree;
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::Win32::UI::Shell::{FOLDERID_ProgramData, SHGetKnownFolderPath};

use super::work::{Entry, Names};
use crate::sys::dacl::{Ace, AceKind, Dacl, Descriptor, FILE_ALL_ACCESS, INHERITED_BY_ALL};
use crate::sys::sid::Sid;
use crate::sys::thread_token::process_user;
use crate::sys::wide::{narrow, wide};

const HEADER: &str = "stead desktop lease 1";
const END: &str = "end";
const EXTENSION: &str = "lease";
const READ_CONTROL: u32 = 0x0002_0000;
/// FILE_WRITE_DATA, FILE_APPEND_DATA, FILE_WRITE_EA, FILE_DELETE_CHILD, FILE_WRITE_ATTRIBUTES (with which an empty
/// folder is made to lead elsewhere), DELETE, WRITE_DAC, WRITE_OWNER, and the generic ones that contain them.
const CHANGES: u32 = 0x156 | 0x1_0000 | 0x4_0000 | 0x8_0000 | 0x1000_0000 | 0x4000_0000;
const INHERIT_ONLY: u8 = 0x8;

/// What is written down of one grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// With its session.
    pub(super) names: Names,
    /// The entries, and how many equal ones were there before each.
    pub(super) entries: Vec<(Entry, usize)>,
}

impl Content {
    fn to_text(&self) -> io::Result<String> {
        let Names { session, station, desktop } = &self.names;
        let session = session.unwrap_or_default();
        let mut text = format!("{HEADER}\nsession {session}\nstation {station}\ndesktop {desktop}\n");
        for (entry, before) in &self.entries {
            text.push_str(&before.to_string());
            text.push(' ');
            text.push_str(&entry.to_words()?);
            text.push('\n');
        }
        text.push_str(END);
        text.push('\n');
        Ok(text)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.strip_suffix(END)?.lines();
        lines.next().filter(|line| *line == HEADER)?;
        let session = lines.next()?.strip_prefix("session ")?.parse().ok()?;
        let station = lines.next()?.strip_prefix("station ")?.to_owned();
        let desktop = lines.next()?.strip_prefix("desktop ")?.to_owned();
        let entry = |line: &str| {
            let mut words = line.split(' ');
            let before = words.next()?.parse().ok()?;
            let entry = Entry::parse(words.next()?, words.next()?)?;
            words.next().is_none().then_some((entry, before))
        };
        let entries = lines.map(entry).collect::<Option<_>>()?;
        Some(Self { names: Names { session: Some(session), station, desktop }, entries })
    }
}

/// A record that this server holds.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    file: File,
}

impl Record {
    /// Removes it: what it speaks of is undone. The caller has the folder locked.
    pub(super) fn remove(self) -> io::Result<()> {
        drop(self.file);
        fs::remove_file(self.path)
    }
}

/// A record whose holder is gone.
#[derive(Debug)]
pub(super) struct Leftover {
    path: PathBuf,
    /// `None` for one that was not written whole, and so was never acted upon.
    pub(super) content: Option<Content>,
}

impl Leftover {
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }
}

/// The folder, locked against every other server until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes it where it is not there, makes sure of whose it is, and waits for the others.
    pub(super) fn lock() -> io::Result<Self> {
        let path = program_data()?.join("stead");
        make(&path)?;
        let path = path.join("desktops");
        make(&path)?;
        let lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join("lock"))?;
        let mut overlapped = OVERLAPPED::default();
        // SAFETY: the handle is open and does not overlap, so that the call returns when the lock is had; the
        // structure outlives it. Closing the file unlocks it.
        let done = unsafe {
            LockFileEx(lock.as_raw_handle(), LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, &raw mut overlapped)
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { path, _lock: lock })
    }

    /// Writes a record, down to the disk.
    pub(super) fn write(&self, content: &Content) -> io::Result<Record> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let text = content.to_text()?;
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = self.path.join(format!("{}-{number}.{EXTENSION}", std::process::id()));
            // Others may read it, and may neither write nor delete it while it is open here.
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).share_mode(FILE_SHARE_READ);
            let mut file = match options.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()) {
                drop(file);
                let _ = fs::remove_file(path);
                return Err(error);
            }
            return Ok(Record { path, file });
        }
    }

    /// What is written down: by servers that run, and by those that are gone.
    pub(super) fn read(&self) -> io::Result<(Vec<Content>, Vec<Leftover>)> {
        let (mut held, mut left) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let mut options = OpenOptions::new();
            match options.read(true).write(true).share_mode(0).open(&path) {
                Ok(mut file) => {
                    let content = parse(&mut file)?;
                    left.push(Leftover { path, content });
                }
                Err(error) if is(&error, ERROR_SHARING_VIOLATION) => {
                    held.extend(parse(&mut File::open(&path)?)?);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((held, left))
    }
}

fn parse(file: &mut File) -> io::Result<Option<Content>> {
    let mut bytes = Vec::new();
    file.take(1 << 20).read_to_end(&mut bytes)?;
    Ok(std::str::from_utf8(&bytes).ok().and_then(Content::parse))
}

fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error() == Some(code.cast_signed())
}

/// Where programs keep what belongs to the machine; every user may create folders there.
fn program_data() -> io::Result<PathBuf> {
    let mut text = null_mut();
    // SAFETY: the identifier is a constant; null is the process's own user; `text` is written only by this call.
    let result = unsafe { SHGetKnownFolderPath(&FOLDERID_ProgramData, 0, null_mut(), &raw mut text) };
    let path = if result >= 0 && !text.is_null() {
        // SAFETY: on success it is a text that ends with NUL, and nobody else's.
        let units = unsafe {
            let mut length = 0;
            while *text.add(length) != 0 {
                length += 1;
            }
            std::slice::from_raw_parts(text, length)
        };
        Ok(PathBuf::from(narrow(units)))
    } else {
        Err(io::Error::from_raw_os_error(result))
    };
    // SAFETY: it came from SHGetKnownFolderPath, also where that failed, and is not used after this.
    unsafe { CoTaskMemFree(text.cast_const().cast()) };
    path
}

/// Creates a folder for the system, the administrators and the server's user alone; one that is there must be as
/// trustworthy, for anybody may have made it.
fn make(path: &Path) -> io::Result<()> {
    let own = process_user()?;
    let trusted = [Sid::LOCAL_SYSTEM, Sid::ADMINISTRATORS, own];
    let name = wide(path).ok_or(io::ErrorKind::InvalidInput)?;
    let all = |sid| Ace::allow(sid, FILE_ALL_ACCESS).with_flags(INHERITED_BY_ALL);
    let descriptor = Descriptor { owner: Some(own), dacl: Some(Dacl::new(trusted.map(all))) };
    let attributes = descriptor.to_attributes()?;
    let raw = attributes.raw();
    // SAFETY: the name ends with NUL; the attributes point into a value that outlives the call.
    if unsafe { CreateDirectoryW(name.as_ptr(), &raw const raw) } == 0 {
        let error = io::Error::last_os_error();
        if !is(&error, ERROR_ALREADY_EXISTS) {
            return Err(error);
        }
    }
    let mut options = OpenOptions::new();
    options
        .access_mode(READ_CONTROL | 0x80)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT);
    let folder = options.open(path)?;
    let found = folder.metadata()?;
    let strange = |what: &str| io::Error::other(format!("{} {what}", path.display()));
    if !found.is_dir() || found.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT != 0 {
        return Err(strange("is no folder"));
    }
    let Descriptor { owner, dacl } = Descriptor::of(folder.as_handle())?;
    if !owner.is_some_and(|owner| trusted.contains(&owner)) {
        return Err(strange("belongs to somebody else: remove it"));
    }
    let trusts = |ace: &Ace| {
        ace.kind() != AceKind::Allow
            || ace.mask() & CHANGES == 0
            || ace.flags() & INHERIT_ONLY != 0
            || ace.sid().is_some_and(|sid| trusted.contains(sid))
    };
    match dacl {
        Some(list) if list.entries().iter().all(trusts) => Ok(()),
        Some(list) => Err(strange(&format!("can be changed by others ({list}): remove it"))),
        None => Err(strange("can be changed by everybody: remove it")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::work::Object;
    use super::*;

    fn content() -> Content {
        let names = Names { session: Some(3), station: "winsta0".into(), desktop: "my desktop".into() };
        let entries = vec![
            (Entry { object: Object::Station, ace: Ace::allow(Sid::USERS, 1) }, 0),
            (Entry { object: Object::Desktop, ace: Ace::allow(Sid::USERS, 2) }, 7),
        ];
        Content { names, entries }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_or_not_at_all() {
        let text = content().to_text().unwrap();
        assert_eq!(Content::parse(&text), Some(content()));
        for end in 0..text.len() {
            assert_eq!(Content::parse(&text[..end]), None);
        }
    }

    #[test]
    fn a_record_has_a_holder_until_that_lets_it_go() {
        let folder = Folder::lock().unwrap();
        let mut own = content();
        // Unlike what other tests write.
        own.names.desktop = format!("record-test-{}", std::process::id());
        let record = folder.write(&own).unwrap();
        let count = |folder: &Folder| {
            let (held, left) = folder.read().unwrap();
            let held = held.iter().filter(|one| **one == own).count();
            (held, left.iter().filter(|one| one.content.as_ref() == Some(&own)).count())
        };
        assert_eq!(count(&folder), (1, 0));
        assert!(fs::remove_file(&record.path).is_err(), "nobody else removes it");
        drop(record);
        assert_eq!(count(&folder), (0, 1));
        for leftover in folder.read().unwrap().1 {
            if leftover.content.as_ref() == Some(&own) {
                leftover.remove().unwrap();
            }
        }
        assert_eq!(count(&folder), (0, 0));
    }
}
