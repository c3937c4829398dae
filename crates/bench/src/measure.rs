//! Interleaved measuring: each round runs every method once, so that a change of the machine's speed meets all alike.

use std::io;
use std::time::{Duration, Instant};

/// What the rounds of one method took.
pub(crate) struct Figures {
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
}

/// A method by name, and one run of it.
pub(crate) type Method<'a> = (&'static str, &'a mut dyn FnMut() -> io::Result<()>);

/// Runs the methods in turn, `rounds` times after a tenth as many unmeasured rounds.
pub(crate) fn interleaved(
    rounds: usize,
    methods: &mut [Method<'_>],
) -> Result<Vec<(&'static str, Figures)>, Box<dyn std::error::Error>> {
    let warm_up = rounds / 10 + 1;
    let mut times = vec![Vec::with_capacity(rounds); methods.len()];
    for round in 0..warm_up + rounds {
        for ((name, run), times) in methods.iter_mut().zip(&mut times) {
            let start = Instant::now();
            run().map_err(|error| format!("{name}: {error}"))?;
            if round >= warm_up {
                times.push(start.elapsed());
            }
        }
    }
    Ok(methods.iter().map(|(name, _)| *name).zip(times.into_iter().map(Figures::of)).collect())
}

impl Figures {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self { median: times[times.len() / 2], p99: times[(times.len() * 99 / 100).min(times.len() - 1)] }
    }
}
