//! `stead desktop`: which displays and terminals there are, and who may use them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use serde_json::json;
use stead::desktop::InteractiveSession;
use stead::{Desktop, ErrorKind};

use crate::arguments::DesktopArguments;
use crate::ending::{Ending, Failure, said};
use crate::output::{self, Cell, Style, Table};

/// What `--desktop` and `stead desktop` call a desktop.
pub fn named(name: &std::ffi::OsStr) -> stead::Result<Desktop> {
    match name.as_bytes() {
        b"none" => Ok(Desktop::none()),
        b"interactive" => Desktop::interactive(InteractiveSession::Active),
        b"console" => Desktop::interactive(InteractiveSession::Console),
        _ => Desktop::by_name(name),
    }
}

/// Who may use these desktops, or all that can be found.
pub fn desktop(arguments: &DesktopArguments) -> Result<Ending, Failure> {
    if arguments.sweep {
        stead::desktop::sweep()?;
        return Ok(Ending::GOOD);
    }
    let names = if arguments.desktops.is_empty() { found() } else { arguments.desktops.clone() };
    let asked = !arguments.desktops.is_empty();
    let mut shown = Vec::new();
    let mut tables = Vec::new();
    let mut failures = 0;
    for name in names {
        let access = named(&name).and_then(|desktop| desktop.access());
        let title = name.to_string_lossy().into_owned();
        let mut table = Table::new(&title, &["Object", "Who", "May", "Rights"]);
        match access {
            Ok(access) => {
                let entry = |one: &stead::desktop::AccessEntry| {
                    json!({
                        "object": one.object(),
                        "trustee": one.trustee().to_string(),
                        "denies": one.denies(),
                        "rights": one.rights(),
                    })
                };
                let entries: Vec<_> = access.entries().iter().map(entry).collect();
                shown.push(json!({ "desktop": title, "access": entries }));
                for entry in access.entries() {
                    let may = if entry.denies() { "not" } else { "yes" };
                    table.row([entry.object(), &entry.trustee().to_string(), may, entry.rights()]);
                }
            }
            Err(error) => {
                failures += usize::from(asked || !matches!(error.kind(), ErrorKind::NotFound { .. }));
                shown.push(json!({ "desktop": title, "error": said(&error) }));
                table = Table::new(&title, &[]);
                table.row([Cell::styled(said(&error), Style::Notable)]);
            }
        }
        tables.push(table);
    }
    if arguments.form.json {
        output::json(&shown.into())?;
    } else if tables.is_empty() {
        output::complain("there is no display and no Wayland socket here, and no terminal in front");
    } else {
        output::tables(&tables)?;
    }
    Ok(Ending::Code(u8::from(asked && failures > 0)))
}

/// The displays of X servers, the sockets of Wayland compositors, and the console's terminal.
pub fn found() -> Vec<OsString> {
    let entries = |folder: &str| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names = Vec::new();
    for entry in entries("/tmp/.X11-unix") {
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.strip_prefix('X'))
            && number.parse::<u16>().is_ok_and(|value| value.to_string() == number)
        {
            names.push(format!(":{number}").into());
        }
    }
    for user in entries("/run/user") {
        for entry in std::fs::read_dir(user.path()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.as_bytes().starts_with(b"wayland-") && !name.as_bytes().ends_with(b".lock") {
                names.push(entry.path().into_os_string());
            }
        }
    }
    let active = std::fs::read_to_string("/sys/class/tty/tty0/active").unwrap_or_default();
    if !active.trim().is_empty() {
        names.push(format!("/dev/{}", active.trim()).into());
    }
    names.sort();
    names
}
