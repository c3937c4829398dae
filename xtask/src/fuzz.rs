//! `cargo xtask fuzz`: the decoders, each for some minutes, by cargo-fuzz.

use std::io;
use std::path::Path;
use std::process::Command;

/// What to fuzz, and for how long.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    target: Option<String>,
    seconds: u64,
}

/// Runs one fuzzer or all of them, one after the other; stops at the first finding.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    let wanted = parse(arguments)?;
    let names = match wanted.target {
        Some(name) => vec![name],
        None => names(Path::new("fuzz/fuzz_targets"))?,
    };
    if !cargo(&["fuzz", "--version"])? {
        return Err(io::Error::other(
            "the fuzzer is not there: rustup toolchain install nightly, cargo install cargo-fuzz",
        ));
    }
    for name in names {
        println!("{name}: {} s", wanted.seconds);
        let time = format!("-max_total_time={}", wanted.seconds);
        // The decoders take at most 16 MiB; what is longer than this finds nothing more.
        if !cargo(&["fuzz", "run", &name, "--", &time, "-max_len=65536", "-print_final_stats=1"])? {
            eprintln!("{name}: a finding, in fuzz/artifacts/{name}");
            return Ok(1);
        }
        if !cargo(&["fuzz", "cmin", &name])? {
            return Ok(1);
        }
    }
    Ok(0)
}

fn cargo(arguments: &[&str]) -> io::Result<bool> {
    // The fuzzer instruments the code by options that only the nightly compiler takes.
    Ok(Command::new("cargo").arg("+nightly").args(arguments).status()?.success())
}

fn parse(arguments: &[String]) -> io::Result<Wanted> {
    let usage = || io::Error::other("usage: cargo xtask fuzz [TARGET] [--minutes N]");
    let mut wanted = Wanted { target: None, seconds: 600 };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--minutes" {
            let minutes: u64 = rest.next().and_then(|number| number.parse().ok()).ok_or_else(usage)?;
            wanted.seconds = minutes.saturating_mul(60);
        } else if argument.starts_with('-') || wanted.target.replace(argument.clone()).is_some() {
            return Err(usage());
        }
    }
    Ok(wanted)
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        if let Some(name) = entry?.path().file_stem().and_then(|name| name.to_str()) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
