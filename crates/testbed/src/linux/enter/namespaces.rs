//! The bed as mount and PID namespaces, made by root or inside a user namespace.

use super::furnish::{self, context};
use super::stage::{PLAN, SOCKET, STAGE, status_number};
use super::{EnterOptions, Plan};
use crate::linux::accounts::User;
use crate::linux::bed::{Mode, ROOT};
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Runs the present program with `arguments` in a bed of namespaces.
pub(super) fn run(mode: Mode, options: &EnterOptions, arguments: &[OsString]) -> io::Result<i32> {
    let cgroup = super::leftovers::BedCgroup::make();
    let plan = Plan {
        mode,
        programs: options.programs.clone(),
        cgroup: cgroup.as_ref().map(|c| c.path().to_owned()),
    };
    let mut child = start("outer", &plan, arguments)?;
    Ok(status_number(child.wait()?))
}

/// Whether a bed of this mode could be made here; else why not.
pub(super) fn possible(mode: Mode) -> Result<(), String> {
    let plan = Plan { mode, programs: Vec::new(), cgroup: None };
    let mut child = start("try", &plan, &[]).map_err(|error| error.to_string())?;
    let mut said = String::new();
    if let Some(mut errors) = child.stderr.take() {
        let _ = errors.read_to_string(&mut said);
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) if said.trim().is_empty() => Err(status.to_string()),
        Ok(_) => Err(said.trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Starts a stage, and in a user namespace writes its maps.
fn start(stage: &str, plan: &Plan, arguments: &[OsString]) -> io::Result<Child> {
    let mut command = Command::new(super::stage::SELF);
    command.args(arguments).env(STAGE, stage).env(PLAN, serde_json::to_string(plan)?);
    if stage == "try" {
        command.stderr(Stdio::piped()).stdout(Stdio::null());
    }
    if plan.mode != Mode::UserNamespace {
        return command.spawn();
    }
    let (mut ours, theirs) = UnixStream::pair()?;
    // Inherited on purpose. Nothing else is started between here and the spawn.
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())?;
    let mut child = command.env(SOCKET, theirs.as_raw_fd().to_string()).spawn()?;
    drop(theirs);
    if let Err(error) = write_maps(&mut ours, child.id()) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(child)
}

/// Maps root there to the user here, and the ids from 1 on to the user's subordinate ids.
fn write_maps(socket: &mut UnixStream, pid: u32) -> io::Result<()> {
    let mut ready = [0];
    socket.read_exact(&mut ready).map_err(|_| io::Error::other("no user namespace could be made"))?;
    let (uids, gids) = super::needs::subordinate_ranges()?;
    for (tool, own, range) in [
        ("newuidmap", rustix::process::getuid().as_raw(), uids),
        ("newgidmap", rustix::process::getgid().as_raw(), gids),
    ] {
        let output = Command::new(tool)
            .arg(pid.to_string())
            .args([0, own, 1, 1, range.first, range.count].map(|number| number.to_string()))
            .output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!(
                "{tool}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
    }
    socket.write_all(b"+")
}

pub(super) fn unshare_user() -> io::Result<()> {
    crate::linux::sys::unshare(UnshareFlags::NEWUSER)
}

/// Takes on the ids 0 that the maps give. One thread only, so the thread calls are the process's.
pub(crate) fn become_root() -> io::Result<()> {
    use rustix::process::{Gid, Uid};
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    Ok(())
}

pub(super) fn unshare_mount_and_pid() -> io::Result<()> {
    crate::linux::sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWPID)?;
    // Nothing that is mounted from now on is seen outside.
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

fn tmpfs(at: &Path, options: &std::ffi::CStr) -> io::Result<()> {
    let result = rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::NODEV, options);
    context(result.map_err(Into::into), || format!("tmpfs on {}", at.display()))
}

/// Everything but /etc.
pub(super) fn furnish(plan: &Plan) -> io::Result<()> {
    mount_proc()?;
    let kept = kept_directories(plan);
    tmpfs(Path::new("/run"), c"mode=0755")?;
    tmpfs(Path::new("/var/log"), c"mode=0755")?;
    // X servers leave their sockets and locks in it.
    tmpfs(Path::new("/tmp"), c"mode=1777")?;
    if Path::new("/dev/shm").is_dir() {
        tmpfs(Path::new("/dev/shm"), c"mode=1777")?;
    }
    // What root begins in; in a user namespace the host's root's is closed to it.
    let root = Path::new("/root");
    if root.is_dir() && rustix::fs::access(root, rustix::fs::Access::EXEC_OK).is_err() {
        tmpfs(root, c"mode=0700")?;
    }
    // Terminals of our own, so that none of the host's can be named. gid 5 is `tty`, as everywhere.
    if rustix::mount::mount(
        "devpts",
        "/dev/pts",
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        c"newinstance,ptmxmode=0666,mode=0620,gid=5",
    )
    .is_ok()
    {
        // Where /dev/ptmx is a link to it, this changes nothing.
        let _ = rustix::mount::mount_bind("/dev/pts/ptmx", "/dev/ptmx");
    }
    for (directory, ours) in [("/var/lib", "stead"), ("/usr/libexec", "stead")] {
        add_directory(Path::new(directory), ours)?;
    }
    for (path, descriptor) in kept {
        furnish::directory(&path, 0o755)?;
        let source = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        context(rustix::mount::mount_bind_recursive(source, &path).map_err(Into::into), || {
            format!("keeping {}", path.display())
        })?;
    }
    furnish::directory(Path::new("/run/lock"), 0o1777)?;
    furnish::directory(Path::new("/run/user"), 0o755)?;
    furnish::directory(Path::new(ROOT), 0o755)
}

/// The checkout and the programs, where they lie below a directory that is hidden.
fn kept_directories(plan: &Plan) -> Vec<(PathBuf, OwnedFd)> {
    let mut wanted: Vec<PathBuf> = std::env::current_dir().into_iter().collect();
    wanted.extend(std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)));
    wanted.extend(plan.programs.iter().filter_map(|(_, path)| path.parent().map(Path::to_owned)));
    // Of /tmp whole branches: a target directory there is more than the programs in it.
    for path in &mut wanted {
        if let Some(first) = path.strip_prefix("/tmp").ok().and_then(|rest| rest.components().next()) {
            *path = Path::new("/tmp").join(first);
        }
    }
    wanted.sort();
    wanted.dedup();
    wanted
        .into_iter()
        .filter(|path| ["/run", "/var/log", "/dev/shm", "/tmp"].iter().any(|hidden| path.starts_with(hidden)))
        .filter_map(|path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let descriptor = rustix::fs::open(&path, flags, FileMode::empty()).ok()?;
            Some((path, descriptor))
        })
        .collect()
}

/// Gives a directory one entry more, for us alone: a tmpfs over it holds that entry, and every other one bound from
/// what lies below.
fn add_directory(directory: &Path, name: &str) -> io::Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    let staging = Path::new("/run/stead-testbed-staging");
    furnish::directory(staging, 0o755)?;
    tmpfs(staging, c"mode=0755")?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (source, target) = (entry.path(), staging.join(entry.file_name()));
        let kind = entry.file_type()?;
        if entry.file_name() == name {
            continue;
        }
        if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_dir() {
            fs::create_dir(&target)?;
            context(rustix::mount::mount_bind_recursive(&source, &target).map_err(Into::into), || {
                format!("binding {}", source.display())
            })?;
        } else if kind.is_file() {
            fs::write(&target, "")?;
            context(rustix::mount::mount_bind(&source, &target).map_err(Into::into), || {
                format!("binding {}", source.display())
            })?;
        }
    }
    furnish::directory(&staging.join(name), 0o755)?;
    move_over(staging, directory)
}

fn move_over(staging: &Path, directory: &Path) -> io::Result<()> {
    context(rustix::mount::mount_move(staging, directory).map_err(Into::into), || {
        format!("mounting over {}", directory.display())
    })?;
    fs::remove_dir(staging)
}

/// A copy of /etc, in which accounts and PAM are ours, over the host's.
pub(super) fn private_etc(users: &[User], login_uid: bool) -> io::Result<()> {
    let staging = Path::new("/run/stead-testbed-staging");
    furnish::directory(staging, 0o755)?;
    tmpfs(staging, c"mode=0755")?;
    furnish::copy_tree(Path::new("/etc"), staging)?;
    furnish::private_etc(staging, users, login_uid)?;
    move_over(staging, Path::new("/etc"))
}

fn mount_proc() -> io::Result<()> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounted = rustix::mount::mount("proc", "/proc", "proc", safe, None);
    context(mounted.map_err(Into::into), || "a fresh /proc".to_owned())
}

/// Whether the bed's mounts are allowed at all.
pub(super) fn try_mounts() -> io::Result<()> {
    mount_proc()?;
    tmpfs(Path::new("/run"), c"mode=0755")
}

/// The /proc of a PID namespace whose first process this is.
pub(crate) fn fresh_proc() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    mount_proc()
}

/// An empty /run, so that a bed can be made within a bed; the helper programs are found in /run/programs.
pub(crate) fn empty_run() -> io::Result<()> {
    crate::linux::sys::unshare(UnshareFlags::NEWNS)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let bin = rustix::fs::open(Path::new(ROOT).join("bin"), flags, FileMode::empty())?;
    tmpfs(Path::new("/run"), c"mode=0755")?;
    furnish::directory(Path::new("/run/lock"), 0o1777)?;
    let programs = Path::new("/run/programs");
    furnish::directory(programs, 0o755)?;
    rustix::mount::mount_bind(format!("/proc/self/fd/{}", bin.as_raw_fd()), programs)?;
    Ok(())
}

/// A container's files inside a bed: none of its users and services, and an empty /run.
pub(crate) fn fresh_files() -> io::Result<()> {
    empty_run()?;
    let staging = Path::new("/run/stead-testbed-staging");
    furnish::directory(staging, 0o755)?;
    tmpfs(staging, c"mode=0755")?;
    furnish::copy_tree(Path::new("/etc"), staging)?;
    super::container::remove_ours(staging)?;
    move_over(staging, Path::new("/etc"))
}
