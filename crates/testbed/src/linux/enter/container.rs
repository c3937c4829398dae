//! The bed without namespaces: users in a container's own account files, taken away again.
//!
//! Every line and file of ours bears a mark, so that what a killed run left behind is found and removed at the next
//! start.

use super::furnish::{self, context};
use super::stage::{PLAN, SELF, STAGE, wait_status};
use super::{EnterOptions, leftovers};
use crate::linux::accounts::{self, User};
use crate::linux::bed::{Description, Mode, ROOT};
use crate::linux::{pam, sys};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, WaitOptions};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

const ETC: &str = "/etc";
const LOCK: &str = "/run/lock/stead-testbed.lock";
/// Directories that the library makes: ours where they were not there before.
const LIBRARY_DIRECTORIES: &[&str] = &["/var/lib/stead", "/run/stead"];
const OWN_MARK: &str = ".made-by-the-testbed";

/// Takes the lock, and away what a killed run left.
pub(super) fn sweep() -> io::Result<Lock> {
    let lock = Lock::take()?;
    // Without a trace of an earlier run, whoever has these ids is somebody else.
    if leftovers::stale_root() || has_ours(Path::new(ETC)) {
        eprintln!("testbed: taking away what an earlier run left behind");
        take_away()?;
    }
    Ok(lock)
}

/// Runs the present program with `arguments` among users made for it.
pub(super) fn run(options: &EnterOptions, arguments: &[OsString]) -> io::Result<i32> {
    let users = accounts::users(&Path::new(ROOT).join("home"));
    refuse_collisions(Path::new(ETC), &users)?;
    refuse_accounts_from_elsewhere(&users)?;
    if let Some((pid, _)) = leftovers::our_processes().first() {
        // They would be ended with those of the bed.
        return Err(io::Error::other(format!("process {pid} has a uid that the testbed would need")));
    }
    // Signals are waited for below, so that nothing ends this process before it has put everything back.
    sys::block_ending_signals()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let guard = Guard;
    make(options, users)?;
    let mut command = Command::new(SELF);
    command.args(arguments).env_remove(STAGE).env_remove(PLAN).env("TMPDIR", Path::new(ROOT).join("tmp"));
    // std hands on what this process blocks, and what whoever started it ignores.
    let status = wait(sys::with_default_signals(&mut command).spawn()?)?;
    drop(guard);
    Ok(status)
}

/// Puts everything back, also when something panics in between.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = take_away() {
            eprintln!("testbed: could not put everything back: {error}");
        }
    }
}

fn make(options: &EnterOptions, users: Vec<User>) -> io::Result<()> {
    furnish::rooms(&options.programs)?;
    for path in LIBRARY_DIRECTORIES.iter().map(Path::new).filter(|path| !path.exists()) {
        furnish::directory(path, 0o755)?;
        furnish::write(&path.join(OWN_MARK), "", 0o600)?;
    }
    let login_uid = furnish::login_uid_works();
    add_ours(Path::new(ETC), &users, login_uid)?;
    furnish::homes(&users)?;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    furnish::describe(&Description {
        mode: Mode::Container,
        owner: crate::linux::probe::start_time(own).map(|started| (own, started)),
        users,
        login_uid,
        cgroup: None,
    })
}

/// Waits for the program inside; a signal that would end this process ends it first.
fn wait(mut child: Child) -> io::Result<i32> {
    loop {
        let signal = sys::wait_for_ending_signal(Duration::from_millis(50));
        if let Some(status) = reap(child.id())? {
            return Ok(status);
        }
        if let Some(signal) = signal {
            eprintln!("testbed: signal {signal}: putting everything back");
            let _ = child.kill();
            child.wait()?;
            return Ok(128 + signal);
        }
    }
}

/// Reaps whoever has ended, for orphans come to this process; the status is that of the child with this pid.
fn reap(pid: u32) -> io::Result<Option<i32>> {
    let wanted = i32::try_from(pid).ok().and_then(Pid::from_raw);
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == wanted => return Ok(Some(wait_status(status))),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends what is left of a run: this process's children (orphans come to it) and every process of our users.
fn end_processes() {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for _ in 0..200 {
        let mut found = children_of(own);
        found.extend(leftovers::our_processes().into_iter().map(|(pid, _)| pid));
        for pid in found.iter().filter(|pid| **pid != own).copied().filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        if found.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn children_of(parent: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let of: i32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            (of == parent).then_some(pid)
        })
        .collect()
}

/// Takes away everything of ours that is there.
fn take_away() -> io::Result<()> {
    end_processes();
    remove_ours(Path::new(ETC))?;
    for path in LIBRARY_DIRECTORIES.iter().map(Path::new).filter(|path| path.join(OWN_MARK).exists()) {
        fs::remove_dir_all(path)?;
    }
    match fs::remove_dir_all(ROOT) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => context(Err(error), || ROOT.to_owned()),
        _ => Ok(()),
    }
}

/// One run at a time.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    fn take() -> io::Result<Self> {
        furnish::directory(Path::new("/run/lock"), 0o1777)?;
        let file = context(File::create(LOCK), || LOCK.to_owned())?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another run has the testbed in this container"))?;
        Ok(Self { _file: file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(LOCK);
    }
}

/// A user or group of the container's own with one of our names or ids would be mixed up with ours.
fn refuse_collisions(etc: &Path, users: &[User]) -> io::Result<()> {
    let lines = accounts::lines(users);
    for (file, ours) in [("passwd", &lines.passwd), ("group", &lines.group)] {
        let there = fs::read_to_string(etc.join(file)).unwrap_or_default();
        for (name, id) in ours.lines().filter_map(name_and_id) {
            let taken = there.lines().filter_map(name_and_id).find(|other| other.0 == name || other.1 == id);
            if let Some((name, id)) = taken {
                return Err(io::Error::other(format!(
                    "{}: {name} ({id}) is there already, and the testbed would need the name or the id",
                    etc.join(file).display()
                )));
            }
        }
    }
    Ok(())
}

/// The same of those whom another database than the files knows (nsswitch.conf(5)).
fn refuse_accounts_from_elsewhere(users: &[User]) -> io::Result<()> {
    let lines = accounts::lines(users);
    for (database, ours) in [("passwd", &lines.passwd), ("group", &lines.group)] {
        let names_and_ids = ours.lines().filter_map(name_and_id).flat_map(|(name, id)| [name, id]);
        let known = match Command::new("getent").arg(database).args(names_and_ids).output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            answered => answered?.stdout,
        };
        if let Some(taken) = String::from_utf8_lossy(&known).lines().next() {
            return Err(io::Error::other(format!(
                "the account database has {taken:?}, and the testbed would need the name or the id"
            )));
        }
    }
    Ok(())
}

/// Whether an earlier run's users are in the account files.
fn has_ours(etc: &Path) -> bool {
    fs::read_to_string(etc.join("passwd")).is_ok_and(|text| text.contains(accounts::MARK))
}

fn name_and_id(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split(':');
    Some((fields.next()?, fields.nth(1)?))
}

fn add_ours(etc: &Path, users: &[User], login_uid: bool) -> io::Result<()> {
    let lines = accounts::lines(users);
    let lock = account_lock(etc);
    for (file, ours) in [
        ("passwd", &lines.passwd),
        ("shadow", &lines.shadow),
        ("group", &lines.group),
        ("gshadow", &lines.gshadow),
        ("subuid", &lines.subordinate),
        ("subgid", &lines.subordinate),
    ] {
        change(&etc.join(file), |text| append(text, ours))?;
    }
    drop(lock);
    for file in pam::files(Path::new(ROOT), login_uid) {
        let path = etc.join(file.path);
        // `security` is there with libpam-modules, `pam.d` with anything that uses PAM.
        if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
            furnish::directory(directory, 0o755)?;
        }
        furnish::write(&path, &file.text, 0o644)?;
    }
    change(&etc.join("security/group.conf"), |text| append(text, &pam::group_conf_line()))
}

fn append(text: &str, ours: &str) -> String {
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{newline}{ours}")
}

/// Removes every line and file of ours from the account and PAM files below `etc`.
pub(super) fn remove_ours(etc: &Path) -> io::Result<()> {
    let all = accounts::lines(&accounts::all_users(&Path::new(ROOT).join("home")));
    let read = |file: &str| fs::read_to_string(etc.join(file)).unwrap_or_default();
    let marked: BTreeSet<String> = read("passwd")
        .lines()
        .filter(|line| line.contains(accounts::MARK))
        .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
        .collect();
    let is_marked = |line: &str| line.split_once(':').is_some_and(|(name, _)| marked.contains(name));
    let lock = account_lock(etc);
    // A line is ours if we would write it so, or if it belongs to a user whom the mark shows to be ours (passwords
    // may have been changed meanwhile). Lines of ours that a run without carol wrote differ in members only.
    change(&etc.join("shadow"), |text| {
        keep(text, |line| !is_marked(line) && !line.contains(accounts::SALT_MARK))
    })?;
    let groups: BTreeSet<_> = all.group.lines().filter_map(name_and_id).collect();
    for file in ["group", "gshadow"] {
        let names: BTreeSet<&str> = groups.iter().map(|(name, _)| *name).collect();
        let group_file = file == "group";
        change(&etc.join(file), |text| {
            keep(text, |line| {
                let ours = if group_file {
                    name_and_id(line).is_some_and(|group| groups.contains(&group))
                } else {
                    all.gshadow.lines().any(|ours| ours == line)
                        || line.split_once(":!::").is_some_and(|(name, _)| names.contains(name))
                };
                !ours
            })
        })?;
    }
    for file in ["subuid", "subgid"] {
        change(&etc.join(file), |text| keep(text, |line| !all.subordinate.lines().any(|ours| ours == line)))?;
    }
    // Last of the account files: the mark in it is what the others were recognised by.
    change(&etc.join("passwd"), |text| keep(text, |line| !line.contains(accounts::MARK)))?;
    drop(lock);
    for directory in ["pam.d", "security"] {
        for path in
            fs::read_dir(etc.join(directory)).into_iter().flatten().filter_map(|e| Some(e.ok()?.path()))
        {
            let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("stead-"));
            if named && fs::read_to_string(&path).is_ok_and(|text| text.starts_with(pam::MARK)) {
                fs::remove_file(path)?;
            }
        }
    }
    change(&etc.join("security/group.conf"), |text| keep(text, |line| !line.contains(pam::MARK)))
}

fn keep(text: &str, wanted: impl Fn(&str) -> bool) -> String {
    text.split_inclusive('\n').filter(|line| wanted(line.trim_end_matches('\n'))).collect()
}

/// The lock that `useradd`, `passwd` and `pam_unix` take (lckpwdf(3)).
fn account_lock(etc: &Path) -> Option<File> {
    let path = etc.join(".pwd.lock");
    let file = File::options().write(true).create(true).truncate(false).open(path).ok()?;
    rustix::fs::fcntl_lock(&file, FlockOperation::LockExclusive).ok()?;
    Some(file)
}

/// Rewrites a file in one step, with its owner and mode; a file that is mounted by itself, in place. One that is not
/// there is left alone when there is nothing to be written, and removed when nothing remains of what was ours alone.
fn change(path: &Path, new: impl FnOnce(&str) -> String) -> io::Result<()> {
    let old = match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return context(Err(error), || path.display().to_string()),
    };
    let text = new(old.as_deref().unwrap_or_default());
    if old.as_deref().unwrap_or_default() == text {
        return Ok(());
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".stead-testbed");
    let partial = PathBuf::from(partial);
    let private = path.file_name().is_some_and(|name| name == "shadow" || name == "gshadow");
    let usual = if private { 0o640 } else { 0o644 };
    let (mode, uid, gid) =
        fs::metadata(path).map_or((usual, 0, 0), |meta| (meta.mode() & 0o7777, meta.uid(), meta.gid()));
    furnish::write(&partial, "", 0o600)?;
    chown(&partial, Some(uid), Some(gid))?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(mode))?;
    fs::write(&partial, &text)?;
    if fs::rename(&partial, path).is_ok() {
        return Ok(());
    }
    fs::remove_file(&partial)?;
    context(fs::write(path, text), || path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_to_the_account_files_is_taken_away_to_the_byte() {
        let etc = std::env::temp_dir().join(format!("stead-testbed-etc-{}", std::process::id()));
        fs::create_dir_all(etc.join("security")).unwrap();
        fs::create_dir_all(etc.join("pam.d")).unwrap();
        let before = [
            ("passwd", "root:x:0:0:root:/root:/bin/sh\nzoe:x:1000:1000:zoe:/home/zoe:/bin/sh\n"),
            ("shadow", "root:*:19000:0:99999:7:::\nzoe:$6$x$y:19000:0:99999:7:::\n"),
            ("group", "root:x:0:\nzoe:x:1000:\nstead-other:x:1001:zoe\n"),
            ("gshadow", "root:*::\nzoe:!::\n"),
            ("subuid", "zoe:100000:65536\n"),
            ("subgid", "zoe:100000:65536\n"),
            ("security/group.conf", "# a comment\n"),
            ("pam.d/stead-broker", "auth required pam_unix.so\n"),
        ];
        for (name, text) in before {
            fs::write(etc.join(name), text).unwrap();
        }
        let users = accounts::all_users(Path::new("/home"));
        refuse_collisions(&etc, &users).unwrap();
        add_ours(&etc, &users, true).unwrap();
        assert!(fs::read_to_string(etc.join("passwd")).unwrap().contains("alice:x:47001"));
        assert!(etc.join("pam.d/stead-interactive").exists());
        assert!(refuse_collisions(&etc, &users).is_err());
        // frank has changed his password, as he must.
        let shadow = fs::read_to_string(etc.join("shadow")).unwrap();
        let changed: String = shadow
            .lines()
            .map(|line| {
                if line.starts_with("frank:") {
                    "frank:$6$new$hash:20000:0:::::\n".into()
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
        fs::write(etc.join("shadow"), changed).unwrap();
        remove_ours(&etc).unwrap();
        for (name, text) in before {
            assert_eq!(fs::read_to_string(etc.join(name)).unwrap(), text, "{name}");
        }
        assert!(!etc.join("pam.d/stead-interactive").exists());
        fs::remove_dir_all(etc).unwrap();
    }
}
