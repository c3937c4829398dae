//! What stead costs, beside its floor and its peers: `cargo xtask bench`, of which this is the program.
//!
//! Everything is measured in interleaved rounds, for machines are noisy: quote the ratios of medians. Each part runs in
//! a process of its own, so that none finds what another left.

mod bound;
mod commands;
mod credentials;
mod files;
mod floor;
mod identify;
mod impersonate;
mod logon;
mod machine;
mod measure;
mod pam;
mod place;
mod plot;
mod python;
mod report;
mod server;
mod service;
mod size;
mod spawn;
mod target;
mod threads;
mod ways;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::{Value, json};
use testbed::Bed;

use crate::measure::Effort;
use crate::report::Bench;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// A part of the benchmark.
type Part = (&'static str, fn(&mut Bench) -> Outcome);

/// In the order in which they are measured.
const PARTS: [Part; 8] = [
    ("spawn", spawn::run),
    ("commands", commands::run),
    ("size", size::run),
    ("threads", threads::run),
    ("impersonate", impersonate::run),
    ("files", files::run),
    ("identify", identify::run),
    ("logon", logon::run),
];

fn main() -> ExitCode {
    stead::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [role, file] if role == target::IDENTITY => target::say_identity(Path::new(file)),
        [role, socket] if role == service::CONNECT => service::be_client(Path::new(socket)),
        [command, file] if command == "plot" => plot::run(Path::new(file)),
        _ => Request::of(arguments.into_iter()).and_then(|request| request.run()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stead-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for.
struct Request {
    parts: Vec<Part>,
    effort: Effort,
    json: Option<PathBuf>,
}

impl Request {
    fn of(mut arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut request = Self { parts: Vec::new(), effort: Effort::Full, json: None };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => request.effort = Effort::Quick,
                "--fewest" => request.effort = Effort::Fewest,
                "--json" => request.json = Some(arguments.next().ok_or("--json takes a file")?.into()),
                name => match PARTS.iter().find(|(part, _)| *part == name) {
                    Some(part) => request.parts.push(*part),
                    None => return Err(format!("there is no part {name}; there are {}", names()).into()),
                },
            }
        }
        if request.parts.is_empty() {
            request.parts = PARTS.to_vec();
        }
        Ok(request)
    }

    fn run(&self) -> Outcome {
        let bed = Bed::current().ok_or("run this by `cargo xtask bench`, among its throw-away users")?;
        let [(_, only)] = self.parts[..] else {
            return self.run_each(bed);
        };
        let machine = machine::facts();
        place::furnish(bed)?;
        std::env::set_current_dir("/")?;
        let mut bench = Bench::new(bed, self.effort);
        only(&mut bench)?;
        self.write(&machine, &bench.into_results())
    }

    /// Each part by a process of its own. One that fails does not keep the others from being measured.
    fn run_each(&self, bed: &Bed) -> Outcome {
        let machine = machine::facts();
        let file = bed.scratch("bench").join("part.json");
        let (mut results, mut failed) = (Vec::new(), Vec::new());
        for (name, _) in &self.parts {
            let mut command = Command::new(std::env::current_exe()?);
            match self.effort {
                Effort::Full => {}
                Effort::Quick => _ = command.arg("--quick"),
                Effort::Fewest => _ = command.arg("--fewest"),
            }
            if command.arg(name).arg("--json").arg(&file).status()?.success() {
                let part: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
                results.extend(part["results"].as_array().cloned().unwrap_or_default());
            } else {
                failed.push(*name);
            }
        }
        self.write(&machine, &results)?;
        if failed.is_empty() { Ok(()) } else { Err(format!("not measured: {}", failed.join(", ")).into()) }
    }

    fn write(&self, machine: &Value, results: &[Value]) -> Outcome {
        let Some(file) = &self.json else { return Ok(()) };
        let all = json!({
            "machine": machine,
            "load_afterwards": machine::load(),
            "effort": match self.effort {
                Effort::Full => "full",
                Effort::Quick => "quick",
                Effort::Fewest => "fewest",
            },
            "results": results,
        });
        write(file, &format!("{all:#}\n"))
    }
}

fn write(file: &Path, text: &str) -> Outcome {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()).into())
}

fn names() -> String {
    PARTS.map(|(name, _)| name).join(", ")
}
