//! `stead serve`: the service.

use std::fmt::{self, Write as _};
use std::fs::DirBuilder;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use stead_broker::serve::{Options, ServeError, run};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::arguments::ServeArguments;
use crate::ending::{Ending, Failure};
use crate::output::printable;

/// Runs the service until it is told to end.
pub fn serve(arguments: ServeArguments) -> Result<Ending, Failure> {
    let level = if arguments.verbose { Level::DEBUG } else { Level::INFO };
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    // There is no other in this program.
    let _ = tracing::subscriber::set_global_default(Log { level, journal });
    let mut options = Options::default();
    let places = [
        (&mut options.socket, arguments.socket),
        (&mut options.policy, arguments.policy),
        (&mut options.state, arguments.state),
    ];
    for (place, given) in places {
        if let Some(given) = given {
            *place = given;
        }
    }
    options.worker = arguments.worker;
    options.ready_workers = !arguments.no_ready_workers;
    options.audit.file = arguments.audit.or_else(audit_file);
    match run(options) {
        Ok(()) => Ok(Ending::GOOD),
        // sysexits(3): a service manager need not try again with the same configuration.
        Err(error @ ServeError::Policy(_)) => Err(Failure::new(error).with_status(78)),
        Err(error) => Err(Failure::new(error)),
    }
}

/// Where the records go if nothing is said; the folder is made where there is none yet. Without it they go to the journal
/// alone, and that is said.
fn audit_file() -> Option<PathBuf> {
    let folder = Path::new("/var/log/stead");
    match DirBuilder::new().mode(0o750).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            tracing::warn!("there is no audit file: {} cannot be made: {error}", folder.display());
            None
        }
        _ => Some(folder.join("audit.jsonl")),
    }
}

/// What an operator should know, on standard error: one line each, for the journal with its priority (sd-daemon(3)).
struct Log {
    level: Level,
    journal: bool,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level && metadata.target().starts_with("stead")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = String::new();
        if self.journal {
            line.push_str(match *event.metadata().level() {
                Level::ERROR => "<3>",
                Level::WARN => "<4>",
                Level::INFO => "<6>",
                _ => "<7>",
            });
        }
        event.record(&mut Line(&mut line));
        // Values may be a client's.
        let line = printable(line.trim_end()).into_owned();
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The message, and each value by its name.
struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
    }
}
