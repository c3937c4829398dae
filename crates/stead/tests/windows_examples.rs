//! The examples on Windows, from the same source as everywhere.
#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use stead::local::{Address, ConnectOptions, Stream};
use testbed::windows::{Seen, WinProbe, program};

/// Where cargo puts them: beside the directory of the test programs.
fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let name = format!("examples/{name}.exe");
    own.ancestors().map(|directory| directory.join(&name)).find(|path| path.exists()).expect("it is built")
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn ask(address: &Address, request: &str) -> String {
    let patience = Instant::now() + Duration::from_secs(20);
    let mut stream = loop {
        match Stream::connect_with(address, &ConnectOptions::new()) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < patience, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A pipe that the server has closed is at its end, or broken.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn the_http_example_answers_with_the_output_of_its_callers_command() {
    let name = format!(r"\\.\pipe\stead-http-{}", std::process::id());
    let _server = Server(Command::new(example("http_run")).arg(&name).spawn().unwrap());
    let address = Address::path(name);
    let post = |body: &str| {
        let head = "POST / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n";
        ask(&address, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()))
    };
    let probe = program("winprobe").display().to_string();
    if probe.contains(' ') {
        testbed::skip!("the path of the probe holds a space: {probe}");
    }
    let answer = post(&probe);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = WinProbe::parse(body.as_bytes());
    assert_eq!(seen.shell_arguments.len(), 1, "{seen:?}");
    assert!(post("no-such-program").starts_with("HTTP/1.1 422 "));
    assert!(post("no-such-program").contains("there is no program"));
}

#[test]
fn the_http_example_runs_its_callers_command_as_the_caller() {
    testbed::skip_under_wine!("ImpersonateNamedPipeClient impersonates the server itself");
    let name = format!(r"\\.\pipe\stead-http-caller-{}", std::process::id());
    let _server = Server(Command::new(example("http_run")).arg(&name).spawn().unwrap());
    let body = program("winprobe").display().to_string();
    let head = "POST / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let answer = ask(&Address::path(name), &request);
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(WinProbe::parse(body.as_bytes()).user, Seen::own().unwrap().user);
}

/// With somebody who can log on it runs where somebody can: Wine logs nobody on.
#[test]
fn the_interactive_example_grants_nothing_to_who_cannot_log_on() {
    use std::process::Stdio;
    let mut command = Command::new(example("interactive_run"));
    command.args(["no-such-user-of-stead", "console", "cmd"]);
    let mut example = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    example.stdin.take().unwrap().write_all(b"no password\n").unwrap();
    let output = example.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("logging on no-such-user-of-stead") && !said.contains("before:"), "{said}");
}
