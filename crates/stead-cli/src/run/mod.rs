//! `stead run`: one program, as oneself or as another user, that behaves as if it had been started directly.

#[cfg(unix)]
mod account;
#[cfg(unix)]
pub mod limit;
#[cfg(unix)]
mod ours;
#[cfg(unix)]
mod secret;
#[cfg(unix)]
mod signals;
#[cfg(unix)]
mod streams;
#[cfg(unix)]
mod terminal;
#[cfg(windows)]
mod windows;

#[cfg(windows)]
pub use windows::run;

use std::borrow::Borrow;
use std::ffi::OsStr;

use stead::{Command, Primary, Token};

#[cfg(unix)]
use crate::arguments::RunArguments;
#[cfg(unix)]
use crate::ending::Ending;
use crate::ending::{Failure, STEAD_FAILED};

/// Runs the program, and ends as it ends.
#[cfg(unix)]
pub fn run(arguments: &RunArguments) -> Result<Ending, Failure> {
    // Before anything of the command's own could have its number.
    let password = arguments.password_fd.map(secret::Source::inherited).transpose()?;
    let signals = signals::Signals::new().map_err(failed)?;
    let identity = account::Identity::of(arguments, password, &signals)?;
    let terminals = terminals();
    let mut command = command(arguments, &identity)?;
    let ending = if arguments.pty {
        terminal::run(&mut command, [true, true, terminals[2]], &identity.token, &signals)
    } else if !arguments.no_pty && terminals.contains(&true) {
        terminal::run(&mut command, terminals, &identity.token, &signals)
    } else {
        streams::run(&mut command, &identity.token, &signals)
    }?;
    identity.log_off();
    Ok(ending)
}

/// Which of the standard streams are a terminal.
#[cfg(unix)]
fn terminals() -> [bool; 3] {
    use std::io::IsTerminal;
    [std::io::stdin().is_terminal(), std::io::stdout().is_terminal(), std::io::stderr().is_terminal()]
}

/// What of the command does not depend on where its streams lead.
#[cfg(unix)]
fn command(arguments: &RunArguments, identity: &account::Identity) -> Result<Command, Failure> {
    use stead::desktop::GrantTo;
    use stead::os::linux::CommandExt;

    let [program, rest @ ..] = &arguments.command[..] else {
        return Err(failed("no program was named"));
    };
    let mut command = Command::new(program);
    command.args(rest);
    for limit in &arguments.limit {
        command.limit(limit.limit, limit.soft, limit.hard);
    }
    // What a program needs to know of the terminal that it writes to, directly or through us.
    if (arguments.pty || terminals().contains(&true))
        && let Some(term) = std::env::var_os("TERM")
    {
        command.env("TERM", term);
    }
    if let Some(desktop) = &arguments.desktop {
        let desktop = crate::desktop::named(desktop).map_err(not_started)?;
        // As oneself there is no logon session of its own that could be let in.
        let to = if identity.is_another { GrantTo::LogonSession } else { GrantTo::User };
        command.desktop(desktop.grant_to(to));
    }
    variables(&mut command, &arguments.env);
    match &arguments.cwd {
        Some(directory) => {
            // From our own directory, and not from that of whoever creates the process.
            let from_here = std::path::absolute(directory).map_err(|error| {
                let error = crate::ending::system(&error);
                failed(format_args!("--cwd {}: {error}", directory.display()))
            })?;
            command.current_dir(from_here);
        }
        // Its own directory, as of any other command; it may be gone, and then it is the home.
        None if !identity.is_another => {
            if let Ok(directory) = std::env::current_dir() {
                command.current_dir(directory);
            }
        }
        None => {}
    }
    Ok(command)
}

/// `NAME=VALUE` sets a variable, `NAME` passes one's own on, where there is one.
fn variables(command: &mut Command, settings: &[std::ffi::OsString]) {
    for setting in settings {
        match split(setting) {
            (name, Some(value)) => {
                command.env(name, value);
            }
            (name, None) => {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
        }
    }
}

#[cfg(unix)]
fn split(setting: &OsStr) -> (&OsStr, Option<&OsStr>) {
    use std::os::unix::ffi::OsStrExt;
    let bytes = setting.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (OsStr::from_bytes(&bytes[..at]), Some(OsStr::from_bytes(&bytes[at + 1..]))),
        None => (setting, None),
    }
}

#[cfg(windows)]
fn split(setting: &OsStr) -> (&OsStr, Option<&OsStr>) {
    let text = setting.to_str().and_then(|text| text.split_once('='));
    text.map_or((setting, None), |(name, value)| (OsStr::new(name), Some(OsStr::new(value))))
}

/// Something in stead itself went wrong.
fn failed(what: impl std::fmt::Display) -> Failure {
    Failure::new(what).with_status(STEAD_FAILED)
}

/// Creating the process went wrong.
fn not_started(error: impl Borrow<stead::Error>) -> Failure {
    Failure::of_run(error.borrow())
}

/// Starts the program.
fn spawn(command: &Command, token: &Token<Primary>) -> Result<stead::Child, Failure> {
    command.spawn_as(token).map_err(not_started)
}
