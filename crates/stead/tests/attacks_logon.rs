//! Attacks on logons, session workers and what belongs to them.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod logon_support;

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio as StdStdio;
use std::time::Duration;

use logon_support::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stead::os::linux::{LogonExt, LogonGid};
use stead::{Account, Command, ErrorKind, Logon, LogonType};
use testbed::until;

const ROLE: &str = "STEAD_TEST_ROLE";

#[test]
fn a_server_without_room_for_a_descriptor_leaves_no_process_behind() {
    let bed = testbed::require!();
    let session = session(bed, "alice");
    // What is made lazily is made now.
    Command::new("/bin/true").status_as(session.token()).unwrap();
    let before = getrlimit(Resource::Nofile);
    let (mut failures, mut child) = (0, None);
    for room in 0..32 {
        // The table is full but for so many.
        setrlimit(Resource::Nofile, Rlimit { current: Some(200), ..before }).unwrap();
        let mut full: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        full.truncate(full.len() - room);
        let spawned = Command::new("/bin/sleep").arg("600").spawn_as(session.token());
        drop(full);
        setrlimit(Resource::Nofile, before).unwrap();
        match spawned {
            Ok(one) => {
                child = Some(one);
                break;
            }
            Err(error) => {
                let full = matches!(error.kind(), ErrorKind::LimitReached { .. } | ErrorKind::System { .. });
                assert!(full && error.to_string().contains("os error 24"), "{room}: {error}");
                failures += 1;
            }
        }
        until("what failed has left nothing", || session.processes().unwrap().is_empty());
    }
    let mut child = child.expect("with room for all of them it is created");
    assert!(failures > 3, "{failures}");
    assert_eq!(session.processes().unwrap().len(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn nobody_else_can_hold_the_lock_of_the_logon_gids() {
    let bed = testbed::require!();
    let folder = bed.scratch("lock");
    std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap();
    let all = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    let range = if all { 0x7000_2000..=0x7000_2fff } else { 62_000..=62_999 };
    let open = || {
        let gid = LogonGid::range(range.clone()).directory(&folder);
        logon(bed, "alice").logon_gid(gid).deadline(Duration::from_secs(5)).open()
    };
    drop(open().unwrap());
    // Everything there that mallory may open is locked by her.
    let script = "for it in \"$0\" \"$0\"/*; do if [ -r \"$it\" ]; then exec 9<\"$it\"; flock 9; \
                  echo \"locked $it\"; (exec sleep 600) & exec 9<&-; fi; done; echo done; cat >/dev/null; kill %1 %2";
    let mut mallory = bed.as_user("mallory", &[], "/bin/bash");
    mallory.args(["-c", script]).arg(&folder).stdin(StdStdio::piped()).stdout(StdStdio::piped());
    let mut mallory = mallory.spawn().unwrap();
    let mut said = std::io::BufReader::new(mallory.stdout.take().unwrap());
    let mut lines = String::new();
    while !lines.ends_with("done\n") {
        assert_ne!(std::io::BufRead::read_line(&mut said, &mut lines).unwrap(), 0, "{lines}");
    }
    assert!(lines.contains("locked"), "the folder itself can be locked: {lines}");
    let opened = open();
    drop(mallory.stdin.take());
    mallory.wait().unwrap();
    opened.unwrap();
}

#[test]
fn a_worker_in_a_folder_where_others_write_is_passed_over() {
    let bed = testbed::require!();
    if std::env::var_os(ROLE).is_some() {
        let logon = Logon::password(Account::local("alice"), bed.user("alice").password.as_str());
        return println!("said: {}", refused(logon.kind(LogonType::Interactive)));
    }
    // A server in a folder of its own, but the folder above is everybody's.
    let folder = bed.scratch("shared");
    std::fs::create_dir(folder.join("bin")).unwrap();
    let server = folder.join("bin/server");
    std::fs::copy(std::env::current_exe().unwrap(), &server).unwrap();
    // Root's program, in a worker's place: started with root's rights and nothing to say.
    symlink("/bin/sh", folder.join("stead-session")).unwrap();
    std::fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let test = "a_worker_in_a_folder_where_others_write_is_passed_over";
    let output = std::process::Command::new(&server)
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, "server")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("was passed over: it can be written"), "{said}");
    std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_name_cannot_write_a_line_of_its_own_into_the_servers_log() {
    let bed = testbed::require!();
    let name = "alice\nstead: root logged on\u{1b}[2J";
    let logon = Logon::password(Account::local(name), bed.user("alice").password.as_str());
    let error = refused(logon.kind(LogonType::Interactive));
    assert!(!error.to_string().contains(char::is_control), "{error:?}");
    assert!(error.to_string().contains("alice\\nstead"), "{error}");
}

#[test]
fn one_call_is_one_attempt() {
    let bed = testbed::require!();
    let host = "one-attempt";
    let wrong = || Logon::password(Account::local("alice"), "wrong").pam_service("stead-interactive");
    for attempts in 1..=2 {
        refused(from(wrong(), host));
        let asked = phases(bed, host).iter().filter(|phase| *phase == "auth").count();
        assert!(asked <= attempts, "{asked} in {attempts}: a retry locks accounts");
        assert!(!phases(bed, host).contains(&"open_session".to_owned()));
    }
}

#[test]
fn files_in_the_clients_home_configure_nothing_that_is_privileged() {
    let bed = testbed::require!();
    let home = &bed.user("bob").home;
    for name in
        [".pam_environment", ".config/environment.d/evil.conf", ".profile", ".bashrc", ".ssh/environment"]
    {
        let file = home.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "LD_PRELOAD=/nowhere/evil.so\nSTEAD_EVIL=1\nXDG_SEAT=seat0\n").unwrap();
    }
    let session = session(bed, "bob");
    let worker = children().into_iter().find(|pid| lives(*pid)).expect("the worker is a child");
    // The worker is not dumpable: without the capability nobody can look.
    if testbed::confine::may("sys_ptrace") {
        assert_eq!(std::fs::read(format!("/proc/{worker}/environ")).unwrap(), b"");
    }
    let seen = seen(bed, &session);
    for name in ["LD_PRELOAD", "STEAD_EVIL", "XDG_SEAT"] {
        assert_eq!(seen.variable(name), None, "{name}");
    }
    for name in
        [".pam_environment", ".config/environment.d/evil.conf", ".profile", ".bashrc", ".ssh/environment"]
    {
        std::fs::remove_file(home.join(name)).unwrap();
    }
}

/// A server that is given a password, logs on with it, and says so. It knows nothing else of the bed.
#[test]
fn role_server_that_is_told_a_password() {
    if std::env::var_os(ROLE).is_none_or(|role| role != "told") {
        return;
    }
    let mut secret = vec![0; 256];
    // Not through std's buffer, which would keep it.
    let length = rustix::io::read(std::io::stdin(), &mut secret).unwrap();
    secret.truncate(length);
    let session =
        Logon::password(Account::local("alice"), secret).pam_service("stead-interactive").open().unwrap();
    Command::new("/bin/true").status_as(session.token()).unwrap();
    println!("\nlogged on");
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn the_secret_is_in_no_memory_of_the_server_after_the_logon() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::fs::FileExt;
    let bed = testbed::require!();
    let secret = bed.user("alice").password.as_str();
    let (mut input, output) = std::io::pipe().unwrap();
    let mut server = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "role_server_that_is_told_a_password", "--nocapture"])
        .env(ROLE, "told")
        .stdin(StdStdio::piped())
        .stdout(output)
        .spawn()
        .unwrap();
    server.stdin.take().unwrap().write_all(secret.as_bytes()).unwrap();
    let mut said = BufReader::new(&mut input as &mut dyn Read).lines();
    let told = said.any(|line| line.unwrap() == "logged on");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.id())).unwrap();
    let memory = std::fs::File::open(format!("/proc/{}/mem", server.id())).unwrap();
    let mut looked = 0;
    let mut found = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        let read = memory.read_at(&mut bytes, from).unwrap_or(0);
        looked += read;
        if bytes[..read].windows(secret.len()).any(|window| window == secret.as_bytes()) {
            found.push(line.to_owned());
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(told && looked > 0);
    assert!(found.is_empty(), "{found:?}");
}
