//! `stead man`: the manual pages.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use clap_mangen::Man;

use crate::arguments::Arguments;
use crate::ending::{Ending, Failure, system};
use crate::output;

/// Shows the page of the command or of one of its subcommands, or writes all of them into a directory.
pub fn manual(of: &[OsString]) -> Result<Ending, Failure> {
    let mut command = Arguments::command();
    command.build();
    if let Some(page) = page_of(&command, of) {
        return show(page);
    }
    match of {
        [directory] if Path::new(directory).is_dir() => write(&command, Path::new(directory)),
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

/// The page in man(7)'s language.
fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let plain = command.clone().after_help(None::<&str>);
    let man = Man::new(plain).source(concat!("stead ", env!("CARGO_PKG_VERSION"))).manual("stead");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let (notes, endings) = notes.split_once("Exit status:").unwrap_or((&notes, ""));
    if !endings.trim().is_empty() {
        writeln!(page, ".SH \"EXIT STATUS\"")?;
        for line in endings.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.split_once("  ") {
                Some((status, meaning)) => writeln!(page, ".TP\n{status}\n{}", escaped(meaning.trim()))?,
                None => writeln!(page, "{}", escaped(line))?,
            }
        }
    }
    if !notes.trim().is_empty() {
        writeln!(page, ".SH NOTES")?;
        for paragraph in notes.trim().split("\n\n") {
            writeln!(page, ".PP\n{}", escaped(paragraph))?;
        }
    }
    if command.get_display_name().is_some_and(|name| name.contains('-')) {
        writeln!(page, ".SH \"SEE ALSO\"\n.BR stead (1)")?;
    }
    Ok(page)
}

/// Text that troff takes as it is: of it no line of ours begins with a dot or an apostrophe.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// Shows a page; on a terminal as man(1) does.
fn show(command: &clap::Command) -> Result<Ending, Failure> {
    let text = page(command).map_err(Failure::new)?;
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

/// Writes the page of the command and those of all below it.
fn write(command: &clap::Command, directory: &Path) -> Result<Ending, Failure> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let path = directory.join(format!("{name}.1"));
    let written = page(command).and_then(|text| std::fs::write(&path, text));
    written.map_err(|error| Failure::new(format_args!("writing {}: {}", path.display(), system(&error))))?;
    subcommands(command).try_for_each(|one| write(one, directory).map(drop))?;
    Ok(Ending::GOOD)
}
