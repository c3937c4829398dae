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

/// Users of any number, whose processes can be looked at, are only to be had where root made the bed.
macro_rules! needs_roots_bed {
    ($bed:expr) => {
        if $bed.mode() != Mode::Namespaces || testbed::confine::blind_to_clients().is_some() {
            testbed::skip!("measuring what is done as clients needs a bed that root made");
        }
    };
}

#[test]
fn acting_as_a_client_is_measured_beside_the_bare_calls_and_libcs() {
    let bed = testbed::require!();
    needs_roots_bed!(bed);
    let methods = [
        "bare calls, unchecked",
        "bare calls, read before, between, after",
        "stead",
        "libc wrappers, unchecked",
    ];
    has_all(bed, &results(bed, "impersonate", |_| {}), &methods);
}

#[test]
fn opening_files_as_clients_in_turn_is_measured() {
    let bed = testbed::require!();
    needs_roots_bed!(bed);
    let methods = [
        "plain open, as nobody else",
        "bare calls, unchecked",
        "stead, std::fs in the closure",
        "stead, me.open",
        "a thread kept for each client",
        "a fork for each turn",
    ];
    has_all(bed, &results(bed, "files", |_| {}), &methods);
}

#[test]
fn identifying_a_client_is_measured_beside_the_bare_calls() {
    let bed = testbed::require!();
    needs_roots_bed!(bed);
    let methods =
        ["bare calls", "SO_PEERCRED and /proc/PID/status", "stead, Client::of", "stead, Client::token"];
    has_all(bed, &results(bed, "identify", |_| {}), &methods);
}

#[test]
fn a_logon_is_measured_beside_pam_and_many_sessions_leave_nothing() {
    let bed = testbed::require!();
    needs_roots_bed!(bed);
    let results = results(bed, "logon", |_| {});
    has_all(bed, &results, &["the PAM calls in a child", "stead", "opening one", "closing one"]);
    let private = results.iter().find(|result| result["method"] == "private").unwrap();
    assert_eq!(private["unit"], "KiB");
}

#[test]
fn readmes_figures_and_the_picture_are_those_of_the_results_beside_them() {
    let bed = testbed::require!();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let file = bed.scratch("documented").join("bench.json");
    fs::copy(checkout.join("docs/bench.json"), &file).unwrap();
    let drawn = Command::new(bed.bin("stead-bench")).arg("plot").arg(&file).output().unwrap();
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    let table = String::from_utf8(drawn.stdout).unwrap();
    let readme = fs::read_to_string(checkout.join("README.md")).unwrap();
    let mend = "run `cargo xtask bench plot docs/bench.json`";
    assert!(table.contains("| stead |") && readme.contains(&table), "{mend}: README has not\n{table}");
    let picture = fs::read_to_string(checkout.join("docs/bench.svg")).unwrap();
    assert!(
        picture == fs::read_to_string(file.with_extension("svg")).unwrap(),
        "{mend}: docs/bench.svg is another"
    );
}
