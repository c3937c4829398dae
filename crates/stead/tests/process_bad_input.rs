//! What cannot be run, and how the error says so.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod process_support;

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use process_support::*;
use stead::error::ProgramFault;
use stead::os::linux::{Cgroup, CommandExt, Limit, RestrictionExt, TokenExt};
use stead::process::Stage;
use stead::token::Restriction;
use stead::{Command, Error, ErrorKind, Privilege, PtySize, Stdio};

fn assert_invalid(error: &Error, named: &str) {
    let ErrorKind::InvalidInput { what } = error.kind() else { panic!("{error}") };
    assert!(what.contains(named), "{what:?} does not name {named:?}");
}

fn assert_unusable(error: &Error, expected: ProgramFault) {
    assert!(matches!(error.kind(), ErrorKind::ProgramUnusable { why, .. } if *why == expected), "{error}");
}

#[test]
fn what_is_wrong_with_a_command_is_named_before_anything_is_done() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let before = descriptors();
    let null = || std::os::fd::OwnedFd::from(File::open("/dev/null").unwrap());
    let refuse = |command: &Command, named: &str| {
        assert_invalid(&command.spawn_as(&token).unwrap_err(), named);
    };
    refuse(&Command::new(""), "the program's name is empty");
    refuse(&Command::new("a\0b"), "the program's name has a NUL");
    refuse(Command::new("true").arg("fine").arg("not\0fine"), "argument 2 has a NUL");
    refuse(Command::new("true").arg0("\0"), "argument 0 has a NUL");
    refuse(Command::new("true").env("A=B", "c"), "\"A=B\" has = or NUL");
    refuse(Command::new("true").env("", "c"), "name is empty");
    refuse(Command::new("true").env("A\0", "c"), "= or NUL");
    refuse(Command::new("true").env_remove("A=B"), "\"A=B\" has = or NUL");
    refuse(Command::new("true").env("SECRET", "s\0t"), "value of the variable \"SECRET\" has a NUL");
    refuse(Command::new("true").current_dir(""), "the directory is empty");
    refuse(Command::new("true").current_dir("a\0"), "the directory has a NUL");
    refuse(Command::new("true").fd(null(), 2), "descriptor 2 is a standard stream");
    refuse(Command::new("true").fd(null(), 5).fd(null(), 5), "descriptor 5 is given twice");
    refuse(Command::new("true").fd(null(), u32::MAX), "limit of open files");
    refuse(Command::new("true").umask(0o1777), "umask 0o1777");
    refuse(Command::new("true").nice(20), "nice value 20");
    refuse(Command::new("true").oom_score_adj(-1001), "-1001");
    refuse(Command::new("true").exec_label(""), "label is empty");
    refuse(Command::new("true").limit(Limit::OpenFiles, 2, 1), "soft limit 2 of RLIMIT_NOFILE is above");
    refuse(
        Command::new("true").limit(Limit::Core, 1, 1).limit(Limit::Core, 2, 2),
        "RLIMIT_CORE is given twice",
    );
    let mut elsewhere = Command::new("true");
    elsewhere.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    refuse(elsewhere.pty(PtySize::default()), "one of the standard streams is the terminal");
    assert_invalid(&Command::new("true").suspended(true).output_as(&token).unwrap_err(), "suspended");
    assert_invalid(&Command::new("true").pty(PtySize::default()).status_as(&token).unwrap_err(), "terminal");
    assert_eq!(descriptors(), before);
    assert!(zombies().is_empty());
}

#[test]
fn a_builder_stays_usable_after_bad_input() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let mut command = probe(bed);
    command.env("A", "with a NUL \0");
    assert_invalid(&command.output_as(&token).unwrap_err(), "\"A\"");
    command.env("A", "without");
    assert_eq!(seen(&command, &token).variable("A"), Some("without"));
}

#[test]
fn programs_that_cannot_be_executed_are_told_apart() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let directory = bed.scratch("programs");
    let at = |name: &str| directory.join(name);
    let run = |name: &str| Command::new(at(name)).output_as(&token).unwrap_err();

    assert!(matches!(run("missing").kind(), ErrorKind::ProgramNotFound { .. }));
    std::fs::create_dir(at("directory")).unwrap();
    assert_unusable(&run("directory"), ProgramFault::IsDirectory);
    executable(&at("not-executable"), "#!/bin/sh\n", 0o644);
    assert_unusable(&run("not-executable"), ProgramFault::NotPermitted);
    executable(&at("only-roots"), "#!/bin/sh\n", 0o700);
    assert_unusable(&run("only-roots"), ProgramFault::NotPermitted);
    executable(&at("garbage"), [7_u8; 300], 0o755);
    assert_unusable(&run("garbage"), ProgramFault::BadFormat);
    executable(&at("without-a-line"), "echo no shell is put in between\n", 0o755);
    assert_unusable(&run("without-a-line"), ProgramFault::BadFormat);
    executable(&at("interpreter-missing"), "#!/nowhere/interpreter\n", 0o755);
    assert_unusable(&run("interpreter-missing"), ProgramFault::InterpreterUnusable);
    executable(&at("interpreter"), std::fs::read("/bin/sh").unwrap(), 0o700);
    executable(&at("interpreter-unreadable"), format!("#!{}\n", at("interpreter").display()), 0o755);
    assert_unusable(&run("interpreter-unreadable"), ProgramFault::InterpreterUnusable);
    executable(&at("works"), "#!/bin/sh\necho works $1\n", 0o755);
    assert_eq!(text(Command::new(at("works")).arg("well").output_as(&token).unwrap()), "works well");

    let busy = at("busy");
    std::fs::copy("/bin/true", &busy).unwrap();
    std::fs::set_permissions(&busy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let writing = File::options().write(true).open(&busy).unwrap();
    assert_unusable(&run("busy"), ProgramFault::Busy);
    drop(writing);
    assert!(Command::new(&busy).status_as(&token).unwrap().success());
    assert!(zombies().is_empty());
}

#[test]
fn a_directory_that_the_client_cannot_enter_is_named() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let closed = bed.scratch("closed");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    for directory in [closed.as_path(), std::path::Path::new("/nowhere"), std::path::Path::new("/etc/passwd")]
    {
        let error = Command::new("true").current_dir(directory).output_as(&token).unwrap_err();
        let ErrorKind::DirectoryUnusable { directory: named } = error.kind() else { panic!("{error}") };
        assert_eq!(named.as_bytes(), directory.as_os_str().as_bytes());
    }
}

#[test]
fn a_home_that_is_missing_is_an_error_and_not_the_root_directory() {
    let bed = testbed::require!();
    let Some(grace) = bed.find_user("grace") else { testbed::skip!("there is no user without a home") };
    let error = Command::new("true").output_as(&token(bed, "grace")).unwrap_err();
    let ErrorKind::DirectoryUnusable { directory } = error.kind() else { panic!("{error}") };
    assert_eq!(std::path::Path::new(directory), grace.home);
    let elsewhere = Command::new("true").current_dir("/").status_as(&token(bed, "grace")).unwrap();
    assert!(elsewhere.success());
}

#[test]
fn arguments_and_environment_that_are_too_large_are_said_to_be() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    // One string above the kernel's 128 KiB, and many small ones above its total.
    let error = Command::new("true").arg("x".repeat(200_000)).output_as(&token).unwrap_err();
    assert_unusable(&error, ProgramFault::ArgumentsTooLong);
    let mut command = Command::new("true");
    for number in 0..70 {
        command.env(format!("V{number}"), "x".repeat(100_000));
    }
    assert_unusable(&command.output_as(&token).unwrap_err(), ProgramFault::ArgumentsTooLong);
    assert!(command.env_clear().status_as(&token).unwrap().success());
}

#[test]
fn the_users_process_limit_is_named() {
    let bed = testbed::require!();
    let token = token(bed, "bob");
    // The kernel counts what the user had before the new process became his.
    let mut one = Command::new("sleep").arg("1000").spawn_as(&token).unwrap();
    let error = Command::new("true").limit(Limit::Processes, 0, 0).output_as(&token).unwrap_err();
    one.kill().unwrap();
    one.wait().unwrap();
    let ErrorKind::LimitReached { limit } = error.kind() else { panic!("{error}") };
    assert!(limit.contains("RLIMIT_NPROC"), "{limit}");
}

#[test]
fn a_limit_above_the_servers_own_needs_the_privilege_that_is_named() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("the service's policy says who may have higher limits");
    let token = token(bed, "alice");
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    // Its own hard limit it may always give.
    assert!(Command::new("true").limit(Limit::OpenFiles, 64, own).status_as(&token).unwrap().success());
    if own == u64::MAX {
        testbed::skip!("the server's own limit of open files is infinite");
    }
    let above = Command::new("true").limit(Limit::OpenFiles, 64, own + 1).status_as(&token);
    if testbed::confine::may("sys_resource") {
        assert!(above.unwrap().success());
        return;
    }
    let error = above.unwrap_err();
    let ErrorKind::PrivilegeMissing { privilege, missing, held: is_held, enabled } = error.kind() else {
        panic!("{error}")
    };
    assert_eq!(*privilege, Privilege::IncreaseQuota);
    assert_eq!(*missing, testbed::confine::missing_name("sys_resource"));
    assert_eq!((*is_held, *enabled), (false, false));
    let remedy = error.remedy().unwrap();
    assert_eq!(remedy.contains("user namespace"), missing.contains("initial"), "{remedy}");
}

#[test]
fn a_server_without_the_privilege_is_told_which_and_starts_nothing() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("it is about their lack");
    let server = ["setpriv", "--reuid=47009", "--regid=47009", "--init-groups", "--inh-caps=-all", "--"];
    let test = exact(module_path!(), "a_server_without_the_privilege_is_told_which_and_starts_nothing");
    if !in_a_server_of_its_own(bed, &test, &server) {
        return;
    }
    // As itself it needs none: its ids and groups are there already.
    let own = stead::Token::current().unwrap();
    assert!(Command::new("true").current_dir("/").status_as(&own).unwrap().success());
    // But other groups it may not give itself.
    let less = Restriction::new().without_group(own.groups().as_slice()[0]);
    let error = Command::new("true").current_dir("/").status_as(&own.restrict(&less).unwrap()).unwrap_err();
    let ErrorKind::PrivilegeMissing { privilege, missing, held, enabled } = error.kind() else {
        panic!("{error}")
    };
    assert_eq!(*privilege, Privilege::AssignPrimaryToken);
    assert!(missing.contains("CAP_SETGID"), "{missing}");
    assert_eq!((*held, *enabled), (false, false));
    assert!(zombies().is_empty());
}

#[test]
fn a_directory_that_is_no_delegated_cgroup_is_refused() {
    let _bed = testbed::require!();
    assert_invalid(&Cgroup::delegated("/tmp").unwrap_err(), "version 2");
    let scope = "/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope";
    assert_invalid(&Cgroup::delegated(scope).unwrap_err(), "session-3.scope was made by pam_systemd");
    assert!(matches!(Cgroup::delegated("/nowhere").unwrap_err().kind(), ErrorKind::System { call: "open" }));
}

#[test]
fn a_client_that_delays_its_own_process_cannot_hold_the_server() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    // Opening a FIFO waits for its other end: execve of it is refused, entering it as a directory too, but a
    // stopped process is what a client can really do; the deadline is the answer to both.
    let command = {
        let mut command = Command::new("true");
        command.deadline(std::time::Duration::ZERO);
        command
    };
    match command.spawn_as(&token) {
        // The program was faster than the server's clock.
        Ok(mut child) => assert!(child.wait().unwrap().success()),
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::DeadlinePassed { .. } | ErrorKind::SpawnFailed { stage: Stage::Deadline }
            ),
            "{error}"
        ),
    }
    // Where only the end is waited for, the start has the same deadline.
    match command.status_as(&token) {
        Ok(status) => assert!(status.success()),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::DeadlinePassed { .. }), "{error}"),
    }
    assert!(zombies().is_empty());
}

#[test]
fn the_deadline_of_the_start_does_not_end_a_program_that_runs() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 6; exit 7"]).deadline(std::time::Duration::from_secs(5));
    assert_eq!(command.status_as(&token).unwrap().code(), Some(7));
}
