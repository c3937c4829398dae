//! What the service writes down to find it again after a restart: one small file for each session and process.
//!
//! It lies under `/run`, which is memory: a rename is all that a file needs to be whole. Until then it goes by another
//! name, by which the next run finds what was begun and not finished.

use std::fs::File;
use std::io::{self, Write};
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
        self.begin(name)?.finish(record)
    }

    /// Begins the record `name`, before there is anything to say: what it is of is under way from now on.
    pub(super) fn begin(&self, name: &str) -> io::Result<Unfinished<'_>> {
        let path = self.0.join(format!(".{name}"));
        let file = File::create(&path)?;
        Ok(Unfinished { folder: self, name: name.to_owned(), path, file })
    }

    /// The names of records that an earlier run began and did not finish. One that was being written anew is what it was.
    pub(super) fn unfinished(&self) -> Vec<String> {
        let mut begun = self.begun();
        begun.retain(|name| !self.0.join(format!("{name}.json")).exists());
        begun
    }

    /// Forgets them.
    pub(super) fn forget_unfinished(&self) {
        for name in self.begun() {
            let _ = std::fs::remove_file(self.0.join(format!(".{name}")));
        }
    }

    fn begun(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let name = |entry: std::fs::DirEntry| Some(entry.file_name().to_str()?.strip_prefix('.')?.to_owned());
        entries.filter_map(name).collect()
    }

    /// Removes the record `name`.
    pub(super) fn remove(&self, name: &str) {
        let _ = std::fs::remove_file(self.0.join(format!("{name}.json")));
    }

    /// The record `name`, if it was finished.
    pub(super) fn read<R: DeserializeOwned>(&self, name: &str) -> Option<R> {
        let text = std::fs::read(self.0.join(format!("{name}.json"))).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Every record that was finished; what is none is passed over, and removed.
    pub(super) fn read_all<R: DeserializeOwned>(&self) -> io::Result<Vec<R>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
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

/// A record that was begun; dropped, there is none.
#[derive(Debug)]
pub(super) struct Unfinished<'a> {
    folder: &'a Folder,
    name: String,
    path: PathBuf,
    file: File,
}

impl Unfinished<'_> {
    /// Writes it down.
    pub(super) fn finish(mut self, record: &impl Serialize) -> io::Result<()> {
        self.file.write_all(&serde_json::to_vec(record)?)?;
        std::fs::rename(&self.path, self.folder.0.join(format!("{}.json", self.name)))?;
        self.path.clear();
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.path);
        }
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
