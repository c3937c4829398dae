//! Prints what this process is, as the kernel tells it, as one line of JSON.
//!
//! `probe [--to FILE] [--hold] [--exit N] [--] [anything..]`
//!
//! `--to FILE` writes it there instead of to the standard output, `--hold` then waits until the standard input
//! ends, `--exit N` ends with that status. Anything else is only shown among the arguments.

// The runtime that std starts before `main` ignores SIGPIPE, catches SIGSEGV and opens what is missing of the
// descriptors 0 to 2: the probe would report the runtime's doing instead of its parent's.
#![cfg_attr(target_os = "linux", no_main)]

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
use std::{fs::File, io::Read, io::Write, os::fd::FromRawFd};

/// What the command line asked for.
#[cfg(target_os = "linux")]
#[derive(Default)]
struct Wishes {
    to: Option<std::ffi::OsString>,
    hold: bool,
    exit: i32,
}

#[cfg(target_os = "linux")]
fn wishes() -> Wishes {
    let mut wishes = Wishes::default();
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--to") => wishes.to = arguments.next(),
            Some("--hold") => wishes.hold = true,
            Some("--exit") => {
                wishes.exit = arguments.next().and_then(|n| n.to_str()?.parse().ok()).unwrap_or(64);
            }
            Some("--") => break,
            _ => {}
        }
    }
    wishes
}

#[cfg(target_os = "linux")]
fn run() -> std::io::Result<i32> {
    let probe = testbed::Probe::of_self()?;
    let wishes = wishes();
    let mut line = serde_json::to_vec(&probe)?;
    line.push(b'\n');
    match &wishes.to {
        Some(path) => {
            // Appears whole or not at all: tests wait for the file.
            let mut partial = path.clone();
            partial.push(".partial");
            std::fs::write(&partial, &line)?;
            std::fs::rename(&partial, path)?;
        }
        None => standard(1).write_all(&line)?,
    }
    if wishes.hold {
        standard(0).read_to_end(&mut Vec::new())?;
    }
    Ok(wishes.exit)
}

/// A standard stream without std's buffers.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn standard(number: i32) -> std::mem::ManuallyDrop<File> {
    // SAFETY: the descriptor is this program's own standard stream, and ManuallyDrop never closes it; if it is not
    // open, reading and writing fail with EBADF.
    std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(number) })
}

/// The C runtime's entry point. `std::env::args` still works: glibc hands the arguments to std's initialiser.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
// SAFETY: `main` is what the C runtime calls, once, with this signature, and nothing else of that name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    match run() {
        Ok(status) => status,
        Err(error) => {
            let _ = writeln!(standard(2), "probe: {error}");
            71
        }
    }
}
