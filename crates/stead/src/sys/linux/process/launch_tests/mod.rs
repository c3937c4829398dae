//! Launches, looked at from outside through the kernel's own files. They become other users, so they
//! need root.
#![allow(clippy::items_after_statements)] // constants stand beside the one use that they have

mod failure;
mod program;
mod server;

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{WaitId, WaitIdOptions, waitid};
use stead_trampoline::spec::{Credentials, Keyring, NewSession, ProcessDefaults, ProgramSearch, Spec};

use super::report::pipe;
use super::{Awaited, Launch, LaunchFault, ReportOutcome, Started, await_report, launch};
use crate::sys::token::last_capability;

/// Nobody's ids, and in the map of a container too.
const UID: u32 = 50_001;
const GID: u32 = 50_002;
const GROUPS: [u32; 3] = [50_002, 50_010, 50_011];

/// Returns from the test, saying so, where it cannot become somebody else.
macro_rules! require_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            testbed::skip!("needs root: it becomes other users");
        }
    };
}
use require_root;

fn string(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn status_of(pid: &str, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    field(&status, name).to_owned()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

fn bounding() -> u64 {
    u64::from_str_radix(&status_of("thread-self", "CapBnd"), 16).unwrap()
}

fn credentials() -> Credentials {
    Credentials {
        uid: UID,
        gid: GID,
        groups: GROUPS.to_vec(),
        permitted: 0,
        effective: 0,
        inheritable: 0,
        ambient: 0,
        bounding: bounding(),
        last_capability: last_capability(),
        securebits: 0,
        no_new_privs: false,
    }
}

fn spec(program: &str) -> Spec {
    Spec {
        report: 0,
        gate: None,
        keep: Vec::new(),
        session: NewSession::Setsid,
        defaults: ProcessDefaults::Fixed,
        umask: None,
        nice: None,
        oom_score_adj: None,
        limits: Vec::new(),
        keyring: Keyring::JoinNew,
        login_uid: None,
        credentials: Some(credentials()),
        exec_label: None,
        directory: string("/"),
        program: ProgramSearch::Candidates(vec![string(program)]),
    }
}

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

/// A launch whose standard output is a pipe, and the pipe.
fn prepared(spec: Spec, argv: &[&str]) -> (Launch, File) {
    let (output, writer) = std::io::pipe().unwrap();
    let launch = Launch {
        spec,
        argv: argv.iter().map(|one| string(one)).collect(),
        envp: vec![string("PATH=/usr/bin:/bin")],
        descriptors: vec![(null(), 0), (writer.into(), 1), (null(), 2)],
        cgroup: None,
    };
    (launch, File::from(OwnedFd::from(output)))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn start(mut what: Launch) -> Result<Started, LaunchFault> {
    let (report, writer) = pipe().unwrap();
    what.attach(writer, None);
    let started = launch(&what)?;
    drop(what);
    match await_report(report, started.pidfd.as_fd(), soon(), Awaited::Execution) {
        Ok(ReportOutcome::Executed) => Ok(started),
        Ok(ReportOutcome::Ready(_)) => panic!("nobody asked for a suspended start"),
        Err(fault) => {
            collect(&started);
            Err(fault)
        }
    }
}

fn collect(started: &Started) {
    let _ = waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// What the program wrote.
fn output(spec: Spec, argv: &[&str]) -> Result<String, LaunchFault> {
    let (launch, mut output) = prepared(spec, argv);
    let started = start(launch)?;
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    collect(&started);
    Ok(text)
}

/// The status file of a process started so.
fn seen(spec: Spec) -> Result<String, LaunchFault> {
    output(Spec { program: program_at("/bin/cat"), ..spec }, &["cat", "/proc/self/status"])
}

fn program_at(path: &str) -> ProgramSearch {
    ProgramSearch::Candidates(vec![string(path)])
}

/// Runs a test in a process of its own, for it changes what belongs to a whole process.
fn alone(name: &str, test: impl FnOnce()) {
    const ALONE: &str = "STEAD_TEST_ALONE";
    let name = format!("sys::linux::process::launch_tests::{name}");
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let outcome = std::process::Command::new("/proc/self/exe")
        .args(["--exact", &name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    println!("{text}{}", String::from_utf8_lossy(&outcome.stderr));
    assert!(outcome.status.success(), "alone it ended with {}", outcome.status);
    testbed::skip_if_skipped(&outcome.stdout);
    assert!(text.contains("1 passed"), "{name} is not its name");
}

#[test]
fn the_process_is_exactly_who_the_spec_says() {
    require_root!();
    let status = seen(spec("")).unwrap();
    assert_eq!(field(&status, "Uid"), format!("{UID}\t{UID}\t{UID}\t{UID}"));
    assert_eq!(field(&status, "Gid"), format!("{GID}\t{GID}\t{GID}\t{GID}"));
    assert_eq!(field(&status, "Groups"), "50002 50010 50011");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "CapBnd"), format!("{:016x}", bounding()));
    assert_eq!(field(&status, "NoNewPrivs"), "0");
    assert_eq!(field(&status, "SigIgn"), "0000000000000000");
    assert_eq!(field(&status, "SigBlk"), "0000000000000000");
    assert_eq!(field(&status, "Umask"), "0022");
}

#[test]
fn a_token_with_capabilities_gives_exactly_those_and_keeps_them_over_execve() {
    require_root!();
    const NET_BIND_SERVICE: u64 = 1 << 10;
    const KILL: u64 = 1 << 5;
    const NOROOT: u32 = 1;
    let mut what = spec("");
    let all = bounding();
    what.credentials = Some(Credentials {
        permitted: NET_BIND_SERVICE | KILL,
        effective: NET_BIND_SERVICE,
        inheritable: NET_BIND_SERVICE | KILL,
        ambient: NET_BIND_SERVICE,
        bounding: all & !(1 << 21),
        last_capability: last_capability(),
        securebits: NOROOT,
        no_new_privs: true,
        ..credentials()
    });
    let status = seen(what).unwrap();
    // execve leaves of the permitted ones the ambient (capabilities(7)).
    assert_eq!(field(&status, "CapPrm"), "0000000000000400");
    assert_eq!(field(&status, "CapEff"), "0000000000000400");
    assert_eq!(field(&status, "CapAmb"), "0000000000000400");
    assert_eq!(field(&status, "CapInh"), "0000000000000420");
    assert_eq!(field(&status, "CapBnd"), format!("{:016x}", all & !(1 << 21)));
    assert_eq!(field(&status, "NoNewPrivs"), "1");
}

#[test]
fn what_was_asked_for_is_set_and_the_rest_has_its_default() {
    require_root!();
    const NOFILE: u32 = 7;
    let what = || Spec {
        umask: Some(0o027),
        nice: Some(3),
        oom_score_adj: Some(123),
        limits: vec![(NOFILE, 60, 70)],
        directory: string("/usr"),
        ..spec("/bin/cat")
    };
    let file = |name: &str| output(what(), &["cat", &format!("/proc/self/{name}")]).unwrap();
    assert_eq!(field(&file("status"), "Umask"), "0027");
    assert_eq!(file("oom_score_adj"), "123\n");
    assert_eq!(file("stat").rsplit(") ").next().unwrap().split(' ').nth(16), Some("3"), "nice");
    let limits = file("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["60", "70"]);
    let directory = output(Spec { program: program_at("/bin/pwd"), ..what() }, &["pwd"]).unwrap();
    assert_eq!(directory, "/usr\n");
}

#[test]
fn the_login_uid_is_the_one_that_was_asked_for() {
    require_root!();
    let what = Spec { login_uid: Some(UID), ..spec("/bin/cat") };
    match output(what, &["cat", "/proc/self/loginuid"]) {
        Ok(text) => assert_eq!(text, UID.to_string()),
        Err(fault) => testbed::skip!("the login uid cannot be set here: {fault:?}"),
    }
}

#[test]
fn many_groups_and_none_are_taken_on_exactly() {
    require_root!();
    for count in [0, 1, 255, 256, 257, 5_000] {
        let mut what = spec("");
        let groups: Vec<u32> = (52_000..52_000 + count).rev().collect();
        what.credentials = Some(Credentials { groups, ..credentials() });
        let status = seen(what).unwrap();
        let found: Vec<u32> = field(&status, "Groups").split(' ').flat_map(str::parse).collect();
        assert_eq!(found, (52_000..52_000 + count).collect::<Vec<u32>>());
    }
}

#[test]
fn a_suspended_process_is_the_client_already_and_executes_only_when_let() {
    require_root!();
    let (mut what, mut output) = prepared(spec("/bin/echo"), &["echo", "ran"]);
    let (report, writer) = pipe().unwrap();
    let (gate, opener) = std::io::pipe().unwrap();
    what.attach(writer, Some(gate.into()));
    let started = launch(&what).unwrap();
    drop(what);
    let outcome = await_report(report, started.pidfd.as_fd(), soon(), Awaited::Gate).unwrap();
    let ReportOutcome::Ready(report) = outcome else { panic!("{outcome:?}") };
    assert!(status_of(&started.pid.to_string(), "Uid").starts_with("50001\t50001"));
    assert_eq!(status_of(&started.pid.to_string(), "Groups"), "50002 50010 50011");
    assert_eq!(status_of(&started.pid.to_string(), "SigIgn"), "0000000000000000");
    assert_eq!(rustix::io::write(&opener, b"!"), Ok(1));
    let outcome = await_report(report, started.pidfd.as_fd(), soon(), Awaited::Execution).unwrap();
    assert!(matches!(outcome, ReportOutcome::Executed));
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ran\n");
    collect(&started);
}

#[test]
fn only_the_descriptors_that_were_listed_reach_the_process() {
    require_root!();
    let (mut what, mut output) = prepared(spec("/bin/cat"), &["cat"]);
    let (input, held) = std::io::pipe().unwrap();
    what.descriptors[0].0 = input.into();
    what.descriptors.push((null(), 9));
    what.descriptors.push((null(), 7));
    what.spec.keep = vec![9, 7];
    // One that every program would inherit.
    let leaked = rustix::io::dup(null()).unwrap();
    let started = start(what).unwrap();
    // When it answers, the dynamic loader has closed what it opened itself.
    assert_eq!(rustix::io::write(&held, b"x"), Ok(1));
    output.read_exact(&mut [0]).unwrap();
    let listed = std::fs::read_dir(format!("/proc/{}/fd", started.pid)).unwrap();
    let mut found: Vec<u32> =
        listed.map(|one| one.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2, 7, 9]);
    drop((held, leaked));
    collect(&started);
}

#[test]
fn descriptors_change_places_without_losing_one() {
    require_root!();
    let files: Vec<OwnedFd> = (0..4)
        .map(|number| {
            let (read, write) = std::io::pipe().unwrap();
            assert_eq!(rustix::io::write(&write, format!("{number}").as_bytes()), Ok(1));
            OwnedFd::from(read)
        })
        .collect();
    // Every source stands where another one goes, in a circle: the second's place is the first's target.
    let places: Vec<u32> = files.iter().map(|file| file.as_raw_fd().cast_unsigned()).collect();
    let script = places.iter().map(|place| format!("cat <&{place}")).collect::<Vec<_>>().join(";");
    // Not sh: dash knows descriptors of one digit only.
    let (mut what, mut output) = prepared(spec("/bin/bash"), &["bash", "-c", &script]);
    let mut targets = places.clone();
    targets.rotate_left(1);
    what.spec.keep = places;
    what.descriptors.extend(files.into_iter().zip(targets));
    let started = start(what).unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "3012");
    collect(&started);
}
