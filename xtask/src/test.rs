//! `cargo xtask test [FILTER]`: builds everything, and runs each test in a process of its own in the testbed.
//!
//! Without a filter the Windows side is covered too, before it, where all that this takes is there already.
//!
//! A function named `role_..` is no test, although libtest lists it: it plays a part for a test, which starts it in a
//! process of its own and tells it its part. Without one it does nothing; it is neither run by itself nor counted.
//!
//! `cargo xtask test --in user-namespace` and `--in container` run the same, by root, in a place such as an ordinary user
//! can make, and in an ordinary container; `--in machine` in a Debian with a kernel of its own, by anybody.

use crate::build::{self, Program};
use crate::machine::{Machine, Release};
use crate::runner::{self, Outcome, Place, Report};
use crate::windows;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testbed::{EnterOptions, Entry};

/// What the runner inside needs to know.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    filter: Option<String>,
    programs: Vec<Program>,
    /// Tests that ran outside already.
    outside: Vec<Report>,
    /// Whether the examples in the documentation are still to be run.
    doc_tests: bool,
    /// The programs for a bed that has still to be made, where they are as they were built.
    for_the_bed: Vec<(String, PathBuf)>,
}

/// In the testbed, where the runner itself is.
struct Bed;

impl Place for Bed {
    fn start(&self, program: &Path) -> Command {
        Command::new(program)
    }

    fn scratch(&self) -> PathBuf {
        Path::new(testbed::ROOT).join("scratch")
    }

    fn name(&self) -> &'static str {
        ""
    }
}

/// Runs the command.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    match arguments {
        [option, rest @ ..] if option == "--windows" => windows::run(rest),
        [option, filter @ ..] if option == "--linux" && filter.len() < 2 => {
            outside(filter.first().cloned(), None, Vec::new())
        }
        [option, file] if option == "--plan" => planned(Path::new(file)),
        [option, place, plan, file] if option == "--in" && plan == "--plan" => {
            within(place.parse()?, Path::new(file))
        }
        [option, place, rest @ ..] if option == "--in" && place == "machine" => in_machine(rest),
        [option, place, filter @ ..] if option == "--in" && filter.len() < 2 => {
            outside(filter.first().cloned(), Some(place.parse()?), Vec::new())
        }
        [] => outside(None, None, windows::run_if_ready()),
        [filter] if !filter.starts_with('-') => outside(Some(filter.clone()), None, Vec::new()),
        _ => Err(io::Error::other(
            "usage: cargo xtask test [--linux | --windows | --in user-namespace|container|machine] [FILTER]",
        )),
    }
}

/// A place to run the tests in that root's bed can make: what an ordinary user has, or an ordinary container.
#[derive(Debug, Clone, Copy)]
enum Elsewhere {
    UserNamespace,
    Container,
}

impl std::str::FromStr for Elsewhere {
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<Self> {
        match name {
            "user-namespace" => Ok(Self::UserNamespace),
            "container" => Ok(Self::Container),
            _ => Err(io::Error::other(
                "the tests run in a user-namespace, a container or a machine, or simply here",
            )),
        }
    }
}

impl Elsewhere {
    fn name(self) -> &'static str {
        match self {
            Self::UserNamespace => "user-namespace",
            Self::Container => "container",
        }
    }

    /// This program, started there.
    fn command(self, bed: &testbed::Bed) -> Command {
        match self {
            Self::Container => bed.container("/run/programs/xtask"),
            Self::UserNamespace => {
                let user = bed.user("svc");
                let mut command = bed.confined(&["--empty-run"], "setpriv");
                command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
                command.args(["--init-groups", "--inh-caps=-all", "--", "/run/programs/xtask"]);
                command.env("HOME", &user.home);
                command
            }
        }
    }
}

/// In a bed of root's: the runner starts itself in that place, where it makes a bed in the bed.
fn within(place: Elsewhere, file: &Path) -> io::Result<u8> {
    let Some(bed) = testbed::Bed::current() else {
        return Err(io::Error::other("`test --in .. --plan` is for the runner itself, in the testbed"));
    };
    let mut command = place.command(bed);
    let status =
        command.env("STEAD_PROGRAMS", "/run/programs").args(["test", "--plan"]).arg(file).status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The tests of a plan, in the bed; which has still to be made in a place that the runner started itself in.
fn planned(file: &Path) -> io::Result<u8> {
    if testbed::Bed::current().is_some() {
        return inside(file);
    }
    may_run_niced()?;
    let plan: Plan = serde_json::from_slice(&fs::read(file)?)?;
    let mut options = EnterOptions::default();
    options.programs = if plan.for_the_bed.is_empty() { build::programs()? } else { plan.for_the_bed };
    enter(&options, file)
}

/// In a machine with a kernel of its own; [`crate::machine`] says what that takes.
fn in_machine(arguments: &[String]) -> io::Result<u8> {
    let (release, filter) = match arguments {
        [option, release, rest @ ..] if option == "--release" && rest.len() < 2 => {
            (release.parse()?, rest.first())
        }
        [filter] if !filter.starts_with('-') => (Release::Bookworm, Some(filter)),
        [] => (Release::Bookworm, None),
        _ => {
            return Err(io::Error::other(
                "usage: cargo xtask test --in machine [--release bookworm|trixie] [FILTER]",
            ));
        }
    };
    let built = build::build(&["build", "--workspace", "--all-targets", "--all-features"])?;
    let tests = build::build(&["test", "--workspace", "--all-features", "--no-run"])?;
    let plan = Plan {
        filter: filter.cloned(),
        programs: test_programs(tests),
        outside: Vec::new(),
        doc_tests: false,
        for_the_bed: build::for_the_bed(&built),
    };
    let file = PlanFile::write(&plan)?;
    // As it is now: the one that runs may have been built anew.
    let runner =
        built.iter().find(|program| program.name == "xtask" && program.kind == "bin" && !program.harness);
    let runner = runner.ok_or_else(|| io::Error::other("cargo built no xtask"))?;
    let target = build::target()?;
    let mut machine = Machine::start(release, &[build::root(), &target])?;
    let quoted = |path: &Path| format!("'{}'", path.display());
    let script = format!(
        "uname -srv\nsystemctl --version | head -n 1\ncd {}\nexport STEAD_SLOW={}\nexec {} test --plan {}\n",
        quoted(build::root()),
        machine.slowness(),
        quoted(&runner.path),
        quoted(&file.0),
    );
    let status = machine.run(&script, &mut io::stdout())?;
    Ok(u8::try_from(status).unwrap_or(1))
}

/// Every process that a test creates gets the nice value 0, which none may get from a lower priority here, if so.
fn may_run_niced() -> io::Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let nice: i32 = after_name.split(' ').nth(16).and_then(|text| text.parse().ok()).unwrap_or(0);
    if nice > 0 && !testbed::confine::may("sys_nice") {
        return Err(io::Error::other(format!(
            "this runs with the nice value {nice}, and nobody may lower it in here (CAP_SYS_NICE): run it without `nice`"
        )));
    }
    Ok(())
}

/// `already` are reports of another side, counted with those of this one.
fn outside(filter: Option<String>, place: Option<Elsewhere>, already: Vec<Report>) -> io::Result<u8> {
    let built = build::build(&["build", "--workspace", "--all-targets", "--all-features"])?;
    let tests = build::build(&["test", "--workspace", "--all-features", "--no-run"])?;
    // As an ordinary user the examples run before the bed is entered: root must not write into the target directory.
    let doc_tests = rustix_is_root() && place.is_none();
    let mut outside = already;
    if !doc_tests && place.is_none() {
        outside.extend(run_doc_tests(filter.as_deref())?);
    }
    let plan = Plan { filter, programs: test_programs(tests), outside, doc_tests, for_the_bed: Vec::new() };
    let file = PlanFile::write(&plan)?;
    let mut options = EnterOptions::default();
    options.programs = build::for_the_bed(&built);
    let mut arguments: Vec<std::ffi::OsString> = vec!["test".into()];
    if !rustix_is_root() {
        may_run_niced()?;
    }
    if let Some(place) = place {
        // Only root can make these places.
        options.mode = Some(testbed::Mode::Namespaces);
        arguments.extend(["--in".into(), place.name().into()]);
    }
    arguments.extend(["--plan".into(), file.0.clone().into()]);
    options.arguments = Some(arguments);
    options.install = true;
    enter(&options, &file.0)
}

fn test_programs(built: Vec<Program>) -> Vec<Program> {
    built.into_iter().filter(|program| program.harness && program.kind != "bench").collect()
}

fn enter(options: &EnterOptions, plan: &Path) -> io::Result<u8> {
    match testbed::enter(options)? {
        Entry::Inside(_) => inside(plan),
        Entry::Left { status, left_behind } if left_behind.is_empty() => {
            Ok(u8::try_from(status).unwrap_or(u8::MAX))
        }
        Entry::Left { left_behind, .. } => {
            for what in left_behind {
                eprintln!("LEFT BEHIND ON THE HOST: {what}");
            }
            Ok(1)
        }
    }
}

fn rustix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The plan as a file, removed when the run is over.
struct PlanFile(PathBuf);

impl PlanFile {
    fn write(plan: &Plan) -> io::Result<Self> {
        let directory = plan.programs.first().and_then(|program| program.path.parent());
        let directory = directory.map_or_else(std::env::temp_dir, Path::to_owned);
        let file = Self(directory.join(format!("xtask-test-plan-{}.json", std::process::id())));
        fs::write(&file.0, serde_json::to_vec(plan)?)?;
        Ok(file)
    }
}

impl Drop for PlanFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs all tests of the plan, in the bed.
fn inside(file: &Path) -> io::Result<u8> {
    let plan: Plan = serde_json::from_slice(&fs::read(file)?)?;
    match testbed::Bed::current() {
        Some(bed) => println!("testbed: {}", bed.mode()),
        None => return Err(io::Error::other("`test --plan` is for the runner itself, in the testbed")),
    }
    let tests = runner::list(&plan.programs, plan.filter.as_deref(), &Bed)?;
    if tests.is_empty() {
        println!(
            "no test program has a test whose name contains {:?}",
            plan.filter.as_deref().unwrap_or_default()
        );
    }
    let mut reports = plan.outside.clone();
    reports.extend(runner::run_all(&tests, &Bed).into_iter().map(|(_, report)| report));
    if plan.doc_tests {
        reports.extend(run_doc_tests(plan.filter.as_deref())?);
    }
    Ok(runner::summary(&reports))
}

/// Runs the examples in the documentation; each counts as a test.
fn run_doc_tests(filter: Option<&str>) -> io::Result<Vec<Report>> {
    let mut command = build::cargo();
    command.args(["test", "--doc", "--workspace", "--all-features", "--quiet", "--", "--format", "pretty"]);
    command.args(filter);
    doc_tests(command, "")
}

/// The same by this command; in `place`, where that is not this machine itself.
pub fn doc_tests(mut command: Command, place: &str) -> io::Result<Vec<Report>> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut reports: Vec<Report> = text.lines().filter_map(doc_test).collect();
    if !output.status.success() {
        let whole = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        let failed = reports.iter_mut().find_map(|report| match &mut report.outcome {
            Outcome::Failed(text) => Some(text),
            _ => None,
        });
        match failed {
            Some(text) => *text = whole,
            None => reports
                .push(Report { name: "documentation examples".to_owned(), outcome: Outcome::Failed(whole) }),
        }
    }
    if !place.is_empty() {
        for report in &mut reports {
            report.name = format!("{} ({place})", report.name);
        }
    }
    reports.iter().for_each(runner::say);
    Ok(reports)
}

/// `test crates/stead/src/error.rs - error::Error (line 30) - compile ... ok`
fn doc_test(line: &str) -> Option<Report> {
    let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match result {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed(String::new()),
        ignored if ignored.starts_with("ignored") => Outcome::Skipped("marked `ignore`".to_owned()),
        _ => return None,
    };
    Some(Report { name: format!("doc {name}"), outcome })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_examples_are_counted_one_by_one() {
        let outcome = |line| doc_test(line).map(|report| (report.name, format!("{:?}", report.outcome)));
        let name = "doc crates/stead/src/error.rs - error::Error (line 30) - compile".to_owned();
        let line = "test crates/stead/src/error.rs - error::Error (line 30) - compile ... ok";
        assert_eq!(outcome(line), Some((name, "Passed".into())));
        assert_eq!(outcome("test result: ok. 3 passed; 0 failed"), None);
        assert!(matches!(doc_test("test x (line 1) ... FAILED").unwrap().outcome, Outcome::Failed(_)));
        assert!(matches!(doc_test("test x (line 1) ... ignored").unwrap().outcome, Outcome::Skipped(_)));
    }
}
