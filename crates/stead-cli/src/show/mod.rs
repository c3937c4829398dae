//! `whoami`, `token`, `privileges`: what the kernel says of a process.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
use linux as native;
#[cfg(windows)]
use windows as native;

use serde_json::json;
use stead::{Privilege, PrivilegeStatus, Token};

use crate::arguments::Form;
use crate::ending::{Ending, Failure};
use crate::output::{self, Cell, Style, Table};

/// `stead whoami`.
pub fn whoami(form: Form) -> Result<Ending, Failure> {
    let token = Token::current()?;
    let privileges = Privilege::report()?;
    #[cfg(target_os = "linux")]
    let session = native::session(&token, std::process::id());
    #[cfg(windows)]
    let session = None;
    if form.json {
        let mut shown = native::json(&token, session)?;
        shown["privileges"] = privileges_json(&privileges);
        return output::json(&shown);
    }
    let mut tables = native::tables(&token, session);
    tables.push(privilege_table("Privileges of a server", &privileges));
    output::tables(&tables)
}

/// `stead token PID`.
#[cfg(unix)]
pub fn token(arguments: &crate::arguments::TokenArguments) -> Result<Ending, Failure> {
    let token = native::of_process(arguments.process)?;
    let session = native::session(&token, arguments.process.unsigned_abs());
    if arguments.form.json {
        return output::json(&native::json(&token, session)?);
    }
    output::tables(&native::tables(&token, session))
}

/// `stead privileges`.
pub fn privileges(form: Form) -> Result<Ending, Failure> {
    let privileges = Privilege::report()?;
    if form.json {
        return output::json(&privileges_json(&privileges));
    }
    output::tables(&[privilege_table("", &privileges)])
}

fn privileges_json(privileges: &[PrivilegeStatus]) -> serde_json::Value {
    let one = |status: &PrivilegeStatus| {
        json!({
            "privilege": status.privilege.to_string(),
            "held": status.held,
            "enabled": status.enabled,
            "missing": status.missing,
        })
    };
    privileges.iter().map(one).collect()
}

fn privilege_table(heading: &str, privileges: &[PrivilegeStatus]) -> Table {
    let mut table = Table::new(heading, &["Privilege", "State", "Missing"]);
    for status in privileges {
        let (state, style) = match (status.held, status.enabled) {
            (_, true) => ("enabled", Style::Good),
            (true, false) => ("held, not enabled", Style::Notable),
            (false, false) => ("not held", Style::Plain),
        };
        let name = Cell::from(status.privilege.to_string());
        table.row([name, Cell::styled(state, style), Cell::from(status.missing.join(", "))]);
    }
    table
}
