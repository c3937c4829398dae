//! A program on the command's own streams.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGCONT, SIGSTOP, SIGTSTP};
use stead::os::linux::{ChildExt, Signal};
use stead::{Child, Command, Primary, Stdio, Token};

use super::signals::{self, Signals};
use crate::ending::{Ending, Failure};

/// Runs it, passes signals on, and waits for its end.
pub fn run(command: &mut Command, token: &Token<Primary>, signals: &Signals) -> Result<Ending, Failure> {
    command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    signals.hold();
    let mut child = super::spawn(command, token)?;
    loop {
        let (ended, signalled) = {
            let mut both = [
                PollFd::new(&child, PollFlags::IN),
                PollFd::from_borrowed_fd(signals.ready(), PollFlags::IN),
            ];
            match poll(&mut both, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(super::failed(format_args!("waiting for the program: {errno}"))),
            }
            (!both[0].revents().is_empty(), !both[1].revents().is_empty())
        };
        if ended {
            return child.wait().map(Ending::of).map_err(super::not_started);
        }
        if signalled {
            for signal in signals.pending() {
                handle(&child, signal).map_err(super::not_started)?;
            }
        }
    }
}

fn handle(child: &Child, signal: i32) -> stead::Result<()> {
    if signal != SIGTSTP {
        return signals::pass_on(child, signal);
    }
    // The program leads a session of its own, where the kernel ignores SIGTSTP: only SIGSTOP stops it.
    let to_group = |number| {
        let given = Signal::from_raw(number).map_or(Ok(()), |signal| child.signal_group(signal));
        signals::unless_refused(given, number)
    };
    to_group(SIGSTOP)?;
    signals::stop_here(false);
    to_group(SIGCONT)
}
