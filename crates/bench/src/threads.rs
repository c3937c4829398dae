//! `bench threads`: processes created per second by a server's threads together.

use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::measure::{Effort, Method, interleaved};
use crate::report::{Bench, Figure, Scenario};
use crate::target::{Identities, Target};
use crate::ways::{self, Ours, Way};

pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let bed = bench.bed;
    let user = bed.user("alice");
    let identities = Identities::new(bed, user)?;
    let ours = Ours::new(bed, user)?;
    let mut all = ways::in_one_server(user, &ours);
    all.insert(1, ways::bound(user));
    let tiny = Target::tiny(bed)?;
    let ways = ways::verified(bench, &scenario(1), &identities, &all);
    let (rounds, span) = match bench.effort {
        Effort::Full => (11, Duration::from_millis(400)),
        Effort::Quick => (5, Duration::from_millis(150)),
        Effort::Fewest => (2, Duration::from_millis(20)),
    };
    for threads in [1, 2, 4, 8] {
        let methods = ways
            .iter()
            .map(|way| Method::timed(way.name, || together(way, &tiny, threads, span)).note(way.note))
            .collect();
        let mut figures = Vec::new();
        for measured in interleaved(rounds, Duration::from_secs(3600), methods) {
            match measured.outcome {
                Ok(each) => figures.push(Figure {
                    method: measured.name,
                    note: measured.note,
                    unit: "/s",
                    value: 1e6 / each.median,
                    p99: None,
                    samples: each.samples,
                }),
                Err(why) => bench.missing(&scenario(threads), &measured.name, &why),
            }
        }
        if figures.first().is_none_or(|first| first.method != ways::FLOOR) {
            return Err("the floor could not be measured".into());
        }
        bench.figures(&scenario(threads), &figures);
    }
    Ok(())
}

fn scenario(threads: usize) -> Scenario {
    Scenario {
        part: "threads",
        name: format!(
            "a tiny static program, by {threads} {}",
            if threads == 1 { "thread" } else { "threads" }
        ),
        rounds: 0,
        time: Duration::ZERO,
    }
}

/// Threads create processes for as long as `span`; gives the time that all of them together took for one.
fn together(way: &Way<'_>, target: &Target, threads: usize, span: Duration) -> io::Result<Duration> {
    let barrier = Barrier::new(threads);
    let one = || -> io::Result<(Instant, u32, Instant)> {
        let made = way.act(target).map_err(|error| io::Error::other(error.to_string()));
        // Whatever became of it: the others wait.
        barrier.wait();
        let mut act = made?;
        let (start, mut count) = (Instant::now(), 0);
        while count == 0 || start.elapsed() < span {
            act()?;
            count += 1;
        }
        Ok((start, count, Instant::now()))
    };
    let each = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))))
            .collect::<io::Result<Vec<_>>>()
    })?;
    let begun = each.iter().map(|(start, ..)| *start).min();
    let ended = each.iter().map(|(.., end)| *end).max();
    let count: u32 = each.iter().map(|(_, count, _)| count).sum();
    match (begun, ended) {
        (Some(begun), Some(ended)) => Ok((ended - begun) / count),
        _ => Err(io::Error::other("no thread")),
    }
}
