//! A worker that is prepared for a logon before anybody logs on: PAM is started, its modules are loaded.
//!
//! Whether that is still what a start would find now is asked when somebody does: the administrator's changes hold
//! from the next logon on.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::log_on::Ready;
use crate::sys::account::AccountEntry;
use crate::sys::group;
use crate::sys::logon::PAM_DIRECTORIES;
use crate::sys::process::prepare_to_launch;
use crate::sys::token::{Gid, Uid};

/// The file that stands for a folder of services where there is none.
const PAM_FILE: &str = "/etc/pam.conf";
/// The service that has the modules which another lacks (pam.d(5)).
const OTHER: &str = "other";
/// Where the account database's own modules are named (nsswitch.conf(5)).
const NSS_FILE: &str = "/etc/nsswitch.conf";
/// No file has a longer name (NAME_MAX).
const LONGEST_NAME: usize = 255;

/// What says that a file is included (pam.d(5)).
const INCLUDES: [&[u8]; 3] = [b"include", b"substack", b"@include"];
/// Before Linux-PAM 1.7 the rest of a longer line is another one, also of a comment (`BUF_SIZE`, libpam/pam_handlers.c).
const LONGEST_LINE: usize = 1023;

/// PAM, started with a service, and what it was started from.
pub(super) struct Prepared {
    ready: Ready,
    configured: Vec<Seen>,
    loaded: Vec<Seen>,
}

/// A file or a folder as it was seen: whatever changes it, or puts another in its place, changes one of these.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    /// None where there is nothing of this name.
    as_it_was: Option<AsItWas>,
}

/// Device, inode and size; the seconds and nanoseconds of both times.
type AsItWas = ([u64; 3], [i64; 4]);

impl Seen {
    /// None where it cannot be told.
    fn now(path: PathBuf) -> Option<Self> {
        let as_it_was = match fs::metadata(&path) {
            Ok(status) => Some((
                [status.dev(), status.ino(), status.size()],
                [status.mtime(), status.mtime_nsec(), status.ctime(), status.ctime_nsec()],
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => return None,
        };
        Some(Self { path, as_it_was })
    }

    fn is_still(&self) -> bool {
        Self::now(self.path.clone()).as_ref() == Some(self)
    }
}

impl Prepared {
    /// Starts PAM; none where that fails, which the logon itself will say better, or where it could not be told later
    /// whether it is what would be started then.
    pub(super) fn start(service: &CStr, socket: &Rc<OwnedFd>) -> Option<Self> {
        // Seen before it is read: what changes in between counts as changed.
        let configured = configured(service, &PAM_DIRECTORIES)?;
        let ready = Ready::start(service, socket).ok()?;
        get_used();
        Some(Self { ready, configured, loaded: loaded()? })
    }

    /// What was started, unless it is not what would be started now.
    pub(super) fn still(self) -> Option<Ready> {
        let holds = self.configured.iter().chain(&self.loaded).all(Seen::is_still);
        holds.then_some(self.ready)
    }
}

/// Does what takes longer the first time than ever after: the account database reads its configuration, and looks for a
/// cache that it could ask; the trampoline is laid ready. What they say of a user is asked when there is one.
fn get_used() {
    let _ = AccountEntry::by_uid(Uid::ROOT);
    let _ = Gid::new(0).map(group::group_name);
    prepare_to_launch();
}

/// Everything that says which modules a service has; none where something else could say it, too.
///
/// What a file includes is named by a word of it. Each word of each file is taken for such a name, wherever it stands, and
/// a file that did not exist counts as soon as it does: then a folder has changed.
fn configured(service: &CStr, folders: &[&str]) -> Option<Vec<Seen>> {
    // pam_start folds the case before it looks (_pam_strCMP, libpam/pam_start.c).
    let service = OsStr::from_bytes(service.to_bytes()).to_ascii_lowercase();
    let mut seen = vec![Seen::now(PAM_FILE.into())?, Seen::now(NSS_FILE.into())?];
    let mut files: Vec<PathBuf> = vec![PAM_FILE.into()];
    for folder in folders {
        seen.push(Seen::now(folder.into())?);
        files.extend([service.as_os_str(), OTHER.as_ref()].map(|name| Path::new(folder).join(name)));
    }
    let mut known: BTreeSet<PathBuf> = files.iter().cloned().collect();
    while let Some(file) = files.pop() {
        let now = Seen::now(file.clone())?;
        if now.as_it_was.is_none() {
            continue;
        }
        seen.push(now);
        let text = fs::read(&file).ok()?;
        if leads_elsewhere(&text) {
            return None;
        }
        // libpam ends a line, and the word in it, at a `#`.
        let words = text.split(|byte| byte.is_ascii_whitespace() || *byte == b'#');
        for word in words.flat_map(|word| word.split(|byte| b"[]=\\".contains(byte)).chain([word])) {
            if word.is_empty() || word.len() > LONGEST_NAME || word.contains(&b'/') {
                continue;
            }
            for folder in folders {
                let path = Path::new(folder).join(OsStr::from_bytes(word));
                if !known.contains(&path) && path.is_file() {
                    known.insert(path.clone());
                    files.push(path);
                }
            }
        }
    }
    Some(seen)
}

/// Whether a file of the configuration includes one that is in none of PAM's folders, or further down in one.
///
/// A line ends at a `#`, and goes on where its end is escaped. Whether a comment in between is passed over or ends it differs
/// from one libpam to another (`_pam_assemble_line`, `_pam_line_assemble`), so the next word counts as what is included,
/// wherever it stands.
fn leads_elsewhere(text: &[u8]) -> bool {
    let mut includes = false;
    for line in text.split(|byte| *byte == b'\n') {
        if line.len() >= LONGEST_LINE {
            return true;
        }
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii_end();
        let line = line.strip_suffix(b"\\").unwrap_or(line);
        for word in line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            if includes && word.contains(&b'/') {
                return true;
            }
            includes = INCLUDES.iter().any(|one| word.eq_ignore_ascii_case(one));
        }
    }
    false
}

/// The programs and libraries in this process's memory, the folders that they were found in, and what says where else
/// they could be found; none where one is not there any more.
fn loaded() -> Option<Vec<Seen>> {
    let maps = fs::read("/proc/self/maps").ok()?;
    let mut paths: Vec<PathBuf> = LOADERS.iter().map(PathBuf::from).collect();
    for path in maps.split(|byte| *byte == b'\n').filter_map(of_file) {
        if path.as_os_str().as_bytes().ends_with(DELETED) {
            return None;
        }
        paths.extend([Some(path), path.parent()].into_iter().flatten().map(Path::to_owned));
    }
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().map(Seen::now).collect()
}

/// What follows the name of a file that is there no more (proc_pid_maps(5)).
const DELETED: &[u8] = b" (deleted)";
/// What the dynamic linker reads (ld.so(8)).
const LOADERS: [&str; 2] = ["/etc/ld.so.cache", "/etc/ld.so.preload"];

/// The file of one line of a process's mappings (proc_pid_maps(5)).
fn of_file(line: &[u8]) -> Option<&Path> {
    let mut rest = line;
    for _ in 0..5 {
        let end = rest.iter().position(|byte| *byte == b' ')?;
        rest = &rest[end + 1..];
    }
    let path = rest.trim_ascii_start();
    path.starts_with(b"/").then(|| Path::new(OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_mapping_is_found_whatever_its_name_is() {
        let line =
            b"7f0000000000-7f0000010000 r-xp 00000000 fe:00 47                     /lib/x with  spaces.so";
        assert_eq!(of_file(line), Some(Path::new("/lib/x with  spaces.so")));
        let nothing: [&[u8]; 3] = [
            b"",
            b"7ffd00000000-7ffd00010000 r-xp 00000000 00:00 0                          [vdso]",
            b"7ffd00000000-7ffd00010000 rw-p 00000000 00:00 0 ",
        ];
        assert!(nothing.into_iter().all(|line| of_file(line).is_none()));
    }

    #[test]
    fn what_this_process_has_loaded_is_found_and_unchanged() {
        let program = std::env::current_exe().unwrap();
        let loaded = loaded().expect("nobody replaces what the tests run");
        assert!(loaded.iter().any(|seen| seen.path == program), "{loaded:?}");
        assert!(loaded.iter().any(|seen| seen.path == program.parent().unwrap()), "{loaded:?}");
        assert!(loaded.iter().any(|seen| seen.path.ends_with("ld.so.cache")));
    }

    #[test]
    fn a_file_that_was_written_or_replaced_is_another() {
        let folder = std::env::temp_dir().join(format!("stead-seen-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("service");
        fs::write(&path, "one").unwrap();
        let seen = Seen::now(path.clone()).unwrap();
        assert!(seen.is_still());
        // Of the same size, at a time that an administrator could have set back.
        fs::write(&path, "two").unwrap();
        fs::File::open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert!(!seen.is_still());
        let seen = Seen::now(path.clone()).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!seen.is_still());
        // What is not there is seen as that; what cannot be looked at is not.
        let nothing = Seen::now(path.clone()).unwrap();
        assert!(nothing.is_still());
        fs::write(&path, "three").unwrap();
        assert!(!nothing.is_still());
        assert!(Seen::now(path.join("below a file")).is_none());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_configuration_that_includes_what_is_elsewhere_is_told_apart() {
        let leads = |text: &str| leads_elsewhere(text.as_bytes());
        for plain in [
            "@include common-auth\nauth include system-auth\nauth\tsubstack system-auth\n",
            "# @include /etc/other\nauth required /lib/security/pam_x.so include\n",
            "session optional pam_exec.so /usr/bin/include\n",
            "@include common-auth#/etc/other\n",
            "",
        ] {
            assert!(!leads(plain), "{plain}");
        }
        for elsewhere in [
            "@include /etc/other/common\n",
            "auth required pam_x.so\nauth include /etc/other/common\n",
            "auth SUBSTACK below/common\n",
            "auth \\\n include \\\n /etc/other\n",
            "# a comment is not continued \\\n@include /etc/other\n",
            "auth \\\n# nor does it end this \\\ninclude /etc/other\n",
            &format!("#{}\n", " ".repeat(1021) + "@include /etc/other"),
            "-auth [default=ignore] include ../x\n".replace("[default=ignore] ", "").as_str(),
        ] {
            assert!(leads(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn what_a_service_includes_however_deep_is_of_its_configuration_and_what_none_includes_is_not() {
        let top = std::env::temp_dir().join(format!("stead-configured-{}", std::process::id()));
        let folders = ["etc", "vendor", "missing"].map(|name| top.join(name));
        let write =
            |folder: usize, name: &str, text: &str| fs::write(folders[folder].join(name), text).unwrap();
        for folder in &folders[..2] {
            fs::create_dir_all(folder).unwrap();
        }
        write(0, "service", "@include one#of/many\nauth \\\n  include two\n");
        write(1, "one", "auth substack [three]\n# not continued \\\n@include a=b\n");
        write(0, "a=b", "");
        write(0, "two", "auth required pam_x.so\n");
        // The one before it is taken; that it is there could change.
        write(1, "two", "auth required pam_y.so\n");
        write(1, "three", "auth include service\n");
        write(1, "other", "auth required pam_deny.so\n");
        write(0, "unrelated", "auth required pam_permit.so\n");
        let places = folders.each_ref().map(|folder| folder.to_str().unwrap());
        let names = |seen: &[Seen]| {
            let of_ours = seen.iter().filter_map(|seen| seen.path.strip_prefix(&top).ok());
            let mut names: Vec<String> = of_ours.map(|path| path.to_str().unwrap().to_owned()).collect();
            names.sort_unstable();
            names
        };
        let seen = configured(c"SERVICE", &places).unwrap();
        let all =
            "etc etc/a=b etc/service etc/two missing vendor vendor/one vendor/other vendor/three vendor/two"
                .split(' ');
        assert_eq!(names(&seen), all.collect::<Vec<_>>());
        let is_still = |seen: &[Seen]| seen.iter().all(Seen::is_still);
        assert!(is_still(&seen));
        write(0, "unrelated", "auth required pam_deny.so\n");
        assert!(is_still(&seen));
        write(1, "three", "auth required pam_deny.so\n");
        assert!(!is_still(&seen));
        let seen = configured(c"service", &places).unwrap();
        // What comes before another of its name.
        write(0, "one", "auth required pam_deny.so\n");
        assert!(!is_still(&seen));
        let seen = configured(c"service", &places).unwrap();
        fs::create_dir(&folders[2]).unwrap();
        assert!(!is_still(&seen));
        write(1, "three", "auth include /etc/elsewhere\n");
        assert_eq!(configured(c"service", &places), None);
        fs::remove_dir_all(&top).unwrap();
    }
}
