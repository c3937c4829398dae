//! Prints what this process is, as Windows tells it, as one line of JSON.
//!
//! `winprobe [--quick] [--handles N,N..] [--hold] [--exit N] [--] [anything..]`
//!
//! `--quick` says nothing and ends, `--hold` then waits until the standard input ends, `--exit N` ends with that status.

#[cfg(not(windows))]
fn main() {}

#[cfg(windows)]
fn main() -> std::io::Result<()> {
    use std::io::{Read, Write};
    let mut arguments = std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned());
    let (mut handles, mut hold, mut exit) = (Vec::new(), false, 0);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--handles" => handles = value().split(',').filter_map(|text| text.parse().ok()).collect(),
            "--quick" => return Ok(()),
            "--hold" => hold = true,
            "--exit" => exit = value().parse().unwrap_or(64),
            _ => break,
        }
    }
    let report = testbed::windows::WinProbe::own(&handles)?;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &report)?;
    writeln!(out)?;
    out.flush()?;
    if hold {
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    std::process::exit(exit)
}
