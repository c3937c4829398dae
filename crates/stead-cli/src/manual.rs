//! `stead man`: the manual pages.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use clap::CommandFactory;

use crate::arguments::Arguments;
use crate::ending::{Ending, Failure};
use crate::output;

/// Shows the page of the command or of one of its subcommands, or writes all of them into a directory.
pub fn manual(of: &[OsString]) -> Result<Ending, Failure> {
    let mut command = Arguments::command();
    command.build();
    if let Some(page) = page_of(&command, of) {
        return show(page);
    }
    match of {
        [directory] if Path::new(directory).is_dir() => write(Path::new(directory)),
        [name] if !name.to_string_lossy().contains('/') => {
            let known: Vec<&str> = subcommands(&command).map(clap::Command::get_name).collect();
            Err(Failure::new(format_args!(
                "there is no subcommand \"{}\", and no directory to write the pages into; there are {}",
                name.display(),
                known.join(", ")
            )))
        }
        [directory] => {
            let directory = Path::new(directory).display();
            Err(Failure::new(format_args!("writing the pages into {directory}: there is no such directory")))
        }
        more => {
            let words: Vec<_> = more.iter().map(|word| word.to_string_lossy()).collect();
            Err(Failure::new(format_args!("there is no subcommand {:?}", words.join(" "))))
        }
    }
}

fn subcommands(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command.get_subcommands().filter(|one| one.get_name() != "help")
}

/// The command that these words lead to.
fn page_of<'a>(command: &'a clap::Command, words: &[OsString]) -> Option<&'a clap::Command> {
    words.iter().try_fold(command, |found, word| subcommands(found).find(|one| word == one.get_name()))
}

/// The page in man(7)'s language; on a terminal as man(1) shows it.
fn show(command: &clap::Command) -> Result<Ending, Failure> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text).map_err(Failure::new)?;
    if io::stdout().is_terminal() {
        let man = Command::new("man").args(["-l", "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
        if let Ok(mut man) = man {
            let written = man.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&text));
            // Where the pager was left early the rest was not wanted.
            if man.wait().is_ok_and(|status| status.success()) || written.is_err() {
                return Ok(Ending::GOOD);
            }
        }
        // No man(1), or one that reads no standard input: the same in short.
        return output::page(&command.clone().render_long_help().to_string());
    }
    output::page(&String::from_utf8_lossy(&text))
}

fn write(directory: &Path) -> Result<Ending, Failure> {
    let failed = |error| Failure::new(format_args!("writing into {}: {error}", directory.display()));
    clap_mangen::generate_to(Arguments::command(), directory).map_err(failed)?;
    Ok(Ending::GOOD)
}
