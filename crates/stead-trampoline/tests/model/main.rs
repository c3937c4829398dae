//! The trampoline's own steps, compiled against a model of the kernel in which anything may go wrong: there
//! is no way through them to a program with a right that the token has not.
//!
//! The steps are the program's source files, not a copy. What the real kernel does with them is tested in the
//! library (`sys/linux/process/launch_tests`).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]
// A table of system calls is one, and registers are what they are.
#![allow(clippy::match_same_arms, clippy::too_many_lines, clippy::many_single_char_names)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::cast_ptr_alignment
)]

#[path = "../../src/report.rs"]
#[allow(dead_code)]
mod report;
#[path = "../../src/syscall.rs"]
#[macro_use]
#[allow(dead_code)]
mod syscall;
#[path = "../../src/wire.rs"]
#[allow(dead_code)]
mod wire;

#[path = "../../src/program/defaults.rs"]
mod defaults;
#[path = "../../src/program/execute.rs"]
mod execute;
#[path = "../../src/program/file.rs"]
mod file;
#[path = "../../src/program/score.rs"]
mod score;
#[path = "../../src/program/steps.rs"]
mod steps;
#[path = "../../src/program/supervise.rs"]
mod supervise;
#[path = "../../src/program/switch.rs"]
mod switch;

// What the program has of its own, and here is the model's.
mod credentials;
mod kernel;
mod runtime;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::panic::AssertUnwindSafe;

use credentials::{ALL, AUDIT_CONTROL, Credentials, SETGID, SETPCAP, SETUID, SYS_RESOURCE};
use kernel::{Fault, Model, Surroundings};
use stead_trampoline::spec;
use steps::{At, Failure, Spec, Vector};
use syscall::{Capabilities, errno};

/// How a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// The client's program runs.
    Executed,
    /// The trampoline ended itself.
    Ended,
}

const REPORT: u32 = 7;
const KEPT: [u32; 2] = [5, 9];

fn root(bounding: u64) -> Credentials {
    Credentials {
        uids: [0; 3],
        gids: [0; 3],
        groups: vec![0, 4, 27],
        capabilities: Capabilities { permitted: bounding, effective: bounding, inheritable: 0 },
        bounding,
        ambient: 0,
        securebits: 0,
        no_new_privs: false,
    }
}

/// A server that is not root, and has handed its capabilities to the trampoline.
fn capable() -> Credentials {
    let held = SETUID | SETGID | SETPCAP | AUDIT_CONTROL | SYS_RESOURCE;
    Credentials {
        uids: [900; 3],
        gids: [900; 3],
        groups: vec![],
        capabilities: Capabilities { permitted: held, effective: held, inheritable: held },
        bounding: ALL,
        ambient: held,
        securebits: 0,
        no_new_privs: false,
    }
}

fn servers() -> Vec<Credentials> {
    vec![root(ALL), root(ALL & !SYS_RESOURCE), capable()]
}

fn tokens() -> Vec<Credentials> {
    let bind = 1 << 10;
    let alice = Credentials {
        uids: [1000; 3],
        gids: [1000; 3],
        groups: vec![4, 100, 1000],
        capabilities: Capabilities::default(),
        bounding: ALL,
        ambient: 0,
        securebits: 0,
        no_new_privs: false,
    };
    vec![
        Credentials { bounding: ALL & !SYS_RESOURCE, ..alice.clone() },
        Credentials { no_new_privs: true, bounding: bind, groups: vec![], ..alice.clone() },
        // With a capability of its own, and with other securebits: then the server's outlive the uid for a moment.
        Credentials {
            capabilities: Capabilities { permitted: bind, effective: bind, inheritable: bind },
            ambient: bind,
            ..alice.clone()
        },
        Credentials { securebits: 0b1111, bounding: SETUID, ..alice.clone() },
        // The server's own uid, with nothing of its rights.
        Credentials { uids: [0; 3], ..alice.clone() },
        Credentials { uids: [900; 3], gids: [900; 3], ..alice.clone() },
        alice,
    ]
}

/// Everything of the server's that a program could inherit.
fn servers_surroundings() -> Surroundings {
    let files = [
        (kernel::SCORE, "-1000\n"),
        ("/proc/self/coredump_filter", "00000000\n"),
        (kernel::LOGIN_UID, "4294967295"),
        ("/proc/thread-self/attr/exec", ""),
    ];
    Surroundings {
        descriptors: (0..12).collect(),
        session: false,
        keyring: false,
        directory: b"/server".to_vec(),
        umask: 0,
        limits: BTreeMap::new(),
        files: files.into_iter().map(|(name, text)| (name, text.as_bytes().to_vec())).collect(),
        policy: 1,
        nice: -20,
        slice: 100_000_000,
        server: 900,
        all_processors: false,
        io_priority: 0x2004,
        timer_slack: 1,
        personality: 0x0004_0000,
        huge_pages_disabled: true,
        memory_merged: true,
        machine_checks: 1,
        io_flusher: true,
        core_cookie: 5,
        ports: [true; 2],
        least_score: -1000,
        memory_policy: 2,
        ignored_signals: [1, 13, 64].into(),
        mask: u64::MAX,
    }
}

/// What it must be for the program.
fn clients_surroundings() -> Surroundings {
    let mut around = servers_surroundings();
    around.descriptors = [0, 1, 2].into_iter().chain(KEPT).collect();
    around.session = true;
    around.keyring = true;
    around.directory = b"/home/alice".to_vec();
    around.umask = 0o027;
    around.limits = [(7, [64, 128])].into();
    around.files.insert(kernel::SCORE, b"0".to_vec());
    around.least_score = 0;
    around.files.insert("/proc/self/coredump_filter", b"0x33".to_vec());
    around.files.insert(kernel::LOGIN_UID, b"1000".to_vec());
    around.files.insert("/proc/thread-self/attr/exec", b"user_t".to_vec());
    (around.policy, around.nice, around.slice) = (0, 0, kernel::SLICE);
    around.all_processors = true;
    around.io_priority = 0;
    around.timer_slack = 50_000;
    around.personality = 0;
    around.huge_pages_disabled = false;
    (around.memory_merged, around.io_flusher) = (false, false);
    (around.machine_checks, around.core_cookie) = (2, kernel::OWN_COOKIE);
    around.ports = [!cfg!(target_arch = "x86_64"); 2];
    around.memory_policy = 0;
    around.ignored_signals.clear();
    around.mask = 0;
    around
}

fn spec_for(token: &Credentials) -> Vec<CString> {
    let spec = spec::Spec {
        report: REPORT,
        gate: None,
        keep: KEPT.to_vec(),
        session: spec::NewSession::Setsid,
        defaults: spec::ProcessDefaults::Fixed,
        umask: Some(0o027),
        nice: None,
        oom_score_adj: None,
        limits: vec![(7, 64, 128)],
        keyring: spec::Keyring::JoinNew,
        login_uid: Some(1000),
        credentials: Some(spec::Credentials {
            uid: token.uids[0],
            gid: token.gids[0],
            groups: token.groups.clone(),
            permitted: token.capabilities.permitted,
            effective: token.capabilities.effective,
            inheritable: token.capabilities.inheritable,
            ambient: token.ambient,
            bounding: token.bounding,
            last_capability: credentials::LAST,
            securebits: token.securebits,
            no_new_privs: token.no_new_privs,
        }),
        exec_label: Some(b"user_t".to_vec()),
        directory: c"/home/alice".to_owned(),
        program: spec::ProgramSearch::Candidates(vec![c"/bin/true".to_owned()]),
    };
    let mut arguments = spec.encode();
    arguments.push(c"true".to_owned());
    arguments
}

/// Runs the trampoline for this server and token.
fn run(server: &Credentials, arguments: &[CString], faults: BTreeMap<usize, Fault>) -> (Run, Model) {
    let mut around = servers_surroundings();
    if !server.has(SYS_RESOURCE) {
        // What takes the capability nobody has set.
        (around.io_flusher, around.least_score) = (false, 0);
        around.files.insert(kernel::SCORE, b"300\n".to_vec());
    }
    run_in(around, server, arguments, faults)
}

fn run_in(
    around: Surroundings,
    server: &Credentials,
    arguments: &[CString],
    faults: BTreeMap<usize, Fault>,
) -> (Run, Model) {
    let mut pointers: Vec<*const u8> = arguments.iter().map(|one| one.as_ptr().cast()).collect();
    pointers.push(std::ptr::null());
    let argv = Vector { pointers: pointers.as_ptr(), count: arguments.len() };
    let environment = [std::ptr::null::<u8>()];
    let mut end = None;
    let model = Model::new(server.clone(), around, faults).run(|| {
        let steps = AssertUnwindSafe(|| steps::main(argv, environment.as_ptr()));
        let Err(payload) = std::panic::catch_unwind(steps);
        match payload.downcast::<Run>() {
            Ok(run) => end = Some(*run),
            Err(other) => std::panic::resume_unwind(other),
        }
    });
    (end.expect("it ends"), model)
}

/// What must hold whatever went wrong.
fn holds(token: &Credentials, faults: &BTreeMap<usize, Fault>, (run, model): &(Run, Model)) {
    if *run == Run::Ended {
        return;
    }
    let what = || format!("{faults:?}\nis    {:?}\ntoken {token:?}", model.credentials);
    assert!(model.credentials.within(token), "more than the token: {}", what());
    let lies = faults.values().any(|fault| *fault == Fault::Lies);
    if !lies {
        assert_eq!(model.credentials, *token, "not what the token is: {}", what());
        let expected = clients_surroundings();
        // These are the kernel's to refuse, where nobody else can have set them either: see `defaults`.
        let around = Surroundings {
            memory_policy: expected.memory_policy,
            io_priority: expected.io_priority,
            huge_pages_disabled: expected.huge_pages_disabled,
            memory_merged: expected.memory_merged,
            machine_checks: expected.machine_checks,
            io_flusher: expected.io_flusher,
            core_cookie: expected.core_cookie,
            ports: expected.ports,
            umask: expected.umask,
            ..model.surroundings.clone()
        };
        assert_eq!(around, expected, "{faults:?}");
    }
}

/// Whether this server may create this token's process at all.
fn possible(server: &Credentials, token: &Credentials) -> bool {
    token.bounding & !server.bounding == 0
        && token.capabilities.permitted & !server.capabilities.permitted == 0
}

const FAULTS: [Fault; 5] = [
    Fault::Fails(errno::EPERM),
    Fault::Fails(errno::EINVAL),
    Fault::Fails(errno::ENOSYS),
    Fault::Fails(errno::EAGAIN),
    Fault::Lies,
];

#[test]
fn where_nothing_fails_the_program_is_exactly_the_tokens_or_never_runs() {
    for server in servers() {
        for token in tokens() {
            let (run, model) = run(&server, &spec_for(&token), BTreeMap::new());
            if possible(&server, &token) {
                assert_eq!(run, Run::Executed, "{server:?}\n{token:?}\n{:?}", model.credentials);
                assert_eq!(model.credentials, token);
                assert_eq!(model.surroundings, clients_surroundings());
            } else {
                assert_eq!(run, Run::Ended, "{server:?}\n{token:?}");
            }
        }
    }
}

#[test]
fn who_could_protect_itself_as_its_server_is_protected_never_runs() {
    let token = tokens().pop().unwrap();
    let run = |server: &Credentials, score: &str| {
        let mut around = Surroundings { io_flusher: false, ..servers_surroundings() };
        around.files.insert(kernel::SCORE, score.into());
        run_in(around, server, &spec_for(&token), BTreeMap::new())
    };
    // The least score shows nowhere: also beside a harmless one it is the unit's.
    for score in ["-1000\n", "0\n"] {
        assert_eq!(run(&root(ALL & !SYS_RESOURCE), score).0, Run::Ended);
        let (end, model) = run(&root(ALL), score);
        assert_eq!((end, model.surroundings.least_score), (Run::Executed, 0));
    }
}

#[test]
fn the_slice_of_an_ordinary_server_is_not_its_clients() {
    let token = tokens().pop().unwrap();
    // Another process and the first of all, which has what it has.
    for server in [900, 1] {
        let around = Surroundings { policy: 0, nice: 0, server, ..servers_surroundings() };
        let (run, model) = run_in(around, &root(ALL), &spec_for(&token), BTreeMap::new());
        assert_eq!(run, Run::Executed);
        assert_eq!(model.surroundings, Surroundings { server, ..clients_surroundings() });
    }
}

#[test]
fn whichever_call_fails_or_lies_no_program_runs_with_a_right_beyond_the_tokens() {
    for server in servers() {
        for token in tokens() {
            let arguments = spec_for(&token);
            let calls = run(&server, &arguments, BTreeMap::new()).1.calls;
            for (turn, fault) in (0..=calls).flat_map(|turn| FAULTS.map(|fault| (turn, fault))) {
                let faults = BTreeMap::from([(turn, fault)]);
                holds(&token, &faults, &run(&server, &arguments, faults.clone()));
            }
        }
    }
}

#[test]
fn whichever_two_calls_fail_or_lie_no_program_runs_with_a_right_beyond_the_tokens() {
    let kinds = [Fault::Fails(errno::EPERM), Fault::Lies];
    let tokens = tokens();
    let [.., with_a_capability, with_securebits, _, _, plain] = &tokens[..] else { unreachable!() };
    for (server, token) in [(root(ALL), with_a_capability), (root(ALL), with_securebits), (capable(), plain)]
    {
        let arguments = spec_for(token);
        // A fault lengthens the way: what is asked one by one then.
        let calls = run(&server, &arguments, BTreeMap::new()).1.calls + 20;
        for first in 0..calls {
            for second in first + 1..calls {
                for (one, other) in kinds.iter().flat_map(|one| kinds.map(|other| (*one, other))) {
                    let faults = BTreeMap::from([(first, one), (second, other)]);
                    holds(token, &faults, &run(&server, &arguments, faults.clone()));
                }
            }
        }
    }
}

#[test]
fn a_kernel_that_fails_and_lies_at_random_gets_no_program_beyond_the_token() {
    let mut state: u64 = 0x5EAD_0047;
    let mut next = move |limit: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % limit
    };
    let (servers, tokens) = (servers(), tokens());
    for _ in 0..20_000 {
        let server = &servers[usize::try_from(next(servers.len() as u64)).unwrap()];
        let token = &tokens[usize::try_from(next(tokens.len() as u64)).unwrap()];
        let faults: BTreeMap<usize, Fault> = (0..3 + next(8))
            .map(|_| (usize::try_from(next(140)).unwrap(), FAULTS[usize::try_from(next(5)).unwrap()]))
            .collect();
        holds(token, &faults, &run(server, &spec_for(token), faults.clone()));
    }
}
