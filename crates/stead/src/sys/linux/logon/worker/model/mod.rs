//! The steps of a logon, compiled against a model of PAM and of the system in which any of them may fail, lie, put
//! another account in the user's place or outlive the server: there is no way through them to a session with a right
//! that the account has not, and nothing that was begun is left undone. The loop after them (`serving`) is run in the same
//! way, against processes and servers that come and go at any call.
//!
//! Both are the worker's own source files, not copies. What real modules and the real kernel do with them is tested
//! in `tests/logon*.rs`.
#![forbid(unsafe_code)]

mod host;
mod kernel;
#[path = "../log_on.rs"]
#[allow(clippy::duplicate_mod, reason = "the same steps on purpose")]
mod log_on;
mod pam;
#[path = "../serve.rs"]
#[allow(clippy::duplicate_mod, reason = "the same loop on purpose")]
mod serve;
mod serving;
mod tree;
#[path = "../watch.rs"]
#[allow(clippy::duplicate_mod, reason = "what the loop knows of trees is its own")]
mod watch;
mod world;

mod asker {
    pub(super) use super::super::asker::Asker;
}

/// The keyring has no part in what a session may do.
mod keyring {
    pub(super) type Serial = i64;

    pub(super) fn current() -> Option<Serial> {
        None
    }

    pub(super) fn give_to(_first: Option<Serial>, _account: &crate::sys::account::AccountEntry) {}
}

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use zeroize::Zeroizing;

use super::{stated, system};
use crate::sys::logon::message::{Failure, LogonGidRequest, Open, Reply, Snapshot};
use crate::sys::token::CapabilitySet;
use pam::Call;

/// What goes wrong with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It fails.
    Fails,
    /// It says that it succeeded, and has done nothing. What is only read is read.
    Lies,
    /// A module puts another account in the user's place, or nobody.
    OtherUser,
    Nobody,
    /// The server ends meanwhile.
    ServerEnds,
}

const FAULTS: [Fault; 5] = [Fault::Fails, Fault::Lies, Fault::OtherUser, Fault::Nobody, Fault::ServerEnds];

/// A step that was taken, in PAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// What was called, and whether it said that it succeeded.
    Called(Call, bool),
    /// `pam_end`.
    Ended,
}

/// PAM, the kernel and the account database, and what shall go wrong with them.
#[expect(clippy::struct_excessive_bools, reason = "each is a state of its own")]
struct System {
    faults: BTreeMap<usize, Fault>,
    calls: usize,
    gid: u32,
    groups: BTreeSet<u32>,
    /// PAM_USER.
    user: Option<CString>,
    expired: bool,
    server: bool,
    started: usize,
    steps: Vec<Step>,
    /// As modules have it, whatever they said.
    established: bool,
    opened: bool,
    /// Where a module could have had the secret, and where one could have asked the server.
    secret_in: Vec<Call>,
    conversation_in: Vec<Call>,
    /// Where a module could have taken an empty password for the right one.
    empty_in: Vec<Call>,
}

thread_local! {
    static SYSTEM: RefCell<Option<System>> = const { RefCell::new(None) };
}

/// Does something with the model.
fn with<R>(act: impl FnOnce(&mut System) -> R) -> R {
    SYSTEM.with_borrow_mut(|system| act(system.as_mut().expect("a run is on")))
}

impl System {
    /// One more call; what goes wrong with it.
    fn turn(&mut self) -> Option<Fault> {
        let fault = self.faults.get(&self.calls).copied();
        self.calls += 1;
        match fault {
            Some(Fault::ServerEnds) => {
                self.server = false;
                None
            }
            other => other,
        }
    }
}

fn send(socket: &OwnedFd, reply: &Reply, _descriptors: &[BorrowedFd<'_>]) -> std::io::Result<()> {
    host::send(socket, reply)
}

/// The groups that a server of root's has, and no account here.
const SERVERS: [u32; 3] = [0, 4, 27];
/// Who can log on: name, uid, gid, groups.
const ACCOUNTS: [(&CStr, u32, u32, &[u32]); 3] =
    [(c"alice", 1000, 1000, &[47, 100, 1000]), (c"mallory", 1001, 1001, &[48, 1001]), (c"root", 0, 0, &[0])];
/// What a module such as pam_group adds when credentials are established.
const GRANTED: u32 = 500;
const LOGON_GID: u32 = 70_000;

/// One run's outcome: the session as it was told to the server and closed afterwards.
struct Run {
    opened: Result<Box<Snapshot>, Failure>,
    /// When the session was open, before it was closed again.
    at_open: Option<(BTreeSet<u32>, bool, Option<CString>)>,
    system: System,
}

fn run(logon: &Logon, faults: BTreeMap<usize, Fault>) -> Run {
    let Logon { open, expired, prepared } = logon;
    let nothing = Rc::new(world::descriptor());
    begin(*expired, faults);
    let mut at_open = None;
    // What could not be prepared is done when it is needed.
    let ready = prepared.then(|| log_on::Ready::start(&open.service, &nothing).ok()).flatten();
    let opened = log_on::log_on(open.clone(), &nothing, ready).map(|session| {
        let snapshot = Box::new(session.snapshot.clone());
        at_open = Some(with(|system| (system.groups.clone(), system.established, system.user.clone())));
        session.close();
        snapshot
    });
    Run { opened, at_open, system: SYSTEM.take().expect("it was set") }
}

fn begin(expired: bool, faults: BTreeMap<usize, Fault>) {
    SYSTEM.set(Some(System {
        faults,
        calls: 0,
        gid: 0,
        groups: SERVERS.into(),
        user: None,
        expired,
        server: true,
        started: 0,
        steps: Vec::new(),
        established: false,
        opened: false,
        secret_in: Vec::new(),
        conversation_in: Vec::new(),
        empty_in: Vec::new(),
    }));
}

/// A logon, whether its password has expired, and whether its worker was prepared for one.
struct Logon {
    open: Open,
    expired: bool,
    prepared: bool,
}

fn logons() -> Vec<Logon> {
    let plain = Open {
        id: 7,
        service: c"stead".to_owned(),
        user: c"alice".to_owned(),
        exact_name: true,
        authenticate: true,
        empty_password: false,
        secret: Some(Zeroizing::new(b"secret".to_vec())),
        conversation: false,
        tty: None,
        remote_host: Some(c"there".to_owned()),
        remote_user: None,
        environment: vec![c"LANG=C".to_owned()],
        logon_gid: None,
        socket: None,
    };
    let gid = LogonGidRequest { directory: c"/".to_owned(), first: LOGON_GID, last: LOGON_GID };
    let logon = |open| Logon { open, expired: false, prepared: false };
    vec![
        logon(Open { logon_gid: Some(gid), ..plain.clone() }),
        // Without a password (S4U), and a secret that nobody asked for.
        logon(Open { authenticate: false, ..plain.clone() }),
        // Under another spelling, whose user a module may put into its own form.
        logon(Open { user: c"ALICE".to_owned(), exact_name: false, ..plain.clone() }),
        // With a password that has expired, and a server that answers.
        Logon { expired: true, ..logon(Open { conversation: true, ..plain.clone() }) },
        logon(Open { user: c"root".to_owned(), ..plain.clone() }),
        Logon { prepared: true, ..logon(plain.clone()) },
        logon(plain),
    ]
}

/// What must hold whatever went wrong.
fn holds(open: &Open, run: &Run, faults: &BTreeMap<usize, Fault>) {
    let Run { opened, at_open, system } = run;
    let what = || format!("{faults:?}: {:?}, {:?}", system.steps, opened.as_ref().err());

    // The order, each step once, nothing but the way back after the first that failed.
    let calls: Vec<(Call, bool)> = system
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Called(call, good) => Some((*call, *good)),
            Step::Ended => None,
        })
        .collect();
    let order = [
        Call::Authenticate,
        Call::Account,
        Call::ChangeExpired,
        Call::Establish,
        Call::OpenSession,
        Call::CloseSession,
        Call::Delete,
    ];
    let places: Vec<usize> =
        calls.iter().map(|(call, _)| order.iter().position(|one| one == call).unwrap()).collect();
    assert!(places.is_sorted_by(|one, next| one < next), "out of order: {}", what());
    let said = |wanted: Call| calls.contains(&(wanted, true));
    let tried = |wanted: Call| said(wanted) || calls.contains(&(wanted, false));
    assert_eq!(tried(Call::CloseSession), said(Call::OpenSession), "{}", what());
    assert_eq!(tried(Call::Delete), said(Call::Establish), "{}", what());
    if tried(Call::OpenSession) {
        assert!(said(Call::Account) || said(Call::ChangeExpired), "{}", what());
        assert!(said(Call::Establish) && said(Call::Authenticate) == open.authenticate, "{}", what());
    }
    let ends = system.steps.iter().filter(|step| **step == Step::Ended).count();
    assert_eq!(ends, system.started, "{}", what());
    assert!(system.steps.last().is_none_or(|last| *last == Step::Ended), "{}", what());

    // What was begun is undone, unless the very step that undoes it failed.
    assert!(!system.opened || !said(Call::CloseSession) || faults.values().any(|one| *one == Fault::Lies));
    assert!(!system.established || !said(Call::Delete) || faults.values().any(|one| *one == Fault::Lies));

    // The secret is for authentication alone, and nobody is asked on the way out.
    assert!(system.secret_in.iter().all(|call| *call == Call::Authenticate), "{}", what());
    let asked_late = |call: &Call| matches!(call, Call::CloseSession | Call::Delete);
    assert!(!system.conversation_in.iter().any(asked_late), "{}", what());
    assert!(open.empty_password || system.empty_in.is_empty(), "{}", what());

    // A session is the account's that was asked for, and has what that account has.
    let Ok(snapshot) = opened else { return };
    let (now, established, user) = at_open.as_ref().unwrap();
    let user = user.as_ref().unwrap_or_else(|| panic!("nobody's session: {}", what()));
    // A name in another spelling that the database did not know is PAM's to say whose it is.
    let unknown = !open.exact_name && faults.get(&0) == Some(&Fault::Lies);
    let asked_for = if unknown { user } else { &open.user };
    let (name, uid, gid, groups) =
        ACCOUNTS.into_iter().find(|one| one.0.to_bytes().eq_ignore_ascii_case(asked_for.to_bytes())).unwrap();
    assert!(user.to_bytes().eq_ignore_ascii_case(name.to_bytes()), "{user:?}: {}", what());
    let mut expected: BTreeSet<u32> = groups.iter().copied().collect();
    expected.extend(established.then_some(GRANTED));
    expected.extend(open.logon_gid.as_ref().map(|_| LOGON_GID));
    let told: BTreeSet<u32> = snapshot.context.groups.as_slice().iter().map(|gid| gid.as_raw()).collect();
    assert_eq!((&told, now), (&expected, &expected), "other groups than the account's: {}", what());
    assert_eq!(snapshot.logon_gid, open.logon_gid.as_ref().map(|_| LOGON_GID));
    let context = &snapshot.context;
    assert_eq!((context.uid.as_raw(), context.gid.as_raw()), (uid, gid), "{}", what());
    assert_eq!(snapshot.account.name.as_c_str(), name, "{}", what());
    let held = if uid == 0 { kernel::all() } else { CapabilitySet::EMPTY };
    let sets = context.capabilities;
    assert_eq!((sets.permitted, sets.effective), (held, held), "{}", what());
    assert!(sets.inheritable.is_empty() && sets.ambient.is_empty(), "{}", what());
    assert!(said(Call::OpenSession) && said(Call::Establish), "{}", what());
}

/// Numbers below a limit, the same in every run (xorshift64).
fn dice(mut state: u64) -> impl FnMut(usize) -> usize {
    move |limit| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % limit as u64).unwrap()
    }
}

#[test]
fn where_nothing_goes_wrong_the_session_is_the_accounts() {
    for logon in logons() {
        let run = run(&logon, BTreeMap::new());
        assert!(run.opened.is_ok(), "{:?}", run.opened.as_ref().err());
        assert_eq!(run.system.secret_in.is_empty(), !logon.open.authenticate);
        assert!(!run.system.opened && !run.system.established);
        holds(&logon.open, &run, &BTreeMap::new());
    }
}

#[test]
fn whichever_two_steps_go_wrong_no_session_has_more_than_the_account_and_what_was_begun_is_undone() {
    let mut runs = 0;
    for logon in logons() {
        // A fault can lengthen the way: names are looked up once more.
        let calls = run(&logon, BTreeMap::new()).system.calls + 4;
        let one = |turn: usize| FAULTS.map(|fault| (turn, fault));
        for first in (0..calls).flat_map(one) {
            for second in (first.0..calls).flat_map(one) {
                let faults = BTreeMap::from([second, first]);
                holds(&logon.open, &run(&logon, faults.clone()), &faults);
                runs += 1;
            }
        }
    }
    println!("{runs} runs");
}

#[test]
fn a_system_that_fails_and_lies_at_random_gets_no_session_beyond_the_account() {
    let mut next = dice(0x5EAD_0047);
    let logons = logons();
    for _ in 0..if cfg!(miri) { 200 } else { 50_000 } {
        let logon = &logons[next(logons.len())];
        let faults: BTreeMap<usize, Fault> =
            (0..=next(6)).map(|_| (next(32), FAULTS[next(FAULTS.len())])).collect();
        holds(&logon.open, &run(logon, faults.clone()), &faults);
    }
}

#[test]
fn a_server_that_ends_at_any_step_before_the_session_is_open_gets_none() {
    for logon in logons() {
        let calls = run(&logon, BTreeMap::new()).system.calls;
        let mut refused = 0;
        for turn in 0..calls {
            let run = run(&logon, BTreeMap::from([(turn, Fault::ServerEnds)]));
            // What comes after the last phase is done for nobody, and then undone by the loop.
            let last = run.system.steps.contains(&Step::Called(Call::OpenSession, true));
            assert!(run.opened.is_err() || last);
            refused += usize::from(run.opened.is_err());
            assert!(!run.system.opened && !run.system.established);
        }
        assert!(refused > 4, "{refused} of {calls}");
    }
}
