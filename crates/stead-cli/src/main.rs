//! The `stead` command: programs in another user's security context, and a look at what is going on.
#![forbid(unsafe_code)]

mod arguments;
mod ending;
mod output;
mod run;
mod show;

use std::process::ExitCode;

use arguments::{Arguments, Subcommand};
use ending::{Ending, Failure};

fn main() -> ExitCode {
    // A logon of its own, without the service, takes a session worker: this program again.
    stead::init();
    let ending = match arguments::parse() {
        Ok(arguments) => dispatch(arguments),
        Err(ending) => Ok(ending),
    };
    match ending {
        Ok(ending) => ending.leave(),
        Err(failure) => failure.tell().leave(),
    }
}

fn dispatch(arguments: Arguments) -> Result<Ending, Failure> {
    match arguments.command {
        Subcommand::Run(arguments) => run::run(&arguments),
        Subcommand::Whoami(form) => show::whoami(form),
        #[cfg(unix)]
        Subcommand::Token(arguments) => show::token(&arguments),
        Subcommand::Privileges(form) => show::privileges(form),
        Subcommand::Completions { shell } => arguments::completions(shell),
        #[cfg(unix)]
        Subcommand::Man { directory } => arguments::manual(directory.as_deref()),
    }
}
