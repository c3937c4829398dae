//! Each part of the benchmark, run as shortly as it can be: nothing is said of times, only that each method has figures or
//! is named as missing.

#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use testbed::{Bed, Mode};

/// What is measured in every spawn.
const SPAWNS: [&str; 11] = [
    "vfork and switch, bare calls",
    "stead",
    "stead, in a logon session",
    "stead, through the service",
    "stead, service and session",
    "posix_spawn, no switch",
    "fork and switch, in C",
    "Rust std .uid().gid()",
    "Rust std pre_exec",
    "tokio .uid().gid()",
    "Python subprocess.run",
];

const COMMANDS: [&str; 12] = [
    "vfork and switch, bare calls",
    "stead run",
    "stead run --embedded",
    "stead run, by the user",
    "setpriv",
    "chpst",
    "s6-setuidgid",
    "gosu",
    "runuser",
    "su",
    "sudo",
    "doas",
];

/// What a server of any size, and any number of its threads, is measured by.
const OF_SERVERS: [&str; 5] = [
    "vfork and switch, bare calls",
    "stead",
    "posix_spawn, no switch",
    "fork and switch, in C",
    "Rust std .uid().gid()",
];

/// The results of a part; the file that they are in is given to `look`, too.
fn results(bed: &Bed, part: &str, look: impl FnOnce(&Path)) -> Vec<Value> {
    testbed::time_limit!(900);
    let file = bed.scratch("results").join("bench.json");
    let output = Command::new(bed.bin("stead-bench"))
        .args([part, "--fewest", "--json"])
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{}\n{said}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    let all: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for fact in ["kernel", "cores", "load", "date", "peers"] {
        assert!(!all["machine"][fact].is_null(), "{fact} in {}", all["machine"]);
    }
    look(&file);
    let results = all["results"].as_array().unwrap().clone();
    for result in &results {
        assert_eq!(result["part"], part, "{result}");
        let measured = result["median"].as_f64().is_some_and(|median| median > 0.0)
            && result["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0)
            && result["unit"].is_string();
        let missing = result["missing"].as_str().is_some_and(|why| !why.is_empty());
        assert!(measured != missing, "{result}");
    }
    results
}

/// Every scenario has each of these methods, and where root made the bed ours are measured.
fn has_all(bed: &Bed, results: &[Value], methods: &[&str]) {
    let mut scenarios: Vec<&str> = results.iter().filter_map(|result| result["scenario"].as_str()).collect();
    scenarios.dedup();
    assert!(!scenarios.is_empty());
    for method in methods {
        assert!(results.iter().any(|result| result["method"] == *method), "{method} in {results:#?}");
    }
    for result in results {
        let ours = result["method"].as_str().unwrap().starts_with("stead");
        assert!(!ours || bed.mode() != Mode::Namespaces || result["missing"].is_null(), "{result}");
    }
}

#[test]
fn a_spawn_is_measured_by_every_method_and_drawn() {
    let bed = testbed::require!();
    let mut picture = String::new();
    let results = results(bed, "spawn", |file| {
        let drawn = Command::new(bed.bin("stead-bench")).arg("plot").arg(file).output().unwrap();
        assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
        picture = fs::read_to_string(file.with_extension("svg")).unwrap();
    });
    has_all(bed, &results, &SPAWNS);
    for result in results.iter().filter(|result| result["missing"].is_null()) {
        let method = result["method"].as_str().unwrap();
        assert!(picture.contains(&format!(">{method}<")), "{method} in {picture}");
    }
}

#[test]
fn whole_commands_are_measured_or_named_as_missing() {
    let bed = testbed::require!();
    has_all(bed, &results(bed, "commands", |_| {}), &COMMANDS);
}

#[test]
fn servers_of_all_sizes_are_measured() {
    let bed = testbed::require!();
    let results = results(bed, "size", |_| {});
    has_all(bed, &results, &OF_SERVERS);
    for server in ["small", "descriptors", "threads", "pages"] {
        let named =
            |result: &Value| result["scenario"].as_str().is_some_and(|scenario| scenario.ends_with(server));
        assert!(results.iter().any(named), "{server} in {results:#?}");
    }
}

#[test]
fn threads_that_create_processes_are_measured_together() {
    let bed = testbed::require!();
    let results = results(bed, "threads", |_| {});
    has_all(bed, &results, &OF_SERVERS);
    assert!(results.iter().all(|result| result["unit"] == "/s" || result["unit"].is_null()), "{results:#?}");
}
