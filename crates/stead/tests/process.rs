//! What a process becomes, and what a command can say about it.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod process_support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use process_support::*;
use stead::os::linux::{Capability, CapabilitySet, ChildExt, CommandExt, Limit, Signal};
use stead::{Command, ErrorKind, Stdio};
use testbed::{Probe, until};

#[test]
fn a_process_equals_the_control_in_all_that_the_kernel_tells() {
    let bed = testbed::require!();
    for name in ["alice", "bob", "0day", "carol"] {
        if bed.find_user(name).is_none() {
            continue;
        }
        let control = bed.control_setpriv(name);
        let ours = seen(&probe(bed), &token(bed, name));
        let own = Probe::of_self().unwrap();

        assert_eq!(ours.uid, control.uid, "{name}");
        assert_eq!(ours.gid, control.gid, "{name}");
        assert_eq!(ours.groups, control.groups, "{name}");
        assert_eq!(ours.capabilities, control.capabilities, "{name}");
        assert_eq!(ours.securebits, control.securebits, "{name}");
        assert_eq!(ours.no_new_privs, control.no_new_privs, "{name}");
        assert_eq!(ours.seccomp_filters, control.seccomp_filters, "{name}");
        assert_eq!(ours.limits, control.limits, "{name}");
        assert_eq!(ours.login_uid, control.login_uid, "{name}");
        assert_eq!(ours.namespaces, control.namespaces, "{name}");
        assert_eq!(ours.label, control.label, "{name}");
        assert_eq!(ours.root, control.root, "{name}");

        // What no token says has its fixed default, whatever the server has.
        assert_eq!(ours.signals.blocked, 0);
        assert_eq!(ours.signals.ignored, 0);
        assert_eq!(ours.umask, 0o022);
        assert_eq!(ours.nice, 0);
        assert_eq!((ours.scheduling.policy, ours.scheduling.priority), (0, 0));
        assert_eq!(ours.oom_score_adj, 0);
        assert_eq!(ours.core_filter, 0x33);
        assert_eq!(ours.personality, 0);
        assert!(!ours.thp_disabled);
        assert_eq!(ours.parent_death_signal, 0);
        assert_eq!(ours.affinity, control.affinity);

        // A session of its own without a terminal, and a keyring of its own.
        assert_eq!(ours.session, ours.pid);
        assert_eq!(ours.terminal, 0);
        assert_ne!(ours.session, own.session);
        if let (Some(ours), Some(own)) = (&ours.keyring, &own.keyring) {
            assert_ne!(ours.id, own.id);
        }
    }
}

#[test]
fn only_the_standard_descriptors_reach_the_program() {
    let bed = testbed::require!();
    // Inheritable on purpose: a descriptor of the server's that some careless library left without
    // close-on-exec.
    let careless = File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&careless, rustix::io::FdFlags::empty()).unwrap();
    let probe = seen(&probe(bed), &token(bed, "alice"));
    let open: Vec<i32> = probe.descriptors.keys().copied().collect();
    assert_eq!(open, [0, 1, 2]);
    assert_eq!(probe.descriptors[&0], "/dev/null");
}

#[test]
fn files_that_it_creates_are_the_clients() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    let file = alice.home.join("made-by-her-process");
    let token = token(bed, "alice");
    assert!(shell("echo hers > made-by-her-process").status_as(&token).unwrap().success());
    let made = std::fs::metadata(&file).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (alice.uid, alice.gid, 0o644));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn environment_and_directory_are_the_accounts() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    let ours = seen(&probe(bed), &token(bed, "alice"));
    assert_eq!(
        ours.environment,
        [
            format!("HOME={}", alice.home.display()),
            "LOGNAME=alice".to_owned(),
            "PATH=/usr/local/bin:/usr/bin:/bin".to_owned(),
            format!("SHELL={}", ours.variable("SHELL").unwrap()),
            "USER=alice".to_owned(),
        ]
    );
    assert_eq!(std::path::Path::new(&ours.directory), alice.home);

    let ours =
        seen(probe(bed).env("ADDED", "a b=c").env_remove("SHELL").current_dir("/tmp"), &token(bed, "alice"));
    assert_eq!(ours.variable("ADDED"), Some("a b=c"));
    assert_eq!(ours.variable("SHELL"), None);
    assert_eq!(ours.directory, "/tmp");

    let ours = seen(probe(bed).env_clear().env("ONLY", "this"), &token(bed, "alice"));
    assert_eq!(ours.environment, ["ONLY=this"]);
}

#[test]
fn a_uid_without_an_account_gets_the_root_directory_and_no_name() {
    let bed = testbed::require!();
    let nobody_knows = token_of(&["--reuid=47999", "--regid=47999", "--clear-groups"]);
    let ours = seen(&probe(bed), &nobody_knows);
    assert_eq!(ours.uid.real, 47999);
    assert_eq!(ours.environment, ["HOME=/", "PATH=/usr/local/bin:/usr/bin:/bin"]);
    assert_eq!(ours.directory, "/");
}

#[test]
fn arguments_reach_the_program_as_they_are() {
    let bed = testbed::require!();
    let odd = ["", " ", "a b", "$(id)", "`id`", "';--", "\n", "ä"];
    let ours = seen(probe(bed).arg("--").args(odd).arg0("another name"), &token(bed, "alice"));
    assert_eq!(ours.arguments[0], "another name");
    assert_eq!(ours.arguments[2..], odd);
}

#[test]
fn a_program_is_found_on_the_new_processs_path_and_a_path_is_relative_to_its_directory() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let tools = bed.scratch("tools");
    executable(&tools.join("only-here"), "#!/bin/sh\necho found $0\n", 0o755);

    let mut search = Command::new("only-here");
    let missing = search.output_as(&token).unwrap_err();
    assert!(
        matches!(missing.kind(), ErrorKind::ProgramNotFound { program } if program == "only-here"),
        "{missing}"
    );
    search.env("PATH", format!("/nowhere:{}", tools.display()));
    assert_eq!(text(search.output_as(&token).unwrap()), format!("found {}/only-here", tools.display()));

    // Neither the server's directory nor an empty element of PATH is searched.
    let here =
        Command::new("only-here").env("PATH", ":.:").current_dir(&tools).output_as(&token).unwrap_err();
    assert!(matches!(here.kind(), ErrorKind::ProgramNotFound { .. }), "{here}");
    let relative = Command::new("./only-here").current_dir(&tools).output_as(&token).unwrap();
    assert_eq!(text(relative), "found ./only-here");
}

#[test]
fn streams_are_null_unless_they_are_led_elsewhere() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let file = bed.scratch("streams").join("written");

    let mut child = shell("readlink /proc/self/fd/0; cat; echo to the file >&2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(&file).unwrap())
        .spawn_as(&token)
        .unwrap();
    assert!(child.stderr.is_none());
    child.stdin.take().unwrap().write_all(b"from the server").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("pipe:") && said.ends_with("from the server"), "{said}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "to the file\n");

    // One process's output is another's input.
    let mut first = shell("echo through two").stdout(Stdio::piped()).spawn_as(&token).unwrap();
    let second = Command::new("rev").stdin(first.stdout.take().unwrap()).output_as(&token).unwrap();
    assert_eq!(text(second), "owt hguorht");
    first.wait().unwrap();

    let child = shell("echo nobody hears this").spawn_as(&token).unwrap();
    assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none() && child.pty.is_none());
}

#[test]
fn a_piped_stream_can_be_opened_again_by_the_client() {
    let bed = testbed::require!();
    assert_eq!(printed("echo again > /dev/stdout", &token(bed, "alice")), "again");
}

#[test]
fn output_takes_from_both_pipes_at_once() {
    let bed = testbed::require!();
    let script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; head -c 10 /dev/zero";
    let output = shell(script).output_as(&token(bed, "alice")).unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (3_000_010, 3_000_000));
}

#[test]
fn extra_descriptors_arrive_under_their_numbers() {
    let bed = testbed::require!();
    let directory = bed.scratch("extra");
    let file = |name: &str| -> OwnedFd {
        std::fs::write(directory.join(name), name).unwrap();
        File::open(directory.join(name)).unwrap().into()
    };
    let mut command = shell("cat <&7; printf ,; cat <&3; printf ,; cat <&9; ls /proc/self/fd | wc -l");
    command.fd(file("seven"), 7).fd(file("three"), 3).fd(file("nine"), 9);
    let token = token(bed, "alice");
    // The directory being listed is the seventh.
    assert_eq!(text(command.output_as(&token).unwrap()), "seven,three,nine7");

    let ours = seen(probe(bed).fd(file("far"), 500), &token);
    assert_eq!(ours.descriptors.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 500]);
}

#[test]
fn umask_nice_and_limits_are_what_was_asked_for() {
    let bed = testbed::require!();
    let mut command = probe(bed);
    command
        .umask(0o077)
        .nice(7)
        .oom_score_adj(300)
        .limit(Limit::OpenFiles, 100, 200)
        .limit(Limit::Core, 0, 0)
        .no_new_privs(true);
    let ours = seen(&command, &token(bed, "alice"));
    assert_eq!((ours.umask, ours.nice, ours.oom_score_adj, ours.no_new_privs), (0o077, 7, 300, true));
    let limit = ours.limits["Max open files"];
    assert_eq!((limit.soft, limit.hard), (Some(100), Some(200)));
    let limit = ours.limits["Max core file size"];
    assert_eq!((limit.soft, limit.hard), (Some(0), Some(0)));
}

#[test]
fn granted_capabilities_are_ambient_and_nothing_else_is_held() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("capabilities come out of the server's own");
    let granted = CapabilitySet::EMPTY.with(Capability::NetBindService);
    let ours = seen(probe(bed).ambient_capabilities(granted), &token(bed, "alice"));
    assert_eq!(ours.uid.real, bed.user("alice").uid);
    assert_eq!(ours.capabilities.ambient, granted.bits());
    assert_eq!(ours.capabilities.permitted, granted.bits());
    assert_eq!(ours.capabilities.effective, granted.bits());
}

#[test]
fn a_pinned_program_runs_and_a_pinned_script_is_refused() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let directory = bed.scratch("pinned");
    let copy = directory.join("program");
    std::fs::copy(bed.bin("probe"), &copy).unwrap();
    let pinned = |path| OwnedFd::from(File::open(path).unwrap());
    let command = Command::pinned(pinned(&copy));
    // What its name leads to does not matter any more.
    std::fs::rename(&copy, directory.join("moved")).unwrap();
    std::fs::write(&copy, "something else").unwrap();
    for _ in 0..2 {
        let ours = seen(&command, &token);
        assert_eq!(ours.uid.real, bed.user("alice").uid);
        assert_eq!(ours.descriptors.len(), 3);
    }

    let script = directory.join("script");
    executable(&script, "#!/bin/sh\necho never\n", 0o755);
    let refused = Command::pinned(pinned(&script)).output_as(&token).unwrap_err();
    let expected = stead::error::ProgramFault::PinnedScript;
    assert!(
        matches!(refused.kind(), ErrorKind::ProgramUnusable { why, .. } if *why == expected),
        "{refused}"
    );
}

#[test]
fn a_builder_can_be_used_again() {
    let bed = testbed::require!();
    let mut command = shell("cat <&5; pwd");
    let file = bed.scratch("again").join("file");
    std::fs::write(&file, "again ").unwrap();
    command.fd(File::open(&file).unwrap().into(), 5).current_dir("/");
    let alice = token(bed, "alice");
    assert_eq!(text(command.output_as(&alice).unwrap()), "again /");
    // A failure takes nothing away from it.
    command.current_dir("/nowhere/at/all");
    assert!(command.output_as(&alice).is_err());
    command.current_dir("/tmp");
    // The descriptor is the same open file, read to its end by now.
    assert_eq!(text(command.output_as(&token(bed, "bob")).unwrap()), "/tmp");
}

#[test]
fn a_child_is_waited_for_signalled_and_killed() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let mut child = shell("exit 7").spawn_as(&token).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert_eq!(child.wait().unwrap().code(), Some(7));
    child.kill().unwrap();
    child.signal(Signal::TERM).unwrap();

    let mut child = Command::new("sleep").arg("1000").spawn_as(&token).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    assert_eq!(child.wait_timeout(Duration::from_millis(5)).unwrap(), None);
    child.signal(Signal::TERM).unwrap();
    let status = child.wait_timeout(PATIENCE).unwrap().expect("it has ended");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));

    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn_as(&token).unwrap();
    // wait() closes its input, or this would not end.
    assert!(child.wait().unwrap().success());

    let mut child = Command::new("sleep").arg("1000").spawn_as(&token).unwrap();
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

#[test]
fn a_suspended_process_is_the_clients_and_executes_nothing_until_it_is_resumed() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    let token = token(bed, "alice");
    let mut command = shell("echo now");
    command.stdout(Stdio::piped()).suspended(true);
    let mut child = command.spawn_as(&token).unwrap();
    assert!(child.is_suspended());
    let before = Probe::of(child.id().cast_signed()).unwrap();
    assert_eq!((before.uid.real, before.groups), (alice.uid, alice.all_groups()));
    assert!(before.program != "/bin/sh" && !before.program.ends_with("/sh"), "{}", before.program);
    assert_eq!(child.try_wait().unwrap(), None);
    let never = child.wait().unwrap_err();
    assert!(matches!(never.kind(), ErrorKind::InvalidInput { .. }), "{never}");
    child.resume().unwrap();
    child.resume().unwrap();
    assert!(!child.is_suspended());
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "now\n");
    assert!(child.wait().unwrap().success());

    // That it cannot be executed shows when it is resumed, and then it has ended.
    let mut child = Command::new("/nowhere/program").suspended(true).spawn_as(&token).unwrap();
    let missing = child.resume().unwrap_err();
    assert!(matches!(missing.kind(), ErrorKind::ProgramNotFound { .. }), "{missing}");
    assert!(!child.wait().unwrap().success());

    // Dropping it ends it.
    let child = command.spawn_as(&token).unwrap();
    let pid = child.id();
    drop(child);
    until("the suspended process has ended", || !alive(pid));
}

#[test]
fn spawn_works_inside_an_impersonation_and_leaves_it_as_it_was() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("the thread takes the client's ids");
    let (alice, bob) = (token(bed, "alice"), token(bed, "bob"));
    let ours = bob
        .impersonate(|_me| {
            let ours = seen(&probe(bed), &alice);
            assert_eq!(rustix::process::geteuid().as_raw(), bed.user("bob").uid);
            ours
        })
        .unwrap();
    assert_eq!(ours.uid.real, bed.user("alice").uid);
    assert_eq!(ours.groups, bed.control_setpriv("alice").groups);
    assert_eq!(rustix::process::geteuid().as_raw(), 0);
}
