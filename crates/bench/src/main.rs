//! `stead-bench spawn`: what a spawn as another user costs, beside its floor and its peers;
//! `stead-bench impersonate`: what acting as one costs.
//!
//! Everything is measured in one interleaved run, for machines are noisy: quote the ratios of medians.

mod floor;
mod impersonate;
mod measure;
mod server;

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use serde_json::json;
use stead::{Command, Primary, Token};

use crate::measure::{Figures, interleaved};
use crate::server::{OpenDescriptors, ResidentMemory};

/// The user that the processes become; a uid needs no account.
const UID: u32 = 64_321;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let (rounds, as_json) = (if has("--quick") { 60 } else { 500 }, has("--json"));
    let done = match arguments.first().map(String::as_str) {
        Some("spawn") => spawn(rounds, as_json),
        Some("impersonate") => impersonate::run(rounds, UID, as_json),
        _ => {
            eprintln!("usage: stead-bench spawn|impersonate [--quick] [--json]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stead-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Every method, for a small server, a large one, and one with many descriptors.
fn spawn(rounds: usize, as_json: bool) -> Result<(), Box<dyn std::error::Error>> {
    let folder = ProgramFolder::new()?;
    let tiny = folder.path.join("tiny");
    floor::write_tiny(&tiny)?;
    let token = server::token_of_user(UID, 17)?;
    // The first spawn prepares the trampoline, as a server's first one does.
    Command::new(&tiny).current_dir("/").status_as(&token)?;

    let report = |server: &str, program: &Path| -> Result<(), Box<dyn std::error::Error>> {
        let figures = methods(program, &token, rounds)?;
        show(server, program, &figures, as_json);
        Ok(())
    };
    report("small", &tiny)?;
    report("small", Path::new("/bin/true"))?;
    {
        let memory = ResidentMemory::up_to_gib(4)?;
        report(&format!("{} GiB resident", memory.gib()), &tiny)?;
    }
    {
        let descriptors = OpenDescriptors::up_to(15_000)?;
        report(&format!("{} descriptors", descriptors.len()), &tiny)?;
    }
    Ok(())
}

/// Creates `program` by every method in turn, `rounds` times.
fn methods(
    program: &Path,
    token: &Token<Primary>,
    rounds: usize,
) -> Result<Vec<(&'static str, Figures)>, Box<dyn std::error::Error>> {
    let name = CString::new(program.as_os_str().as_encoded_bytes())?;
    let mut stack = vec![0; 64 * 1024];
    let mut ours = Command::new(program);
    ours.current_dir("/").env_clear();
    let std_command = || {
        let mut command = std::process::Command::new(program);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    interleaved(
        rounds,
        &mut [
            ("floor: vfork, no switch", &mut || floor::spawn_and_wait(&name, &mut stack)),
            ("posix_spawn, no switch", &mut || std_command().status().map(drop)),
            ("stead", &mut || ours.status_as(token).map(drop).map_err(io::Error::other)),
            ("std .uid().gid(), groups lost", &mut || std_command().uid(UID).gid(UID).status().map(drop)),
        ],
    )
}

/// Prints one scenario: a table, or one JSON object a line.
fn show(server: &str, program: &Path, figures: &[(&'static str, Figures)], as_json: bool) {
    let floor = figures[0].1.median;
    if !as_json {
        println!("\n{}, server: {server}", program.file_name().unwrap_or_default().display());
        println!("  {:<32} {:>10} {:>10} {:>9}", "method", "median us", "p99 us", "x floor");
    }
    for (method, of) in figures {
        let ratio = of.median.as_secs_f64() / floor.as_secs_f64();
        if as_json {
            let line = json!({ "bench": "spawn", "server": server, "program": program, "method": method,
                "median_us": of.median.as_secs_f64() * 1e6, "p99_us": of.p99.as_secs_f64() * 1e6, "ratio": ratio });
            println!("{line}");
        } else {
            let (median, p99) = (of.median.as_secs_f64() * 1e6, of.p99.as_secs_f64() * 1e6);
            println!("  {method:<32} {median:>10.1} {p99:>10.1} {ratio:>9.2}");
        }
    }
}

/// A folder that every user may search, removed at the end.
struct ProgramFolder {
    path: PathBuf,
}

impl ProgramFolder {
    fn new() -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("stead-bench-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        let folder = Self { path };
        std::fs::set_permissions(&folder.path, std::fs::Permissions::from_mode(0o755))?;
        Ok(folder)
    }
}

impl Drop for ProgramFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("stead-bench: {} stays: {error}", self.path.display());
        }
    }
}
