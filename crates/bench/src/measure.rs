//! Interleaved measuring: each round runs every method once, so that a change of the machine's speed meets all alike.

use std::io;
use std::time::{Duration, Instant};

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// For figures that are quoted.
    Full,
    /// For a look.
    Quick,
    /// Whether everything can be measured at all.
    Fewest,
}

impl Effort {
    /// So many of `full` rounds.
    pub(crate) fn rounds(self, full: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => (full / 5).max(10),
            Self::Fewest => 2,
        }
    }

    /// So much of `full`.
    pub(crate) fn time(self, full: Duration) -> Duration {
        match self {
            Self::Full => full,
            Self::Quick => full / 8,
            Self::Fewest => Duration::ZERO,
        }
    }
}

/// What the rounds of one method took, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) samples: usize,
}

impl Figures {
    /// Of at least one.
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let microseconds = |index: usize| times[index.min(times.len() - 1)].as_secs_f64() * 1e6;
        Self {
            median: microseconds(times.len() / 2),
            p99: microseconds(times.len() * 99 / 100),
            samples: times.len(),
        }
    }
}

/// One way to do what a scenario is about.
pub(crate) struct Method<'a> {
    pub(crate) name: String,
    pub(crate) note: String,
    run: Box<dyn FnMut() -> io::Result<Duration> + 'a>,
}

impl<'a> Method<'a> {
    /// Done once a round, and timed.
    pub(crate) fn new(name: impl Into<String>, act: impl FnMut() -> io::Result<()> + 'a) -> Self {
        Self::batch(name, 1, act)
    }

    /// Done so often a round, as one run is short beside the clock; the figures are those of one.
    pub(crate) fn batch(
        name: impl Into<String>,
        times: u32,
        mut act: impl FnMut() -> io::Result<()> + 'a,
    ) -> Self {
        Self::timed(name, move || {
            let start = Instant::now();
            for _ in 0..times {
                act()?;
            }
            Ok(start.elapsed() / times)
        })
    }

    /// Done by something that times itself.
    pub(crate) fn timed(name: impl Into<String>, run: impl FnMut() -> io::Result<Duration> + 'a) -> Self {
        Self { name: name.into(), note: String::new(), run: Box::new(run) }
    }

    /// What is to be known of the method beside its figures.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// How one method fared.
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) note: String,
    /// What it took, or why it could not be measured.
    pub(crate) outcome: Result<Figures, String>,
}

/// Runs the methods in turn, in another order each round, `rounds` times after a tenth as many unmeasured ones; stops
/// early after `time`, but not before each has been measured twice. A method that fails is left out from then on.
pub(crate) fn interleaved(rounds: usize, time: Duration, methods: Vec<Method<'_>>) -> Vec<Measured> {
    let warm_up = rounds / 10 + 1;
    let mut order: Vec<usize> = (0..methods.len()).collect();
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut methods: Vec<_> =
        methods.into_iter().map(|method| (method, Vec::with_capacity(rounds), None)).collect();
    let start = Instant::now();
    let mut measured = 0;
    for round in 0..warm_up + rounds {
        if measured >= 2 && start.elapsed() > time {
            break;
        }
        // Slow methods need less of it than fast ones.
        let warming_up = round == 0 || (round < warm_up && start.elapsed() < time / 10);
        measured += usize::from(!warming_up);
        chance.shuffle(&mut order);
        for index in &order {
            let (method, times, failed) = &mut methods[*index];
            if failed.is_some() {
                continue;
            }
            match (method.run)() {
                Ok(_) if warming_up => {}
                Ok(took) => times.push(took),
                Err(error) => *failed = Some(error.to_string()),
            }
        }
    }
    methods
        .into_iter()
        .map(|(method, times, failed)| Measured {
            name: method.name,
            note: method.note,
            outcome: failed.map_or_else(|| Ok(Figures::of(times)), Err),
        })
        .collect()
}

/// Which method comes after which must not always be the same: it leaves caches as its neighbour finds them.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).map_or(0, |number| number % below)
    }

    fn shuffle(&mut self, order: &mut [usize]) {
        for last in (1..order.len()).rev() {
            let other = self.next(last + 1);
            order.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_p99_are_those_of_the_sorted_times() {
        let figures = Figures::of((1..=1000).rev().map(Duration::from_micros).collect());
        let shown = format!("{:.0} {:.0} {}", figures.median, figures.p99, figures.samples);
        assert_eq!(shown, "501 991 1000");
        assert_eq!(format!("{:.0}", Figures::of(vec![Duration::from_micros(3)]).p99), "3");
    }

    #[test]
    fn every_method_runs_in_every_round_and_one_that_fails_is_named_and_left_out() {
        let (mut good, mut bad) = (0, 0);
        let methods = vec![
            Method::batch("good", 2, || {
                good += 1;
                Ok(())
            }),
            Method::new("bad", || {
                bad += 1;
                Err(io::Error::other("not today"))
            }),
        ];
        let measured = interleaved(20, Duration::from_secs(3600), methods);
        assert!(measured[0].outcome.as_ref().is_ok_and(|figures| figures.samples >= 20));
        assert_eq!(measured[1].outcome.as_ref().err().map(String::as_str), Some("not today"));
        assert_eq!((good, bad), (2 * 23, 1));
    }

    #[test]
    fn a_shuffle_loses_nothing() {
        let mut order: Vec<usize> = (0..9).collect();
        Chance(7).shuffle(&mut order);
        assert_ne!(order, (0..9).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..9).collect::<Vec<_>>());
    }
}
