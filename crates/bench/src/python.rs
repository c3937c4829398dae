//! Python's `subprocess`, by an interpreter that stays and measures itself whenever it is told.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::Outcome;
use crate::floor::Switch;
use crate::machine;
use crate::target::Target;

const PROGRAM: &str = "\
import json, subprocess, sys, time
plan = json.loads(sys.stdin.readline())
null = subprocess.DEVNULL
for line in sys.stdin:
    start = time.perf_counter_ns()
    ended = subprocess.run(plan['words'], user=plan['user'], group=plan['group'], extra_groups=plan['groups'],
                           env={}, stdin=null, stdout=null, stderr=null)
    took = time.perf_counter_ns() - start
    print(took if ended.returncode == 0 else -1, flush=True)
";

/// The interpreter.
pub(crate) struct Python {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Python {
    /// # Errors
    ///
    /// When there is none, or it cannot be started.
    pub(crate) fn start(target: &Target, switch: &Switch) -> Outcome<Self> {
        let path = machine::find("python3").ok_or("python3 is not installed")?;
        let mut process = Command::new(path)
            .args(["-I", "-c", PROGRAM])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().ok_or("no standard input")?;
        let output = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        let mut python = Self { process, input, output };
        let words: Vec<_> = target.words().map(|word| word.to_string_lossy().into_owned()).collect();
        let plan =
            json!({ "words": words, "user": switch.uid, "group": switch.gid, "groups": switch.groups });
        writeln!(python.input, "{plan}")?;
        Ok(python)
    }

    /// Has it create one process, and gives what that took by its own clock.
    ///
    /// # Errors
    ///
    /// When the interpreter ended, or the process did not end well.
    pub(crate) fn run(&mut self) -> io::Result<Duration> {
        writeln!(self.input)?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        let took = answer.trim().parse::<u64>();
        took.map(Duration::from_nanos).map_err(|_| io::Error::other("the process did not end well"))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
