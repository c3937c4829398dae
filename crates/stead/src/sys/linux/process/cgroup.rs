//! Control groups (version 2) below one that was delegated to the server.
//!
//! Reference: [cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html),
//! [the kernel's document](https://docs.kernel.org/admin-guide/cgroup-v2.html).
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstatfs, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::impersonate::as_server;

/// `CGROUP2_SUPER_MAGIC` of statfs(2).
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// What the names of our groups begin with, so that those a crash left behind are known.
const PREFIX: &str = "stead-";

/// Where processes get a control group of their own, and what each may use.
///
/// The group named must be one that was delegated to the server (systemd's `Delegate=`, with
/// `DelegateSubgroup=` so that the server itself is not in it). Each process created with it gets a
/// new group below, from its first instruction on (`CLONE_INTO_CGROUP`), which is removed when the
/// last process of its tree has gone.
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::os::linux::Cgroup;
/// let small = Cgroup::delegated("/sys/fs/cgroup/system.slice/portal.service/clients")?
///     .memory_max(512 << 20)
///     .pids_max(64);
/// # Ok(()) }
/// ```
#[doc(alias = "CreateJobObject")]
#[doc(alias = "AssignProcessToJobObject")]
#[doc(alias = "JOBOBJECT_EXTENDED_LIMIT_INFORMATION")]
#[derive(Debug, Clone)]
pub struct Cgroup {
    directory: Arc<OwnedFd>,
    path: Arc<Path>,
    memory: Option<u64>,
    cpu: Option<(Duration, Duration)>,
    pids: Option<u64>,
}

impl Cgroup {
    /// A control group below which processes get theirs.
    ///
    /// Groups of ours that a crash left empty below it are removed.
    ///
    /// # Errors
    /// `InvalidInput` when it is not a directory of a version 2 hierarchy, or lies within a session scope
    /// of pam_systemd, which belongs to that logon session; `AccessDenied` where nothing can be made in it.
    pub fn delegated(path: impl AsRef<Path>) -> Result<Self> {
        as_server(|| Self::open(path.as_ref()))
    }

    fn open(path: &Path) -> Result<Self> {
        let doing = || format!("using the control group {}", path.display());
        if let Some(scope) = session_scope(path) {
            let what = format!("{scope} was made by pam_systemd for a logon session; it is not delegated");
            return Err(Error::new(doing(), ErrorKind::InvalidInput { what: what.into() }));
        }
        let directory = openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::system(doing(), "open", errno))?;
        let filesystem = fstatfs(&directory).map_err(|errno| Error::system(doing(), "fstatfs", errno))?;
        if filesystem.f_type != CGROUP2_MAGIC {
            let what = "it is not in a control group hierarchy of version 2".into();
            return Err(Error::new(doing(), ErrorKind::InvalidInput { what }));
        }
        rustix::fs::accessat(&directory, "cgroup.procs", rustix::fs::Access::WRITE_OK, AtFlags::EACCESS)
            .map_err(|errno| {
                let object = format!("{}/cgroup.procs", path.display());
                Error::new(doing(), ErrorKind::AccessDenied { object }).with_source(errno)
            })?;
        sweep(&directory);
        Ok(Self { directory: Arc::new(directory), path: path.into(), memory: None, cpu: None, pids: None })
    }

    /// At most so many bytes of memory for the whole process tree (`memory.max`).
    #[must_use]
    pub fn memory_max(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// At most `quota` of processor time in each `period`, over all processors (`cpu.max`).
    #[must_use]
    pub fn cpu_max(mut self, quota: Duration, period: Duration) -> Self {
        self.cpu = Some((quota, period));
        self
    }

    /// At most so many processes and threads in the whole tree (`pids.max`).
    #[must_use]
    pub fn pids_max(mut self, number: u64) -> Self {
        self.pids = Some(number);
        self
    }

    /// Makes a group for one new process.
    pub(crate) fn create(&self, doing: &str) -> Result<ProcessCgroup> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let settings = self.settings();
        for controller in settings.iter().map(|setting| setting.controller) {
            self.need_controller(controller, doing)?;
        }
        let server = rustix::process::getpid();
        let name = loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{PREFIX}{}-{number}", server.as_raw_nonzero());
            match mkdirat(&self.directory, name.as_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) => break name,
                Err(Errno::EXIST) => {}
                Err(errno) => {
                    return Err(self.failed(doing, "mkdir", errno));
                }
            }
        };
        // From here on dropping it removes the directory again.
        let mut group = ProcessCgroup { parent: Arc::clone(&self.directory), name, directory: None };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = openat(&self.directory, group.name.as_str(), flags, Mode::empty())
            .map_err(|errno| self.failed(doing, "open", errno))?;
        for setting in &settings {
            write_file(directory.as_fd(), setting.file, &setting.value)
                .map_err(|errno| self.failed(doing, setting.file, errno))?;
        }
        group.directory = Some(directory);
        Ok(group)
    }

    fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        if let Some(bytes) = self.memory {
            settings.push(Setting { controller: "memory", file: "memory.max", value: bytes.to_string() });
        }
        if let Some((quota, period)) = self.cpu {
            let value = format!("{} {}", quota.as_micros(), period.as_micros());
            settings.push(Setting { controller: "cpu", file: "cpu.max", value });
        }
        if let Some(number) = self.pids {
            settings.push(Setting { controller: "pids", file: "pids.max", value: number.to_string() });
        }
        settings
    }

    /// Enables a controller for the groups below, where it was delegated.
    fn need_controller(&self, controller: &'static str, doing: &str) -> Result<()> {
        let has = |file: &'static str| -> Result<bool> {
            let list =
                read_file(self.directory.as_fd(), file).map_err(|errno| self.failed(doing, file, errno))?;
            Ok(list.split_ascii_whitespace().any(|name| name == controller))
        };
        if has("cgroup.subtree_control")? {
            return Ok(());
        }
        let refuse =
            |what: String| Err(Error::new(doing.to_owned(), ErrorKind::InvalidInput { what: what.into() }));
        let path = self.path.display();
        if !has("cgroup.controllers")? {
            return refuse(format!(
                "the control group {path} was delegated without the {controller} controller"
            ));
        }
        match write_file(self.directory.as_fd(), "cgroup.subtree_control", &format!("+{controller}")) {
            Ok(()) => Ok(()),
            Err(Errno::BUSY) => refuse(format!(
                "the control group {path} has processes of its own, so that {controller} cannot be distributed \
                 below it; let the unit have DelegateSubgroup="
            )),
            Err(errno) => Err(self.failed(doing, "cgroup.subtree_control", errno)),
        }
    }

    fn failed(&self, doing: &str, call: &'static str, errno: Errno) -> Error {
        match errno {
            Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                let object = format!("the control group {} ({call})", self.path.display());
                Error::new(doing.to_owned(), ErrorKind::AccessDenied { object }).with_source(errno)
            }
            // cgroup.max.descendants or cgroup.max.depth.
            Errno::AGAIN => {
                let limit = format!("groups below {}", self.path.display());
                Error::new(doing.to_owned(), ErrorKind::LimitReached { limit: limit.into() })
                    .with_source(errno)
            }
            errno => Error::system(doing.to_owned(), call, errno),
        }
    }
}

struct Setting {
    controller: &'static str,
    file: &'static str,
    value: String,
}

/// The group of one process and its descendants.
#[derive(Debug)]
pub(crate) struct ProcessCgroup {
    parent: Arc<OwnedFd>,
    name: String,
    directory: Option<OwnedFd>,
}

impl ProcessCgroup {
    /// The directory, for `CLONE_INTO_CGROUP`.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// The file that says when nobody is left in it.
    pub(crate) fn events(&self) -> Result<OwnedFd, Errno> {
        let directory = self.directory().ok_or(Errno::NODEV)?;
        let events = openat(directory, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        // The kernel tells of changes since the last time that it was read.
        let _ = rustix::io::pread(&events, &mut [0; 256], 0)?;
        Ok(events)
    }

    /// Kills every process in it and below it, including any that is being created (Linux 5.14).
    pub(crate) fn kill(&self) -> Result<(), Errno> {
        let Some(directory) = self.directory() else { return Ok(()) };
        match write_file(directory, "cgroup.kill", "1") {
            // Removed already: nobody is left.
            Err(Errno::NODEV) => Ok(()),
            result => result,
        }
    }

    /// Whether a living process is in it or below it.
    fn populated(&self) -> bool {
        self.directory().is_some_and(|directory| {
            read_file(directory, "cgroup.events")
                .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
        })
    }

    /// Removes it if nobody is in it any more; otherwise gives it back.
    pub(crate) fn remove(mut self) -> Option<Self> {
        if self.populated() {
            return Some(self);
        }
        if remove_tree(self.parent.as_fd(), &self.name) {
            self.directory = None;
            self.name.clear();
            None
        } else {
            Some(self)
        }
    }
}

impl Drop for ProcessCgroup {
    fn drop(&mut self) {
        if !self.name.is_empty() && !self.populated() {
            remove_tree(self.parent.as_fd(), &self.name);
        }
    }
}

/// Removes a group and the empty groups that its processes made below it; whether it is gone.
fn remove_tree(parent: BorrowedFd<'_>, name: &str) -> bool {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return true,
        Err(_) => {}
    }
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let Ok(directory) = openat(parent, name, flags, Mode::empty()) else { return false };
    for child in subdirectories(&directory) {
        if !remove_tree(directory.as_fd(), &child) {
            return false;
        }
    }
    matches!(unlinkat(parent, name, AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT))
}

/// Removes the empty groups of servers that have ended.
fn sweep(directory: &OwnedFd) {
    for name in subdirectories(directory) {
        let server =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(server, _)| server);
        let running = server.is_some_and(|server| Path::new("/proc").join(server).exists());
        // Populated groups answer EBUSY and stay: their processes outlived their server.
        if server.is_some() && !running {
            remove_tree(directory.as_fd(), &name);
        }
    }
}

fn subdirectories(directory: &OwnedFd) -> Vec<String> {
    let Ok(entries) = rustix::fs::Dir::read_from(directory) else { return Vec::new() };
    entries
        .filter_map(Result::<_, Errno>::ok)
        .filter(|entry| entry.file_type() == rustix::fs::FileType::Directory)
        .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
        .filter(|name| name != "." && name != "..")
        .collect()
}

/// The part of a path that names a scope which pam_systemd (logind) made for a logon session.
fn session_scope(path: &Path) -> Option<String> {
    let path: PathBuf = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.components().find_map(|component| match component {
        Component::Normal(name) => {
            let name = name.to_str()?;
            let of_session =
                name.strip_prefix("session-").is_some_and(|rest| rest.strip_suffix(".scope").is_some());
            of_session.then(|| name.to_owned())
        }
        _ => None,
    })
}

fn write_file(directory: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
    let file = openat(directory, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

fn read_file(directory: BorrowedFd<'_>, file: &str) -> Result<String, Errno> {
    let file = openat(directory, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    std::io::read_to_string(std::fs::File::from(file)).map_err(|_| Errno::IO)
}
