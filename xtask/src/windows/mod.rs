//! `cargo xtask test --windows [FILTER]`: the Windows side, built and linted for Windows and run under Wine.
//!
//! Every test runs under the machine's Wine. One that is skipped there, because Wine 8 has but one user, is run again
//! under Wine 10, in a Debian made for it below the target directory; that result then counts.

mod toolchain;
mod trixie;
mod wine;

use crate::build::{self, Program};
use crate::runner::{self, Outcome, Place, Report};
use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use toolchain::Toolchain;
use wine::Wine;

/// The packages that have the Windows side.
const PACKAGES: [&str; 6] = ["--package", "stead", "--package", "testbed", "--package", "stead-cli"];

/// Those whose documentation has examples for Windows.
const DOCUMENTED: [&str; 2] = ["--package", "stead"];

/// Runs the command, and installs what it takes.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    let filter = match arguments {
        [] => None,
        [filter] if !filter.starts_with('-') => Some(filter.as_str()),
        _ => return Err(io::Error::other("usage: cargo xtask test --windows [FILTER]")),
    };
    toolchain::install()?;
    let Some(toolchain) = Toolchain::find() else {
        return Err(io::Error::other(format!("no Rust for Windows here: {}", toolchain::advice())));
    };
    let trixie = if Wine::has_second_users()? { None } else { trixie::make()? };
    Ok(runner::summary(&test(toolchain, filter, trixie.as_deref())?))
}

/// The whole of it where nothing has to be installed or made first; otherwise says so, and gives nothing.
pub fn run_if_ready() -> Vec<Report> {
    let (Some(toolchain), true) = (Toolchain::find(), Wine::is_here()) else {
        say("not tested here: `cargo xtask test --windows` installs what that takes, and tests it");
        return Vec::new();
    };
    let trixie = if Wine::has_second_users().unwrap_or(false) { None } else { trixie::made() };
    test(toolchain, None, trixie.as_deref()).unwrap_or_else(|error| {
        let name = "the Windows side".to_owned();
        let report = Report { name, outcome: Outcome::Failed(error.to_string()) };
        runner::say(&report);
        vec![report]
    })
}

/// Where all of it lies.
fn directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    build::root().join(target).join("windows")
}

fn test(
    toolchain: Toolchain,
    filter: Option<&str>,
    trixie: Option<&std::path::Path>,
) -> io::Result<Vec<Report>> {
    say(format_args!("built by {toolchain}"));
    toolchain.lint(&PACKAGES)?;
    let programs: Vec<Program> =
        toolchain.tests(&PACKAGES)?.into_iter().filter(|program| program.harness).collect();
    let wine = Wine::of_this_machine()?;
    let tests = runner::list(&programs, filter, &wine)?;
    let mut reports = runner::run_all(&tests, &wine);
    let examples = match filter {
        None => crate::test::doc_tests(toolchain.doc_tests(&DOCUMENTED, &wine), wine.name())?,
        Some(_) => Vec::new(),
    };
    drop(wine);
    if let Some(trixie) = trixie {
        let wine = Wine::in_a_root_of_its_own(trixie)?;
        let skipped: Vec<usize> = reports
            .iter()
            .filter(|(_, report)| matches!(report.outcome, Outcome::Skipped(_)))
            .map(|(index, _)| *index)
            .collect();
        let again = runner::run_selected(&tests, &skipped, &wine);
        reports.retain(|(index, _)| !skipped.contains(index));
        reports.extend(again);
    }
    Ok(reports.into_iter().map(|(_, report)| report).chain(examples).collect())
}

fn say(what: impl Display) {
    println!("windows: {what}");
}
