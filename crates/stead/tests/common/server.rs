//! A server of a test's own: this test program again, which plays a part, says what it made, and is killed.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A server that runs.
pub struct StartedServer {
    process: Child,
    /// What it said behind `server: `, word by word.
    pub said: Vec<String>,
}

impl StartedServer {
    /// Starts the part `role`, told by these variables, and waits until it has said what it made.
    pub fn start<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        role: &str,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", role, "--nocapture"])
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        while !line.starts_with("server: ") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the server ended");
        }
        let said = line.split_ascii_whitespace().skip(1).map(str::to_owned).collect();
        Self { process, said }
    }

    /// Ends it without a chance to do anything.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
