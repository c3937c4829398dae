//! Control groups (version 2) below one that was delegated to the server.
//!
//! Reference: [cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html),
//! [the kernel's document](https://docs.kernel.org/admin-guide/cgroup-v2.html).
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
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
    name: Option<Arc<str>>,
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
        let directory = Arc::new(directory);
        Ok(Self { directory, path: path.into(), memory: None, cpu: None, pids: None, name: None })
    }

    /// The group of the next process has this name, by which a later run of the server finds it again.
    ///
    /// Such a group is removed when the process was waited for, if nobody is left in it then; else whoever gave the
    /// name [removes](Self::remove) it.
    ///
    /// ```no_run
    /// # fn example(clients: stead::os::linux::Cgroup, written_down: &str) -> stead::Result<()> {
    /// // After a restart of the server: what is left of a tree, daemons and all.
    /// let group = clients.named(written_down);
    /// group.kill_tree()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn named(mut self, name: impl AsRef<str>) -> Self {
        self.name = Some(name.as_ref().into());
        self
    }

    /// The names of the groups below.
    ///
    /// # Errors
    /// `System` when they cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        const DOING: &str = "listing control groups";
        as_server(|| {
            let directory = openat(&self.directory, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            directory
                .map(|directory| subdirectories(&directory))
                .map_err(|errno| self.failed(DOING, "open", errno))
        })
    }

    /// Whether a process is in the group that is [named](Self::named), or below it.
    ///
    /// # Errors
    /// `InvalidInput` when none is named; `System` when it cannot be asked.
    pub fn is_populated(&self) -> Result<bool> {
        const DOING: &str = "looking into a control group";
        as_server(|| {
            Ok(self.earlier(DOING)?.is_some_and(|mut group| {
                let populated = group.populated();
                group.name.clear(); // only looked at: it stays as it is
                populated
            }))
        })
    }

    /// Ends every process in the group that is [named](Self::named), and below it, and removes it; whether there was
    /// such a group.
    ///
    /// # Errors
    /// `InvalidInput` when none is named; `KernelTooOld` before Linux 5.14; `AccessDenied` where it may not be written;
    /// `DeadlinePassed` when its processes do not end, as in a file system that never answers.
    #[doc(alias = "TerminateJobObject")]
    pub fn kill_tree(&self) -> Result<bool> {
        /// Killed processes end at once, but for those that the kernel waits for.
        const PATIENCE: Duration = Duration::from_secs(5);
        const DOING: &str = "ending the processes of a control group";
        as_server(|| {
            let Some(group) = self.earlier(DOING)? else { return Ok(false) };
            let events = group.events().map_err(|errno| self.failed(DOING, "cgroup.events", errno))?;
            group.kill().map_err(|errno| match errno {
                Errno::NOENT => {
                    Error::new(DOING, ErrorKind::KernelTooOld { needs: "cgroup.kill (Linux 5.14)".into() })
                }
                errno => self.failed(DOING, "cgroup.kill", errno),
            })?;
            let until = Instant::now() + PATIENCE;
            while group.populated() {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    let waiting_for = "killed processes to end".into();
                    return Err(Error::new(DOING, ErrorKind::DeadlinePassed { waiting_for }));
                }
                // The kernel tells of changes since the last time that it was read.
                let _ = rustix::io::pread(&events, &mut [0; 256], 0);
                if group.populated() {
                    let mut watched = [PollFd::new(&events, PollFlags::PRI)];
                    let _ = poll(&mut watched, Some(&super::status::timespec(left)));
                }
            }
            let _ = group.remove();
            Ok(true)
        })
    }

    /// Removes the group that is [named](Self::named) if nobody is in it; whether it is gone.
    ///
    /// # Errors
    /// `InvalidInput` when none is named.
    pub fn remove(&self) -> Result<bool> {
        const DOING: &str = "removing a control group";
        as_server(|| {
            let Some(group) = self.earlier(DOING)? else { return Ok(true) };
            Ok(group.remove().is_none())
        })
    }

    /// The named group, if it exists.
    fn earlier(&self, doing: &str) -> Result<Option<ProcessCgroup>> {
        let Some(name) = &self.name else {
            let what = "the control group has no name".into();
            return Err(Error::new(doing.to_owned(), ErrorKind::InvalidInput { what }));
        };
        check_name(name, doing)?;
        match open_group(self.directory.as_fd(), name) {
            Ok(directory) => {
                let parent = Arc::clone(&self.directory);
                Ok(Some(ProcessCgroup {
                    parent,
                    name: name.as_ref().to_owned(),
                    directory: Some(directory),
                    kept: true,
                }))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(doing, "open", errno)),
        }
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
            let name = if let Some(name) = &self.name {
                check_name(name, doing)?;
                name.as_ref().to_owned()
            } else {
                let number = COUNTER.fetch_add(1, Ordering::Relaxed);
                format!("{PREFIX}{}-{number}", server.as_raw_nonzero())
            };
            match mkdirat(&self.directory, name.as_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) => break name,
                Err(Errno::EXIST) if self.name.is_none() => {}
                Err(errno) => {
                    return Err(self.failed(doing, "mkdir", errno));
                }
            }
        };
        // From here on dropping it removes the directory again.
        let (parent, kept) = (Arc::clone(&self.directory), self.name.is_some());
        let mut group = ProcessCgroup { parent, name, directory: None, kept };
        let directory = open_group(self.directory.as_fd(), &group.name)
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
    /// It has a name of the server's choosing, which looks after it.
    kept: bool,
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
        self.directory().is_some_and(|directory| is_populated(read_file(directory, "cgroup.events")))
    }

    /// Removes it if nobody is in it any more; otherwise gives it back.
    pub(crate) fn remove(mut self) -> Option<Self> {
        if !self.populated() && remove_tree(self.parent.as_fd(), &self.name) {
            self.directory = None;
            self.name.clear();
            return None;
        }
        Some(self)
    }

    /// What is to be looked at again when its process is nobody's any more.
    pub(crate) fn abandon(self) -> Option<Self> {
        // Each is a descriptor: of those that the server looks after none are kept here.
        self.remove().filter(|group| !group.kept)
    }
}

impl Drop for ProcessCgroup {
    fn drop(&mut self) {
        if !self.name.is_empty() && !self.populated() {
            remove_tree(self.parent.as_fd(), &self.name);
        }
    }
}

/// Whether somebody lives in a group, by what was read of its `cgroup.events`.
pub(crate) fn is_populated(events: Result<impl AsRef<[u8]>, Errno>) -> bool {
    match events {
        Ok(events) => events.as_ref().split(|byte| *byte == b'\n').any(|line| line == b"populated 1"),
        // That it cannot be read is no sign that nobody is in it, but for a group that was removed.
        Err(errno) => !matches!(errno, Errno::NODEV | Errno::NOENT),
    }
}

/// A group below another.
fn open_group(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// A name leads to a group directly below, and to none of the kernel's files.
fn check_name(name: &str, doing: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@');
    if !name.is_empty() && name.len() <= 128 && name.bytes().all(allowed) && !name.starts_with(PREFIX) {
        return Ok(());
    }
    let what = format!(
        "the control group's name {name:?} is not of letters, digits, '-', '_' and '@' alone, or begins with {PREFIX}"
    );
    Err(Error::new(doing.to_owned(), ErrorKind::InvalidInput { what: what.into() }))
}

/// Removes a group and the empty groups that its processes made below it; whether it is gone.
fn remove_tree(parent: BorrowedFd<'_>, name: &str) -> bool {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return true,
        Err(_) => {}
    }
    let Ok(directory) = open_group(parent, name) else { return false };
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

/// The control group (version 2) of a process, as `/proc` names it.
pub(crate) fn of_process(pid: u32) -> std::io::Result<Option<PathBuf>> {
    let text = std::fs::read(format!("/proc/{pid}/cgroup"))?;
    let path = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    Ok(path.map(|path| PathBuf::from(OsStr::from_bytes(path))))
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
