//! `stead run` on Windows: by the command itself, for there is no service.

use std::ffi::OsStr;
use std::io::Read;

use stead::{Account, Command, Logon, LogonSession, LogonType, Primary, Secret, Stdio, Token};
use zeroize::Zeroizing;

use super::{failed, not_started, variables};
use crate::arguments::RunArguments;
use crate::ending::{Ending, Failure};

/// No longer than this: it never moves in memory, where a copy would be left.
const LONGEST: usize = 4096;

/// Runs the program, and ends as it ends.
pub fn run(arguments: &RunArguments) -> Result<Ending, Failure> {
    let session = arguments.user.as_deref().map(|name| log_on(arguments, name)).transpose()?;
    let token: Token<Primary> = match &session {
        Some(session) => session.token().clone(),
        None => Token::current().map_err(not_started)?,
    };
    let [program, rest @ ..] = &arguments.command[..] else {
        return Err(failed("no program was named"));
    };
    let mut command = Command::new(program);
    command.args(rest);
    variables(&mut command, &arguments.env);
    match (&arguments.cwd, std::env::current_dir()) {
        (Some(directory), _) => {
            command.current_dir(directory);
        }
        (None, Ok(directory)) if session.is_none() => {
            command.current_dir(directory);
        }
        _ => {}
    }
    // The rest of what the password was read from is nobody's.
    command.stdin(if arguments.password_stdin { Stdio::null() } else { Stdio::inherit() });
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let mut child = super::spawn(&command, &token)?;
    child.wait().map(Ending::of).map_err(not_started)
}

fn log_on(arguments: &RunArguments, name: &OsStr) -> Result<LogonSession, Failure> {
    let account = account(name)?;
    let logon = if arguments.s4u {
        Logon::s4u(account)
    } else if arguments.password_stdin {
        Logon::password(account, first_line()?)
    } else {
        return Err(failed("how the user is to be logged on is missing: --password-stdin or --s4u"));
    };
    logon.kind(arguments.logon.map_or(LogonType::Interactive, LogonType::from)).open().map_err(not_started)
}

/// `DOMAIN\NAME`, `NAME@REALM`, or a name of this machine.
fn account(name: &OsStr) -> Result<Account, Failure> {
    let name = name.to_str().ok_or_else(|| failed("the user's name is no text"))?;
    Ok(match name.split_once('\\') {
        Some((domain, name)) => Account::domain(domain, name),
        None if name.contains('@') => Account::upn(name),
        None => Account::local(name),
    })
}

fn first_line() -> Result<Secret, Failure> {
    let mut secret = Zeroizing::new(Vec::with_capacity(LONGEST));
    for byte in std::io::stdin().lock().bytes() {
        match byte.map_err(|error| failed(format_args!("reading the password: {error}")))? {
            b'\n' => break,
            _ if secret.len() == LONGEST => return Err(failed("the password is too long")),
            byte => secret.push(byte),
        }
    }
    if secret.last() == Some(&b'\r') {
        secret.pop();
    }
    Ok(Secret::from(secret))
}
