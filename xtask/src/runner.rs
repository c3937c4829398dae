//! Running tests: each in a process of its own, within a time limit, its end told and counted. Where they run (in the
//! testbed, under Wine, on Windows) is the [`Place`]'s affair.

use crate::build::Program;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test may take, unless it says otherwise with `testbed::time_limit!`.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// The same; as many times longer as `STEAD_SLOW` says, which the tests themselves go by, too.
fn time_limit(usual: Duration) -> Duration {
    let slow = std::env::var("STEAD_SLOW").ok().and_then(|times| times.parse().ok());
    usual * slow.unwrap_or(1)
}

/// Where test programs run.
pub trait Place: Sync {
    /// The beginning of the command that runs this program there.
    fn start(&self, program: &Path) -> Command;
    /// Where the tests' output may lie while they run.
    fn scratch(&self) -> PathBuf;
    /// Said beside a test's name; empty for this machine's own system.
    fn name(&self) -> &str;
}

/// How one test ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Its program and its name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a test can end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// It could not run, for this reason.
    Skipped(String),
    /// With this output.
    Failed(String),
    /// With this output at first; when it was run again, by itself, it passed.
    Unsteady(String),
}

/// One test of one program.
pub struct Test<'a> {
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

/// Says what failed, and the counts on the last line; gives the status to end with.
pub fn summary(reports: &[Report]) -> u8 {
    let count = |what: fn(&Outcome) -> bool| reports.iter().filter(|report| what(&report.outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Passed | Outcome::Unsteady(_)));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    let list = |title: &str, what: fn(&Outcome) -> bool| {
        let names: Vec<_> = reports.iter().filter(|report| what(&report.outcome)).collect();
        if !names.is_empty() {
            println!("\n{title}:");
        }
        for report in names {
            println!("    {}", report.name);
        }
    };
    list("passed only when run again by itself", |outcome| matches!(outcome, Outcome::Unsteady(_)));
    list("failed", |outcome| matches!(outcome, Outcome::Failed(_)));
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    u8::from(failed > 0)
}

/// The tests of these programs whose names contain the filter, or one of several with commas between them.
///
/// # Errors
///
/// When a program cannot be started.
pub fn list<'a>(
    programs: &'a [Program],
    filter: Option<&str>,
    place: &dyn Place,
) -> io::Result<Vec<Test<'a>>> {
    let mut tests = Vec::new();
    for program in programs {
        let ignored = names(program, &["--ignored"], place)?;
        for name in names(program, &[], place)? {
            let test = Test { program, ignored: ignored.contains(&name), name };
            if is_role(&test.name) {
                continue;
            }
            let wanted = |filter: &str| filter.split(',').any(|part| test.to_string().contains(part));
            if filter.is_none_or(wanted) {
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

fn names(program: &Program, more: &[&str], place: &dyn Place) -> io::Result<Vec<String>> {
    let output = command(program, place).args(["--list", "--format", "terse"]).args(more).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// A test program as cargo would start it.
fn command(program: &Program, place: &dyn Place) -> Command {
    let mut command = place.start(&program.path);
    command
        .current_dir(&program.directory)
        .env("CARGO_MANIFEST_DIR", &program.directory)
        .env("CARGO_PKG_NAME", &program.package)
        // With one thread libtest runs the test on the main thread; on the others the main thread only waits.
        .env("RUST_TEST_THREADS", "2")
        .stdin(Stdio::null());
    command
}

/// Runs the tests, several at a time, and then those that failed once more, one at a time: on a machine with other work
/// a deadline passes that would not otherwise. What a test prints that is the only one is shown. The reports come in the order in which they ended, with each test's index.
pub fn run_all(tests: &[Test<'_>], place: &dyn Place) -> Vec<(usize, Report)> {
    run_selected(tests, &(0..tests.len()).collect::<Vec<_>>(), place)
}

/// The same for those with these indices.
pub fn run_selected(tests: &[Test<'_>], which: &[usize], place: &dyn Place) -> Vec<(usize, Report)> {
    let workers = thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
    let queue: Mutex<VecDeque<usize>> = Mutex::new(which.iter().copied().collect());
    let reports = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(index) = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else {
                        return;
                    };
                    let test = &tests[index];
                    let outcome = run_one(test, place, which.len() == 1)
                        .unwrap_or_else(|error| Outcome::Failed(format!("could not be run: {error}\n")));
                    let name = match place.name() {
                        "" => test.to_string(),
                        place => format!("{test} ({place})"),
                    };
                    let report = Report { name, outcome };
                    let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
                    say(&report);
                    reports.push((index, report));
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (index, report) in &mut reports {
        let Outcome::Failed(output) = &report.outcome else { continue };
        if matches!(run_one(&tests[*index], place, false), Ok(Outcome::Passed)) {
            report.outcome = Outcome::Unsteady(output.clone());
            say(report);
        }
    }
    reports
}

/// Prints one test's end; where `CI` is set, only one that is not as it should be, for a record that is read later.
pub fn say(report: &Report) {
    let mut out = io::stdout().lock();
    let name = &report.name;
    // Nobody may be reading.
    let _ = match &report.outcome {
        Outcome::Passed if std::env::var_os("CI").is_some() => Ok(()),
        Outcome::Passed => writeln!(out, "ok       {name}"),
        Outcome::Unsteady(_) => writeln!(out, "unsteady {name}: it failed, and passed when it was run again"),
        Outcome::Skipped(reason) => writeln!(out, "skipped  {name}: {reason}"),
        Outcome::Failed(output) => {
            let _ = writeln!(out, "FAILED   {name}");
            output.lines().try_for_each(|line| writeln!(out, "    {line}"))
        }
    };
}

fn run_one(test: &Test<'_>, place: &dyn Place, show: bool) -> io::Result<Outcome> {
    if test.ignored {
        return Ok(Outcome::Skipped("marked #[ignore]".to_owned()));
    }
    // A file, not a pipe: a process that the test leaves behind could keep a pipe open for ever.
    let output = OutputFile::new(&place.scratch())?;
    let mut command = command(test.program, place);
    command.args(["--exact", &test.name, "--nocapture"]).stdout(output.open()?).stderr(output.open()?);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn()?;
    let ended = wait(&mut child, &output)?;
    let text = output.read();
    if show && ended.is_some_and(|status| status.success()) {
        let _ = write!(io::stdout(), "{text}");
    }
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
        if started.elapsed() > time_limit(TIME_LIMIT) {
            let text = output.read();
            let limit = text
                .lines()
                .filter_map(|line| {
                    line.strip_prefix("testbed: time limit ")?.strip_suffix(" s")?.parse().ok()
                })
                .next_back()
                .map_or(TIME_LIMIT, Duration::from_secs);
            let limit = time_limit(limit);
            let waits = |line: &str| text.lines().any(|other| other == line);
            if waits("testbed: waiting") && !waits("testbed: go on") {
                // It has not begun: other tests have the bed.
                started = Instant::now();
            } else if started.elapsed() > limit {
                // The group is the test's own: it was made for it, and its leader is not reaped yet.
                #[cfg(unix)]
                let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
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
    fn new(scratch: &Path) -> io::Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = scratch.join(format!("output-{}-{number}", std::process::id()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_plays_a_part_for_a_test_is_not_a_test() {
        assert!(is_role("role_client") && is_role("sys::tests::role_connects"));
        assert!(!is_role("a_role_is_played") && !is_role("role_of::a_test"));
    }

    #[test]
    fn a_skip_is_seen_on_a_line_of_its_own_and_nowhere_else() {
        assert_eq!(
            skip_reason("running 1 test\n\nskipped: no mice\ntest x ... ok\n"),
            Some("no mice".into())
        );
        assert_eq!(skip_reason("test a::b ... skipped: no mice\n"), Some("no mice".into()));
        assert_eq!(skip_reason("it said skipped: no mice\n"), None);
    }
}
