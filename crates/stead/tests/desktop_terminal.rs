//! Existing terminals as desktops: a virtual terminal of this machine, through a device file that only these tests see.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod desktop_support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use desktop_support::*;
use stead::process::Stage;
use stead::{Command, Desktop, ErrorKind};
use testbed::{Bed, until};

const TERMINAL: &str = "/dev/tty20";
/// Major 4, minor 20, as the kernel prints it in `/proc/PID/stat`.
const NUMBER: &str = "1044";

/// The bed for the test alone; its process in a mount namespace of its own has it already.
macro_rules! alone {
    () => {
        if std::env::var_os("STEAD_TEST_TERMINAL").is_some() {
            Bed::current().unwrap()
        } else {
            testbed::require!(alone)
        }
    };
}

/// Runs the test in a mount namespace of its own, in which the terminal is a device file of the test's: true in there.
fn with_a_terminal(bed: &Bed, test: &str) -> bool {
    if std::env::var_os("STEAD_TEST_TERMINAL").is_none() {
        let mut inside = role(bed, &["unshare", "--mount", "--"], &exact(module_path!(), test));
        let output = inside.env("STEAD_TEST_TERMINAL", "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if errors.contains("unshare failed") {
            testbed::skip_test("needs a mount namespace of its own");
        }
        testbed::skip_if_skipped(&output.stdout);
        assert!(output.status.success(), "{said}{errors}");
        return false;
    }
    let folder = bed.scratch("devices");
    let run = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
    };
    let device = folder.join("tty20");
    let (at, node) = (folder.to_str().unwrap(), device.to_str().unwrap());
    let made = run("mount", &["-t", "tmpfs", "-o", "mode=755", "tmpfs", at])
        && run("mknod", &[node, "c", "4", "20"])
        && Path::new(TERMINAL).exists()
        && run("mount", &["--bind", node, TERMINAL]);
    if !made {
        testbed::skip_test("needs virtual terminals, and the right to make device files");
    }
    chown(TERMINAL, Some(0), Some(5)).unwrap();
    std::fs::set_permissions(TERMINAL, PermissionsExt::from_mode(0o620)).unwrap();
    match std::fs::OpenOptions::new().write(true).open(TERMINAL) {
        Ok(_) => true,
        Err(error) => testbed::skip_test(format!("the terminal cannot be opened: {error}")),
    }
}

/// The number of a process's controlling terminal, and its session, as the kernel says.
fn terminal_and_session(pid: u32) -> (String, String) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[4].to_owned(), fields[3].to_owned())
}

#[test]
fn one_logon_session_has_the_terminal_while_its_process_runs_and_nobody_else_ever() {
    // Alone: a terminal controls one session at a time, whoever's test began it.
    let bed = alone!();
    if !with_a_terminal(bed, "one_logon_session_has_the_terminal_while_its_process_runs_and_nobody_else_ever")
    {
        return;
    }
    let desktop = Desktop::by_name(TERMINAL).unwrap();
    let (ours, same_user, other) = (session(bed, "alice"), session(bed, "alice"), session(bed, "mallory"));
    let before = (desktop.access().unwrap(), getfacl(Path::new(TERMINAL)));
    let opens =
        |session| !printed(&mut shell(&format!(": <> {TERMINAL}")), session).contains("ermission denied");
    assert!(!opens(&ours) && !opens(&same_user) && !opens(&other));

    let seen = bed.user("alice").home.join("seen-on-the-terminal");
    let script = format!(
        "exec 3>{0}.new; tty >&3; echo \"$TERM|$XDG_SESSION_TYPE|$DISPLAY$WAYLAND_DISPLAY\" >&3; \
         echo controlling >/dev/tty && echo controlled >&3; mv {0}.new {0}; exec sleep 1000",
        seen.display()
    );
    let mut child = shell(&script).desktop(desktop.clone()).spawn_as(ours.token()).unwrap();
    until("it has looked around", || seen.exists());
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), format!("{TERMINAL}\nlinux|tty|\ncontrolled\n"));
    assert_eq!(terminal_and_session(child.id()), (NUMBER.to_owned(), child.id().to_string()));
    for descriptor in 0..3 {
        let leads_to = std::fs::read_link(format!("/proc/{}/fd/{descriptor}", child.id())).unwrap();
        assert_eq!(leads_to, Path::new(TERMINAL));
    }
    assert!(opens(&ours) && !opens(&same_user) && !opens(&other));
    // It controls one session at a time; the second process is not quietly started without it.
    let error = shell("exec sleep 1000").desktop(desktop.clone()).spawn_as(ours.token()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::SpawnFailed { stage: Stage::Terminal }), "{error}");

    child.kill_tree().unwrap();
    child.wait().unwrap();
    until_as_before(&desktop, &before.0);
    assert_eq!(getfacl(Path::new(TERMINAL)), before.1);
    assert!(!opens(&ours) && !opens(&same_user) && !opens(&other));
    std::fs::remove_file(seen).unwrap();
}

/// Takes a lease, says so, and waits to be killed.
#[test]
fn role_a_server_that_will_be_killed() {
    if std::env::var_os("STEAD_TEST_DOOMED").is_none() {
        return;
    }
    let session = session(Bed::current().unwrap(), "alice");
    let _lease = Desktop::by_name(TERMINAL).unwrap().grant(session.token()).unwrap();
    println!("\nrole: granted");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn what_a_killed_server_had_granted_on_a_terminal_is_swept() {
    // Alone: other tests' servers would sweep it as well.
    let bed = alone!();
    needs_privileges_of_its_own("a lease that it takes by hand");
    if !with_a_terminal(bed, "what_a_killed_server_had_granted_on_a_terminal_is_swept") {
        return;
    }
    setfacl(&format!("u:{}:r", bed.user("svc").uid), Path::new(TERMINAL));
    let before = getfacl(Path::new(TERMINAL));
    let mut server = role(bed, &[], "role_a_server_that_will_be_killed")
        .env("STEAD_TEST_DOOMED", "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "role: granted"));
    server.kill().unwrap();
    server.wait().unwrap();
    assert_ne!(getfacl(Path::new(TERMINAL)), before);
    stead::desktop::sweep().unwrap();
    assert_eq!(getfacl(Path::new(TERMINAL)), before);
}

#[test]
fn what_is_no_terminal_of_its_own_is_not_granted() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a lease that it takes by hand");
    let session = session(bed, "alice");
    let refused =
        |name: &Path| Desktop::by_name(name).unwrap().grant(session.token()).unwrap_err().to_string();
    for name in ["/dev/null", "/dev/tty", "/dev/ptmx"] {
        let said = refused(Path::new(name));
        // In a user namespace the device files' owner is nobody that is known there.
        let expected = ["no terminal of its own", "symbolic link", "put something in its place"];
        assert!(expected.iter().any(|why| said.contains(why)), "{name}: {said}");
    }
    assert!(refused(Path::new("/dev/no-such-terminal")).contains("no-such-terminal"));
    // A pseudoterminal has no access list: the process gets one of its own instead.
    let master =
        rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let slave = PathBuf::from(rustix::pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap());
    assert!(refused(&slave).contains("Command::pty"), "{}", refused(&slave));
}

/// CVE-2017-5226 and its kin, on a virtual terminal: TIOCSTI types, TIOCLINUX pastes what was selected.
#[test]
fn a_process_can_neither_type_nor_paste_into_the_virtual_terminal_of_its_server() {
    let bed = testbed::require!();
    if !with_a_terminal(bed, "a_process_can_neither_type_nor_paste_into_the_virtual_terminal_of_its_server") {
        return;
    }
    if std::process::Command::new("perl").arg("-e1").status().is_err() {
        testbed::skip_test("needs perl, for its ioctl");
    }
    let mallory = session(bed, "mallory");
    // Inherited on purpose, as by a server that is started on a screen by hand.
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(TERMINAL).unwrap();
    let script = "my ($c, $p) = ('x', chr(3)); \
                  print ioctl(STDIN, 0x5412, $c) ? 'typed' : 'refused', ' ', \
                  ioctl(STDIN, 0x541C, $p) ? 'pasted' : 'refused', ' ', open(my $t, '<', '/dev/tty') ? 'tty' : 'none';";
    let said = printed(Command::new("perl").args(["-e", script]).stdin(terminal), &mallory);
    assert_eq!(said, "refused refused none");
}
