//! What a process is, as the kernel tells it.

use crate::linux::sys;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// A process's context as the kernel tells it: what the `probe` program prints about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Probe {
    /// Process id.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub process_group: i32,
    /// Its session (`getsid`).
    pub session: i32,
    /// Its controlling terminal's device number; 0 is none.
    pub terminal: i32,
    /// User ids.
    pub uid: Ids,
    /// Group ids.
    pub gid: Ids,
    /// Supplementary groups, sorted, each once. The kernel's list holds the primary group only if it was put there.
    pub groups: Vec<u32>,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// Secure bits (`PR_GET_SECUREBITS`).
    pub securebits: u32,
    /// `NoNewPrivs`.
    pub no_new_privs: bool,
    /// `Seccomp`: 0 none, 1 strict, 2 filters.
    pub seccomp: u32,
    /// `Seccomp_filters`, 0 where the kernel does not say.
    pub seccomp_filters: u32,
    /// Signal state at the program's first instruction of its own.
    pub signals: Signals,
    /// The umask.
    pub umask: u32,
    /// Nice value.
    pub nice: i32,
    /// Scheduling policy and priority.
    pub scheduling: Scheduling,
    /// The processors it may run on (`Cpus_allowed_list`).
    pub affinity: String,
    /// I/O priority as `ioprio_get` tells it.
    pub io_priority: i32,
    /// Memory policy mode (`get_mempolicy`), -1 where the kernel has none.
    pub memory_policy: i32,
    /// `oom_score_adj`.
    pub oom_score_adj: i32,
    /// `coredump_filter`.
    pub core_filter: u32,
    /// Timer slack in nanoseconds.
    pub timer_slack: u64,
    /// Execution domain (`personality`).
    pub personality: u32,
    /// Whether transparent huge pages are turned off.
    pub thp_disabled: bool,
    /// Whether its memory is merged with others' (`PR_GET_MEMORY_MERGE`); -1 where the kernel does not tell.
    pub memory_merge: i32,
    /// What memory that fails does to it (`PR_MCE_KILL_GET`; 2 is the default); -1 where the kernel does not tell.
    pub machine_checks: i32,
    /// Whether it takes from the kernel's reserves of memory (`PR_GET_IO_FLUSHER`); -1 where it may not ask.
    pub io_flusher: i32,
    /// `PR_GET_DUMPABLE`.
    pub dumpable: i32,
    /// The signal it gets when its parent ends; 0 is none.
    pub parent_death_signal: i32,
    /// Login uid; 4294967295 is none; `None` where the kernel has no audit.
    pub login_uid: Option<u32>,
    /// Audit session id.
    pub audit_session: Option<u32>,
    /// The session keyring, where it has one that it may see.
    pub keyring: Option<Keyring>,
    /// Open descriptors and what they point at.
    pub descriptors: BTreeMap<i32, String>,
    /// Resource limits by the name that `/proc/PID/limits` gives them.
    pub limits: BTreeMap<String, Limit>,
    /// Working directory.
    pub directory: String,
    /// Root directory.
    pub root: String,
    /// The program.
    pub program: String,
    /// Arguments, the program's name first.
    pub arguments: Vec<String>,
    /// Environment, as `NAME=value`, in order.
    pub environment: Vec<String>,
    /// `/proc/PID/cgroup`.
    pub cgroup: String,
    /// Namespaces by name (`mnt`, `user`, ..) and what their links say.
    pub namespaces: BTreeMap<String, String>,
    /// The LSM label, where there is one.
    pub label: Option<String>,
}

/// Four ids of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs, reason = "the kernel has four")]
pub struct Ids {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved.
    pub saved: u32,
    /// For file access.
    pub filesystem: u32,
}

/// Five capability sets, as bit masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs, reason = "the kernel has five")]
pub struct Capabilities {
    /// `CapInh`.
    pub inheritable: u64,
    /// `CapPrm`.
    pub permitted: u64,
    /// `CapEff`.
    pub effective: u64,
    /// `CapBnd`.
    pub bounding: u64,
    /// `CapAmb`.
    pub ambient: u64,
}

/// Signal sets, as bit masks with signal 1 in bit 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs, reason = "the kernel has three that a program inherits or sets")]
pub struct Signals {
    /// `SigBlk`.
    pub blocked: u64,
    /// `SigIgn`.
    pub ignored: u64,
    /// `SigCgt`.
    pub caught: u64,
}

/// Scheduling policy, real-time priority, slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs, reason = "numbers")]
pub struct Scheduling {
    /// `SCHED_OTHER` is 0.
    pub policy: i32,
    /// Real-time priority, 0 for ordinary policies.
    pub priority: i32,
    /// Slice of `SCHED_OTHER` in nanoseconds, 0 where the kernel does not tell (before Linux 6.12).
    pub slice: u64,
}

/// A keyring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs, reason = "what KEYCTL_DESCRIBE tells")]
pub struct Keyring {
    /// Its serial number.
    pub id: i32,
    /// `type;uid;gid;perm;description`.
    pub description: String,
}

/// A resource limit; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs, reason = "struct rlimit")]
pub struct Limit {
    /// The limit that counts.
    pub soft: Option<u64>,
    /// How far it may be raised.
    pub hard: Option<u64>,
}

impl Probe {
    /// Reads what the `probe` program printed.
    ///
    /// # Panics
    ///
    /// If it is not that.
    pub fn parse(output: &[u8]) -> Self {
        serde_json::from_slice(output).unwrap_or_else(|error| {
            panic!("not a probe's report: {error}: {}", String::from_utf8_lossy(output))
        })
    }

    /// Reads a report that `probe --to FILE` left.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn read(path: &std::path::Path) -> Self {
        let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(&text)
    }

    /// The same of another process, as far as `/proc` tells of it.
    ///
    /// What only the process itself can ask for (secure bits, its keyring, dumpable, memory policy, parent death
    /// signal, umask on old kernels) is left at 0 or `None`.
    ///
    /// # Errors
    ///
    /// If there is no such process, or its files may not be read.
    pub fn of(pid: i32) -> std::io::Result<Self> {
        Self::read_proc(&format!("/proc/{pid}"), pid)
    }

    /// The calling process.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read.
    pub fn of_self() -> std::io::Result<Self> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let mut probe = Self::read_proc("/proc/self", pid)?;
        probe.securebits = sys::prctl_get(libc::PR_GET_SECUREBITS).cast_unsigned();
        probe.dumpable = sys::prctl_get(libc::PR_GET_DUMPABLE);
        probe.thp_disabled = sys::prctl_get(libc::PR_GET_THP_DISABLE) == 1;
        probe.memory_merge = sys::prctl_get(libc::PR_GET_MEMORY_MERGE);
        probe.machine_checks = sys::prctl_get(libc::PR_MCE_KILL_GET);
        probe.io_flusher = sys::prctl_get(sys::PR_GET_IO_FLUSHER);
        probe.timer_slack = u64::try_from(sys::prctl_get(libc::PR_GET_TIMERSLACK)).unwrap_or(0);
        probe.personality = sys::personality();
        probe.parent_death_signal = sys::parent_death_signal();
        probe.keyring = sys::session_keyring().map(|(id, description)| Keyring { id, description });
        probe.memory_policy = sys::memory_policy();
        probe.io_priority = sys::io_priority(0);
        Ok(probe)
    }

    fn read_proc(proc: &str, pid: i32) -> std::io::Result<Self> {
        let status = Status::read(&format!("{proc}/status"))?;
        let stat = fs::read_to_string(format!("{proc}/stat"))?;
        // The name may hold spaces and parentheses (CVE-2017-1000367).
        let after_name: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let number =
            |index: usize| -> i32 { after_name.get(index).and_then(|v| v.parse().ok()).unwrap_or(0) };
        let text = |name: &str| fs::read_to_string(format!("{proc}/{name}")).ok();
        let link = |name: &str| {
            fs::read_link(format!("{proc}/{name}"))
                .map(|to| to.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let one = |name: &str| text(name).and_then(|v| v.trim().parse().ok());
        Ok(Self {
            pid,
            parent: number(1),
            process_group: number(2),
            session: number(3),
            terminal: number(4),
            uid: status.ids("Uid"),
            gid: status.ids("Gid"),
            groups: status.list("Groups"),
            capabilities: Capabilities {
                inheritable: status.mask("CapInh"),
                permitted: status.mask("CapPrm"),
                effective: status.mask("CapEff"),
                bounding: status.mask("CapBnd"),
                ambient: status.mask("CapAmb"),
            },
            securebits: 0,
            no_new_privs: status.field("NoNewPrivs") == "1",
            seccomp: status.number("Seccomp"),
            seccomp_filters: status.number("Seccomp_filters"),
            signals: Signals {
                blocked: status.mask("SigBlk"),
                ignored: status.mask("SigIgn"),
                caught: status.mask("SigCgt"),
            },
            umask: u32::from_str_radix(status.field("Umask"), 8).unwrap_or(0),
            nice: number(16),
            scheduling: Scheduling { policy: number(38), priority: number(37), slice: sys::slice(pid) },
            affinity: status.field("Cpus_allowed_list").to_owned(),
            io_priority: sys::io_priority(pid),
            memory_policy: 0,
            oom_score_adj: one("oom_score_adj").unwrap_or(0),
            core_filter: text("coredump_filter")
                .and_then(|v| u32::from_str_radix(v.trim(), 16).ok())
                .unwrap_or(0),
            timer_slack: one("timerslack_ns").and_then(|v| u64::try_from(v).ok()).unwrap_or(0),
            personality: text("personality")
                .and_then(|v| u32::from_str_radix(v.trim(), 16).ok())
                .unwrap_or(0),
            thp_disabled: false,
            memory_merge: 0,
            machine_checks: 0,
            io_flusher: 0,
            dumpable: 0,
            parent_death_signal: 0,
            login_uid: text("loginuid").and_then(|v| v.trim().parse().ok()),
            audit_session: text("sessionid").and_then(|v| v.trim().parse().ok()),
            keyring: None,
            descriptors: descriptors(&format!("{proc}/fd")),
            limits: text("limits").map(|v| limits(&v)).unwrap_or_default(),
            directory: link("cwd"),
            root: link("root"),
            program: link("exe"),
            arguments: strings(&format!("{proc}/cmdline")),
            environment: strings(&format!("{proc}/environ")),
            cgroup: text("cgroup").unwrap_or_default(),
            namespaces: namespaces(&format!("{proc}/ns")),
            label: text("attr/current")
                .map(|v| v.trim_matches(['\0', '\n']).to_owned())
                .filter(|v| !v.is_empty()),
        })
    }

    /// The value of an environment variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }

    /// Supplementary groups and the effective primary one, sorted, each once: what access checks see.
    pub fn effective_groups(&self) -> Vec<u32> {
        let mut all = self.groups.clone();
        all.push(self.gid.effective);
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The start time of a process in clock ticks since boot, which with the pid names it for good.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

struct Status(BTreeMap<String, String>);

impl Status {
    fn read(path: &str) -> std::io::Result<Self> {
        // A process may choose a name that is not UTF-8.
        let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Ok(Self(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()))
    }

    fn field(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn mask(&self, name: &str) -> u64 {
        u64::from_str_radix(self.field(name), 16).unwrap_or(0)
    }

    fn number(&self, name: &str) -> u32 {
        self.field(name).parse().unwrap_or(0)
    }

    fn list(&self, name: &str) -> Vec<u32> {
        let mut list: Vec<u32> = self.field(name).split_whitespace().filter_map(|v| v.parse().ok()).collect();
        list.sort_unstable();
        list.dedup();
        list
    }

    fn ids(&self, name: &str) -> Ids {
        let mut ids = self.field(name).split_whitespace().map(|v| v.parse().unwrap_or(u32::MAX));
        let mut next = || ids.next().unwrap_or(u32::MAX);
        Ids { real: next(), effective: next(), saved: next(), filesystem: next() }
    }
}

fn descriptors(directory: &str) -> BTreeMap<i32, String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeMap::new() };
    let numbers: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    // The directory that was just read has closed its descriptor: its link can no longer be read.
    numbers
        .iter()
        .filter_map(|number| {
            let link = fs::read_link(format!("{directory}/{number}")).ok()?;
            Some((number.parse().ok()?, link.to_string_lossy().into_owned()))
        })
        .collect()
}

fn limits(text: &str) -> BTreeMap<String, Limit> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            // "Max open files            1024                 4096                 files": columns of fixed width.
            let (name, rest) = line.split_at_checked(26)?;
            let mut values = rest.split_whitespace().map(|value| value.parse().ok());
            Some((name.trim().to_owned(), Limit { soft: values.next()?, hard: values.next()? }))
        })
        .collect()
}

fn strings(path: &str) -> Vec<String> {
    let mut bytes = fs::read(path).unwrap_or_default();
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

fn namespaces(directory: &str) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeMap::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            let name = String::from_utf8_lossy(entry.file_name().as_bytes()).into_owned();
            Some((name, link.to_string_lossy().into_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_by_column() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            1024                 4096                 files     \n";
        let limits = limits(text);
        assert_eq!(limits["Max open files"], Limit { soft: Some(1024), hard: Some(4096) });
        assert_eq!(limits["Max cpu time"], Limit { soft: None, hard: None });
    }

    #[test]
    fn the_probe_of_this_process_equals_what_rustix_says() {
        let probe = Probe::of_self().unwrap();
        assert_eq!(probe.uid.effective, rustix::process::geteuid().as_raw());
        assert_eq!(probe.pid, rustix::process::getpid().as_raw_nonzero().get());
        assert_eq!(probe.umask, Probe::of(probe.pid).unwrap().umask);
        assert!(probe.namespaces.contains_key("mnt"));
        assert!(probe.limits.contains_key("Max open files"));
    }
}
