//! The same attacks on this library and on what is used in its place: the peer falls, here, on this kernel; the library
//! stands. A peer that is not installed is left out, and said so; std is always here.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process_support;

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command as Std;

use process_support::*;
use stead::{Command, PtySize, Stdio};
use testbed::Bed;

/// `subprocess` with a user and nothing of groups, which its documentation calls enough to change the user.
const PYTHON: &str = "\
import subprocess, sys
user, group = int(sys.argv[1]), int(sys.argv[2])
sys.exit(subprocess.call(sys.argv[3:], user=user, group=group))
";

/// What JupyterHub's local spawner does between fork and exec: a list of groups that cannot be set is a line on the
/// standard error.
const HUB: &str = "\
import grp, os, pwd, subprocess, sys
account = pwd.getpwuid(int(sys.argv[1]))
groups = [entry.gr_gid for entry in grp.getgrall() if account.pw_name in entry.gr_mem]
def become():
    os.setgid(account.pw_gid)
    try:
        os.setgroups(groups)
    except OSError as problem:
        print('the groups were not set:', problem, file=sys.stderr)
    os.setuid(account.pw_uid)
sys.exit(subprocess.call(sys.argv[3:], preexec_fn=become))
";

/// A Python program that starts another as the user.
fn python(bed: &Bed, script: &str, name: &str, program: &[&str]) -> Std {
    let user = bed.user(name);
    let mut command = Std::new("python3");
    command.args(["-I", "-c", script, &user.uid.to_string(), &user.gid.to_string()]).args(program);
    command
}

fn has_python() -> bool {
    Std::new("python3")
        .args(["-I", "-c", "import sys; sys.exit(sys.version_info < (3, 9))"])
        .status()
        .is_ok_and(|status| status.success())
}

/// What the standard library makes of a user: its uid and gid, no more.
fn std_as(bed: &Bed, name: &str, program: &str) -> Std {
    let user = bed.user(name);
    let mut command = Std::new(program);
    command.uid(user.uid).gid(user.gid).current_dir("/");
    command
}

/// A file with this content, of that group.
fn file_of_group(path: PathBuf, content: &str, group: u32, mode: u32) -> PathBuf {
    std::fs::write(&path, content).unwrap();
    chown(&path, None, Some(group)).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

/// What `cat` shows of the file through a peer; nothing where it may not read it.
fn shown(mut peer: Std) -> String {
    let output = peer.stdin(std::process::Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same through this library.
fn shown_by_us(bed: &Bed, name: &str, file: &Path) -> String {
    let output = Command::new("cat").arg(file).output_as(&token(bed, name)).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A group that bob has and alice has not.
fn group_of_bobs(bed: &Bed) -> u32 {
    let alices = bed.user("alice").all_groups();
    bed.user("bob").all_groups().into_iter().find(|group| !alices.contains(group)).unwrap()
}

/// CVE-2014-8989: who loses a group is let in where the group is shut out.
#[test]
fn std_drops_the_clients_groups_and_so_lets_it_in_and_this_library_does_not() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    let group = *alice.groups.iter().find(|group| **group != alice.gid).unwrap();
    let file = file_of_group(bed.scratch("let-in").join("notes"), "not for that group", group, 0o604);
    let mut peer = std_as(bed, "alice", "cat");
    peer.arg(&file);
    assert_eq!(shown(peer), "not for that group", "std fell for it when this was written");
    assert_eq!(shown_by_us(bed, "alice", &file), "");
}

/// libuv#1105, haskell/process#149: the server's supplementary groups are the client's.
#[test]
fn python_leaves_the_client_the_servers_groups_and_this_library_does_not() {
    let bed = testbed::require!();
    if !has_python() {
        testbed::skip!("python3 is not installed (3.9 or later)");
    }
    let test = "python_leaves_the_client_the_servers_groups_and_this_library_does_not";
    // A server that is in a group of its own, as services are.
    let group = group_of_bobs(bed);
    if !in_a_server_of_its_own(bed, test, &["setpriv", &format!("--groups={group}"), "--"]) {
        return;
    }
    let file = file_of_group(bed.scratch("left").join("secret"), "for that group", group, 0o640);
    let file_name = file.to_str().unwrap();
    assert_eq!(shown(python(bed, PYTHON, "alice", &["cat", file_name])), "for that group");
    assert_eq!(shown_by_us(bed, "alice", &file), "");
}

/// JupyterHub, NFS-Ganesha: setgroups fails, a line is printed, the program runs with the server's groups.
#[test]
fn a_hub_whose_setgroups_fails_runs_the_program_with_its_own_groups_and_this_library_runs_none() {
    let bed = testbed::require!();
    if !has_python() {
        testbed::skip!("python3 is not installed (3.9 or later)");
    }
    let test = "a_hub_whose_setgroups_fails_runs_the_program_with_its_own_groups_and_this_library_runs_none";
    let group = group_of_bobs(bed);
    if !in_a_server_of_its_own(bed, test, &["setpriv", &format!("--groups={group}"), "--"]) {
        return;
    }
    let file = file_of_group(bed.scratch("hub").join("secret"), "for that group", group, 0o640);
    let ran = bed.scratch("ran");
    std::fs::set_permissions(&ran, Permissions::from_mode(0o777)).unwrap();
    let ran = ran.join("ran");
    let token = token(bed, "alice");
    let hub = python(bed, HUB, "alice", &["cat", file.to_str().unwrap()]);
    // As in a container whose profile does not know the call, or with more groups than the kernel takes.
    let (shown, ours) = std::thread::spawn(move || {
        let filter = testbed::confine::Filter::new().deny(libc::SYS_setgroups, libc::EPERM);
        filter.install_on_this_thread().unwrap();
        (shown(hub), Command::new("touch").arg(&ran).status_as(&token).map_err(|error| (error, ran.exists())))
    })
    .join()
    .unwrap();
    assert_eq!(shown, "for that group");
    let (error, ran) = ours.unwrap_err();
    assert!(error.to_string().contains("supplementary groups"), "{error}");
    assert!(!ran);
}

/// Whether there is a controlling terminal.
const SCRIPT: &str = "print open(my $t, '<', '/dev/tty') ? 'has it' : 'has none';";

/// CVE-2017-5226, CVE-2016-2779: what has the server's terminal reads what is typed there, and can type where the kernel
/// still lets it (TIOCSTI).
#[test]
fn std_setpriv_and_runuser_leave_the_client_the_servers_terminal_and_this_library_does_not() {
    let bed = testbed::require!();
    if Std::new("perl").arg("-e1").status().is_err() {
        testbed::skip!("needs perl");
    }
    let test = "std_setpriv_and_runuser_leave_the_client_the_servers_terminal_and_this_library_does_not";
    if std::env::var_os("STEAD_TEST_SERVER").is_none() {
        let mut server = Command::new(bed.this_program());
        server
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env("STEAD_TEST_SERVER", "1")
            .current_dir("/")
            .pty(PtySize::default());
        let mut child = server.spawn_as(&stead::Token::current().unwrap()).unwrap();
        let mut said = String::new();
        // The terminal is closed with an error when the last of its processes has ended.
        let _ = child.pty.take().unwrap().read_to_string(&mut said);
        assert!(child.wait().unwrap().success() && said.contains("1 passed"), "{said}");
        return;
    }
    assert!(rustix::termios::isatty(std::io::stdin()), "this server has a terminal");
    let user = bed.user("mallory");
    let mut with_std = std_as(bed, "mallory", "perl");
    with_std.args(["-e", SCRIPT]);
    let mut setpriv = Std::new("setpriv");
    setpriv.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)]);
    setpriv.args(["--init-groups", "--", "perl", "-e", SCRIPT]);
    let mut runuser = Std::new("runuser");
    runuser.args(["-u", "mallory", "--", "perl", "-e", SCRIPT]);
    for mut peer in [with_std, setpriv, runuser] {
        let output = peer.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "has it", "{peer:?}: {output:?}");
    }
    let mut ours = Command::new("perl");
    ours.args(["-e", SCRIPT]).stdin(Stdio::inherit());
    assert_eq!(text(ours.output_as(&token(bed, "mallory")).unwrap()), "has none");
}

/// What is the server's own: a secret in its environment, a umask.
#[test]
fn std_and_python_hand_down_what_is_the_servers_own_and_this_library_does_not() {
    let bed = testbed::require!();
    let test = "std_and_python_hand_down_what_is_the_servers_own_and_this_library_does_not";
    let prefix = [
        "env",
        "SERVERS_SECRET=swordfish",
        "--ignore-signal=HUP",
        "sh",
        "-c",
        "umask 000; exec \"$0\" \"$@\"",
    ];
    if !in_a_server_of_its_own(bed, test, &prefix) {
        return;
    }
    let probe_path = bed.bin("probe");
    let probe_name = probe_path.to_str().unwrap();
    let own = |probe: &testbed::Probe| (probe.variable("SERVERS_SECRET").map(str::to_owned), probe.umask);
    let mut peers = vec![std_as(bed, "alice", probe_name)];
    if has_python() {
        peers.push(python(bed, PYTHON, "alice", &[probe_name]));
    } else {
        println!("python3 is not installed (3.9 or later)");
    }
    for mut peer in peers {
        let output = peer.output().unwrap();
        assert!(output.status.success(), "{peer:?}: {output:?}");
        let fell = own(&testbed::Probe::parse(&output.stdout));
        assert_eq!(fell, (Some("swordfish".to_owned()), 0), "{peer:?}");
    }
    let (secret, umask) = own(&seen(&probe(bed), &token(bed, "alice")));
    assert_eq!(secret, None);
    assert_ne!(umask, 0);
}
