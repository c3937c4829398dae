//! The `stead` command: programs in another user's security context, and a look at what is going on.
#![forbid(unsafe_code)]

mod arguments;
#[cfg(unix)]
mod desktop;
mod doctor;
mod ending;
#[cfg(unix)]
mod manual;
mod output;
#[cfg(unix)]
mod policy;
mod run;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod service;
mod show;

use std::process::ExitCode;

#[cfg(unix)]
use arguments::PolicyArguments;
use arguments::{Arguments, Subcommand};
use ending::{Ending, Failure};

fn main() -> ExitCode {
    // A logon of its own, without the service, takes a session worker: this program again. So do the service's helpers.
    #[cfg(unix)]
    stead_broker::serve::init();
    #[cfg(windows)]
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
        #[cfg(unix)]
        Subcommand::Sessions(form) => service::sessions(form),
        #[cfg(unix)]
        Subcommand::Ps(arguments) => service::ps(&arguments),
        #[cfg(unix)]
        Subcommand::Kill(arguments) => service::kill(&arguments),
        #[cfg(unix)]
        Subcommand::Logoff { sessions } => service::logoff(&sessions),
        #[cfg(unix)]
        Subcommand::Desktop(arguments) => desktop::desktop(&arguments),
        #[cfg(unix)]
        Subcommand::Policy(PolicyArguments::Check(arguments)) => policy::check(&arguments),
        #[cfg(unix)]
        Subcommand::Policy(PolicyArguments::Explain(arguments)) => policy::explain(&arguments),
        Subcommand::Doctor(arguments) => doctor::doctor(&arguments),
        #[cfg(unix)]
        Subcommand::Serve(arguments) => serve::serve(arguments),
        #[cfg(unix)]
        Subcommand::Monitor(form) => service::monitor(form),
        Subcommand::Completions { shell } => arguments::completions(shell),
        #[cfg(unix)]
        Subcommand::Man { of } => manual::manual(&of),
    }
}
