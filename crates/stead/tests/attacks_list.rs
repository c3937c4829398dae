//! The list of attacks is true: each test that it names exists.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

fn functions(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            // A name stands before its parenthesis; or, where a macro or a table makes tests, by itself.
            into.extend(text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_owned));
        }
    }
}

#[test]
fn every_test_that_the_list_of_attacks_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let Ok(list) = std::fs::read_to_string(root.join("docs/attacks.md")) else {
        testbed::skip!("the sources are not there");
    };
    let mut known = BTreeSet::new();
    for folder in ["crates/stead/src", "crates/stead/tests", "crates/stead-trampoline/tests"] {
        functions(&root.join(folder), &mut known);
    }
    let named = list.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() >= 3);
    let named: Vec<&str> =
        named.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).collect();
    assert!(named.len() > 100, "{}", named.len());
    let missing: Vec<&&str> = named.iter().filter(|name| !known.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
