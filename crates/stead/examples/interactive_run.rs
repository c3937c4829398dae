//! The last procedure of the reference page: log the client on, grant its logon SID access to a desktop, start a program
//! there, and see the grant gone after it has ended.
//!
//! `interactive_run ACCOUNT DESKTOP PROGRAM [ARGUMENT ..]`, the password on standard input. DESKTOP is `console` for the
//! desktop of who sits at the machine, or a name: `winsta0\default` on Windows; on Linux an X display (`:1`), the path of a
//! Wayland compositor's socket, or a terminal.
//!
//! In `cargo xtask shell`, with an X server of one's own (`XAUTHORITY` lets this server in):
//!
//! ```sh
//! export XAUTHORITY=/run/authority; xauth -q add :7 . $(mcookie)
//! Xvfb :7 -auth $XAUTHORITY +extension SECURITY & sleep 1
//! echo 'alice opens the door' | interactive_run alice :7 xwininfo -root
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use stead::desktop::InteractiveSession;
use stead::{Account, Command, Desktop, Logon, LogonType, Stdio};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    stead::init(); // this program may be its own session worker

    let mut arguments = std::env::args().skip(1);
    let (Some(account), Some(desktop), Some(program)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err(
            "usage: interactive_run ACCOUNT DESKTOP PROGRAM [ARGUMENT ..], the password on standard input"
                .into(),
        );
    };
    let mut password = String::new();
    io::stdin().read_line(&mut password)?;
    let password = password.trim_end_matches(['\n', '\r']);

    // LogonUser, for a session that access lists can name.
    let session =
        Logon::password(Account::local(account), password).kind(LogonType::Interactive).logon_sid().open()?;

    let desktop = match desktop.as_str() {
        "console" => Desktop::interactive(InteractiveSession::Console)?,
        name => Desktop::by_name(name)?,
    };
    let before = desktop.access()?;
    eprintln!("before:\n{before}");

    // The logon SID is granted access, and CreateProcessAsUser is told the desktop.
    let child = Command::new(program)
        .args(arguments)
        .desktop(desktop.clone())
        .stdout(Stdio::piped())
        .spawn_as(session.token())?;
    eprintln!("while it runs:\n{}", desktop.access()?);
    let output = child.wait_with_output()?;
    io::stdout().write_all(&output.stdout)?;

    // Taken back when the last process of the tree has ended.
    let patience = Instant::now() + Duration::from_secs(10);
    while desktop.access()? != before && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
    let after = desktop.access()?;
    eprintln!("after:\n{after}");
    session.close()?;
    Ok(if output.status.success() && after == before { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
