//! `cargo xtask bench spawn|impersonate`: what each costs, beside its floor and its peers.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::build;

/// Builds the benchmark with optimisation and runs it, as root.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    if !matches!(arguments.first().map(String::as_str), Some("spawn" | "impersonate")) {
        return Err(io::Error::other("usage: cargo xtask bench spawn|impersonate [--quick] [--json]"));
    }
    let built = build::build(&["build", "--release", "--package", "stead-bench"])?;
    let program = built
        .iter()
        .find(|program| program.name == "stead-bench")
        .ok_or_else(|| io::Error::other("cargo did not say where it put stead-bench"))?;
    let root = std::fs::metadata("/proc/self")?.uid() == 0;
    let mut command = if root {
        Command::new(&program.path)
    } else {
        // Another user's process takes privilege; sudo asks for the password where it must.
        let mut sudo = Command::new("sudo");
        sudo.arg(&program.path);
        sudo
    };
    let status = command.args(arguments).status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
