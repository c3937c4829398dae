//! A worker that is prepared for a logon before anybody logs on: PAM is started, its modules are loaded.
//!
//! Whether that is still what a start would find now is asked when somebody does: the administrator's changes hold
//! from the next logon on.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::log_on::Ready;
use crate::sys::logon::PAM_DIRECTORIES;

/// The file that stands for a folder of services where there is none.
const PAM_FILE: &str = "/etc/pam.conf";

/// PAM, started with a service, and what it was started from.
pub(super) struct Prepared {
    ready: Ready,
    service: CString,
    configured: Vec<Seen>,
    loaded: Vec<Seen>,
}

/// A file as it was seen: whatever changes it, or puts another in its place, changes one of these.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    /// Device, inode and size; the seconds and nanoseconds of both times.
    as_it_was: Option<[u64; 3]>,
    times: Option<[i64; 4]>,
}

impl Seen {
    fn now(path: PathBuf) -> Self {
        let status = fs::metadata(&path).ok();
        let as_it_was = status.as_ref().map(|status| [status.dev(), status.ino(), status.size()]);
        let times =
            status.map(|status| [status.mtime(), status.mtime_nsec(), status.ctime(), status.ctime_nsec()]);
        Self { path, as_it_was, times }
    }
}

impl Prepared {
    /// Starts PAM; none where that fails, which the logon itself will say better.
    pub(super) fn start(service: &CStr, socket: &Rc<OwnedFd>) -> Option<Self> {
        // Seen before it is read: what changes in between counts as changed.
        let configured = configured();
        let ready = Ready::start(service, socket).ok()?;
        Some(Self { ready, service: service.to_owned(), configured, loaded: loaded()? })
    }

    /// What was started, unless it is another service's, or not what would be started now.
    pub(super) fn for_service(self, service: &CStr) -> Option<Ready> {
        let same = |seen: &Seen| *seen == Seen::now(seen.path.clone());
        let holds =
            *self.service == *service && self.configured == configured() && self.loaded.iter().all(same);
        holds.then_some(self.ready)
    }
}

/// Everything that says which modules a service has: a service may include any other.
fn configured() -> Vec<Seen> {
    let entries = |folder: &&str| -> Vec<PathBuf> {
        fs::read_dir(folder)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    };
    let mut paths: Vec<PathBuf> = PAM_DIRECTORIES.iter().flat_map(entries).collect();
    paths.sort_unstable();
    paths.push(PAM_FILE.into());
    paths.into_iter().map(Seen::now).collect()
}

/// The programs and libraries in this process's memory; none where one is not the file of its name any more.
fn loaded() -> Option<Vec<Seen>> {
    let maps = fs::read("/proc/self/maps").ok()?;
    let mut files: Vec<(&Path, u64)> = maps.split(|byte| *byte == b'\n').filter_map(of_file).collect();
    files.sort_unstable();
    files.dedup();
    files
        .into_iter()
        .map(|(path, inode)| {
            let seen = Seen::now(path.to_owned());
            seen.as_it_was.is_some_and(|[_, now, _]| now == inode).then_some(seen)
        })
        .collect()
}

/// The file of one line of a process's mappings, and its inode (proc_pid_maps(5)).
fn of_file(line: &[u8]) -> Option<(&Path, u64)> {
    let mut rest = line;
    let mut fields = [&line[..0]; 5];
    for field in &mut fields {
        let end = rest.iter().position(|byte| *byte == b' ')?;
        (*field, rest) = (&rest[..end], &rest[end + 1..]);
    }
    let inode: u64 = std::str::from_utf8(fields[4]).ok()?.parse().ok()?;
    let path = rest.trim_ascii_start();
    (inode != 0 && path.starts_with(b"/")).then(|| (Path::new(OsStr::from_bytes(path)), inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_mapping_is_found_whatever_its_name_is() {
        let line =
            b"7f0000000000-7f0000010000 r-xp 00000000 fe:00 47                     /lib/x with  spaces.so";
        assert_eq!(of_file(line), Some((Path::new("/lib/x with  spaces.so"), 47)));
        let nothing: [&[u8]; 4] = [
            b"",
            b"7ffd00000000-7ffd00010000 r-xp 00000000 00:00 0                          [vdso]",
            b"7ffd00000000-7ffd00010000 rw-p 00000000 00:00 0 ",
            b"7ffd00000000-7ffd00010000 rw-p 00000000 00:00 x /lib/x",
        ];
        assert!(nothing.into_iter().all(|line| of_file(line).is_none()));
    }

    #[test]
    fn what_this_process_has_loaded_is_found_and_unchanged() {
        let program = std::env::current_exe().unwrap();
        let loaded = loaded().expect("nobody replaces what the tests run");
        assert!(loaded.iter().any(|seen| seen.path == program), "{loaded:?}");
        assert!(loaded.iter().all(|seen| *seen == Seen::now(seen.path.clone())));
    }

    #[test]
    fn a_file_that_was_written_or_replaced_is_another() {
        let folder = std::env::temp_dir().join(format!("stead-seen-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("service");
        fs::write(&path, "one").unwrap();
        let seen = Seen::now(path.clone());
        assert_eq!(seen, Seen::now(path.clone()));
        // Of the same size, at a time that an administrator could have set back.
        fs::write(&path, "two").unwrap();
        fs::File::open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_ne!(seen, Seen::now(path.clone()));
        let seen = Seen::now(path.clone());
        fs::remove_file(&path).unwrap();
        assert_ne!(seen, Seen::now(path));
        fs::remove_dir(&folder).unwrap();
    }
}
