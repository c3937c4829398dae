//! What impersonation does not govern, line by line, and what a client can do to a thread that acts for it.
//!
//! The first half shows limits of the mechanism, for the documentation to be true: a server relies on none of
//! them. The second half shows what the client must not be able to do.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

mod impersonate_support;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use impersonate_support::*;
use rustix::process::{Pid, Resource, Signal};

/// A process of the server's own, which ends with its standard input.
fn servers_process() -> std::process::Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

// What it does not govern.

#[test]
fn a_signal_sent_while_impersonating_is_still_the_servers() {
    let bed = testbed::require!();
    let mut victim = servers_process();
    let pid = Pid::from_child(&victim);
    token(bed, "mallory").impersonate(|_| rustix::process::kill_process(pid, Signal::KILL).unwrap()).unwrap();
    assert_eq!(victim.wait().unwrap().signal(), Some(9));
    // As mallory itself it may not.
    let mut victim = servers_process();
    let kill = bed.as_user("mallory", &[], "kill").arg(victim.id().to_string()).output().unwrap();
    assert!(!kill.status.success());
    drop(victim.stdin.take());
    assert!(victim.wait().unwrap().success());
}

#[test]
fn limits_of_the_servers_other_processes_can_be_set_while_impersonating() {
    let bed = testbed::require!();
    let mut victim = servers_process();
    let pid = Pid::from_child(&victim);
    token(bed, "mallory")
        .impersonate(|_| {
            let mut limit = rustix::process::getrlimit(Resource::Core);
            limit.current = Some(0);
            rustix::process::prlimit(Some(pid), Resource::Core, limit).unwrap();
        })
        .unwrap();
    drop(victim.stdin.take());
    victim.wait().unwrap();
}

#[test]
fn descriptors_of_the_servers_other_processes_can_be_taken_while_impersonating() {
    // pidfd_getfd(2) asks for the right to debug, and that goes by the real ids.
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let bed = testbed::require!();
    let mut victim = servers_process();
    let pidfd = pidfd_open(Pid::from_child(&victim), PidfdFlags::empty()).unwrap();
    let as_itself = pidfd_getfd(&pidfd, 0, PidfdGetfdFlags::empty());
    if !testbed::confine::may("sys_ptrace") && as_itself.is_err() {
        drop(victim.stdin.take());
        victim.wait().unwrap();
        testbed::skip!("pidfd_getfd is denied here, impersonating or not: needs CAP_SYS_PTRACE");
    }
    token(bed, "mallory").impersonate(|_| pidfd_getfd(&pidfd, 0, PidfdGetfdFlags::empty()).unwrap()).unwrap();
    drop(victim.stdin.take());
    victim.wait().unwrap();
}

#[test]
fn keyrings_are_still_the_servers_while_impersonating() {
    let bed = testbed::require!();
    let Some(own) = testbed::Probe::of_self().unwrap().keyring else {
        testbed::skip!("keyrings cannot be read here")
    };
    let within = token(bed, "alice").impersonate(|_| testbed::Probe::of_self().unwrap().keyring).unwrap();
    assert_eq!(within.map(|keyring| keyring.id), Some(own.id));
}

#[test]
fn std_command_inside_an_impersonation_gets_the_servers_real_uid() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    let output = token(bed, "alice")
        .impersonate(|_| {
            // Not bash, which would change its ids when it sees that they differ.
            Command::new(bed.bin("probe")).current_dir("/").output().unwrap()
        })
        .unwrap();
    let process = testbed::Probe::parse(&output.stdout);
    // execve makes the saved uid the effective one; the real one stays, and is the way back to root.
    assert_eq!((process.uid.real, process.uid.effective), (0, alice.uid));
}

#[test]
fn bash_inside_an_impersonation_makes_itself_root_again() {
    let bed = testbed::require!();
    let output = token(bed, "alice")
        .impersonate(|_| {
            Command::new("bash").args(["-c", "echo $EUID; cat /etc/shadow"]).current_dir("/").output()
        })
        .unwrap();
    let Ok(output) = output else { testbed::skip!("there is no bash") };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("0\n"), "{said}");
    assert!(said.contains("root:"), "it read the shadow file: {said}");
}

#[test]
fn this_librarys_command_inside_an_impersonation_gives_nothing_back() {
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    let output = alice
        .impersonate(|me| {
            let own = stead::Token::open_thread(me).unwrap().to_primary().unwrap();
            stead::Command::new("/bin/sh").args(["-c", "id -u; cat /etc/shadow"]).output_as(&own).unwrap()
        })
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", bed.user("alice").uid));
    assert!(!output.status.success());
}

#[test]
fn a_thread_started_while_impersonating_has_the_clients_ids() {
    // go#29613. It is not the thread that is put back, either.
    let bed = testbed::require!();
    let before = seen();
    let as_alice = before.acting_for(bed.user("alice"));
    let (go, wait) = mpsc::channel::<()>();
    let thread = token(bed, "alice")
        .impersonate(|_| {
            std::thread::spawn(move || {
                let within = seen();
                wait.recv().unwrap();
                (within, seen(), stead::impersonate::current().is_ok())
            })
        })
        .unwrap();
    assert_eq!(seen(), before);
    go.send(()).unwrap();
    let (within, after, impersonates) = thread.join().unwrap();
    assert_eq!(within, as_alice);
    assert_eq!(after, as_alice);
    assert!(!impersonates, "the library does not take it for one of its own");
}

#[test]
fn a_closure_kept_from_an_impersonation_runs_later_as_the_server() {
    // aspnetcore#35657: what types cannot stop, as it needs no handle.
    let bed = testbed::require!();
    let before = seen();
    let later = token(bed, "alice").impersonate(|_| || std::fs::read_to_string("/etc/shadow")).unwrap();
    assert_eq!(seen(), before);
    assert!(later().is_ok());
}

#[test]
fn std_fs_inside_an_impersonation_acts_as_the_client_but_shows_the_servers_proc() {
    let bed = testbed::require!();
    token(bed, "alice")
        .impersonate(|me| {
            assert!(std::fs::read("/etc/shadow").is_err());
            assert!(
                std::fs::read("/proc/self/maps").is_ok(),
                "procfs knows the process, not the thread's ids"
            );
            assert!(me.open("/proc/self/maps").is_err());
        })
        .unwrap();
}

#[test]
fn no_new_privs_of_the_thread_is_the_servers_while_impersonating() {
    let bed = testbed::require!();
    let strict = stead::token::Restriction::new();
    let strict = stead::os::linux::RestrictionExt::no_new_privs(strict);
    let alice = token(bed, "alice").restrict(&strict).unwrap();
    let within = alice.impersonate(|_| rustix::thread::no_new_privs().unwrap()).unwrap();
    assert!(!within);
}

// What the client must not be able to do, while a thread acts for it.

/// Runs `attack` (a script; `$1` is the server's pid, `$2` the thread's id) as the client, while a thread of this
/// server impersonates it. Gives what the script printed.
fn attacked(bed: &testbed::Bed, user: &str, attack: &str) -> String {
    let token = token(bed, user);
    // Once before, so that the attack meets a server that has done it already, too.
    token.impersonate(|_| ()).unwrap();
    let (ready, is_ready) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            token
                .impersonate(|_| {
                    ready.send(rustix::thread::gettid()).unwrap();
                    let _ = wait.recv();
                    seen()
                })
                .unwrap()
        });
        let tid = is_ready.recv().unwrap();
        let output = bed
            // In a session of its own, as a client's process is: SIGCONT is free within one (credentials(7)).
            .as_user(user, &[], "setsid")
            .args(["--wait", "sh", "-c", attack, "attack"])
            .arg(std::process::id().to_string())
            .arg(tid.to_string())
            .current_dir("/")
            .output()
            .unwrap();
        go.send(()).unwrap();
        assert_eq!(thread.join().unwrap().uid[1], bed.user(user).uid);
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
}

#[test]
fn the_client_cannot_signal_the_thread_that_acts_for_it_nor_its_process() {
    let bed = testbed::require!();
    let attack = "for target in $1 $2; do for signal in 0 STOP CONT TERM KILL; do \
                  kill -$signal $target && echo sent $signal to $target; done; done; echo tried";
    assert_eq!(attacked(bed, "alice", attack), "tried\n");
}

#[test]
fn the_client_cannot_read_the_memory_or_environment_of_the_server() {
    let bed = testbed::require!();
    let attack = "for of in $1 $2 $1/task/$2; do for what in mem maps environ auxv stack syscall; do \
                  head -c1 /proc/$of/$what && echo read $of/$what; done; \
                  for what in fd cwd root exe ns/net; do \
                  ls /proc/$of/$what/ && echo listed $of/$what; \
                  readlink /proc/$of/$what && echo followed $of/$what; done; done; echo tried";
    let said = attacked(bed, "alice", attack);
    assert_eq!(said, "tried\n");
}

#[test]
fn the_client_cannot_debug_the_thread_that_acts_for_it() {
    let bed = testbed::require!();
    // PTRACE_ATTACH is 16, PTRACE_SEIZE 0x4206; ptrace is call 101 on x86-64, 117 on aarch64.
    let number = if cfg!(target_arch = "x86_64") { 101 } else { 117 };
    let attack = format!(
        "perl -e 'for my $pid (@ARGV) {{ for my $request (16, 0x4206) {{ \
         print \"attached $pid\\n\" if syscall({number}, $request, 0 + $pid, 0, 0) == 0 }} }} print \"tried\\n\"' $1 $2"
    );
    assert_eq!(attacked(bed, "alice", &attack), "tried\n");
    // The same against a process of alice's own succeeds, so that the attempt is a real one.
    let own = format!(
        "sleep 60 & perl -e 'print \"attached\\n\" if syscall({number}, 0x4206, 0 + $ARGV[0], 0, 0) == 0' $!; kill $!"
    );
    let control = bed.as_user("alice", &[], "sh").args(["-c", &own]).output().unwrap();
    if String::from_utf8_lossy(&control.stdout) != "attached\n" {
        testbed::skip!("ptrace is restricted here anyway");
    }
}

#[test]
fn the_client_cannot_change_the_limits_of_the_server() {
    let bed = testbed::require!();
    let attack = "for target in $1 $2; do prlimit --core=0 --pid $target && echo limited; \
                  echo 1000 > /proc/$target/oom_score_adj && echo exposed; done; echo tried";
    assert_eq!(attacked(bed, "alice", attack), "tried\n");
}

#[test]
fn the_client_cannot_slow_the_thread_that_acts_for_it() {
    // These calls compare with the *effective* uid of the target, which is the client's; it is the capabilities that
    // stay permitted on the thread that keep the client out (cap_safe_nice in security/commoncap.c).
    let bed = testbed::require!();
    let attack = "for target in $1 $2; do for with in 'renice -n 19 -p' 'chrt --idle -p 0' 'taskset -p 1'; do \
                  $with $target >/dev/null && echo $with; done; done; echo tried";
    assert_eq!(attacked(bed, "alice", attack), "tried\n");
    // The same against a process of alice's own succeeds, so that the attempt is a real one.
    let own =
        "sleep 60 & renice -n 19 -p $! >/dev/null && taskset -p 1 $! >/dev/null && echo slowed; kill $!";
    let control = bed.as_user("alice", &[], "sh").args(["-c", own]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&control.stdout), "slowed\n");
}
