//! `bench table FILE`: the ratios that README shows.

use std::fmt::Write as _;

use super::{Row, server};
use crate::ways::FLOOR;

/// The methods, and how they are called at the heads of columns.
const COLUMNS: [(&str, &str); 4] = [
    (FLOOR, "bare `vfork` and switch"),
    ("stead", "stead"),
    ("fork and switch, in C", "`fork` in C"),
    ("Rust std .uid().gid()", "Rust std, groups lost"),
];

/// A table in Markdown, of ratios to the floor.
pub(super) fn table(spawn: &[Row<'_>], size: &[Row<'_>]) -> String {
    let mut lines: Vec<(String, Vec<&Row<'_>>)> = Vec::new();
    for (name, scenario) in [("a tiny static program", "a tiny"), ("`/bin/true`", "/bin/true")] {
        lines
            .push((name.to_owned(), spawn.iter().filter(|row| row.scenario.starts_with(scenario)).collect()));
    }
    for kind in [", small pages", " descriptors"] {
        // The last one is the largest that fitted into the machine.
        if let Some(largest) = size.iter().map(server).rfind(|server| server.ends_with(kind)) {
            let name = match largest.strip_suffix(", small pages") {
                Some(memory) => format!("tiny, from a server with {memory} resident"),
                None => format!("tiny, from a server with {largest}"),
            };
            lines.push((name, size.iter().filter(|row| server(row) == largest).collect()));
        }
    }
    let heads = COLUMNS.map(|(_, head)| head).join(" | ");
    let mut text = format!("| program | {heads} |\n|---|{}\n", "---|".repeat(COLUMNS.len()));
    for (name, rows) in lines.iter().filter(|(_, rows)| !rows.is_empty()) {
        let ratios = COLUMNS.map(|(method, _)| {
            rows.iter()
                .find(|row| row.method == method)
                .map_or("not measured".to_owned(), |row| shown(row.ratio))
        });
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {name} | {} |", ratios.join(" | "));
    }
    text
}

/// Two digits are what a ratio is worth.
fn shown(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 1.0 => format!("{ratio:.2}"),
        ratio if ratio < 10.0 => format!("{ratio:.1}"),
        ratio if ratio < 100.0 => format!("{ratio:.0}"),
        ratio => format!("{:.0}0", ratio / 10.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_have_two_digits() {
        assert_eq!(
            [0.241, 1.0, 1.58, 9.96, 45.2, 656.0].map(shown),
            ["0.24", "1.0", "1.6", "10.0", "45", "660"]
        );
    }
}
