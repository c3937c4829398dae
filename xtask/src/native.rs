//! `cargo xtask test` on Windows: every test in a process of its own, on the machine as it is.
//!
//! As a service there is no cargo: `test --build PLAN` builds and writes down what was built, `test --plan PLAN` runs it.

use crate::build::{self, Program};
use crate::runner::{self, Place};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Here;

impl Place for Here {
    fn start(&self, program: &Path) -> Command {
        Command::new(program)
    }

    fn scratch(&self) -> PathBuf {
        std::env::temp_dir()
    }

    fn name(&self) -> &'static str {
        ""
    }
}

/// Runs the command.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    match arguments {
        [option, file] if option == "--build" => fs::write(file, serde_json::to_vec(&build()?)?).map(|()| 0),
        [option, file] if option == "--plan" => {
            test(&serde_json::from_slice::<Vec<Program>>(&fs::read(file)?)?, None)
        }
        [] => test(&build()?, None),
        [filter] if !filter.starts_with('-') => test(&build()?, Some(filter)),
        _ => Err(io::Error::other("usage: cargo xtask test [FILTER]")),
    }
}

fn build() -> io::Result<Vec<Program>> {
    let packages = [
        "test",
        "--no-run",
        "--all-features",
        "--package",
        "stead",
        "--package",
        "testbed",
        "--lib",
        "--bins",
        "--tests",
    ];
    Ok(build::build(&packages)?.into_iter().filter(|program| program.harness).collect())
}

fn test(programs: &[Program], filter: Option<&str>) -> io::Result<u8> {
    let tests = runner::list(programs, filter, &Here)?;
    let reports: Vec<_> = runner::run_all(&tests, &Here).into_iter().map(|(_, report)| report).collect();
    Ok(runner::summary(&reports))
}
