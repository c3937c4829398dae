//! `cargo xtask test [FILTER]`: builds everything, and runs each test in a process of its own in the testbed.
//!
//! A function named `role_..` is no test, although libtest lists it: it plays a part for a test, which starts it in a
//! process of its own and tells it its part. Without one it does nothing; it is neither run by itself nor counted.
//!
//! `cargo xtask test --in user-namespace` and `--in container` run the same, by root, in a place such as an ordinary user
//! can make, and in an ordinary container.

use crate::build::{self, Program};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use testbed::{EnterOptions, Entry};

/// How long a test may take, unless it says otherwise with `testbed::time_limit!`.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// What the runner inside needs to know.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    filter: Option<String>,
    programs: Vec<Program>,
    /// Tests that ran outside already.
    outside: Vec<Report>,
    /// Whether the examples in the documentation are still to be run.
    doc_tests: bool,
}

/// How one test ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Report {
    name: String,
    outcome: Outcome,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// One test of one program.
struct Test<'a> {
    program: &'a Program,
    name: String,
    ignored: bool,
}

impl fmt::Display for Test<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Program { package, name, kind, .. } = self.program;
        match kind.as_str() {
            "test" => write!(f, "{package}/{name} {}", self.name),
            _ => write!(f, "{package} {}", self.name),
        }
    }
}

/// Runs the command.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    match arguments {
        [option, file] if option == "--plan" => planned(Path::new(file)),
        [option, place, plan, file] if option == "--in" && plan == "--plan" => {
            within(place.parse()?, Path::new(file))
        }
        [option, place, filter @ ..] if option == "--in" && filter.len() < 2 => {
            outside(filter.first().cloned(), Some(place.parse()?))
        }
        [] => outside(None, None),
        [filter] if !filter.starts_with('-') => outside(Some(filter.clone()), None),
        _ => Err(io::Error::other("usage: cargo xtask test [--in user-namespace|container] [FILTER]")),
    }
}

/// A place to run the tests in that root's bed can make: what an ordinary user has, or an ordinary container.
#[derive(Debug, Clone, Copy)]
enum Place {
    UserNamespace,
    Container,
}

impl std::str::FromStr for Place {
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<Self> {
        match name {
            "user-namespace" => Ok(Self::UserNamespace),
            "container" => Ok(Self::Container),
            _ => Err(io::Error::other("the tests run in a user-namespace or in a container, or simply here")),
        }
    }
}

impl Place {
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
fn within(place: Place, file: &Path) -> io::Result<u8> {
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
    let mut options = EnterOptions::default();
    options.programs = build::programs()?;
    enter(&options, file)
}

fn outside(filter: Option<String>, place: Option<Place>) -> io::Result<u8> {
    let built = build::build(&["build", "--workspace", "--all-targets", "--all-features"])?;
    let tests = build::build(&["test", "--workspace", "--all-features", "--no-run"])?;
    // As an ordinary user the examples run before the bed is entered: root must not write into the target directory.
    let doc_tests = rustix_is_root() && place.is_none();
    let outside = if doc_tests || place.is_some() { Vec::new() } else { run_doc_tests(filter.as_deref())? };
    let plan = Plan {
        filter,
        programs: tests.into_iter().filter(|program| program.harness && program.kind != "bench").collect(),
        outside,
        doc_tests,
    };
    let file = PlanFile::write(&plan)?;
    let mut options = EnterOptions::default();
    options.programs = build::for_the_bed(&built);
    let mut arguments: Vec<std::ffi::OsString> = vec!["test".into()];
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
    let tests = list(&plan)?;
    if tests.is_empty() {
        println!(
            "no test program has a test whose name contains {:?}",
            plan.filter.as_deref().unwrap_or_default()
        );
    }
    let mut reports = plan.outside.clone();
    reports.extend(run_all(&tests));
    if plan.doc_tests {
        reports.extend(run_doc_tests(plan.filter.as_deref())?);
    }
    let count = |what: fn(&Outcome) -> bool| reports.iter().filter(|report| what(&report.outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Passed));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    if failed > 0 {
        println!("\nfailed:");
        for report in reports.iter().filter(|report| matches!(report.outcome, Outcome::Failed(_))) {
            println!("    {}", report.name);
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(u8::from(failed > 0))
}

fn list(plan: &Plan) -> io::Result<Vec<Test<'_>>> {
    let mut tests = Vec::new();
    for program in &plan.programs {
        let ignored = names(program, &["--ignored"])?;
        for name in names(program, &[])? {
            let test = Test { program, ignored: ignored.contains(&name), name };
            if is_role(&test.name) {
                continue;
            }
            if plan.filter.as_ref().is_none_or(|filter| test.to_string().contains(filter)) {
                tests.push(test);
            }
        }
    }
    Ok(tests)
}

/// Whether this function only plays a part for a test.
fn is_role(name: &str) -> bool {
    name.rsplit("::").next().is_some_and(|name| name.starts_with("role_"))
}

fn names(program: &Program, more: &[&str]) -> io::Result<Vec<String>> {
    let output = command(program).args(["--list", "--format", "terse"]).args(more).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// A test program as cargo would start it.
fn command(program: &Program) -> Command {
    let mut command = Command::new(&program.path);
    command
        .current_dir(&program.directory)
        .env("CARGO_MANIFEST_DIR", &program.directory)
        .env("CARGO_PKG_NAME", &program.package)
        // With one thread libtest runs the test on the main thread; on the others the main thread only waits.
        .env("RUST_TEST_THREADS", "2")
        .stdin(Stdio::null());
    command
}

fn run_all(tests: &[Test<'_>]) -> Vec<Report> {
    let workers = thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
    let queue: Mutex<VecDeque<&Test<'_>>> = Mutex::new(tests.iter().collect());
    let reports = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(test) = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else {
                        return;
                    };
                    let outcome = run_one(test)
                        .unwrap_or_else(|error| Outcome::Failed(format!("could not be run: {error}\n")));
                    let report = Report { name: test.to_string(), outcome };
                    let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
                    say(&report);
                    reports.push(report);
                }
            });
        }
    });
    reports.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn say(report: &Report) {
    let mut out = io::stdout().lock();
    let name = &report.name;
    // Nobody may be reading.
    let _ = match &report.outcome {
        Outcome::Passed => writeln!(out, "ok       {name}"),
        Outcome::Skipped(reason) => writeln!(out, "skipped  {name}: {reason}"),
        Outcome::Failed(output) => {
            let _ = writeln!(out, "FAILED   {name}");
            output.lines().try_for_each(|line| writeln!(out, "    {line}"))
        }
    };
}

fn run_one(test: &Test<'_>) -> io::Result<Outcome> {
    if test.ignored {
        return Ok(Outcome::Skipped("marked #[ignore]".to_owned()));
    }
    // A file, not a pipe: a process that the test leaves behind could keep a pipe open for ever.
    let output = OutputFile::new()?;
    let mut child = command(test.program)
        .args(["--exact", &test.name, "--nocapture"])
        .stdout(output.open()?)
        .stderr(output.open()?)
        .process_group(0)
        .spawn()?;
    let ended = wait(&mut child, &output)?;
    let text = output.read();
    Ok(match ended {
        None => Outcome::Failed(format!("{text}\nkilled: it took too long\n")),
        Some(status) if status.success() => skip_reason(&text).map_or(Outcome::Passed, Outcome::Skipped),
        Some(status) => Outcome::Failed(format!("{text}\n{status}\n")),
    })
}

/// Waits for the test's end, or until its time is up, and then kills its process group.
fn wait(child: &mut Child, output: &OutputFile) -> io::Result<Option<ExitStatus>> {
    let mut started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() > TIME_LIMIT {
            let text = output.read();
            let limit = text
                .lines()
                .filter_map(|line| {
                    line.strip_prefix("testbed: time limit ")?.strip_suffix(" s")?.parse().ok()
                })
                .next_back()
                .map_or(TIME_LIMIT, Duration::from_secs);
            let waits = |line: &str| text.lines().any(|other| other == line);
            if waits("testbed: waiting") && !waits("testbed: go on") {
                // It has not begun: other tests have the bed.
                started = Instant::now();
            } else if started.elapsed() > limit {
                let group = format!("-{}", child.id());
                // The group is the test's own: it was made for it, and its leader is not reaped yet.
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                let _ = child.kill();
                child.wait()?;
                return Ok(None);
            }
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The reason in a line `skipped: REASON`. libtest may have put the test's name before it.
fn skip_reason(output: &str) -> Option<String> {
    output.lines().find_map(|line| {
        let line = match line.strip_prefix("test ") {
            Some(rest) => rest.split_once(" ... ")?.1,
            None => line,
        };
        line.strip_prefix("skipped: ").map(str::to_owned)
    })
}

/// Where a test's output goes.
struct OutputFile(PathBuf);

impl OutputFile {
    fn new() -> io::Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(testbed::ROOT).join(format!("scratch/output-{}-{number}", std::process::id()));
        File::create(&path)?;
        Ok(Self(path))
    }

    fn open(&self) -> io::Result<File> {
        File::options().append(true).open(&self.0)
    }

    fn read(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.0).unwrap_or_default()).into_owned()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs the examples in the documentation; each counts as a test.
fn run_doc_tests(filter: Option<&str>) -> io::Result<Vec<Report>> {
    let mut command = build::cargo();
    command.args(["test", "--doc", "--workspace", "--all-features", "--quiet", "--", "--format", "pretty"]);
    let output = command.args(filter).stdin(Stdio::null()).output()?;
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
    reports.iter().for_each(say);
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
    fn a_skip_is_seen_on_a_line_of_its_own_and_nowhere_else() {
        assert_eq!(
            skip_reason("running 1 test\n\nskipped: no mice\ntest x ... ok\n"),
            Some("no mice".into())
        );
        assert_eq!(skip_reason("test a::b ... skipped: no mice\n"), Some("no mice".into()));
        assert_eq!(skip_reason("it said skipped: no mice\n"), None);
    }

    #[test]
    fn what_plays_a_part_for_a_test_is_not_a_test() {
        assert!(is_role("role_client") && is_role("sys::tests::role_connects"));
        assert!(!is_role("a_role_is_played") && !is_role("role_of::a_test"));
    }

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
