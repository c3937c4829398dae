//! `bench plot FILE`: the results as a picture, and as README's table. Both are made from the file and from nothing else.

mod svg;
mod table;

use std::path::Path;

use serde_json::Value;

use self::svg::{Area, Bar, Drawing, Line, Mark};
use crate::Outcome;
use crate::ways::FLOOR;

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 22.0;
const COLUMN: f64 = (WIDTH - 3.0 * MARGIN) / 2.0;

/// Draws the results in `json` into a file of the same name that ends in `.svg`, and prints the table.
///
/// # Errors
///
/// When the file cannot be read, is not one of results, or the picture cannot be written.
pub(crate) fn run(json: &Path) -> Outcome {
    let text = std::fs::read(json).map_err(|error| format!("{}: {error}", json.display()))?;
    let all: Value = serde_json::from_slice(&text)?;
    crate::write(&json.with_extension("svg"), &draw(&all)?)?;
    print!("{}", table::table(&rows(&all, "spawn")?, &rows(&all, "size")?));
    Ok(())
}

/// What was measured of one method in one scenario.
struct Row<'a> {
    scenario: &'a str,
    method: &'a str,
    note: &'a str,
    unit: &'a str,
    median: f64,
    ratio: f64,
}

impl Row<'_> {
    /// How it is marked among others, of which this is the floor.
    fn mark(&self, floor: &str) -> Mark {
        match self.method {
            method if method == floor => Mark::Floor,
            method if method.starts_with("stead") => Mark::Ours,
            _ => Mark::Peer(0),
        }
    }
}

fn rows<'a>(all: &'a Value, part: &'a str) -> Outcome<Vec<Row<'a>>> {
    let results = all["results"].as_array().ok_or("there are no results in it")?;
    let row = |result: &'a Value| {
        Some(Row {
            scenario: result["scenario"].as_str()?,
            method: result["method"].as_str()?,
            note: result["note"].as_str().unwrap_or_default(),
            unit: result["unit"].as_str()?,
            median: result["median"].as_f64()?,
            ratio: result["ratio"].as_f64()?,
        })
    };
    Ok(results.iter().filter(|result| result["part"] == part).filter_map(row).collect())
}

/// Draws into an area, and gives where that ends; nothing where there are no results for it.
type Panel<'p> = &'p dyn Fn(&mut Drawing, Area) -> Option<f64>;

fn draw(all: &Value) -> Outcome<String> {
    let mut drawing = Drawing::new(WIDTH);
    let left = Area { left: MARGIN, top: MARGIN, width: COLUMN };
    let right = Area { left: COLUMN + 2.0 * MARGIN, ..left };
    let mut top = MARGIN;
    let spawn = rows(all, "spawn")?;
    let size = rows(all, "size")?;
    let commands = rows(all, "commands")?;
    let threads = rows(all, "threads")?;
    let files = rows(all, "files")?;
    let impersonate = rows(all, "impersonate")?;
    let identify = rows(all, "identify")?;
    let pairs: [[Panel<'_>; 2]; 5] = [
        [
            &|drawing, area| ratios(drawing, area, "Spawn as another user: a tiny program", &spawn, "a tiny"),
            &|drawing, area| ratios(drawing, area, "Spawn as another user: /bin/true", &spawn, "/bin/true"),
        ],
        [&|drawing, area| memory(drawing, area, &size), &|drawing, area| {
            whole_commands(drawing, area, &commands)
        }],
        [&|drawing, area| descriptors(drawing, area, &size), &|drawing, area| {
            per_second(drawing, area, &threads)
        }],
        [
            &|drawing, area| ratios(drawing, area, "Files, one at a time", &files, FILES[0]),
            &|drawing, area| ratios(drawing, area, "Files, in batches of one client", &files, FILES[1]),
        ],
        [
            &|drawing, area| {
                ratios(drawing, area, "Impersonation", &impersonate, "there and back, 16 groups")
            },
            &|drawing, area| ratios(drawing, area, "Identification", &identify, "a client with 16 groups"),
        ],
    ];
    for pair in pairs {
        let ends = [(pair[0], left), (pair[1], right)]
            .map(|(panel, area)| panel(&mut drawing, Area { top, ..area }).unwrap_or(top));
        let end = ends[0].max(ends[1]);
        if end > top {
            top = end + MARGIN;
        }
    }
    drawing.small(MARGIN, top + 4.0, &machine(&all["machine"]));
    let effort = all["effort"].as_str().unwrap_or_default();
    drawing.small(
        MARGIN,
        top + 20.0,
        &format!("Medians of interleaved rounds in one run (cargo xtask bench, {effort}); the scales of lines are logarithmic."),
    );
    Ok(drawing
        .finish(top + 36.0, "What stead costs beside its floor and its peers; docs/bench.md has it in words"))
}

fn machine(machine: &Value) -> String {
    let text = |name: &str| machine[name].as_str().unwrap_or("unknown").to_owned();
    let date = text("date");
    format!(
        "{}, {} cores{}, Linux {}, {}; load before {}; {}",
        text("system"),
        machine["cores"],
        if machine["virtual"] == true { ", virtual" } else { "" },
        text("kernel"),
        text("architecture"),
        text("load").split(' ').next().unwrap_or_default(),
        date.split('T').next().unwrap_or_default(),
    )
}

/// How the scenarios of files begin.
const FILES: [&str; 2] = [
    "opening a file as 64 clients in turn, one at a time",
    "opening a file as 64 clients in turn, in batches",
];

/// Bars of ratios to the floor, of the first scenario whose name begins so.
fn ratios(drawing: &mut Drawing, area: Area, title: &str, rows: &[Row<'_>], scenario: &str) -> Option<f64> {
    let floor = rows.iter().find(|row| row.scenario.starts_with(scenario))?;
    let rows: Vec<&Row<'_>> = rows.iter().filter(|row| row.scenario == floor.scenario).collect();
    let under = format!("{}; times the floor's {}", floor.scenario, time(floor.median));
    let bars: Vec<Bar> = rows
        .iter()
        .map(|row| Bar {
            name: row.method.to_owned(),
            note: format!("{} {}", time(row.median), row.note),
            value: row.ratio,
            shown: match row.note {
                // Longer ones leave no room for the bars; docs/bench.md has them.
                note if note.is_empty() || note.len() > 12 => ratio(row.ratio),
                note => format!("{}, {note}", ratio(row.ratio)),
            },
            mark: row.mark(floor.method),
        })
        .collect();
    Some(drawing.bars(area, title, &under, &bars))
}

/// Bars of times.
fn whole_commands(drawing: &mut Drawing, area: Area, rows: &[Row<'_>]) -> Option<f64> {
    let floor = rows.first()?;
    let mut rows: Vec<&Row<'_>> = rows.iter().collect();
    rows.sort_by(|one, other| one.median.total_cmp(&other.median));
    let bars: Vec<Bar> = rows
        .iter()
        .map(|row| Bar {
            name: row.method.to_owned(),
            note: row.note.to_owned(),
            value: row.median,
            shown: time(row.median),
            mark: row.mark(floor.method),
        })
        .collect();
    Some(drawing.bars(
        area,
        "Whole commands that run /bin/true as a user",
        "until the command has ended",
        &bars,
    ))
}

/// What is after `server: ` in a scenario's name.
fn server<'a>(row: &Row<'a>) -> &'a str {
    row.scenario.split_once("server: ").map_or("", |(_, server)| server)
}

/// The methods that are shown as lines, with shorter names, and their colours.
const LINES: [(&str, &str, Mark); 5] = [
    (FLOOR, "floor", Mark::Floor),
    ("stead", "stead", Mark::Ours),
    ("fork and switch, in C", "C fork", Mark::Peer(1)),
    ("Rust std .uid().gid()", "Rust std", Mark::Peer(0)),
    ("posix_spawn, no switch", "posix_spawn", Mark::Peer(2)),
];

/// One line for each method over the scenarios that `place` names.
fn lines(rows: &[Row<'_>], scenarios: &[String], place: fn(&Row<'_>) -> String) -> Vec<Line> {
    LINES
        .iter()
        .map(|(method, name, mark)| Line {
            name: (*name).to_owned(),
            values: scenarios
                .iter()
                .map(|scenario| {
                    let row = rows.iter().find(|row| row.method == *method && place(row) == *scenario)?;
                    Some(row.median)
                })
                .collect(),
            mark: *mark,
        })
        .filter(|line| line.values.iter().any(Option::is_some))
        .collect()
}

/// The scenarios of these rows, each once, in their order.
fn places(rows: &[Row<'_>], place: fn(&Row<'_>) -> String, wanted: fn(&str) -> bool) -> Vec<String> {
    let mut places: Vec<String> = Vec::new();
    for name in rows.iter().map(place).filter(|name| wanted(name)) {
        if !places.contains(&name) {
            places.push(name);
        }
    }
    places
}

fn memory(drawing: &mut Drawing, area: Area, rows: &[Row<'_>]) -> Option<f64> {
    let place = |row: &Row<'_>| server(row).to_owned();
    let scenarios = places(rows, place, |name| name == "small" || name.ends_with(", small pages"));
    (scenarios.len() > 1).then(|| {
        let names: Vec<String> =
            scenarios.iter().map(|name| name.trim_end_matches(", small pages").to_owned()).collect();
        let title = "The same for a server with much memory";
        drawing.lines(
            area,
            title,
            "a tiny program, by resident memory",
            &names,
            time,
            &lines(rows, &scenarios, place),
        )
    })
}

fn descriptors(drawing: &mut Drawing, area: Area, rows: &[Row<'_>]) -> Option<f64> {
    let place = |row: &Row<'_>| server(row).to_owned();
    let scenarios = places(rows, place, |name| name == "small" || name.ends_with(" descriptors"));
    (scenarios.len() > 1).then(|| {
        let names: Vec<String> =
            scenarios.iter().map(|name| name.trim_end_matches(" descriptors").to_owned()).collect();
        let title = "The same for a server with many descriptors";
        drawing.lines(
            area,
            title,
            "a tiny program, by open descriptors",
            &names,
            time,
            &lines(rows, &scenarios, place),
        )
    })
}

fn per_second(drawing: &mut Drawing, area: Area, rows: &[Row<'_>]) -> Option<f64> {
    let place =
        |row: &Row<'_>| row.scenario.rsplit_once(" by ").map_or("", |(_, threads)| threads).to_owned();
    let scenarios = places(rows, place, |_| true);
    rows.first().filter(|row| row.unit == "/s")?;
    let rounded = |value: f64| {
        let text = if value >= 10_000.0 {
            format!("{:.0}k", value / 1000.0)
        } else {
            format!("{:.1}k", value / 1000.0)
        };
        text.replace(".0k", "k")
    };
    Some(drawing.lines(
        area,
        "Processes per second",
        "a tiny program, by threads that create them",
        &scenarios,
        rounded,
        &lines(rows, &scenarios, place),
    ))
}

/// Three digits, or none after the point.
fn ratio(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 9.995 => format!("{ratio:.2}"),
        ratio if ratio < 99.95 => format!("{ratio:.1}"),
        ratio => format!("{ratio:.0}"),
    }
}

/// Microseconds as people read them.
fn time(microseconds: f64) -> String {
    match microseconds {
        value if value < 10.0 => format!("{value:.1} µs").replace(".0 ", " "),
        value if value < 1000.0 => format!("{value:.0} µs"),
        value if value < 10_000.0 => format!("{:.1} ms", value / 1e3).replace(".0 ", " "),
        value if value < 1e6 => format!("{:.0} ms", value / 1e3),
        value => format!("{:.1} s", value / 1e6).replace(".0 ", " "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn results(ratio: f64) -> Value {
        let result = |method: &str, ratio: f64| {
            json!({ "part": "spawn", "scenario": "/bin/true, 17 groups", "method": method, "note": "", "unit": "us",
                "median": 500.0 * ratio, "p99": 900.0, "samples": 9, "ratio": ratio })
        };
        json!({ "machine": { "kernel": "6.1", "cores": 2 }, "effort": "full",
            "results": [result(FLOOR, 1.0), result("stead", ratio), { "part": "spawn", "scenario": "/bin/true, 17 groups",
            "method": "slow & <old>", "missing": "not installed" }] })
    }

    #[test]
    fn the_picture_shows_the_figures_of_the_file_and_what_was_not_measured_nowhere() {
        let picture = draw(&results(1.12)).unwrap_or_default();
        assert!(
            picture.contains(">1.12<") && picture.contains("500 µs") && picture.contains("560 µs"),
            "{picture}"
        );
        assert!(!picture.contains("slow"), "{picture}");
        assert!(draw(&results(1.73)).unwrap_or_default().contains(">1.73<"));
        assert!(draw(&json!({})).is_err());
    }

    #[test]
    fn times_are_shown_as_people_read_them() {
        let shown = [3.0, 71.6, 1000.0, 4480.0, 45_000.0, 1_250_000.0].map(time);
        assert_eq!(shown, ["3 µs", "72 µs", "1 ms", "4.5 ms", "45 ms", "1.2 s"]);
    }
}
