//! The passes over a process's threads.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Errno;

use super::own::{NAMESPACES, Own, Shared, namespace_of, open_links, read_status, root_of};
use super::{Fault, Findings};
use crate::error::{ConfinedPart, Error};
use crate::sys::client::identity::changed;
use crate::sys::proc::Status;
use crate::sys::token::{Label, label};

/// Threads that come and go are looked at again, this often at most.
const PASSES: usize = 16;

/// How long passes go on; the first one is always made whole.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looking at more threads than this would keep the server busy for too long on a client's behalf.
const MOST_THREADS: usize = 4096;

/// What is read of one thread besides its places.
pub(super) struct Thread {
    pub(super) status: Status,
    pub(super) label: Option<Label>,
}

/// Compares the label of one thread.
fn look_at_label(thread: &OwnedFd, own: &Own, findings: &mut Findings) -> io::Result<Option<Label>> {
    match label(thread) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            findings.unknown(ConfinedPart::Label);
            Ok(None)
        }
        found => {
            let found = found?;
            if found != own.label {
                findings.confined(ConfinedPart::Label);
            }
            Ok(found)
        }
    }
}

/// Looks at every thread, and gives what was read of the first, whose id is the process's.
pub(super) fn look_at(
    process: &OwnedFd,
    pid: u32,
    own: &Own,
    findings: &mut Findings,
    fault: &impl Fn(io::Error) -> Fault,
    doing: &'static str,
) -> Result<Thread, Fault> {
    let first_name = pid.to_string();
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let mut tasks = openat(process, "task", flags, Mode::empty())
        .and_then(Dir::new)
        .map_err(|errno| fault(errno.into()))?;
    let until = Instant::now() + PATIENCE;
    for pass in 0..PASSES {
        // Thousands of threads that come and go would cost the server seconds for each time it is asked.
        if pass > 0 && Instant::now() >= until {
            break;
        }
        let threads = thread_names(&mut tasks).map_err(fault)?;
        if threads.len() > MOST_THREADS {
            let what = format!("more than {MOST_THREADS} threads");
            return Err(fault(io::Error::other(what)));
        }
        let mut steady = true;
        let mut living = false;
        let mut first = None;
        for thread in &threads {
            match look_at_thread(&tasks, thread, own, findings) {
                Ok(read) => {
                    // A listing ends early where the thread that it has come to ends (`next_tid` of fs/proc/base.c).
                    steady &= read.status.threads == threads.len();
                    living |= !read.status.is_dead();
                    if *thread == first_name {
                        first = Some(read);
                    }
                }
                Err(error) if is_gone(&error) => steady = false,
                Err(error) => return Err(fault(error)),
            }
            // One thread that is confined is enough: what the others are changes nothing, however many they are.
            if let Some(error) = findings.refused(doing) {
                return Err(unless_gone(fault, error));
            }
        }
        // What confines a process shows in those of its threads that live; and only two equal listings count.
        if let Some(first) = first
            && steady
            && living
            && thread_names(&mut tasks).map_err(fault)? == threads
        {
            return Ok(first);
        }
    }
    let what = "its threads come and go faster than they can be looked at".into();
    Err(unless_gone(fault, changed(doing, what)))
}

/// The error, unless the process has ended meanwhile.
fn unless_gone(fault: &impl Fn(io::Error) -> Fault, error: Error) -> Fault {
    match fault(io::Error::other("no such process")) {
        Fault::Unreadable(_) => Fault::Final(error),
        end @ Fault::Final(_) => end,
    }
}

fn look_at_thread(tasks: &Dir, thread: &str, own: &Own, findings: &mut Findings) -> io::Result<Thread> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let thread = openat(tasks.fd()?, thread, flags, Mode::empty())?;
    match look_at_living(&thread, own, findings) {
        // A first thread that has ended stays until the others have: it is nowhere, and asks for nothing.
        Err(error) if is_gone(&error) => {
            let status = read_status(&thread)?;
            if status.is_dead() { Ok(Thread { status, label: None }) } else { Err(error) }
        }
        read => read,
    }
}

fn look_at_living(thread: &OwnedFd, own: &Own, findings: &mut Findings) -> io::Result<Thread> {
    let label = look_at_label(thread, own, findings)?;
    let status = read_status(thread)?;
    if status.no_new_privs {
        findings.no_new_privs = true;
        if findings.shared.no_new_privs {
            // Whether there is Landlock behind it cannot be seen.
            findings.unknown(ConfinedPart::NoNewPrivileges);
        } else {
            findings.confined(ConfinedPart::NoNewPrivileges);
        }
    }
    if is_filtered_more(&status, findings.shared) {
        findings.confined(ConfinedPart::Seccomp);
    }
    if status.bounding & own.status.bounding != own.status.bounding {
        findings.confined(ConfinedPart::BoundingSet);
    }
    // The server's is procfs's own (`Own::read`), and this thread is in one below.
    if status.pid_namespaces != 1 {
        findings.confined(ConfinedPart::PidNamespace);
    }
    // After the status: in a new user namespace the bounding set is a full one, and nothing leads back out of it.
    // A thread that is in the server's now was in it when its status was read.
    look_at_places(thread, own, findings)?;
    Ok(Thread { status, label })
}

/// More filters than both have from the same process, or strict mode.
fn is_filtered_more(client: &Status, shared: Shared) -> bool {
    let strict = client.seccomp == 1 && shared.seccomp != 1;
    let more = match (client.seccomp_filters, shared.filters) {
        (Some(client), Some(shared)) => client > shared,
        // Before Linux 5.9 only the mode shows.
        _ => client.seccomp > shared.seccomp,
    };
    strict || more
}

fn look_at_places(thread: &OwnedFd, own: &Own, findings: &mut Findings) -> io::Result<()> {
    let links = open_links(thread)?;
    for ((name, part), wanted) in NAMESPACES.into_iter().zip(own.namespaces) {
        if let Some(wanted) = wanted {
            compare(namespace_of(&links, name), &wanted, part, findings)?;
        }
    }
    compare(root_of(thread), &own.root, ConfinedPart::RootDirectory, findings)
}

fn compare<P: PartialEq>(
    found: rustix::io::Result<P>,
    wanted: &P,
    part: ConfinedPart,
    findings: &mut Findings,
) -> io::Result<()> {
    match found {
        // PTRACE_MODE_READ was refused: another user's process, and no CAP_SYS_PTRACE.
        Err(Errno::ACCESS | Errno::PERM) => findings.unknown(part),
        Ok(found) if found == *wanted => {}
        Ok(_) => findings.confined(part),
        Err(errno) => return Err(errno.into()),
    }
    Ok(())
}

/// The thread ids below `/proc/PID/task`, in order.
fn thread_names(tasks: &mut Dir) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    tasks.rewind();
    while let Some(entry) = tasks.read() {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str()
            && name.bytes().all(|byte| byte.is_ascii_digit())
        {
            names.push(name.to_owned());
        }
    }
    if names.is_empty() {
        return Err(Errno::SRCH.into());
    }
    names.sort_unstable();
    Ok(names)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::sys::token::open_directory;

    /// What is seen of a process that shows no thread but a first one that has ended: no pass over it suffices.
    fn seen_of_one_that_has_ended(own: &Own) -> Error {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let process = open_directory(&format!("/proc/{}", child.id())).unwrap();
        while !read_status(&process).unwrap().is_dead() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut findings = Findings::default();
        let doing = "looking at a client";
        let seen = look_at(&process, child.id(), own, &mut findings, &Fault::Unreadable, doing);
        child.wait().unwrap();
        let Err(Fault::Final(error)) = seen else { panic!("it was looked at") };
        error
    }

    #[test]
    fn a_process_of_which_nothing_is_seen_but_a_first_thread_that_has_ended_was_not_looked_at() {
        let error = seen_of_one_that_has_ended(&Own::read().unwrap());
        assert!(matches!(error.kind(), ErrorKind::ClientChanged { .. }), "{error}");
    }

    #[test]
    fn no_further_pass_is_made_when_a_confined_thread_was_found() {
        let mut own = Own::read().unwrap();
        // No process has a capability of this number.
        own.status.bounding |= 1 << 63;
        let error = seen_of_one_that_has_ended(&own);
        let part = ConfinedPart::BoundingSet;
        assert_eq!(error.kind(), &ErrorKind::ClientConfined { part });
    }
}
