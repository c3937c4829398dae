//! `cargo xtask bench [PART..] [--quick] [--json FILE]`: what stead costs, beside its floor and its peers.
//!
//! It is measured in the testbed, among throw-away users.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::{EnterOptions, Entry};

use crate::build;

const JSON: &str = "--json";

/// Builds the benchmark with optimisation, enters the testbed, and runs it there.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    if let Some(bed) = testbed::Bed::current() {
        return status(Command::new(bed.bin("stead-bench")).args(arguments));
    }
    let packages = ["--package", "stead-bench", "--package", "stead-cli", "--package", "stead-session"];
    let built = build::build(&[&["build", "--release", "--bins"], &packages[..]].concat())?;
    let mut options = EnterOptions::default();
    options.programs = build::for_the_bed(&built);
    options.install = true;
    let folder = options.programs.first().and_then(|(_, path)| path.parent());
    let folder = folder.ok_or_else(|| io::Error::other("cargo did not say where it put stead-bench"))?;
    // Where the file is wanted may lie where the testbed has directories of its own.
    let results = Results::wanted(arguments, folder)?;
    let mut inside: Vec<OsString> = vec!["bench".into()];
    inside.extend(results.arguments.iter().cloned());
    options.arguments = Some(inside);
    match testbed::enter(&options)? {
        Entry::Inside(_) => Err(io::Error::other("the testbed was entered already")),
        Entry::Left { status, left_behind } => {
            for what in &left_behind {
                eprintln!("LEFT BEHIND ON THE HOST: {what}");
            }
            results.deliver()?;
            Ok(u8::try_from(status).unwrap_or(u8::MAX).max(u8::from(!left_behind.is_empty())))
        }
    }
}

fn status(command: &mut Command) -> io::Result<u8> {
    Ok(command.status()?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Where the results are written inside, and where they are wanted.
struct Results {
    arguments: Vec<OsString>,
    inside: PathBuf,
    wanted: Option<PathBuf>,
}

impl Results {
    fn wanted(arguments: &[String], folder: &Path) -> io::Result<Self> {
        let inside = folder.join(format!("bench-{}.json", std::process::id()));
        let mut wanted = None;
        let mut passed_on = Vec::new();
        let mut given = arguments.iter();
        while let Some(argument) = given.next() {
            passed_on.push(argument.into());
            if argument == JSON {
                let file = given.next().ok_or_else(|| io::Error::other("--json takes a file"))?;
                wanted = Some(PathBuf::from(file));
                passed_on.push(inside.clone().into());
            }
        }
        Ok(Self { arguments: passed_on, inside, wanted })
    }

    /// Puts the file where it is wanted.
    fn deliver(&self) -> io::Result<()> {
        let Some(wanted) = &self.wanted else { return Ok(()) };
        let text = fs::read(&self.inside)?;
        fs::write(wanted, text)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", wanted.display())))
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.inside);
    }
}
