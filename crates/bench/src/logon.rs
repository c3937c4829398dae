//! `bench logon`: a logon beside what PAM itself takes, and what many sessions take.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use stead::{Account, Logon, LogonSession, LogonType};

use crate::Outcome;
use crate::measure::Method;
use crate::pam;
use crate::report::{Bench, Figure, Scenario};
use crate::server;

/// There and back, and a thousand at once.
pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let user = bench.bed.user("bob");
    let account = || Account::local(&user.name);
    let ours = |logon: Logon| logon.open().and_then(LogonSession::close).map_err(io::Error::other);
    let scenario = |name: &str| Scenario {
        part: "logon",
        name: format!("on and off again, {name}"),
        rounds: 200,
        time: Duration::from_secs(40),
    };
    bench.measure(
        &scenario("by password"),
        vec![
            Method::new("the PAM calls in a child", || {
                pam::log_on_and_off("stead-interactive", &user.name, Some(&user.password))
            }),
            Method::new("stead", || {
                ours(Logon::password(account(), user.password.as_str()).kind(LogonType::Interactive))
            }),
        ],
    )?;
    bench.measure(
        &scenario("authenticated elsewhere"),
        vec![
            Method::new("the PAM calls in a child", || pam::log_on_and_off("stead-batch", &user.name, None)),
            Method::new("stead", || ours(Logon::s4u(account()).kind(LogonType::Batch))),
        ],
    )?;
    at_once(bench, &|| Logon::s4u(account()).kind(LogonType::Batch).open())
}

/// Many sessions at once: what each takes, and that nothing stays.
fn at_once(bench: &mut Bench, open: &dyn Fn() -> stead::Result<LogonSession>) -> Outcome {
    let before = server::children()?;
    let wanted = bench.effort.rounds(1000);
    // A session takes the server two descriptors.
    server::allow_descriptors(u64::try_from(wanted)? * 4 + 256)?;
    let started = Instant::now();
    let sessions = (0..wanted).map(|_| open()).collect::<stead::Result<Vec<_>>>()?;
    let opening = started.elapsed();

    let workers: Vec<u32> = server::children()?.into_iter().filter(|child| !before.contains(child)).collect();
    if workers.len() != wanted {
        return Err(format!("{wanted} sessions have {} workers", workers.len()).into());
    }
    let mut memory = Vec::with_capacity(wanted);
    for worker in &workers {
        memory.push(Memory::of(*worker)?);
    }
    let started = Instant::now();
    for session in sessions {
        session.close()?;
    }
    let closing = started.elapsed();
    let left = left_of(&workers)?;

    let scenario =
        |name: &str| Scenario { part: "logon", name: name.to_owned(), rounds: 1, time: Duration::ZERO };
    let figure = |method: &str, unit, value: f64| Figure {
        method: method.to_owned(),
        note: String::new(),
        unit,
        value,
        p99: None,
        samples: wanted,
    };
    let count = f64::from(u32::try_from(wanted)?);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count;
    bench.figures(
        &scenario(&format!("{wanted} sessions at once, one after the other")),
        &[figure("opening one", "us", each(opening)), figure("closing one", "us", each(closing))],
    );
    memory.sort_unstable_by_key(|memory| memory.private);
    let sum = |part: fn(&Memory) -> u32| f64::from(memory.iter().map(part).sum::<u32>());
    bench.figures(
        &scenario(&format!("memory of an idle worker, {wanted} sessions at once")),
        &[
            Figure {
                p99: memory.get(wanted * 99 / 100).map(|memory| f64::from(memory.private)),
                ..figure("private", "KiB", f64::from(memory[wanted / 2].private))
            },
            figure("its share of all", "KiB", sum(|memory| memory.share) / count),
            figure("all of them together", "KiB", sum(|memory| memory.share)),
        ],
    );
    if left > 0 {
        return Err(format!("{left} workers are left after their sessions were closed").into());
    }
    Ok(())
}

/// How many of the workers are there after a while; one whose session has been closed may still be ending.
fn left_of(workers: &[u32]) -> Outcome<usize> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let left = server::children()?.into_iter().filter(|child| workers.contains(child)).count();
        if left == 0 || Instant::now() > deadline {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What `/proc/PID/smaps_rollup` says, in KiB.
struct Memory {
    /// What would be freed if it ended.
    private: u32,
    /// With its share of what it has in common with others (Pss).
    share: u32,
}

impl Memory {
    fn of(pid: u32) -> Outcome<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let kib = |name: &str| -> Outcome<u32> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_ascii_whitespace().next());
            Ok(number.ok_or_else(|| format!("smaps_rollup without {name}"))?.parse()?)
        };
        Ok(Self { private: kib("Private_Dirty:")? + kib("Private_Clean:")?, share: kib("Pss:")? })
    }
}
