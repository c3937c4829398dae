//! Launches that are looked at by the kernel's own files. They need root, for they become other users.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use stead_trampoline::spec::{Credentials, Keyring, NewSession, ProcessDefaults, ProgramSearch, Spec};

use super::report::pipe;
use super::{Launch, LaunchFault, ReportOutcome, Started, await_report, launch};

/// Nobody's uid and gid on any system.
const UID: u32 = 70_001;
const GID: u32 = 70_002;

pub(super) fn string(text: &str) -> CString {
    CString::new(text).unwrap()
}

pub(super) fn bounding() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

pub(super) fn credentials() -> Credentials {
    Credentials {
        uid: UID,
        gid: GID,
        groups: vec![GID, 70_010, 70_011],
        permitted: 0,
        effective: 0,
        inheritable: 0,
        ambient: 0,
        bounding: bounding(),
        securebits: 0,
        no_new_privs: false,
    }
}

pub(super) fn spec(program: &str) -> Spec {
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

pub(super) fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

/// A launch whose standard output is a pipe, and the pipe.
pub(super) fn prepared(spec: Spec, argv: &[&str]) -> (Launch, File) {
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

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(super) fn start(mut what: Launch) -> Result<(Started, ReportOutcome), LaunchFault> {
    let (report, writer) = pipe().unwrap();
    what.attach(writer, None);
    let started = launch(&what)?;
    drop(what);
    let outcome = await_report(report, started.pidfd.as_fd(), soon())?;
    Ok((started, outcome))
}

pub(super) fn output(spec: Spec, argv: &[&str]) -> Result<String, LaunchFault> {
    let (launch, mut output) = prepared(spec, argv);
    start(launch)?;
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    Ok(text)
}

#[test]
pub(super) fn the_process_is_who_the_spec_says() {
    let status = output(spec("/bin/cat"), &["cat", "/proc/self/status"]).unwrap();
    println!("{status}");
}
