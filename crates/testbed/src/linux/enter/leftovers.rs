//! Whether the host is as it was before.

use crate::linux::accounts;
use crate::linux::bed::{Mode, ROOT};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files of the host that no run may change.
const FILES: &[&str] = &[
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/etc/subuid",
    "/etc/subgid",
    "/etc/nsswitch.conf",
    "/etc/environment",
    "/etc/security/group.conf",
    "/etc/security/limits.conf",
    "/etc/security/pam_env.conf",
];

/// Directories of the host in which no run may leave an entry.
const DIRECTORIES: &[&str] = &["/etc/pam.d", "/etc/security", "/var/lib", "/usr/libexec", "/run"];

/// The host before a run.
pub(super) struct Snapshot {
    mode: Mode,
    files: BTreeMap<&'static str, Option<Vec<u8>>>,
    entries: BTreeMap<&'static str, Vec<PathBuf>>,
    mounts: Vec<String>,
    /// Only where no PID namespace ends them, for what another run has is not ours.
    processes: Vec<(i32, u64)>,
}

impl Snapshot {
    pub(super) fn take(mode: Mode) -> Self {
        Self {
            mode,
            files: FILES.iter().map(|path| (*path, fs::read(path).ok())).collect(),
            entries: DIRECTORIES.iter().map(|path| (*path, entries(path))).collect(),
            mounts: mounts(),
            processes: if mode == Mode::Container { our_processes() } else { Vec::new() },
        }
    }

    /// What differs now, in words.
    pub(super) fn compare(&self) -> Vec<String> {
        let now = Self::take(self.mode);
        let mut found = Vec::new();
        for (path, before) in &self.files {
            if now.files.get(path) != Some(before) {
                found.push(format!("{path} has changed"));
            }
        }
        for (path, before) in &self.entries {
            let after = now.entries.get(path).map_or(&[][..], Vec::as_slice);
            // Other programs come and go in /run; only what bears our name is ours.
            let ours = |entry: &&PathBuf| entry.to_string_lossy().contains("stead");
            found.extend(
                after
                    .iter()
                    .filter(|entry| !before.contains(entry))
                    .filter(ours)
                    .map(|entry| format!("{} was left behind", entry.display())),
            );
        }
        found.extend(
            now.mounts
                .iter()
                .filter(|mount| mount.contains("stead") && !self.mounts.contains(mount))
                .map(|mount| format!("a mount was left behind: {mount}")),
        );
        found.extend(
            now.processes
                .iter()
                .filter(|process| !self.processes.contains(process))
                .map(|(pid, _)| format!("process {pid} of a throw-away user was left behind")),
        );
        found
    }
}

fn entries(directory: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Processes of users that only a bed has, in this PID namespace: another bed's are in one of its own.
pub(super) fn our_processes() -> Vec<(i32, u64)> {
    let uids = accounts::all_uids();
    let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
    let own = namespace(Path::new("/proc/self"));
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let owner = fs::metadata(entry.path()).ok()?.uid();
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let real: Option<u32> = status
                .lines()
                .find_map(|line| line.strip_prefix("Uid:"))
                .and_then(|ids| ids.split_whitespace().next()?.parse().ok());
            // A zombie has ended already, and is its parent's affair.
            let ended = || {
                let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
            };
            // Where the link may not be read (no CAP_SYS_PTRACE, as in a container) there are no beds of that kind.
            let elsewhere = || namespace(&entry.path()).is_some_and(|theirs| Some(theirs) != own);
            if ended() || elsewhere() {
                return None;
            }
            let ours = uids.contains(&owner) || real.is_some_and(|uid| uids.contains(&uid));
            ours.then_some((pid, crate::linux::probe::start_time(pid)?))
        })
        .collect()
}

/// A cgroup (version 2) of the bed's own, removed with it.
pub(super) struct BedCgroup(PathBuf);

impl BedCgroup {
    /// Makes one at the root of the hierarchy, after sweeping what killed runs left; `None` where that is not allowed.
    pub(super) fn make() -> Option<Self> {
        let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .into_iter()
            .map(Path::new)
            .find(|path| path.join("cgroup.procs").exists() && path.join("cgroup.controllers").exists())?;
        sweep_cgroups(root);
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let started = crate::linux::probe::start_time(pid)?;
        let path = root.join(format!("stead-testbed-{}-{pid}-{started}", pid_namespace()?));
        fs::create_dir(&path).ok()?;
        let cgroup = Self(path);
        let controllers = fs::read_to_string(cgroup.0.join("cgroup.controllers")).unwrap_or_default();
        for controller in controllers.split_whitespace() {
            // One at a time: one that cannot be turned on does not keep the others off.
            let _ = fs::write(cgroup.0.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        Some(cgroup)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for BedCgroup {
    fn drop(&mut self) {
        remove_cgroup(&self.0);
    }
}

/// The number of this process's PID namespace.
fn pid_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino())
}

fn sweep_cgroups(root: &Path) {
    for path in entries(&root.to_string_lossy()) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(rest) = name.strip_prefix("stead-testbed-") else { continue };
        let fields: Vec<u64> = rest.split('-').filter_map(|field| field.parse().ok()).collect();
        let [namespace, pid, started] = fields[..] else { continue };
        let Ok(pid) = i32::try_from(pid) else { continue };
        // Another PID namespace's pids say nothing here: its cgroups may well be in use.
        if Some(namespace) == pid_namespace() && crate::linux::probe::start_time(pid) != Some(started) {
            remove_cgroup(&path);
        }
    }
}

fn remove_cgroup(path: &Path) {
    let _ = fs::write(path.join("cgroup.kill"), "1");
    for entry in entries(&path.to_string_lossy()) {
        if entry.is_dir() {
            remove_cgroup(&entry);
        }
    }
    // What was killed needs a moment to be gone.
    for _ in 0..200 {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            _ => return,
        }
    }
}

/// Whether something of a bed lies here, made by a run that has ended without taking it away.
pub(super) fn stale_root() -> bool {
    Path::new(ROOT).exists() && crate::linux::bed::Bed::current().is_none()
}
