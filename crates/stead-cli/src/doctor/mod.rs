//! `stead doctor`: every precondition, what is missing, and what would mend it.

#[cfg(target_os = "linux")]
mod desktops;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod logon;
mod privileges;
#[cfg(target_os = "linux")]
mod service;
#[cfg(windows)]
mod windows;

use serde_json::json;

use crate::arguments::DoctorArguments;
use crate::ending::{Ending, Failure};
use crate::output::{self, Cell, Style, Table};

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// As it should be.
    Good,
    /// Not as it could be: something that not everybody needs is not there.
    Note,
    /// Without it programs cannot be run as other users.
    Missing,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Missing => "missing",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Good => Style::Good,
            Self::Note => Style::Notable,
            Self::Missing => Style::Bad,
        }
    }
}

/// One precondition, and how it is met.
struct Finding {
    what: String,
    state: State,
    found: String,
    mend: Option<String>,
}

impl Finding {
    fn new(what: &str, state: State, found: impl Into<String>) -> Self {
        Self { what: what.to_owned(), state, found: found.into(), mend: None }
    }

    fn good(what: &str, found: impl Into<String>) -> Self {
        Self::new(what, State::Good, found)
    }

    fn note(what: &str, found: impl Into<String>) -> Self {
        Self::new(what, State::Note, found)
    }

    fn missing(what: &str, found: impl Into<String>) -> Self {
        Self::new(what, State::Missing, found)
    }

    fn mend(mut self, how: impl Into<String>) -> Self {
        self.mend = Some(how.into());
        self
    }
}

/// Findings that belong together.
struct Area {
    name: &'static str,
    findings: Vec<Finding>,
}

/// Looks at everything, and says it.
pub fn doctor(arguments: &DoctorArguments) -> Result<Ending, Failure> {
    let areas = look(arguments);
    let missing =
        areas.iter().flat_map(|area| &area.findings).filter(|one| one.state == State::Missing).count();
    if arguments.form.json {
        let one = |area: &Area, finding: &Finding| {
            json!({
                "area": area.name,
                "what": finding.what,
                "state": finding.state.name(),
                "found": finding.found,
                "mend": finding.mend,
            })
        };
        let all: Vec<_> = areas
            .iter()
            .flat_map(|area| area.findings.iter().map(move |finding| one(area, finding)))
            .collect();
        output::json(&json!({ "ready": missing == 0, "findings": all }))?;
    } else {
        let mut tables: Vec<Table> = areas.iter().map(table).collect();
        let mut verdict = Table::default();
        verdict.row([match missing {
            0 => Cell::styled("ready: nothing is missing", State::Good.style()),
            1 => Cell::styled("not ready: one thing is missing", State::Missing.style()),
            more => Cell::styled(format!("not ready: {more} things are missing"), State::Missing.style()),
        }]);
        tables.push(verdict);
        output::tables(&tables)?;
    }
    Ok(Ending::Code(u8::from(missing > 0)))
}

fn table(area: &Area) -> Table {
    let mut table = Table::new(area.name, &[]);
    for finding in &area.findings {
        let state = Cell::styled(finding.state.name(), finding.state.style());
        table.row([state, Cell::from(&finding.what), Cell::from(&finding.found)]);
        if let Some(mend) = &finding.mend {
            table.row([Cell::from(""), Cell::from(""), Cell::styled(format!("-> {mend}"), Style::Quiet)]);
        }
    }
    table
}

#[cfg(target_os = "linux")]
fn look(arguments: &DoctorArguments) -> Vec<Area> {
    let service = service::Seen::look();
    // Where a service holds the privileges nobody else needs them.
    let by_itself = arguments.embedded || !service.is_there();
    vec![
        service.area(arguments.embedded),
        privileges::area(by_itself),
        kernel::area(&service),
        logon::area(by_itself),
        desktops::area(),
    ]
}

#[cfg(windows)]
fn look(_arguments: &DoctorArguments) -> Vec<Area> {
    vec![privileges::area(true), windows::area()]
}
