//! Attacks on processes on their way to their program, and on what is reached in a client's name.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process_support;

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};

use process_support::*;
use stead::impersonate::OpenOptions;
use stead::os::linux::{CommandExt, Limit, OpenOptionsExt};
use stead::{Command, ErrorKind};
use testbed::Probe;

/// What a process of the user's own can do to another: each line that is printed is something that worked.
fn attacked(bed: &testbed::Bed, user: &str, pid: u32) -> String {
    // The numbers as the architecture has them; 16 is PTRACE_ATTACH.
    let script = format!(
        "my $p = 0 + shift; \
         print \"traced\\n\" if syscall({}, 16, $p, 0, 0) == 0; \
         print \"listed\\n\" if opendir($d, \"/proc/$p/fd\") && readdir($d); \
         for my $n (0..9) {{ print \"opened\\n\" if open(my $f, '<', \"/proc/$p/fd/$n\"); }} \
         for my $n ('mem', 'environ', 'maps') {{ print \"$n\\n\" if open($f, '<', \"/proc/$p/$n\") && read($f, my $b, 1); }} \
         my $fd = syscall({}, $p, 0); \
         print \"pidfd\\n\" if $fd >= 0; \
         print \"taken\\n\" if syscall({}, $fd, 3, 0) >= 0;",
        libc::SYS_ptrace,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
    );
    let output = bed.as_user(user, &[], "perl").args(["-e", &script]).arg(pid.to_string()).output().unwrap();
    text(output)
}

#[test]
fn the_users_other_processes_can_neither_trace_the_new_one_nor_reach_its_descriptors() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let secret = bed.scratch("secret").join("of-the-server");
    std::fs::write(&secret, "secret").unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new("/bin/sleep");
    command.arg("600").env("TOKEN", "a secret of the server's").suspended(true);
    command.fd(std::fs::File::open(&secret).unwrap().into(), 3);
    let mut child = command.spawn_as(&token).unwrap();
    // It is the client's already, and has not executed its program yet.
    assert_eq!(attacked(bed, "alice", child.id()), "pidfd");
    // The control: as soon as the program runs it is as any other process of the user.
    child.resume().unwrap();
    let worked = attacked(bed, "alice", child.id());
    assert!(worked.contains("listed") && worked.contains("environ"), "{worked}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_group_that_is_shut_out_of_a_file_is_shut_out_in_the_process_too() {
    let bed = testbed::require!();
    let file = bed.scratch("shut-out").join("notes");
    std::fs::write(&file, "not for that group").unwrap();
    let alice = bed.user("alice");
    let group = *alice.groups.iter().find(|group| !bed.user("bob").all_groups().contains(group)).unwrap();
    chown(&file, None, Some(group)).unwrap();
    // Everybody but the members of the group: without the group more would be reached than with it.
    std::fs::set_permissions(&file, Permissions::from_mode(0o604)).unwrap();
    let read =
        |user| Command::new("/bin/cat").arg(&file).output_as(&token(bed, user)).unwrap().status.success();
    assert!(!read("alice"));
    assert!(read("bob"));
}

/// CVE-2019-5736: runc could be executed by its own container as `/proc/self/exe`, and then be written by whoever had
/// kept that file.
#[test]
fn a_client_that_executes_the_trampoline_itself_can_neither_use_nor_write_it() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    // It is executed by the client, as the client, and finds nothing that it was told to do.
    match Command::new("/proc/self/exe").args(["--", "x"]).output_as(&token) {
        Ok(output) => assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}"),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::SpawnFailed { .. }), "{error}"),
    }
    // Not even the server can write what the next process is created by.
    let image = std::fs::read_dir("/proc/self/fd").unwrap().flatten().find(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|file| file.to_string_lossy().contains("stead-trampoline"))
    });
    let path = image.expect("the trampoline is open").path();
    if !std::fs::read_link(&path).unwrap().starts_with("/memfd:stead-trampoline") {
        testbed::skip!("an installed trampoline is a file of root's, as any other program");
    }
    let mut file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    assert!(std::io::Write::write(&mut file, b"#!").is_err());
    assert!(file.set_len(0).is_err() && file.set_len(1 << 20).is_err());
    assert!(rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::empty()).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), stead_trampoline::IMAGE);
    assert!(Command::new("/bin/true").status_as(&token).unwrap().success());
}

/// Whoever may set limits starves the steps between the server and its program: each is one that can fail.
#[test]
fn a_process_that_is_given_nothing_is_the_clients_or_none() {
    let bed = testbed::require!();
    let token = token(bed, "alice");
    let is = |seen: &Probe| {
        let Probe { uid, gid, groups, capabilities, securebits, .. } = seen;
        format!("{uid:?} {gid:?} {groups:?} {capabilities:?} {securebits}")
    };
    let expected = is(&seen(&probe(bed), &token));
    let limits = [
        Limit::CpuTime,
        Limit::FileSize,
        Limit::Data,
        Limit::Stack,
        Limit::Core,
        Limit::ResidentSet,
        Limit::Processes,
        Limit::OpenFiles,
        Limit::LockedMemory,
        Limit::AddressSpace,
        Limit::Locks,
        Limit::PendingSignals,
        Limit::MessageQueues,
        Limit::Nice,
        Limit::RealtimePriority,
        Limit::RealtimeTime,
    ];
    let mut ran = 0;
    for limit in limits {
        for value in [0, 1, 3, 4096] {
            let mut command = probe(bed);
            match command.limit(limit, value, value).output_as(&token) {
                Ok(output) if output.status.success() => {
                    assert_eq!(is(&Probe::parse(&output.stdout)), expected, "{limit} {value}");
                    ran += 1;
                }
                // Its program ended for want of something.
                Ok(_) => {}
                Err(error) => {
                    let kind = error.kind();
                    let right = matches!(
                        kind,
                        ErrorKind::SpawnFailed { .. }
                            | ErrorKind::LimitReached { .. }
                            // Above the server's own, which is nothing here, and may not be raised.
                            | ErrorKind::PrivilegeMissing { .. }
                            | ErrorKind::ProgramUnusable { .. }
                    );
                    assert!(right, "{limit} {value}: {kind:?}");
                }
            }
        }
    }
    assert!(ran > 20, "{ran}");
    assert!(zombies().is_empty());
}

#[test]
fn a_client_cannot_have_the_servers_terminal_opened() {
    let bed = testbed::require!();
    token(bed, "alice")
        .impersonate(|me| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).special_files(true);
            let refused = me.open_with("/dev/tty", &options).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::AccessDenied { .. }), "{refused}");
            assert!(refused.to_string().contains("the server's own terminal"), "{refused}");
            me.open_with("/dev/null", &options).unwrap();
        })
        .unwrap();
}

#[test]
fn nothing_that_the_environment_names_can_be_loaded_into_the_trampoline() {
    // The program's environment is the trampoline's too, while it still is the server: no loader, no library.
    const INTERPRETER: u32 = 3;
    const DYNAMIC: u32 = 2;
    let image = stead_trampoline::IMAGE;
    let number = |at: usize, bytes: usize| {
        image[at..at + bytes].iter().rev().fold(0usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let kinds: Vec<u32> =
        (0..count).map(|index| u32::try_from(number(table + index * size, 4)).unwrap()).collect();
    assert!(!kinds.is_empty() && !kinds.contains(&INTERPRETER) && !kinds.contains(&DYNAMIC), "{kinds:?}");

    let bed = testbed::require!();
    let mut command = probe(bed);
    let hostile =
        [("LD_PRELOAD", "/nowhere/evil.so"), ("LD_AUDIT", "/nowhere/evil.so"), ("BASH_ENV", "/nowhere")];
    command.envs(hostile).env("FUNCTION", "() { :; }; touch /tmp/shellshock");
    let seen = seen(&command, &token(bed, "alice"));
    for (name, value) in hostile {
        assert_eq!(seen.variable(name), Some(value));
    }
}
