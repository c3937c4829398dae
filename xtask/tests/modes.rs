//! The bed can be made by an ordinary user, and in an ordinary container, and takes everything away again.

#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::path::Path;
use std::process::{Command, Output};
use testbed::Bed;

/// A bed within the bed takes every right there is.
macro_rules! only_in_a_bed_of_root {
    ($bed:expr) => {
        if $bed.mode() != testbed::Mode::Namespaces {
            testbed::skip!("a bed within the bed can only be made in one of root's");
        }
    };
}

/// `xtask shell COMMAND..`, in a bed of its own that `command` leads into.
fn shell(mut command: Command, arguments: &[&str]) -> (String, String) {
    let Output { status, stdout, stderr } =
        command.env("STEAD_PROGRAMS", "/run/programs").current_dir("/").args(arguments).output().unwrap();
    let texts = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success(), "{status}: {texts:?}");
    texts
}

fn by_an_ordinary_user(bed: &Bed) -> Command {
    let svc = bed.user("svc");
    let mut command = bed.confined(&["--empty-run"], "setpriv");
    command.args([&format!("--reuid={}", svc.uid), &format!("--regid={}", svc.gid)]);
    command.args(["--init-groups", "--inh-caps=-all", "--", "/run/programs/xtask"]).env("HOME", &svc.home);
    command
}

#[test]
fn an_ordinary_user_with_subordinate_ids_makes_a_bed_in_a_user_namespace() {
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    if !Path::new("/usr/bin/newuidmap").exists() {
        testbed::skip!("newuidmap is not installed (apt-get install uidmap)");
    }
    let (seen, said) = shell(by_an_ordinary_user(bed), &["shell", "id", "alice"]);
    assert!(said.contains("user namespace with subordinate ids"), "{said}");
    assert!(seen.contains("uid=47001(alice)") && seen.contains("47117(stead-shared)"), "{seen}");
    let (seen, _) = shell(by_an_ordinary_user(bed), &["shell", "/run/stead-testbed/bin/probe"]);
    let root = testbed::Probe::parse(seen.as_bytes());
    assert_eq!((root.uid.effective, root.gid.effective), (0, 0));
    assert_eq!(root.groups, [] as [u32; 0]);
}

#[test]
fn in_a_user_namespace_the_kernel_knows_the_users_by_their_subordinate_ids() {
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    if !Path::new("/usr/bin/newuidmap").exists() {
        testbed::skip!("newuidmap is not installed (apt-get install uidmap)");
    }
    let script = "setpriv --reuid=alice --regid=alice --init-groups --inh-caps=-all \
                  /run/stead-testbed/bin/probe; runuser -u bob -- id -u; getent passwd carol || echo no carol";
    let (seen, _) = shell(by_an_ordinary_user(bed), &["shell", "sh", "-c", script]);
    let lines: Vec<&str> = seen.lines().collect();
    let alice = testbed::Probe::parse(lines[0].as_bytes());
    assert_eq!(alice.uid.saved, 47001);
    assert_eq!(alice.groups.len(), 18);
    assert_eq!(lines[1..], ["47002", "no carol"]);
}

#[test]
fn without_subordinate_ids_the_missing_command_is_named() {
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    let mut command = bed.confined(&["--fresh-files"], "setpriv");
    command.args(["--reuid=54321", "--regid=54321", "--clear-groups", "--inh-caps=-all", "--"]);
    let output = command
        .args(["/run/programs/xtask", "shell", "true"])
        .env("STEAD_PROGRAMS", "/run/programs")
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(said.contains("usermod --add-subuids") || said.contains("apt-get install uidmap"), "{said}");
}

#[test]
fn in_a_container_users_are_made_in_its_own_files_and_taken_away_again() {
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    let script = "before=$(cat /etc/passwd /etc/shadow /etc/group /etc/gshadow; ls -R /etc/pam.d /etc/security /run)
        /run/programs/xtask shell id alice || exit 1
        /run/programs/xtask shell /run/stead-testbed/bin/probe || exit 1
        [ \"$before\" = \"$(cat /etc/passwd /etc/shadow /etc/group /etc/gshadow; ls -R /etc/pam.d /etc/security /run)\" ] &&
        echo as before";
    let (seen, said) = shell(bed.container("sh"), &["-c", script]);
    let lines: Vec<&str> = seen.lines().collect();
    assert!(said.contains("container: its own account files"), "{said}");
    assert!(lines[0].contains("uid=47001(alice)") && lines[0].contains("47117(stead-shared)"), "{seen}");
    let root = testbed::Probe::parse(lines[1].as_bytes());
    assert_eq!(root.seccomp, 2);
    assert_eq!(lines[2], "as before");
}

#[test]
fn a_container_is_as_before_after_an_interrupt_and_swept_after_a_kill() {
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    let script =
        "files() { cat /etc/passwd /etc/shadow /etc/group; ls /etc/pam.d /etc/security /run /run/lock; }
        before=$(files)
        for signal in INT TERM HUP; do
            /run/programs/xtask shell sleep 600 & pid=$!
            until [ -e /run/stead-testbed/bed.json ]; do sleep 0.02; done
            grep -q ^alice: /etc/passwd || echo no alice
            setpriv --reuid=47001 --clear-groups sleep 601 & left=$!
            until grep -q \"^Uid:.47001\" /proc/$left/status; do sleep 0.02; done
            kill -$signal $pid; wait $pid
            kill -0 $left 2>/dev/null && ! grep -q zombie /proc/$left/status && echo a process is left
            [ \"$before\" = \"$(files)\" ] || { echo after $signal; files; }
        done
        /run/programs/xtask shell sleep 600 & pid=$!
        until [ -e /run/stead-testbed/bed.json ]; do sleep 0.02; done
        kill -KILL $pid; wait $pid
        grep -q ^alice: /etc/passwd || echo not even killed
        /run/programs/xtask shell true
        [ \"$before\" = \"$(files)\" ] && echo as before";
    // bash: dash ignores SIGINT in what it starts in the background.
    let (seen, said) = shell(bed.container("bash"), &["-c", script]);
    assert_eq!(seen, "as before\n", "{said}");
    assert!(said.contains("earlier run left behind"), "{said}");
}

#[test]
fn a_stranger_with_an_id_of_ours_is_not_ended() {
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    let script = "setpriv --reuid=47001 --clear-groups sleep 600 & stranger=$!
        until grep -q \"^Uid:.47001\" /proc/$stranger/status; do sleep 0.02; done
        /run/programs/xtask shell true && echo made
        kill $stranger && echo lives";
    let (seen, said) = shell(bed.container("sh"), &["-c", script]);
    assert_eq!(seen, "lives\n", "{said}");
    assert!(said.contains("has a uid that the testbed would need"), "{said}");
}

#[test]
fn the_accounts_of_what_may_be_somebodys_machine_are_not_touched() {
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    let script = "unset container CI KUBERNETES_SERVICE_HOST
        ls /.dockerenv /run/.containerenv /run/systemd/container 2>/dev/null && exit
        cat /etc/passwd /etc/shadow >/run/before
        /run/programs/xtask shell true && echo made
        cat /etc/passwd /etc/shadow | cmp - /run/before && echo as before";
    let (seen, said) = shell(bed.container("sh"), &["-c", script]);
    if seen.starts_with('/') {
        testbed::skip!("this is a container, and shows it: {}", seen.trim());
    }
    assert_eq!(seen, "as before\n", "{said}");
    assert!(said.contains("nothing says that this is a container"), "{said}");
}

#[test]
fn an_account_of_the_containers_own_is_never_mixed_up_with_ours() {
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    let script = "echo bob:x:1234:1234::/:/bin/sh >>/etc/passwd; /run/programs/xtask shell true && exit 1
        tail -1 /etc/passwd; ls /run";
    let (seen, said) = shell(bed.container("sh"), &["-c", script]);
    assert_eq!(seen, "bob:x:1234:1234::/:/bin/sh\nlock\nprograms\n");
    assert!(said.contains("bob (1234) is there already"), "{said}");
}

#[test]
fn a_user_who_may_use_sudo_gets_the_bed_of_root() {
    use std::os::unix::fs::PermissionsExt;
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    let svc = bed.user("svc");
    // sudo for this test: a set-user-id program runs what stands after `sudo -n --`.
    let directory = bed.scratch("sudo");
    let sudo = directory.join("sudo");
    let script = "#!/bin/sh\n[ \"$1\" = -n ] || exit 1\nshift\n[ \"$1\" != -- ] || shift\n\
                  exec env -i /run/programs/testbed-setuid confine --become-root -- \"$@\"\n";
    std::fs::write(&sudo, script).unwrap();
    std::fs::set_permissions(&sudo, std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = bed.bin("probe").with_file_name("sudo");
    std::fs::rename(&sudo, copy).unwrap();
    let mut command = bed.confined(&["--fresh-files"], "setpriv");
    command.args([&format!("--reuid={}", svc.uid), &format!("--regid={}", svc.gid), "--clear-groups", "--"]);
    command.arg("/run/programs/xtask").env("PATH", "/run/programs:/usr/sbin:/usr/bin:/sbin:/bin");
    let (seen, said) = shell(command, &["shell", "/run/stead-testbed/bin/probe"]);
    assert!(said.contains("going through sudo"), "{said}");
    assert!(said.contains("mount and PID namespaces made by root"), "{said}");
    let root = testbed::Probe::parse(seen.as_bytes());
    assert_eq!((root.uid.real, root.uid.effective), (0, 0));
}

#[test]
fn what_is_done_to_the_files_of_a_bed_of_root_is_not_seen_outside() {
    let bed = testbed::require!();
    only_in_a_bed_of_root!(bed);
    let script = "before=$(cat /etc/passwd /proc/self/mountinfo | grep -v 'run/programs'; ls /var/lib /usr/libexec /run)
        /run/programs/xtask shell sh -c 'echo x >>/etc/passwd; echo x >/var/lib/stead/x; mount -t tmpfs x /mnt;
            setsid sleep 602 </dev/null >/dev/null 2>&1 & echo done; cat /proc/1/comm' || exit 1
        [ \"$before\" = \"$(cat /etc/passwd /proc/self/mountinfo | grep -v 'run/programs'; ls /var/lib /usr/libexec /run)\" ] &&
        ! grep -lx sleep /proc/[0-9]*/comm && echo as before";
    let (seen, _) = shell(bed.confined(&["--fresh-files"], "sh"), &["-c", script]);
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!((lines[0], lines[2]), ("done", "as before"), "{seen}");
}
