//! The stages between the program outside and the one inside: the present program, executed again.
//!
//! Nothing here forks a process with threads: each step is a fresh execution, told what it is by a variable.

use super::furnish::{self, context};
use super::{EnterOptions, Entry, Plan, namespaces};
use crate::linux::bed::{Description, ROOT};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

/// The present program by the kernel's own link: cargo may have put a new one in its place meanwhile.
pub(super) const SELF: &str = "/proc/self/exe";
pub(super) const STAGE: &str = "STEAD_TESTBED_STAGE";
pub(super) const PLAN: &str = "STEAD_TESTBED_PLAN";
/// The descriptor over which the maps of a user namespace are asked for.
pub(super) const SOCKET: &str = "STEAD_TESTBED_SOCKET";

/// Runs a stage of entering the bed, and ends, where this process was started for one. Otherwise does nothing.
///
/// To be called first of all in `main`, while the process has one thread.
pub fn run_stage_if_asked() {
    let Ok(stage) = std::env::var(STAGE) else { return };
    let result = match stage.as_str() {
        "try" => try_namespaces(),
        "try-mounts" => namespaces::try_mounts().map(|()| 0),
        "outer" => outer(),
        "init" => init(),
        "enter" => enter_as_root(),
        other => Err(io::Error::other(format!("unknown stage {other}"))),
    };
    match result {
        Ok(status) => std::process::exit(status),
        Err(error) => {
            eprintln!("testbed: {stage}: {error}");
            std::process::exit(125);
        }
    }
}

pub(super) fn status_number(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn plan() -> io::Result<Plan> {
    let text = std::env::var(PLAN).map_err(io::Error::other)?;
    Ok(serde_json::from_str(&text)?)
}

/// Dies with the process that started this one, whatever ends it.
fn tie_to_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// In a user namespace: says that it is there, and waits until its maps are written.
fn join_user_namespace() -> io::Result<()> {
    let number = std::env::var(SOCKET).ok().and_then(|number| number.parse().ok());
    let mut socket =
        UnixStream::from(crate::linux::sys::inherited(number.ok_or_else(|| io::Error::other("no socket"))?));
    namespaces::unshare_user()?;
    socket.write_all(b"+")?;
    let mut answer = [0];
    socket.read_exact(&mut answer)?;
    namespaces::become_root()?;
    // A change of ids clears it.
    tie_to_parent()
}

/// Whether mount and PID namespaces can be made and furnished at all, tried in a process that ends at once.
fn try_namespaces() -> io::Result<i32> {
    if plan()?.mode == crate::Mode::UserNamespace {
        join_user_namespace()?;
    }
    namespaces::unshare_mount_and_pid()?;
    // Only a process of the new PID namespace may mount its /proc, and only where no part of the present one is hidden.
    Ok(status_number(Command::new(SELF).env(STAGE, "try-mounts").status()?))
}

/// Enters the bed for a user who came here through sudo.
fn enter_as_root() -> io::Result<i32> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::other("sudo did not make this process root"));
    }
    let options = EnterOptions { programs: plan()?.programs, ..EnterOptions::default() };
    match super::enter(&options)? {
        Entry::Inside(_) => Err(io::Error::other("sudo inside the testbed")),
        Entry::Left { status, left_behind } => {
            for what in &left_behind {
                eprintln!("LEFT BEHIND ON THE HOST: {what}");
            }
            Ok(if left_behind.is_empty() { status } else { 1 })
        }
    }
}

/// Makes the namespaces, and in them the first process.
fn outer() -> io::Result<i32> {
    tie_to_parent()?;
    if plan()?.mode == crate::Mode::UserNamespace {
        join_user_namespace()?;
    }
    namespaces::unshare_mount_and_pid()?;
    let mut child = Command::new(SELF).args(std::env::args_os().skip(1)).env(STAGE, "init").spawn()?;
    Ok(status_number(child.wait()?))
}

/// Process 1 of the bed: furnishes it, starts the program, reaps whatever is orphaned, and takes all with it.
fn init() -> io::Result<i32> {
    tie_to_parent()?;
    rustix::thread::set_name(c"testbed-init")?;
    crate::linux::sys::default_signals();
    crate::linux::sys::keep_descriptors_to_oneself();
    let plan = plan()?;
    namespaces::furnish(&plan)?;
    let users = crate::linux::accounts::users(&Path::new(ROOT).join("home"));
    furnish::rooms(&plan.programs)?;
    let login_uid = furnish::login_uid_works();
    namespaces::private_etc(&users, login_uid)?;
    furnish::homes(&users)?;
    furnish::describe(&Description {
        mode: plan.mode,
        owner: None,
        users,
        login_uid,
        cgroup: plan.cgroup.clone(),
    })?;
    let mut command = Command::new(SELF);
    command
        .args(std::env::args_os().skip(1))
        .env_remove(STAGE)
        .env_remove(PLAN)
        .env_remove(SOCKET)
        .env("TMPDIR", Path::new(ROOT).join("tmp"));
    let child = context(command.spawn(), || "the program inside".to_owned())?;
    wait_for(child.id())
}

/// Reaps every child until the one with this pid has ended, and gives its status.
fn wait_for(pid: u32) -> io::Result<i32> {
    let wanted = i32::try_from(pid).ok().and_then(Pid::from_raw);
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Some(pid) == wanted => return Ok(wait_status(status)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn wait_status(status: WaitStatus) -> i32 {
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0))
}
