//! Making the bed and running a program in it.

mod container;
mod furnish;
mod leftovers;
mod namespaces;
mod needs;
mod stage;

use crate::linux::bed::{Bed, Mode};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

pub(crate) use namespaces::{become_root, empty_run, fresh_files, fresh_proc};
pub use stage::run_stage_if_asked;

/// How to enter the bed.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EnterOptions {
    /// Programs that every user inside may execute, by name (`probe`, `testbed-client`, ..).
    pub programs: Vec<(String, PathBuf)>,
    /// The arguments with which the present program is run again inside; its own when `None`.
    pub arguments: Option<Vec<OsString>>,
    /// Whether missing packages may be installed where that is possible (root and apt).
    pub install: bool,
    /// Only this mode, instead of the first that is possible.
    pub mode: Option<Mode>,
}

/// Which side of [`enter`] this is.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums, reason = "there are two sides")]
pub enum Entry {
    /// In the bed: go on.
    Inside(&'static Bed),
    /// Outside: the present program has run inside the bed, and ended with this status. What it said about things
    /// that were left behind is in the lines.
    Left {
        /// The exit status, 128 + N when signal N ended it.
        status: i32,
        /// What was found left behind on the host: nothing, if all is well.
        left_behind: Vec<String>,
    },
}

/// What the stages need to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) programs: Vec<(String, PathBuf)>,
    pub(crate) cgroup: Option<PathBuf>,
}

/// Runs the present program again in a bed made for it, and waits for its end; or, inside, returns the bed.
///
/// The program must call [`run_stage_if_asked`] first of all in `main`, while it has one thread.
///
/// # Errors
///
/// If no bed can be made here; the text says what is missing and how to get it.
pub fn enter(options: &EnterOptions) -> io::Result<Entry> {
    if let Some(bed) = Bed::current() {
        return Ok(Entry::Inside(bed));
    }
    let arguments = options.arguments.clone().unwrap_or_else(|| std::env::args_os().skip(1).collect());
    let mode = needs::choose(options)?;
    let mode = match mode {
        needs::Choice::Here(mode) => mode,
        needs::Choice::Sudo => return needs::through_sudo(options, &arguments),
    };
    let _lock = if mode == Mode::Container { Some(container::sweep()?) } else { None };
    let before = leftovers::Snapshot::take(mode);
    let status = match mode {
        Mode::Namespaces | Mode::UserNamespace => namespaces::run(mode, options, &arguments)?,
        Mode::Container => container::run(options, &arguments)?,
    };
    Ok(Entry::Left { status, left_behind: before.compare() })
}
