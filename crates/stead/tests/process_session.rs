//! Processes of a logon session: created by the session worker, at home in what PAM has set up.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod process_support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;

use process_support::*;
use stead::os::linux::{ChildExt, CommandExt, Limit, Signal};
use stead::process::Containment;
use stead::{Account, Command, ErrorKind, Logon, LogonSession, LogonType, PtySize, Stdio};
use testbed::{Bed, until};

fn session(bed: &Bed, name: &str) -> LogonSession {
    let user = bed.user(name);
    opened(Logon::password(Account::local(&user.name), user.password.as_str()).kind(LogonType::Interactive))
}

#[test]
fn a_process_of_a_session_has_what_pam_set_and_what_the_server_adds() {
    let bed = testbed::require!();
    let session = session(bed, "alice");
    let ours = seen(probe(bed).env("ADDED", "by the server"), session.token());
    assert_eq!(ours.uid.real, bed.user("alice").uid);
    for (name, value) in bed.pam_environment("stead-interactive") {
        assert_eq!(ours.variable(&name), Some(value.as_str()), "{name}");
    }
    assert_eq!(ours.variable("ADDED"), Some("by the server"));
    assert_eq!(ours.variable("USER"), Some("alice"));
    assert_eq!(std::path::Path::new(&ours.directory), bed.user("alice").home);
    assert_eq!(ours.umask, bed.pam_umask("stead-interactive"));
    assert_eq!(ours.nice, bed.pam_nice("alice"));
    for (name, soft, hard) in bed.pam_limits("alice") {
        let limit = ours.limits[name];
        assert_eq!((limit.soft, limit.hard), (Some(soft), Some(hard)), "{name}");
    }
    let open: Vec<i32> = ours.descriptors.keys().copied().collect();
    assert_eq!(open, [0, 1, 2]);
    assert_eq!(ours.session, ours.pid);
    assert_eq!((ours.signals.blocked, ours.signals.ignored), (0, 0));

    // What the command asks for goes before what PAM has set.
    let ours = seen(probe(bed).umask(0o007).nice(11).limit(Limit::Core, 0, 0), session.token());
    assert_eq!((ours.umask, ours.nice, ours.limits["Max core file size"].hard), (0o007, 11, Some(0)));
    session.close().unwrap();
}

#[test]
fn its_end_is_learned_from_the_worker() {
    let bed = testbed::require!();
    let session = session(bed, "bob");
    let token = session.token();
    for code in [0, 7, 255] {
        assert_eq!(shell(&format!("exit {code}")).status_as(token).unwrap().code(), Some(code));
    }
    let mut child = Command::new("sleep").arg("1000").spawn_as(token).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    child.signal(Signal::USR1).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::USR1.as_raw()));
    drop(child);
    let missing = Command::new("/nowhere").status_as(token).unwrap_err();
    assert!(
        matches!(missing.kind(), ErrorKind::ProgramNotFound { program } if program == "/nowhere"),
        "{missing}"
    );
    let closed = Command::new("true").current_dir("/root/nowhere").status_as(token).unwrap_err();
    assert!(matches!(closed.kind(), ErrorKind::DirectoryUnusable { .. }), "{closed}");
    session.close().unwrap();
    assert!(zombies().is_empty());
}

#[test]
fn a_child_that_was_waited_for_does_not_keep_the_session_open() {
    let bed = testbed::require!();
    let session = session(bed, "bob");
    let mut child = Command::new("true").spawn_as(session.token()).unwrap();
    assert!(child.wait().unwrap().success());
    session.close().unwrap();
    // Still at hand, and what it knows it still tells.
    assert!(child.wait().unwrap().success());
    assert!(matches!(child.kill_tree().unwrap_err().kind(), ErrorKind::SessionEnded));
}

#[test]
fn the_worker_ends_even_what_became_a_daemon() {
    let bed = testbed::require!();
    let session = session(bed, "alice");
    let script = "setsid sleep 1000 & echo $!; setsid -f sh -c 'echo $$; exec sleep 1000'; \
                  (setsid setsid sleep 1000 & echo $!); echo $$; wait";
    let mut child = shell(script).stdout(Stdio::piped()).spawn_as(session.token()).unwrap();
    assert_eq!(child.containment(), Containment::SessionWorker);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let pids: Vec<u32> = lines.take(4).map(|line| line.unwrap().parse().unwrap()).collect();
    child.kill_tree().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    until("the tree is gone", || !pids.iter().any(|pid| alive(*pid)));
    drop(child);
    session.close().unwrap();
}

#[test]
fn ending_one_tree_of_a_session_leaves_the_others() {
    let bed = testbed::require!();
    let session = session(bed, "alice");
    let script = "sleep 1000 & echo $!; (setsid sleep 1000 & echo $!; wait) & (sleep 1000 & echo $!); wait";
    let mut child = shell(script).stdout(Stdio::piped()).spawn_as(session.token()).unwrap();
    let mut other = shell(script).stdout(Stdio::piped()).spawn_as(session.token()).unwrap();
    let pids = |child: &mut stead::Child| -> Vec<u32> {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.take(3).map(|line| line.unwrap().parse().unwrap()).collect()
    };
    let (its, others) = (pids(&mut child), pids(&mut other));
    child.kill_tree().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    until("the tree is gone", || !its.iter().any(|pid| alive(*pid)));
    assert!(others.iter().all(|pid| alive(*pid)) && alive(other.id()));
    other.kill_tree().unwrap();
    assert_eq!(other.wait().unwrap().signal(), Some(9));
    until("the other is gone", || !others.iter().any(|pid| alive(*pid)));
    drop((child, other));
    session.close().unwrap();
}

#[test]
fn a_suspended_start_and_a_terminal_work_in_a_session_too() {
    let bed = testbed::require!();
    let session = session(bed, "alice");
    let mut command = shell("stat -c %u $(tty); stty size");
    command.suspended(true).pty(PtySize { rows: 10, columns: 20, ..PtySize::default() });
    let mut child = command.spawn_as(session.token()).unwrap();
    assert!(child.is_suspended());
    child.resume().unwrap();
    let mut said = String::new();
    child.pty.as_mut().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said.replace('\r', ""), format!("{}\n10 20\n", bed.user("alice").uid));
    assert!(child.wait().unwrap().success());
    drop(child);
    session.close().unwrap();
}

#[test]
fn a_limit_above_what_pam_has_set_needs_the_privilege() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("the service's policy says who may have higher limits");
    let Some((_, _, hard)) = bed.pam_limits("alice").into_iter().find(|(name, ..)| *name == "Max open files")
    else {
        testbed::skip!("the bed sets no limit of open files")
    };
    let session = session(bed, "alice");
    let mut command = Command::new("true");
    let above = command.limit(Limit::OpenFiles, 64, hard + 1).status_as(session.token());
    if testbed::confine::may("sys_resource") {
        assert!(above.unwrap().success());
    } else {
        let error = above.unwrap_err();
        let expected = stead::Privilege::IncreaseQuota;
        assert!(
            matches!(error.kind(), ErrorKind::PrivilegeMissing { privilege, .. } if *privilege == expected),
            "{error}"
        );
    }
    session.close().unwrap();
}

#[test]
fn many_processes_of_many_sessions_leave_nothing_behind() {
    let bed = testbed::require!();
    testbed::time_limit!(300);
    let sessions = ["alice", "bob", "mallory"].map(|name| (bed.user(name).uid, session(bed, name)));
    let run = |number: usize| {
        std::thread::scope(|scope| {
            for (uid, session) in &sessions {
                scope.spawn(move || {
                    for round in 0..number {
                        assert_eq!(printed("id -u", session.token()), uid.to_string());
                        if round % 2 == 0 {
                            drop(Command::new("true").spawn_as(session.token()).unwrap());
                        }
                    }
                });
            }
        });
    };
    run(2);
    let before = descriptors().len();
    run(60);
    // Each connection to the service keeps up to four idle ones, where the program has its sessions from there.
    assert!(descriptors().len() <= before + 4 * sessions.len(), "{:?}", descriptors());
    for (_, session) in sessions {
        until("what was abandoned has ended", || session.processes().unwrap().is_empty());
        session.close().unwrap();
    }
    assert!(zombies().is_empty());
}
