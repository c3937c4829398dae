//! `cargo xtask check miri | asan | deny`: what neither the compiler nor a test run sees.

use std::io;
use std::process::Command;

use crate::build;

/// The pure parts: every decoder with its corpus, and what has properties of its own. Miri is a thousand times slower
/// than the processor, and knows neither this kernel's calls nor threads that wait for processes.
const MIRI: [&[&str]; 3] = [
    &["-p", "fuzz-targets", "--test", "corpora"],
    &["-p", "stead-trampoline", "--lib", "--test", "spec"],
    &["-p", "stead", "--lib", "--", "sys::sid", "sys::dacl", "proc::tests", "posix_acl", "worker::model"],
];

/// The unsafe parts: all of the library's own tests, creating real processes among them, and the trampoline's decoders; its model
/// of a kernel has nothing unsafe, and takes long.
const SANITIZED: [&[&str]; 3] = [
    &["-p", "stead-trampoline", "--lib", "--test", "spec"],
    &["-p", "stead", "--lib", "--all-features"],
    &["-p", "fuzz-targets", "--test", "corpora"],
];

/// Runs the checks that are named, or all of them; one whose tools are missing is skipped, and says why.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    let all = ["miri", "asan", "deny"].map(str::to_owned);
    let mut failed = false;
    for name in if arguments.is_empty() { &all } else { arguments } {
        failed |= !match name.as_str() {
            "miri" => miri()?,
            "asan" => address_sanitizer()?,
            "deny" => deny()?,
            _ => return Err(io::Error::other("usage: cargo xtask check [miri | asan | deny ..]")),
        };
    }
    Ok(u8::from(failed))
}

fn miri() -> io::Result<bool> {
    if !succeeds(nightly().args(["miri", "--version"])) {
        return Ok(skipped("miri", "rustup toolchain install nightly --component miri,rust-src"));
    }
    each(&MIRI, |command| {
        command.args(["miri", "test"]);
        // The corpora are files; a few cases of each property, for the time.
        command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "8");
    })
}

fn address_sanitizer() -> io::Result<bool> {
    let Some(target) = host() else {
        return Ok(skipped("asan", "rustup toolchain install nightly"));
    };
    each(&SANITIZED, |command| {
        // With a target the options are those of the code under test, and not of build scripts.
        command.args(["test", "--target", &target]);
        command.env("RUSTFLAGS", "-Zsanitizer=address --cfg stead_asan");
        // Test programs end without giving back what lives as long as they do.
        command.env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=1");
    })
}

fn deny() -> io::Result<bool> {
    if !succeeds(Command::new("cargo").args(["deny", "--version"])) {
        return Ok(skipped("deny", "cargo install cargo-deny"));
    }
    // Not `advisories`: what is known of others' code today is no property of this code.
    let wanted = ["deny", "check", "bans", "licenses", "sources"];
    Ok(Command::new("cargo").current_dir(build::root()).args(wanted).status()?.success())
}

/// The target that nightly compiles for.
fn host() -> Option<String> {
    let output =
        Command::new("rustc").args(["+nightly", "-vV"]).env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

/// Runs cargo once for each set of arguments.
fn each(sets: &[&[&str]], prepare: impl Fn(&mut Command)) -> io::Result<bool> {
    for set in sets {
        let mut command = nightly();
        prepare(&mut command);
        if !command.args(*set).status()?.success() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn nightly() -> Command {
    let mut command = Command::new("cargo");
    command.arg("+nightly").current_dir(build::root()).env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    // Else it would be the cargo that runs this program, and its options.
    command.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// It is no failure that the tools are missing.
fn skipped(name: &str, mend: &str) -> bool {
    println!("skipped: {name} is not here: {mend}");
    true
}
