//! What was measured: a table on the terminal as it comes, and all of it as JSON at the end.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::Bed;

use crate::Outcome;
use crate::measure::{Effort, Method, interleaved};

/// What a part has at hand, and where its results go.
pub(crate) struct Bench {
    /// The throw-away users.
    pub(crate) bed: &'static Bed,
    pub(crate) effort: Effort,
    results: Vec<Value>,
}

/// One comparison: methods that do the same.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// The part of the benchmark, by its name on the command line.
    pub(crate) part: &'static str,
    pub(crate) name: String,
    /// So many rounds in a full run, of which less is taken where less effort is asked for.
    pub(crate) rounds: usize,
    /// And at most about so long.
    pub(crate) time: Duration,
}

/// A figure that was not found by timing rounds.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) method: String,
    pub(crate) note: String,
    /// `us`, `KiB`, `/s`.
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    /// The 99th of a hundred, where there were so many.
    pub(crate) p99: Option<f64>,
    pub(crate) samples: usize,
}

impl Bench {
    pub(crate) fn new(bed: &'static Bed, effort: Effort) -> Self {
        Self { bed, effort, results: Vec::new() }
    }

    /// Measures the methods of a scenario. The first is the floor, to which the others' ratios are.
    ///
    /// # Errors
    ///
    /// When the floor cannot be measured; another method that cannot is named as missing.
    pub(crate) fn measure(&mut self, scenario: &Scenario, methods: Vec<Method<'_>>) -> Outcome {
        let (rounds, time) = (self.effort.rounds(scenario.rounds), self.effort.time(scenario.time));
        let mut floor = None;
        Self::head(scenario, "us");
        for (index, measured) in interleaved(rounds, time, methods).into_iter().enumerate() {
            match measured.outcome {
                Ok(figures) => {
                    let figure = Figure {
                        method: measured.name,
                        note: measured.note,
                        unit: "us",
                        value: figures.median,
                        p99: Some(figures.p99),
                        samples: figures.samples,
                    };
                    floor = floor.or(Some(figure.value));
                    self.add(scenario, &figure, floor.map(|floor| figure.value / floor));
                }
                Err(why) if index == 0 => return Err(format!("{}: {why}", measured.name).into()),
                Err(why) => self.missing(scenario, &measured.name, &why),
            }
        }
        Ok(())
    }

    /// Adds figures that were found otherwise; the first is the floor.
    pub(crate) fn figures(&mut self, scenario: &Scenario, figures: &[Figure]) {
        Self::head(scenario, figures.first().map_or("", |first| first.unit));
        let floor = figures.first().map(|first| first.value);
        for figure in figures {
            self.add(scenario, figure, floor.map(|floor| figure.value / floor));
        }
    }

    /// Says that a method could not be measured, and why.
    pub(crate) fn missing(&mut self, scenario: &Scenario, method: &str, why: &str) {
        println!("  {method:<60} missing: {why}");
        self.results.push(json!({
            "part": scenario.part, "scenario": scenario.name, "method": method, "missing": why,
        }));
    }

    fn head(scenario: &Scenario, unit: &str) {
        println!("\n{}: {}", scenario.part, scenario.name);
        println!("  {:<60} {:>11} {:>11} {:>8}", format!("method ({unit})"), "median", "p99", "x floor");
    }

    fn add(&mut self, scenario: &Scenario, figure: &Figure, ratio: Option<f64>) {
        let label = match figure.note.as_str() {
            "" => figure.method.clone(),
            note => format!("{} ({note})", figure.method),
        };
        let shown = |value: Option<f64>| match value {
            None => "-".to_owned(),
            Some(value) if value < 100.0 => format!("{value:.2}"),
            Some(value) => format!("{value:.0}"),
        };
        println!(
            "  {label:<60} {:>11} {:>11} {:>8}",
            shown(Some(figure.value)),
            shown(figure.p99),
            shown(ratio)
        );
        self.results.push(json!({
            "part": scenario.part, "scenario": scenario.name, "method": figure.method, "note": figure.note,
            "unit": figure.unit, "median": rounded(figure.value), "p99": figure.p99.map(rounded),
            "samples": figure.samples, "ratio": ratio.map(rounded),
        }));
    }

    /// All results, in their order.
    pub(crate) fn into_results(self) -> Vec<Value> {
        self.results
    }
}

/// Four digits after the point are more than any of the figures is worth.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
