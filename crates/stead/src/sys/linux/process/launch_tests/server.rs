//! Servers as they are.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use stead_trampoline::syscall::{Capabilities, set_capabilities};
use stead_trampoline::system_call;
use testbed::confine::{Filter, missing_name};

use super::*;
use crate::error::ErrorKind;
use crate::process::Stage;

/// Two launches of each kind, with their outcomes as always: one that starts, one that fails in the
/// trampoline, one that fails in the child before it.
fn launches_work() {
    for _ in 0..2 {
        assert_eq!(output(spec("/bin/echo"), &["echo", "ran"]).unwrap(), "ran\n");
        let fault = output(spec("/nowhere"), &["nowhere"]).unwrap_err();
        assert_eq!((fault.stage, fault.errno), (Stage::Execute, Errno::NOENT));
        let (mut what, _output) = prepared(spec("/bin/echo"), &["echo"]);
        what.descriptors.push((null(), 2_000_000_000));
        let fault = start(what).unwrap_err();
        assert_eq!(fault.stage, Stage::Place);
    }
}

#[test]
fn a_server_that_ignores_sigchld_launches_all_the_same() {
    require_root!();
    alone("server::a_server_that_ignores_sigchld_launches_all_the_same", || {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        launches_work();
    });
}

#[test]
fn a_server_with_another_thread_that_reaps_everything_launches_all_the_same() {
    require_root!();
    alone("server::a_server_with_another_thread_that_reaps_everything_launches_all_the_same", || {
        static DONE: AtomicBool = AtomicBool::new(false);
        let reaper = std::thread::spawn(|| {
            while !DONE.load(Ordering::Relaxed) {
                // SAFETY: the status is not asked for.
                unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
            }
        });
        for _ in 0..50 {
            launches_work();
        }
        DONE.store(true, Ordering::Relaxed);
        reaper.join().unwrap();
    });
}

#[test]
fn signal_state_and_fixed_defaults_are_not_the_servers() {
    require_root!();
    alone("server::signal_state_and_fixed_defaults_are_not_the_servers", || {
        let all = u64::MAX;
        // SAFETY: no handler is installed; the mask is this thread's alone.
        unsafe {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGUSR1, libc::SIGTTOU, 40, 64] {
                libc::signal(signal, libc::SIG_IGN);
            }
            system_call!(RT_SIGPROCMASK, libc::SIG_SETMASK, &raw const all, 0, 8).unwrap();
            libc::umask(0o077);
            // Only CAP_SYS_NICE takes it back: without, the launch fails, which is tested on its own.
            if testbed::confine::may("sys_nice") {
                libc::setpriority(libc::PRIO_PROCESS, 0, 5);
            }
            libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_000);
            libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
            libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
            system_call!(IOPRIO_SET, 1, 0, 3 << 13).unwrap();
            let first = 1u64;
            system_call!(SCHED_SETAFFINITY, 0, 8, &raw const first).unwrap();
        }
        std::fs::write("/proc/self/oom_score_adj", "321").unwrap();
        std::fs::write("/proc/self/coredump_filter", "0x7").unwrap();
        let before = std::fs::read_to_string("/proc/thread-self/status").unwrap();

        let status = seen(spec("")).unwrap();
        assert_eq!(field(&status, "SigIgn"), "0000000000000000");
        assert_eq!(field(&status, "SigBlk"), "0000000000000000");
        assert_eq!(field(&status, "Umask"), "0022");
        assert_eq!(field(&status, "THP_enabled"), "1");
        let processors = std::thread::available_parallelism().unwrap();
        assert_eq!(processors.get(), 1, "the server has one");
        let others = std::fs::read_to_string("/proc/1/status").unwrap();
        assert_eq!(field(&status, "Cpus_allowed"), field(&others, "Cpus_allowed"));
        let file = |name: &str| {
            output(spec("/bin/cat"), &["cat", &format!("/proc/self/{name}")]).unwrap().trim().to_owned()
        };
        assert_eq!(file("oom_score_adj"), "0");
        assert_eq!(file("coredump_filter"), "00000033");
        assert_eq!(file("personality"), "00000000");
        assert_eq!(file("timerslack_ns"), "50000");
        assert_eq!(file("stat").rsplit(") ").next().unwrap().split(' ').nth(16), Some("0"), "nice");

        // And nothing of the server's has changed.
        let after = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        for name in
            ["Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapAmb"]
        {
            assert_eq!(field(&before, name), field(&after, name), "{name}");
        }
        assert_eq!(std::fs::read_to_string("/proc/self/oom_score_adj").unwrap(), "321\n");
        assert_eq!(rustix::process::dumpable_behavior(), Ok(rustix::process::DumpableBehavior::Dumpable));
    });
}

/// The descriptors that this process has open.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn descriptors_above_five_hundred_others_arrive_and_nothing_is_left_behind() {
    require_root!();
    alone("server::descriptors_above_five_hundred_others_arrive_and_nothing_is_left_behind", || {
        launches_work();
        let many: Vec<OwnedFd> = (0..500).map(|_| null()).collect();
        let (mut what, mut out) = prepared(spec("/bin/bash"), &["bash", "-c", "cat <&3; cat <&300"]);
        for (text, target) in [(b"three", 3), (b"other", 300)] {
            let (read, write) = std::io::pipe().unwrap();
            assert!(read.as_raw_fd() > 400);
            assert_eq!(rustix::io::write(&write, text), Ok(5));
            what.descriptors.push((read.into(), target));
            what.spec.keep.push(target);
        }
        // More than one message can carry.
        for target in 1_000..1_300 {
            what.descriptors.push((null(), target));
        }
        let started = start(what).unwrap();
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        assert_eq!(text, "threeother");
        collect(&started);
        launches_work();
        let before = open_descriptors();
        for _ in 0..20 {
            launches_work();
        }
        assert_eq!(open_descriptors(), before);
        drop(many);
    });
}

#[test]
fn a_low_slot_is_not_shared_with_a_forked_process() {
    require_root!();
    alone("server::a_low_slot_is_not_shared_with_a_forked_process", || {
        let _many: Vec<OwnedFd> = (0..100).map(|_| null()).collect();
        launches_work();
        // SAFETY: the child makes calls of this library and ends; no other thread holds a lock, for this
        // test is alone but for the harness's waiting thread.
        let forked = unsafe { libc::fork() };
        for _ in 0..20 {
            launches_work();
        }
        if forked == 0 {
            // SAFETY: ends the process without the harness's farewell.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: room for the status.
        assert_eq!(unsafe { libc::waitpid(forked, &raw mut status, 0) }, forked);
        assert_eq!(status, 0);
    });
}

#[test]
fn where_clone3_is_denied_the_old_call_does_the_same() {
    require_root!();
    alone("server::where_clone3_is_denied_the_old_call_does_the_same", || {
        Filter::new().deny(libc::SYS_clone3, libc::ENOSYS).install_on_this_thread().unwrap();
        launches_work();
        let status = seen(spec("")).unwrap();
        assert_eq!(field(&status, "SigBlk"), "0000000000000000");
        assert_eq!(status_of("thread-self", "SigBlk"), "0000000000000000", "the server's own is as before");
        let (mut what, _output) = prepared(spec("/bin/echo"), &["echo"]);
        what.cgroup = Some(File::open("/").unwrap().into());
        let fault = start(what).unwrap_err();
        assert_eq!((fault.stage, fault.errno), (Stage::Cgroup, Errno::NOSYS));
    });
}

#[test]
fn where_clone3_is_refused_otherwise_nothing_else_is_tried() {
    require_root!();
    let outcome = std::thread::spawn(|| {
        Filter::new().deny(libc::SYS_clone3, libc::EPERM).install_on_this_thread().unwrap();
        output(spec("/bin/echo"), &["echo"])
    });
    let fault = outcome.join().unwrap().unwrap_err();
    assert_eq!((fault.stage, fault.errno), (Stage::Clone, Errno::PERM));
}

#[test]
fn a_kernel_without_close_range_is_too_old_and_the_error_says_so() {
    require_root!();
    let outcome = std::thread::spawn(|| {
        Filter::new().deny(libc::SYS_close_range, libc::ENOSYS).install_on_this_thread().unwrap();
        output(spec("/bin/echo"), &["echo"])
    });
    let fault = outcome.join().unwrap().unwrap_err();
    let error = fault.into_error("creating a process", "echo", "/");
    let ErrorKind::KernelTooOld { needs } = error.kind() else { panic!("{error}") };
    assert_eq!(needs, "close_range (Linux 5.9)");
}

#[test]
fn where_no_memfd_can_be_executed_the_error_says_what_would_help() {
    require_root!();
    if std::path::Path::new("/usr/libexec/stead/stead-trampoline").exists() {
        testbed::skip!("a trampoline is installed");
    }
    alone("server::where_no_memfd_can_be_executed_the_error_says_what_would_help", || {
        // As with vm.memfd_noexec=2, which belongs to the whole machine.
        Filter::new().deny(libc::SYS_memfd_create, libc::EACCES).install_on_this_thread().unwrap();
        let fault = output(spec("/bin/echo"), &["echo"]).unwrap_err();
        let error = fault.into_error("creating a process", "echo", "/");
        assert_eq!(*error.kind(), ErrorKind::TrampolineUnavailable);
        assert!(error.remedy().is_some_and(|remedy| remedy.contains("/usr/libexec/stead")));
    });
}

const KILL: u64 = 1 << 5;
const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;
const SETPCAP: u64 = 1 << 8;

/// Makes this thread a server that is not root but has these capabilities.
fn become_service(set: u64) {
    const UID: usize = 50_100;
    stead_trampoline::syscall::process_control(8, 1, 0).unwrap(); // PR_SET_KEEPCAPS
    // SAFETY: raw calls on this thread, in a process of this test's own.
    unsafe {
        system_call!(SETGROUPS, 0, 0).unwrap();
        system_call!(SETRESGID, UID, UID, UID).unwrap();
        system_call!(SETRESUID, UID, UID, UID).unwrap();
    }
    set_capabilities(Capabilities { permitted: set, effective: set, inheritable: 0 }).unwrap();
}

#[test]
fn a_server_that_is_not_root_hands_its_capabilities_to_the_trampoline_and_no_further() {
    require_root!();
    alone(
        "server::a_server_that_is_not_root_hands_its_capabilities_to_the_trampoline_and_no_further",
        || {
            become_service(KILL | SETGID | SETUID | SETPCAP);
            launches_work();
            let status = seen(spec("")).unwrap();
            assert_eq!(field(&status, "Uid"), format!("{UID}\t{UID}\t{UID}\t{UID}"));
            assert_eq!(field(&status, "Groups"), "50002 50010 50011");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(field(&status, set), "0000000000000000", "{set}");
            }
            // The server's own are what they were.
            assert_eq!(status_of("thread-self", "CapPrm"), "00000000000001e0");
            assert_eq!(status_of("thread-self", "CapInh"), "0000000000000000");
            assert_eq!(status_of("thread-self", "CapAmb"), "0000000000000000");

            // Without credentials of a client (a session worker), they are all kept.
            let mut worker = spec("");
            worker.credentials = None;
            let status = seen(worker).unwrap();
            assert_eq!(field(&status, "CapEff"), "00000000000001e0");
        },
    );
}

#[test]
fn a_missing_privilege_is_named() {
    require_root!();
    alone("server::a_missing_privilege_is_named", || {
        become_service(KILL | SETUID | SETPCAP);
        let fault = output(spec("/bin/echo"), &["echo"]).unwrap_err();
        assert_eq!((fault.stage, fault.errno), (Stage::Groups, Errno::PERM));
        let error = fault.into_error("creating a process", "echo", "/");
        let ErrorKind::PrivilegeMissing { missing, held, enabled, .. } = error.kind() else {
            panic!("{error}");
        };
        assert_eq!((missing.as_ref(), *held, *enabled), ("CAP_SETGID", false, false));
    });
}

#[test]
fn a_limit_above_the_servers_own_is_refused_with_the_privilege_it_takes() {
    require_root!();
    alone("server::a_limit_above_the_servers_own_is_refused_with_the_privilege_it_takes", || {
        const NOFILE: u32 = 7;
        become_service(KILL | SETUID | SETGID | SETPCAP);
        let mut what = spec("/bin/echo");
        what.limits = vec![(NOFILE, 64, u64::MAX)];
        let fault = output(what, &["echo"]).unwrap_err();
        assert_eq!((fault.stage, fault.detail), (Stage::Limits, NOFILE));
        let error = fault.into_error("creating a process", "echo", "/");
        assert!(
            matches!(error.kind(), ErrorKind::PrivilegeMissing { missing, .. } if *missing == missing_name("sys_resource"))
        );
    });
}

#[test]
fn whom_the_unit_protects_from_the_end_of_memory_protects_nobody_else() {
    require_root!();
    if !testbed::confine::may("sys_resource") {
        testbed::skip!("needs CAP_SYS_RESOURCE to protect a process");
    }
    alone("server::whom_the_unit_protects_from_the_end_of_memory_protects_nobody_else", || {
        const SCORE: &str = "/proc/self/oom_score_adj";
        const LOWER: &str = "cat /proc/self/oom_score_adj; echo -1 > /proc/self/oom_score_adj";
        // Its file is root's alone once it has become another.
        let own = File::options().write(true).open(SCORE).unwrap();
        own.write_at(b"-900", 0).unwrap();
        let lowered = || output(spec("/bin/sh"), &["sh", "-c", &format!("{LOWER} || echo refused")]).unwrap();
        for _ in 0..3 {
            assert_eq!(lowered(), "0\nrefused\n");
        }
        // Without the privilege to bind others it creates nothing, also where it has given its own score up.
        become_service(KILL | SETUID | SETGID | SETPCAP);
        for score in ["-900", "0"] {
            own.write_at(score.as_bytes(), 0).unwrap();
            let fault = output(spec("/bin/echo"), &["echo"]).unwrap_err();
            let error = fault.into_error("creating a process", "echo", "/");
            assert!(
                matches!(error.kind(), ErrorKind::PrivilegeMissing { missing, .. } if *missing == missing_name("sys_resource"))
            );
        }
    });
}

#[test]
fn a_nice_value_that_cannot_be_lowered_is_an_error_and_never_the_servers() {
    require_root!();
    alone("server::a_nice_value_that_cannot_be_lowered_is_an_error_and_never_the_servers", || {
        // SAFETY: no memory involved.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 7) };
        rustix::process::setrlimit(
            rustix::process::Resource::Nice,
            rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
        )
        .unwrap();
        become_service(KILL | SETUID | SETGID | SETPCAP);
        let fault = output(spec("/bin/echo"), &["echo"]).unwrap_err();
        assert_eq!(fault.stage, Stage::Defaults);
        let error = fault.into_error("creating a process", "echo", "/");
        assert!(
            matches!(error.kind(), ErrorKind::PrivilegeMissing { missing, .. } if *missing == missing_name("sys_nice"))
        );
        let same = Spec { nice: Some(7), ..spec("/bin/echo") };
        assert_eq!(output(same, &["echo", "ran"]).unwrap(), "ran\n");
    });
}
