//! Procedure 1 of the reference page: log the client on, create its process.
//!
//! `logon_run ACCOUNT PROGRAM [ARGUMENT ..]`, the password on standard input.
//!
//! In `cargo xtask shell`:
//!
//! ```sh
//! echo 'alice opens the door' | logon_run alice id
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use stead::{Account, Command, Logon, LogonType};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    stead::init(); // this program may be its own session worker

    let mut arguments = std::env::args().skip(1);
    let (Some(account), Some(program)) = (arguments.next(), arguments.next()) else {
        return Err("usage: logon_run ACCOUNT PROGRAM [ARGUMENT ..], the password on standard input".into());
    };
    let mut password = String::new();
    io::stdin().read_line(&mut password)?;
    let password = password.trim_end_matches('\n');

    // LogonUser: the session stays open until its last token and last process are gone.
    let session = Logon::password(Account::local(account), password).kind(LogonType::Interactive).open()?;
    eprintln!("{}", session.token());

    // CreateProcessAsUser: found and executed with the client's own rights.
    let output = Command::new(program).args(arguments).output_as(session.token())?;
    io::stdout().write_all(&output.stdout)?;
    io::stderr().write_all(&output.stderr)?;

    session.close()?;
    Ok(if output.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
