//! What the service writes down to find it again after a restart: one small file for each session and process.
//!
//! It lies under `/run`, which is memory: a rename is all that a file needs to be whole.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A folder of records, root's own.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`, made where it is not there. Its parents may be looked into by others.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let found = std::fs::symlink_metadata(path)?;
        let own = rustix::process::geteuid().as_raw();
        if !found.is_dir() || found.uid() != own || found.mode() & 0o022 != 0 {
            let what = format!("{} can be written by others than the service", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        Ok(Self(path.to_owned()))
    }

    /// Writes the record `name`, in place of an earlier one.
    pub(super) fn write(&self, name: &str, record: &impl Serialize) -> io::Result<()> {
        let unfinished = self.0.join(format!(".{name}"));
        std::fs::write(&unfinished, serde_json::to_vec(record)?)?;
        std::fs::rename(unfinished, self.0.join(format!("{name}.json")))
    }

    /// Removes the record `name`.
    pub(super) fn remove(&self, name: &str) {
        let _ = std::fs::remove_file(self.0.join(format!("{name}.json")));
    }

    /// Every record; what is none is passed over, and removed.
    pub(super) fn read_all<R: DeserializeOwned>(&self) -> io::Result<Vec<R>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let path = entry?.path();
            match std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                Some(record) => records.push(record),
                None => {
                    let _ = std::fs::remove_file(path);
                }
            }
        }
        Ok(records)
    }
}

/// A new id, which nobody can guess.
pub(super) fn new_id() -> u64 {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        // Fails only before the kernel has any randomness, and then waits.
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    u64::from_ne_bytes(bytes)
}

/// An id as it is written.
pub(super) fn written(id: u64) -> String {
    format!("{id:016x}")
}

/// An id in exactly the form that it is written in.
pub(super) fn parsed(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok().filter(|id| written(*id) == text)
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
