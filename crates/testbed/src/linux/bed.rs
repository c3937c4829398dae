//! The bed as seen from inside.

use crate::linux::accounts::User;
use crate::linux::probe::Probe;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where everything of the bed lies.
pub const ROOT: &str = "/run/stead-testbed";

/// How the bed was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Mount and PID namespaces, made by root.
    Namespaces,
    /// The same inside a user namespace with subordinate ids, made by an ordinary user.
    UserNamespace,
    /// No namespaces at all: the container's own account files.
    Container,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "mount and PID namespaces made by root",
            Self::UserNamespace => "user namespace with subordinate ids",
            Self::Container => "container: its own account files, put back afterwards",
        })
    }
}

/// What the bed wrote down about itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) mode: Mode,
    /// The process that made it and takes it away: pid and start time, as pids are used again.
    pub(crate) owner: Option<(i32, u64)>,
    pub(crate) users: Vec<User>,
    /// Whether a process here may write its login uid: without, `pam_loginuid` could only fail.
    pub(crate) login_uid: bool,
    /// A cgroup (version 2) directory that this run may do with as it likes.
    pub(crate) cgroup: Option<PathBuf>,
}

/// The bed: users, homes, programs and PAM services that exist only here.
#[derive(Debug)]
pub struct Bed {
    description: Description,
    scratch_counter: AtomicU32,
}

/// One line that `pam_exec` wrote: a module phase as it really happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PamEvent {
    /// `auth`, `account`, `password`, `open_session` or `close_session`.
    pub phase: String,
    /// `PAM_SERVICE`.
    pub service: String,
    /// `PAM_USER`.
    pub user: String,
    /// `PAM_TTY`, empty where it was not set.
    pub tty: String,
    /// `PAM_RHOST`, empty where it was not set.
    pub rhost: String,
    /// `PAM_RUSER`, empty where it was not set.
    pub ruser: String,
    /// The process that called PAM.
    pub caller: i32,
}

impl Bed {
    /// The bed this process is in, without waiting for anything.
    pub fn current() -> Option<&'static Self> {
        static BED: OnceLock<Option<Bed>> = OnceLock::new();
        BED.get_or_init(|| {
            let text = fs::read(Path::new(ROOT).join("bed.json")).ok()?;
            let description: Description = serde_json::from_slice(&text).ok()?;
            if let Some((pid, started)) = description.owner {
                // A container's /run outlives a run that was killed.
                if crate::linux::probe::start_time(pid) != Some(started) {
                    return None;
                }
            }
            Some(Bed { description, scratch_counter: AtomicU32::new(0) })
        })
        .as_ref()
    }

    /// The bed, shared with other tests until this process ends.
    #[doc(hidden)]
    pub fn shared() -> Option<&'static Self> {
        let bed = Self::current()?;
        lock(FlockOperation::NonBlockingLockShared, FlockOperation::LockShared);
        Some(bed)
    }

    /// The bed, with no other test in it until this process ends.
    #[doc(hidden)]
    pub fn alone() -> Option<&'static Self> {
        let bed = Self::current()?;
        lock(FlockOperation::NonBlockingLockExclusive, FlockOperation::LockExclusive);
        Some(bed)
    }

    /// How the bed was made.
    pub fn mode(&self) -> Mode {
        self.description.mode
    }

    /// A user by name.
    ///
    /// # Panics
    ///
    /// If there is none of that name. `carol`, whose uid is above 2^31, exists only where the id map reaches so far:
    /// see [`Bed::find_user`].
    pub fn user(&self, name: &str) -> &User {
        self.find_user(name).unwrap_or_else(|| panic!("the testbed has no user {name}"))
    }

    /// A user by name, if it exists here.
    pub fn find_user(&self, name: &str) -> Option<&User> {
        self.description.users.iter().find(|user| user.name == name)
    }

    /// All users.
    pub fn users(&self) -> &[User] {
        &self.description.users
    }

    /// The group that `pam_group` grants to alice in the service `stead-interactive`.
    pub fn granted_group(&self) -> u32 {
        crate::linux::accounts::GRANTED_GROUP
    }

    /// Whether `pam_loginuid` can do its work here.
    pub fn can_set_login_uid(&self) -> bool {
        self.description.login_uid
    }

    /// A fresh directory, root's and 0755, that goes away with the bed.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = loop {
            let number = self.scratch_counter.fetch_add(1, Ordering::Relaxed);
            let path =
                Path::new(ROOT).join("scratch").join(format!("{name}-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                // A process in a PID namespace of its own may have the number of another outside.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// The path of a helper program (`probe`, `testbed-client`, ..) that every user may execute.
    ///
    /// # Panics
    ///
    /// If the bed was entered without it.
    pub fn bin(&self, name: &str) -> PathBuf {
        let path = Path::new(ROOT).join("bin").join(name);
        assert!(path.exists(), "the testbed has no program {name}: enter it with `cargo xtask test`");
        path
    }

    /// A copy of the program that runs now, which every user may execute: to be a server that is not root, or a
    /// client, in a process of its own.
    ///
    /// # Panics
    ///
    /// If it cannot be copied.
    pub fn this_program(&self) -> PathBuf {
        static COPY: OnceLock<PathBuf> = OnceLock::new();
        COPY.get_or_init(|| {
            let path = self.scratch("program").join("program");
            fs::copy("/proc/self/exe", &path).expect("the program can be copied into the bed");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the copy is ours");
            path
        })
        .clone()
    }

    /// A program that belongs to root and has the set-user-id bit, which any user may execute; with the argument `wait`
    /// it stays until its standard input ends.
    ///
    /// # Panics
    ///
    /// If the bed was entered without its programs.
    pub fn setuid_program(&self) -> PathBuf {
        self.bin("testbed-setuid")
    }

    /// A cgroup directory of its own for this process, below which it may do as it likes, and the controllers that
    /// can be turned on there; `None` where cgroup version 2 cannot be written.
    pub fn cgroup(&self, name: &str) -> Option<(PathBuf, Vec<String>)> {
        let parent = self.description.cgroup.as_ref()?;
        let number = self.scratch_counter.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{name}-{}-{number}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let controllers = fs::read_to_string(path.join("cgroup.controllers")).ok()?;
        Some((path, controllers.split_whitespace().map(str::to_owned).collect()))
    }

    /// What `pam_exec` logged so far, by any service of any test: look for your own caller or user.
    ///
    /// # Panics
    ///
    /// If the log holds a line that is not ours.
    pub fn pam_log(&self) -> Vec<PamEvent> {
        let text = fs::read_to_string(Path::new(ROOT).join("log/pam.log")).unwrap_or_default();
        text.lines()
            .map(|line| {
                let fields: Vec<&str> = line.split('\t').collect();
                let [phase, service, user, tty, rhost, ruser, caller] = fields[..] else {
                    panic!("unexpected line in the PAM log: {line:?}");
                };
                PamEvent {
                    phase: phase.to_owned(),
                    service: service.to_owned(),
                    user: user.to_owned(),
                    tty: tty.to_owned(),
                    rhost: rhost.to_owned(),
                    ruser: ruser.to_owned(),
                    caller: caller.parse().unwrap_or(0),
                }
            })
            .collect()
    }

    /// The variables that `pam_env` sets in a service of the bed.
    pub fn pam_environment(&self, service: &str) -> BTreeMap<String, String> {
        crate::linux::pam::environment(service)
    }

    /// The umask that `pam_umask` sets in a service of the bed.
    pub fn pam_umask(&self, service: &str) -> u32 {
        crate::linux::pam::umask(service)
    }

    /// The limits that `pam_limits` sets for a user: `/proc/PID/limits` name, soft, hard.
    pub fn pam_limits(&self, user: &str) -> Vec<(&'static str, u64, u64)> {
        crate::linux::pam::limits(user)
    }

    /// The nice value that `pam_limits` sets for a user.
    pub fn pam_nice(&self, user: &str) -> i32 {
        crate::linux::pam::nice(user)
    }

    /// What `setpriv --reuid --regid --init-groups` makes of a process for this user, seen by the probe.
    ///
    /// # Panics
    ///
    /// If it cannot be run.
    pub fn control_setpriv(&self, user: &str) -> Probe {
        crate::linux::control::setpriv(self, self.user(user))
    }

    /// What `runuser -u NAME --` makes of a process for this user, seen by the probe.
    ///
    /// # Panics
    ///
    /// If it cannot be run.
    pub fn control_runuser(&self, user: &str) -> Probe {
        crate::linux::control::runuser(self, self.user(user))
    }
}

/// Takes the lock that tests share the bed by, for as long as the process lives.
fn lock(at_once: FlockOperation, waiting: FlockOperation) {
    static HELD: OnceLock<Option<File>> = OnceLock::new();
    HELD.get_or_init(|| {
        let file = File::options().read(true).open(Path::new(ROOT).join("lock")).ok()?;
        if rustix::fs::flock(&file, at_once).is_err() {
            // The runner stops its clock at this line, and starts it anew at the next.
            println!("\ntestbed: waiting");
            rustix::fs::flock(&file, waiting).ok()?;
            println!("testbed: go on");
        }
        Some(file)
    });
}
