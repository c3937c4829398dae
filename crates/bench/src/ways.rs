//! The ways to create a process as another user: each is first made to show whom its processes become.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use stead::{Account, Logon, LogonSession, LogonType, Primary, Token};
use testbed::{Bed, User};

use crate::Outcome;
use crate::bound::Bound;
use crate::floor::Execution;
use crate::measure::Method;
use crate::python::Python;
use crate::report::{Bench, Scenario};
use crate::service::{Connected, TheService};
use crate::target::{Becomes, Identities, Target, switch_to};

/// Creates one process, waits for its end, and says what that took.
pub(crate) type Act<'a> = Box<dyn FnMut() -> io::Result<Duration> + 'a>;

/// Prepares the creation of processes that run a program.
type Make<'a> = Box<dyn Fn(&Target) -> Outcome<Act<'a>> + Sync + 'a>;

/// A way to create processes.
pub(crate) struct Way<'a> {
    pub(crate) name: &'static str,
    pub(crate) note: &'static str,
    becomes: Becomes,
    make: Make<'a>,
}

impl<'a> Way<'a> {
    pub(crate) fn new(
        name: &'static str,
        becomes: Becomes,
        make: impl Fn(&Target) -> Outcome<Act<'a>> + Sync + 'a,
    ) -> Self {
        Self { name, note: "", becomes, make: Box::new(make) }
    }

    pub(crate) fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }

    /// What creates processes that run `target`.
    ///
    /// # Errors
    ///
    /// What the way needs and is not there.
    pub(crate) fn act(&self, target: &Target) -> Outcome<Act<'a>> {
        (self.make)(target)
    }
}

/// Times what does not time itself.
pub(crate) fn timed<'a>(mut act: impl FnMut() -> io::Result<()> + 'a) -> Act<'a> {
    Box::new(move || {
        let start = Instant::now();
        act()?;
        Ok(start.elapsed())
    })
}

/// Those of the ways whose processes become whom they should; the others are named as missing.
pub(crate) fn verified<'w, 'a>(
    bench: &mut Bench,
    scenario: &Scenario,
    identities: &Identities,
    ways: &'w [Way<'a>],
) -> Vec<&'w Way<'a>> {
    let verify = |way: &Way<'_>| {
        identities.verify(way.becomes, |target| {
            let mut act = way.act(target)?;
            act()?;
            Ok(())
        })
    };
    let mut good = Vec::new();
    for way in ways {
        match verify(way) {
            Ok(()) => good.push(way),
            Err(why) => bench.missing(scenario, way.name, &why.to_string()),
        }
    }
    good
}

/// Measures the ways, each running `target`.
///
/// # Errors
///
/// When the floor, which is the first, cannot be measured.
pub(crate) fn measure(bench: &mut Bench, scenario: &Scenario, ways: &[&Way<'_>], target: &Target) -> Outcome {
    let mut methods = Vec::new();
    for way in ways {
        match way.act(target) {
            Ok(act) => methods.push(Method::timed(way.name, act).note(way.note)),
            Err(why) => bench.missing(scenario, way.name, &why.to_string()),
        }
    }
    bench.measure(scenario, methods)
}

/// The fewest calls there are.
pub(crate) const FLOOR: &str = "vfork and switch, bare calls";

/// The fewest calls for a child that switches in memory of its own.
const BOUND: &str = "two executions, bare calls";

/// The bound of what stead does.
pub(crate) fn bound(user: &User) -> Way<'_> {
    Way::new(BOUND, Becomes::User, move |target| {
        let mut bound = Bound::new(target.words(), &switch_to(user))?;
        Ok(timed(move || bound.run()))
    })
}

/// The ways in which a program makes no use of stead.
pub(crate) fn others(user: &User) -> Vec<Way<'_>> {
    let std_command = |target: &Target| {
        let mut command = std::process::Command::new(&target.path);
        command.args(&target.arguments).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    vec![
        Way::new(FLOOR, Becomes::User, move |target| {
            let mut execution = Execution::new(target.words(), &[], Some(switch_to(user)))?;
            Ok(timed(move || execution.vfork()))
        }),
        Way::new("posix_spawn, no switch", Becomes::Server, |target| {
            let execution = Execution::new(target.words(), &[], None)?;
            Ok(timed(move || execution.posix_spawn()))
        }),
        Way::new("fork and switch, in C", Becomes::User, move |target| {
            let execution = Execution::new(target.words(), &[], Some(switch_to(user)))?;
            Ok(timed(move || execution.fork()))
        }),
        Way::new("Rust std .uid().gid()", Becomes::UserWithoutGroups, move |target| {
            let mut command = std_command(target);
            command.uid(user.uid).gid(user.gid);
            Ok(timed(move || well(command.status()?)))
        })
        .note("groups lost"),
        Way::new("Rust std pre_exec", Becomes::User, move |target| {
            let mut command = std_command(target);
            let switch = switch_to(user);
            // SAFETY: between fork and exec only system calls are made.
            unsafe { command.pre_exec(move || switch.apply()) };
            Ok(timed(move || well(command.status()?)))
        }),
        Way::new("tokio .uid().gid()", Becomes::UserWithoutGroups, move |target| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let mut command = tokio::process::Command::from(std_command(target));
            command.uid(user.uid).gid(user.gid);
            Ok(timed(move || well(runtime.block_on(async { command.status().await })?)))
        })
        .note("groups lost"),
        Way::new("Python subprocess.run", Becomes::User, move |target| {
            let mut python = Python::start(target, &switch_to(user))?;
            Ok(Box::new(move || python.run()))
        }),
    ]
}

/// The ways that tell how large the server is that goes them, stead's own behind the floor.
///
/// An interpreter has a size and threads of its own; tokio and `pre_exec` fork as std does.
pub(crate) fn in_one_server<'a>(user: &'a User, ours: &'a Ours) -> Vec<Way<'a>> {
    let mut all = others(user);
    all.retain(|way| {
        !["Python", "tokio", "Rust std pre_exec"].iter().any(|other| way.name.starts_with(other))
    });
    all.insert(1, ours.direct());
    all
}

/// A token, and what keeps it valid; or why there is none.
type Obtained<T> = Result<T, String>;

/// Ours: the tokens, and what keeps them valid.
pub(crate) struct Ours {
    direct: Obtained<Token<Primary>>,
    session: Obtained<LogonSession>,
    through: Obtained<Token<Primary>>,
    through_session: Obtained<LogonSession>,
    _client: Connected,
    _service: Obtained<TheService>,
}

impl Ours {
    /// Starts a service and a client, and logs the user on. What is refused here is named when it is to be measured.
    ///
    /// # Errors
    ///
    /// When there can be no client.
    pub(crate) fn new(bed: &Bed, user: &User) -> Outcome<Self> {
        let text = |error: Box<dyn std::error::Error>| error.to_string();
        let service = TheService::start(bed).map_err(text);
        let client = Connected::start(bed, user)?;
        let connection =
            service.as_ref().map_err(String::clone).and_then(|service| service.connect().map_err(text));
        let logon = || Logon::s4u(Account::local(&user.name)).kind(LogonType::Batch);
        let of_service = connection.as_ref().map_err(String::clone);
        Ok(Self {
            direct: client.token().map_err(text),
            session: logon().open().map_err(|error| error.to_string()),
            through: of_service.clone().and_then(|service| client.token_through(service).map_err(text)),
            through_session: of_service
                .and_then(|service| logon().open_through(service).map_err(|error| error.to_string())),
            _client: client,
            _service: service,
        })
    }

    /// By the server itself.
    pub(crate) fn direct(&self) -> Way<'_> {
        by("stead", self.direct.as_ref())
    }

    /// All.
    pub(crate) fn ways(&self) -> Vec<Way<'_>> {
        vec![
            self.direct(),
            by("stead, in a logon session", self.session.as_ref().map(LogonSession::token)),
            by("stead, through the service", self.through.as_ref()),
            by("stead, service and session", self.through_session.as_ref().map(LogonSession::token)),
        ]
    }
}

fn by<'a>(name: &'static str, token: Result<&'a Token<Primary>, &'a String>) -> Way<'a> {
    Way::new(name, Becomes::User, move |target| {
        let token = token.map_err(String::as_str)?;
        let mut command = stead::Command::new(&target.path);
        command.args(&target.arguments).current_dir("/").env_clear();
        Ok(timed(move || well(command.status_as(token).map_err(io::Error::other)?)))
    })
}

fn well(status: std::process::ExitStatus) -> io::Result<()> {
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("it ended with {status}"))) }
}
