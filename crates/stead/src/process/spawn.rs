//! From a command and a token to a child.
#![forbid(unsafe_code)]

use std::process::ExitStatus;

use super::{Child, Command};
use crate::error::{Error, ErrorKind, Result};
use crate::sys;
use crate::token::{Primary, Token};

/// Whether output that was not sent elsewhere is captured or thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capture {
    Yes,
    No,
}

/// Creates the process, as the server, whomever the calling thread impersonates.
pub(super) fn spawn(command: &Command, token: &Token<Primary>, capture: Capture) -> Result<Child> {
    sys::impersonate::as_server(|| {
        sys::process::Plan::new(command, token, capture)?.start().map(Child::from_parts)
    })
}

/// Creates the process and waits for its end, as [`spawn`] and [`Child::wait`] do.
pub(super) fn status(command: &Command, token: &Token<Primary>) -> Result<ExitStatus> {
    sys::impersonate::as_server(|| sys::process::Plan::new(command, token, Capture::No)?.status())
}

#[cfg(unix)]
fn has_terminal(command: &Command) -> bool {
    command.pty.is_some()
}

/// The system offers no terminal for the processes of another user.
#[cfg(windows)]
fn has_terminal(_command: &Command) -> bool {
    false
}

/// What has to be done with a `Child` cannot be asked for where there will be none.
pub(super) fn no_child(command: &Command) -> Result<()> {
    let what = if command.suspended {
        "a suspended start needs spawn_as, whose Child resumes the process"
    } else if has_terminal(command) {
        "a terminal needs spawn_as, whose Child holds the other end"
    } else {
        return Ok(());
    };
    Err(Error::new("creating a process", ErrorKind::InvalidInput { what: what.into() }))
}
