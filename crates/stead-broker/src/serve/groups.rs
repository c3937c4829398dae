//! Control groups (version 2) of the service's processes, below the one that was delegated to its unit.
//!
//! Each process has one of its own from its first instruction on, named after the process's id: whatever descends from
//! it is in there, and can be ended by one write, also by a later run of the service. What was not delegated is left
//! alone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use stead::LogonSession;
use stead::os::linux::{Cgroup, LogonSessionExt};

/// What a process's record says whose tree is held by such a group.
pub(super) const CONTAINMENT: &str = "cgroup";
/// Of the delegated group, the part that the service itself is in, and its session workers and helpers.
const SERVICE: &str = "service";
/// The part that the groups of processes are in.
const CLIENTS: &str = "clients";
/// Set to `1` on a group by systemd that is delegated; the second is for who may not see the first.
const DELEGATED: [&str; 2] = ["trusted.delegate", "user.delegate"];

/// All of them; none where no group was delegated to the service.
#[derive(Debug, Default)]
pub(super) struct Groups {
    clients: Option<Cgroup>,
    /// The service's own, as `/proc` names it.
    own: PathBuf,
    /// Those that no process is in yet.
    making: Mutex<BTreeSet<String>>,
}

/// The group of a process that is being created.
#[derive(Debug)]
pub(super) struct Making<'a> {
    groups: &'a Groups,
    clients: &'a Cgroup,
    name: String,
}

impl Groups {
    /// Below the group that was delegated to the service, if one was.
    pub(super) fn find() -> Self {
        let found = Place::find().and_then(|place| place.map(Self::at).transpose());
        match found {
            Ok(groups) => groups.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "processes get no control groups of their own");
                Self::default()
            }
        }
    }

    fn at(place: Place) -> io::Result<Self> {
        let own = if place.inside {
            place.own
        } else {
            // A systemd before 254 puts the service into the delegated group itself.
            let subgroup = made(&place.unit, SERVICE)?;
            std::fs::write(subgroup.join("cgroup.procs"), "0")?;
            place.own.join(SERVICE)
        };
        let path = made(&place.unit, CLIENTS)?;
        if !path.join("cgroup.kill").exists() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel has no cgroup.kill (Linux 5.14)",
            ));
        }
        let clients = Cgroup::delegated(&path).map_err(io::Error::other)?;
        tracing::info!(below = %path.display(), "processes get control groups of their own");
        Ok(Self { clients: Some(clients), own, making: Mutex::default() })
    }

    /// The group of a process that is being created under this id; none for one of a session that has a scope of its
    /// own: that is pam_systemd's.
    pub(super) fn making(&self, id: &str, session: Option<&LogonSession>) -> Option<Making<'_>> {
        let clients = self.clients.as_ref()?;
        let in_ours =
            |session: &LogonSession| session.cgroup().is_ok_and(|path| path.as_ref() == Some(&self.own));
        if !session.is_none_or(in_ours) {
            return None;
        }
        self.making.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
        Some(Making { groups: self, clients, name: id.to_owned() })
    }

    /// Ends every process in the group of this one, and removes it; none where there are no groups.
    pub(super) fn kill_tree(&self, id: &str) -> Option<stead::Result<()>> {
        Some(self.clients.clone()?.named(id).kill_tree().map(drop))
    }

    /// Whether anybody is left in the group of this process.
    pub(super) fn is_populated(&self, id: &str) -> bool {
        self.clients.clone().is_some_and(|clients| clients.named(id).is_populated().unwrap_or(true))
    }

    /// Removes the group of a process that has ended, unless others of its tree have not; whether it is gone.
    pub(super) fn remove(&self, id: &str) -> bool {
        let removed = self.clients.clone().map_or(Ok(true), |clients| clients.named(id).remove());
        removed.unwrap_or_else(|error| {
            tracing::warn!(%error, "the control group of a process could not be removed");
            false
        })
    }

    /// Removes the groups that nobody is in any more.
    pub(super) fn sweep(&self) {
        let Some(clients) = &self.clients else { return };
        for name in clients.names().unwrap_or_default() {
            let making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            if !making.contains(&name) {
                self.remove(&name);
            }
        }
    }
}

impl Making<'_> {
    pub(super) fn group(&self) -> Cgroup {
        self.clients.clone().named(&self.name)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.groups.making.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// Where the service is among the control groups.
#[derive(Debug)]
struct Place {
    /// The group that was delegated.
    unit: PathBuf,
    /// The service's own, as `/proc` names it.
    own: PathBuf,
    /// Whether the service is in a part of the delegated group already.
    inside: bool,
}

impl Place {
    fn find() -> io::Result<Option<Self>> {
        let text = std::fs::read("/proc/self/cgroup")?;
        let own = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
        let Some(own) = own.map(path) else { return Ok(None) };
        let Some(directory) = directory(&std::fs::read("/proc/self/mountinfo")?, &own) else {
            return Ok(None);
        };
        if is_delegated(&directory) {
            return Ok(Some(Self { unit: directory, own, inside: false }));
        }
        let unit = directory.parent().filter(|parent| is_delegated(parent)).map(Path::to_owned);
        Ok(unit.map(|unit| Self { unit, own, inside: true }))
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// Where the group `own` lies, by the mounts of this namespace.
fn directory(mounts: &[u8], own: &Path) -> Option<PathBuf> {
    // One outside of the namespace's root, or of what is mounted, is none that could be used.
    let within = |root: &Path| {
        let rest = own.strip_prefix(root).ok()?;
        rest.components().all(|part| matches!(part, std::path::Component::Normal(_))).then(|| rest.to_owned())
    };
    mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let kind = fields.iter().position(|field| *field == b"-").and_then(|dash| fields.get(dash + 1));
        if kind != Some(&b"cgroup2".as_slice()) {
            return None;
        }
        let (root, point) = (unescaped(fields.get(3)?), unescaped(fields.get(4)?));
        Some(point.join(within(&root)?))
    })
}

/// A path of `mountinfo`: spaces and the like are octal numbers there.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &behind[3..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    path(&bytes)
}

/// Whether a group was delegated to the service, and to nobody else.
fn is_delegated(directory: &Path) -> bool {
    let says = |name: &&str| {
        let mut value = [0; 2];
        matches!(rustix::fs::getxattr(directory, *name, &mut value), Ok(1)) && value[0] == b'1'
    };
    let own = rustix::process::geteuid().as_raw();
    let ours = |found: std::fs::Metadata| found.is_dir() && found.uid() == own && found.mode() & 0o022 == 0;
    std::fs::symlink_metadata(directory).is_ok_and(ours) && DELEGATED.iter().any(says)
}

/// A part of the delegated group, made where it is not there.
fn made(unit: &Path, name: &str) -> io::Result<PathBuf> {
    let path = unit.join(name);
    match std::fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"22 1 0:20 / /proc rw - proc proc rw\n\
        30 1 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn a_group_is_found_where_the_hierarchy_is_mounted() {
        let found = directory(MOUNTS, Path::new("/system.slice/stead.service/service")).unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/system.slice/stead.service/service"));
        let part = b"30 1 0:27 /system.slice /mnt/with\\040space rw - cgroup2 cgroup2 rw\n";
        let found = directory(part, Path::new("/system.slice/stead.service")).unwrap();
        assert_eq!(found, Path::new("/mnt/with space/stead.service"));
    }

    #[test]
    fn a_group_outside_of_what_is_mounted_is_not_taken() {
        assert_eq!(directory(MOUNTS, Path::new("/../stead.service")), None);
        let part = b"30 1 0:27 /user.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(directory(part, Path::new("/system.slice/stead.service")), None);
        assert_eq!(directory(b"22 1 0:20 / /proc rw - proc proc rw\n", Path::new("/")), None);
    }

    #[test]
    fn a_directory_that_nobody_delegated_is_left_alone() {
        assert!(!is_delegated(Path::new("/")));
        assert!(!is_delegated(Path::new("/nowhere")));
    }
}
