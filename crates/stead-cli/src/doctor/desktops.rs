//! Displays, terminals, and who knows which session is in front.

use std::path::Path;

use super::{Area, Finding};

pub fn area() -> Area {
    let found = crate::desktop::found();
    let of = |what: &str, matches: &dyn Fn(&str) -> bool| {
        let names: Vec<String> = found
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| matches(name))
            .collect();
        if names.is_empty() {
            Finding::note(what, "none here")
        } else {
            Finding::good(what, names.join(", "))
        }
    };
    let logind = Path::new("/run/systemd/seats").is_dir();
    let findings = vec![
        of("X11 displays", &|name| name.starts_with(':')),
        of("Wayland sockets", &|name| name.starts_with("/run/user")),
        of("console", &|name| name.starts_with("/dev/")),
        if logind {
            Finding::good("logind", "runs: it knows the active session")
        } else {
            Finding::note("logind", "does not run: name a desktop by its display or socket")
        },
    ];
    Area { name: "Desktops", findings }
}
