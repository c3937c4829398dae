//! `cargo xtask shell [COMMAND..]`: a look around in the testbed.

use crate::build;
use std::io;
use std::path::Path;
use std::process::Command;
use testbed::{EnterOptions, Entry};

/// Runs the command, or a shell, as root of the bed.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    let mut options = EnterOptions::default();
    if testbed::Bed::current().is_none() {
        options.programs = build::programs()?;
    }
    options.install = true;
    match testbed::enter(&options)? {
        Entry::Inside(bed) => {
            eprintln!("testbed: {}", bed.mode());
            let names: Vec<&str> = bed.users().iter().map(|user| user.name.as_str()).collect();
            eprintln!("testbed: the users are {}", names.join(", "));
            if let Some(first) = bed.users().first() {
                eprintln!("testbed: the password of {} is {:?}, and so on", first.name, first.password);
            }
            let shell = ["/bin/sh".to_owned()];
            let [program, arguments @ ..] = (if arguments.is_empty() { &shell } else { arguments }) else {
                return Ok(0);
            };
            // The examples and helpers by their names: where every user of the bed can execute them.
            let folder = bed.bin("probe").parent().map(Path::to_owned);
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = folder.into_iter().chain(std::env::split_paths(&path));
            let status = Command::new(program)
                .env("PATH", std::env::join_paths(folders).map_err(io::Error::other)?)
                .args(arguments)
                .status()
                .map_err(|error| io::Error::new(error.kind(), format!("running {program}: {error}")))?;
            Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
        }
        Entry::Left { status, left_behind } => {
            for what in left_behind {
                eprintln!("LEFT BEHIND ON THE HOST: {what}");
            }
            Ok(u8::try_from(status).unwrap_or(u8::MAX))
        }
    }
}
