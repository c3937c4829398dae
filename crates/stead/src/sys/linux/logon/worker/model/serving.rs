//! The worker's loop: whatever fails, lies, panics, ends, forks or leaves at whichever call, every program has the
//! credentials that were asked for, none outlives its PAM session, which is closed in order, and no signal reaches
//! anybody else.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use rustix::process::Uid;
use stead_trampoline::spec::{Credentials, Keyring, NewSession, ProcessDefaults, ProgramSearch, Spec};

use super::pam::Call;
use super::world::{
    self, EVENTS, Event, PANIC, SERVER, STRANGER, Say, Server, World, descriptor, raw, world,
};
use super::{SYSTEM, Step, begin, dice, log_on, logons, serve};
use crate::sys::logon::message::{LaunchRequest, Reply, Request};

fn long() -> bool {
    std::env::var_os("STEAD_LONG").is_some()
}

/// What a session's server, and those after it, say.
struct Script {
    detached: bool,
    /// Whether a PAM module left a daemon.
    daemon: bool,
    says: Vec<Say>,
    later: Vec<Server>,
}

const ALICE: u32 = 1000;
const LAUNCH: Say = Say::Request(|| launch(Some(ALICE)));

fn credentials(uid: u32) -> Credentials {
    Credentials {
        uid,
        gid: ALICE,
        groups: vec![47, 100, ALICE],
        permitted: 0,
        effective: 0,
        inheritable: 0,
        ambient: 0,
        bounding: 0,
        last_capability: 40,
        securebits: 0,
        no_new_privs: false,
    }
}

fn launch(uid: Option<u32>) -> Request {
    let spec = Spec {
        report: 3,
        gate: None,
        keep: Vec::new(),
        session: NewSession::Setsid,
        defaults: ProcessDefaults::Session,
        umask: None,
        nice: None,
        oom_score_adj: None,
        limits: Vec::new(),
        keyring: Keyring::Inherit,
        login_uid: None,
        credentials: uid.map(credentials),
        exec_label: None,
        directory: c"/".to_owned(),
        program: ProgramSearch::Candidates(vec![c"/bin/true".to_owned()]),
    };
    Request::Launch(LaunchRequest {
        spec: spec.encode(),
        argv: vec![c"true".to_owned()],
        envp: Vec::new(),
        targets: vec![0, 1, 2, 3],
        cgroup: false,
        watched: true,
    })
}

fn scripts() -> Vec<Script> {
    let ask = |ask: fn() -> Request| Say::Request(ask);
    let tied = |says| Script { detached: false, daemon: false, says, later: Vec::new() };
    vec![
        // A process after another, each waited for.
        tied(vec![
            LAUNCH,
            ask(|| Request::ExitStatus(1)),
            Say::Wait,
            LAUNCH,
            ask(|| Request::KillTree(1)),
            ask(|| Request::KillTree(2)),
            ask(|| Request::Forget(1)),
            ask(|| Request::Release),
            Say::Wait,
        ]),
        // Several at once; some forgotten while they run; then all ended.
        Script {
            daemon: true,
            ..tied(vec![
                LAUNCH,
                LAUNCH,
                ask(|| Request::Forget(2)),
                LAUNCH,
                ask(|| Request::KillTree(1)),
                LAUNCH,
                ask(|| Request::Forget(4)),
                ask(|| Request::ExitStatus(3)),
                ask(|| Request::KillTree(1)),
                ask(|| Request::Processes),
                ask(|| Request::Terminate),
                ask(|| Request::Release),
                Say::Wait,
            ])
        },
        // A server that asks for what is not the session's, and goes without a word.
        tied(vec![
            ask(|| launch(None)),
            ask(|| launch(Some(0))),
            ask(|| launch(Some(STRANGER))),
            LAUNCH,
            ask(|| Request::KillTree(7)),
            LAUNCH,
        ]),
        // Detached: three servers, and somebody else.
        Script {
            detached: true,
            daemon: true,
            says: vec![LAUNCH, LAUNCH],
            later: vec![
                (STRANGER, vec![ask(|| Request::Attach), ask(|| launch(Some(STRANGER))), Say::Wait]),
                (SERVER, vec![ask(|| Request::Terminate), LAUNCH]),
                (SERVER, vec![ask(|| Request::Attach), ask(|| Request::ExitStatus(1)), LAUNCH]),
                (
                    SERVER,
                    vec![
                        ask(|| Request::Attach),
                        ask(|| Request::KillTree(3)),
                        ask(|| Request::Terminate),
                        ask(|| Request::Release),
                        Say::Wait,
                    ],
                ),
            ],
        },
    ]
}

/// One session from its beginning to its end, in which all this happens; gives how many calls there were.
fn run(script: &Script, events: &BTreeMap<usize, Event>) -> World {
    begin(false, BTreeMap::new());
    world::begin(events.clone(), script.daemon, &script.later);
    // A logon without anything special, on a system that serves it.
    let mut open = logons().pop().unwrap().open;
    open.socket = script.detached.then(|| c"/run/socket".to_owned());
    let (socket, process) = (Rc::new(descriptor()), descriptor());
    world(|world| world.connect(raw(&socket), script.says.clone(), Some(raw(&process))));
    let whole = catch_unwind(AssertUnwindSafe(|| {
        log_on::log_on(open, &socket, None).map(|session| {
            serve::serve(session, socket, process, Uid::from_raw(SERVER));
        })
    }));
    let (world, system) = (world::end(), SYSTEM.take().expect("it was set"));

    let panics = events.values().filter(|one| **one == Event::Panics).count();
    let what = || {
        let told: Vec<&Reply> =
            world.told.iter().filter(|reply| !matches!(reply, Reply::Opened(_))).collect();
        format!("{events:?}: {:?}, {told:?}", system.steps)
    };
    let served = match whole {
        Ok(served) => served.is_ok(),
        Err(panic) => {
            // A failed assertion of the model's own is no panic of the worker's.
            let text = panic.downcast_ref::<&str>().copied();
            assert!(text == Some(PANIC) && panics > 0, "{text:?} {}", what());
            true
        }
    };
    // A kernel that lies about who inherits orphans lets them escape.
    assert!(!world.at_fault || world.lied_about_orphans, "{}", what());
    assert!(served || world.launched.is_empty(), "{}", what());
    for (pid, credentials_of_it) in &world.launched {
        assert_eq!(credentials_of_it.as_ref(), Some(&credentials(ALICE)), "{pid}: {}", what());
    }
    let calls = [Call::Account, Call::Establish, Call::OpenSession, Call::CloseSession, Call::Delete];
    let mut steps: Vec<Step> = calls.map(|call| Step::Called(call, true)).into();
    steps.insert(0, Step::Called(Call::Authenticate, true));
    steps.push(Step::Ended);
    assert_eq!(system.steps, steps, "{}", what());
    assert!(!system.opened && !system.established, "{}", what());
    // Two panics leave nobody to end them.
    if panics < 2 && !world.lied_about_orphans {
        assert_eq!(world.left_at_close.as_deref(), Some(&[][..]), "left running: {}", what());
    }
    if panics == 0 {
        assert!(!world.listening, "it still listens: {}", what());
    }
    world
}

#[test]
fn where_nothing_goes_wrong_the_loop_does_what_the_servers_say() {
    let told: Vec<Vec<Reply>> = scripts().iter().map(|script| run(script, &BTreeMap::new()).told).collect();
    let launched =
        |replies: &[Reply]| replies.iter().filter(|reply| matches!(reply, Reply::Launched { .. })).count();
    let refused = |replies: &[Reply]| {
        let refused = |reply: &&Reply| matches!(reply, Reply::NotLaunched { errno: libc::EPERM, .. });
        replies.iter().filter(refused).count()
    };
    let numbers: Vec<_> = told.iter().map(|replies| (launched(replies), refused(replies))).collect();
    assert_eq!(numbers, [(2, 0), (4, 0), (2, 3), (3, 0)], "{told:?}");
    for replies in &told[..2] {
        assert!(matches!(replies.last(), Some(Reply::Ended { .. })), "{replies:?}");
    }
}

#[test]
fn whatever_two_events_meet_the_loop_no_program_outlives_its_session_or_has_more_than_was_asked_for() {
    let mut runs = 0;
    for script in scripts() {
        let calls = run(&script, &BTreeMap::new()).calls + 8;
        let each = |turn: usize| EVENTS.map(|event| (turn, event));
        // Each event at each call, each with some others; every pair takes minutes, and with Miri days.
        for (index, first) in (0..calls).step_by(if cfg!(miri) { 41 } else { 1 }).flat_map(each).enumerate() {
            run(&script, &BTreeMap::from([first]));
            let all: Vec<_> = (first.0 + 1..calls).flat_map(each).collect();
            for second in all.into_iter().skip(index % 307).step_by(if long() { 1 } else { 307 }) {
                run(&script, &BTreeMap::from([first, second]));
                runs += 1;
            }
        }
    }
    println!("{runs} runs");
}

#[test]
fn events_at_random_leave_no_program_behind_and_reach_nobody_else() {
    let mut next = dice(0x5EAD_0C0D);
    let scripts = scripts();
    let runs = if cfg!(miri) { 50 } else { 3000 };
    for _ in 0..if long() { 100 * runs } else { runs } {
        let script = &scripts[next(scripts.len())];
        let events: BTreeMap<usize, Event> =
            (0..=next(12)).map(|_| (next(160), EVENTS[next(EVENTS.len())])).collect();
        run(script, &events);
    }
}
