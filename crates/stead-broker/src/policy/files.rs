//! The policy's files: found, checked for whose they are, and read.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::error::{Place, PolicyError, PolicyErrors};
use super::names::Names;
use super::{Policy, parse};

/// Where the policy is, unless something else is said.
pub const DEFAULT_FOLDER: &str = "/etc/stead";

/// No policy file is larger.
const LARGEST_FILE: u64 = 1 << 20;
/// No drop-in folder has more files.
const MOST_FILES: usize = 256;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A link is refused, and a FIFO does not hold the service.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Reads all of the policy below `folder`.
pub(super) fn load(folder: &Path, names: &dyn Names) -> Result<Policy, PolicyErrors> {
    let mut policy = Policy::default();
    let mut errors = Vec::new();
    for (path, text) in texts(folder, &mut errors) {
        let file = path.display().to_string();
        parse::add(&mut policy, &file, &text, names, &mut errors);
        policy.files.push(file);
    }
    if errors.is_empty() { Ok(policy) } else { Err(PolicyErrors::new(errors)) }
}

fn texts(folder: &Path, errors: &mut Vec<PolicyError>) -> Vec<(PathBuf, String)> {
    let mut texts = Vec::new();
    let Some(folder_fd) = open_folder(folder, errors) else { return texts };
    read(&folder_fd, folder, "policy.toml".as_ref(), true, errors, &mut texts);
    let drop_ins = folder.join("policy.d");
    let Some(drop_ins_fd) = open_folder(&drop_ins, errors) else { return texts };
    match toml_files(&drop_ins_fd) {
        Ok(files) => {
            for file in files {
                read(&drop_ins_fd, &drop_ins, Path::new(&file), false, errors, &mut texts);
            }
        }
        Err(why) => errors.push(whole(&drop_ins, why)),
    }
    texts
}

/// A folder, with every folder above it: none of them may be anybody's but root's, but for `/` in a user namespace. `None`
/// where it is not there.
fn open_folder(folder: &Path, errors: &mut Vec<PolicyError>) -> Option<OwnedFd> {
    for above in folder.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        match rustix::fs::stat(above).map(|stat| distrust_above(above, &stat)) {
            Ok(None) => {}
            Ok(Some(why)) => {
                errors.push(whole(above, why));
                return None;
            }
            Err(Errno::NOENT) => return None,
            Err(error) => {
                errors.push(whole(above, format!("cannot be looked at: {error}")));
                return None;
            }
        }
    }
    let opened = match rustix::fs::open(folder, FOLDER, Mode::empty()) {
        Ok(opened) => opened,
        Err(Errno::NOENT) => return None,
        Err(error) => {
            errors.push(whole(folder, format!("cannot be opened: {error}")));
            return None;
        }
    };
    match rustix::fs::fstat(&opened).map(|stat| distrust(&stat)) {
        Ok(None) => Some(opened),
        Ok(Some(why)) => {
            errors.push(whole(folder, why));
            None
        }
        Err(error) => {
            errors.push(whole(folder, format!("cannot be looked at: {error}")));
            None
        }
    }
}

/// Why a folder above is not believed: in a sticky one like /tmp nobody can replace what is another's. For `/` an owner
/// outside of the user namespace will do, whoever it is: what the service itself runs is below it, too.
fn distrust_above(path: &Path, stat: &Stat) -> Option<String> {
    if path == Path::new("/") && stat.st_uid != 0 && root_is_an_outsiders(stat.st_uid) {
        return distrust_mode(stat, true);
    }
    distrust_owner(stat).or_else(|| distrust_mode(stat, true))
}

/// Whether `/`, shown as `owner`'s, belongs to somebody who has no id in this user namespace. Such owners are shown as the
/// overflow uid, and so is a user who has that very id here ("nobody"). Root can open as its owner would what is a mapped
/// user's, and only that (`inode_owner_or_capable` in the kernel: CAP_FOWNER reaches owners that are mapped).
fn root_is_an_outsiders(owner: u32) -> bool {
    const INITIAL: &str = "user:[4026531837]"; // PROC_USER_INIT_INO
    let elsewhere = std::fs::read_link("/proc/self/ns/user").is_ok_and(|link| link.as_os_str() != INITIAL);
    let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid");
    let no_owner = overflow.is_ok_and(|text| text.trim().parse() == Ok(owner));
    let as_its_owner = || rustix::fs::open("/", FOLDER | OFlags::NOATIME, Mode::empty());
    elsewhere && no_owner && matches!(as_its_owner(), Err(Errno::PERM))
}

/// Why this file or folder is not believed.
fn distrust(stat: &Stat) -> Option<String> {
    distrust_owner(stat).or_else(|| distrust_mode(stat, false))
}

fn distrust_owner(stat: &Stat) -> Option<String> {
    (stat.st_uid != 0).then(|| format!("belongs to uid {} and not to root: chown root", stat.st_uid))
}

fn distrust_mode(stat: &Stat, sticky_is_enough: bool) -> Option<String> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let sticky = sticky_is_enough && mode.contains(Mode::SVTX);
    if mode.intersects(Mode::WGRP | Mode::WOTH) && !sticky {
        return Some("others than root may write it: chmod go-w".to_owned());
    }
    None
}

/// The files of a drop-in folder that end in `.toml` and are not hidden, by name.
fn toml_files(folder: &OwnedFd) -> Result<Vec<OsString>, String> {
    let mut files = Vec::new();
    let entries = rustix::fs::Dir::read_from(folder).map_err(|error| format!("cannot be read: {error}"))?;
    for entry in entries {
        let entry = entry.map_err(|error| format!("cannot be read: {error}"))?;
        let name = entry.file_name().to_bytes();
        if name.ends_with(b".toml") && !name.starts_with(b".") {
            files.push(std::ffi::OsStr::from_bytes(name).to_owned());
        }
        if files.len() > MOST_FILES {
            return Err(format!("has more than {MOST_FILES} files"));
        }
    }
    files.sort();
    Ok(files)
}

fn read(
    folder: &OwnedFd,
    path: &Path,
    name: &Path,
    may_be_missing: bool,
    errors: &mut Vec<PolicyError>,
    texts: &mut Vec<(PathBuf, String)>,
) {
    let path = path.join(name);
    match read_one(folder, name) {
        Ok(Some(text)) => texts.push((path, text)),
        Ok(None) if may_be_missing => {}
        Ok(None) => errors.push(whole(&path, "went away while the policy was read".to_owned())),
        Err((why, offset)) => match offset {
            None => errors.push(whole(&path, why)),
            Some((text, offset)) => {
                let place = Place::at(&path.display().to_string(), &text, offset);
                errors.push(PolicyError { place, message: why });
            }
        },
    }
}

/// The text; `None` where there is no such file; else why, and where: the text up to there.
#[allow(clippy::type_complexity)] // The place is only known together with the text before it.
fn read_one(folder: &OwnedFd, name: &Path) -> Result<Option<String>, (String, Option<(String, usize)>)> {
    let file = match rustix::fs::openat(folder.as_fd(), name, FILE, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => {
            return Err((
                "is a symbolic link, which is not followed: put the file itself here".to_owned(),
                None,
            ));
        }
        Err(error) => return Err((format!("cannot be opened: {error}"), None)),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| (format!("cannot be looked at: {error}"), None))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(("is no regular file".to_owned(), None));
    }
    if let Some(why) = distrust(&stat) {
        return Err((why, None));
    }
    let mut bytes = Vec::new();
    let mut limited = File::from(file).take(LARGEST_FILE + 1);
    limited.read_to_end(&mut bytes).map_err(|error| (format!("cannot be read: {error}"), None))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err((format!("is larger than {LARGEST_FILE} bytes"), None));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            let offset = error.utf8_error().valid_up_to();
            let text =
                String::from_utf8_lossy(error.as_bytes().get(..offset).unwrap_or_default()).into_owned();
            Err(("is not UTF-8 from here on".to_owned(), Some((text, offset))))
        }
    }
}

fn whole(path: &Path, message: String) -> PolicyError {
    PolicyError { place: Place::whole(&path.display().to_string()), message }
}
