//! What the documentation names is there.

#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below `directory` whose name ends in `.{extension}`.
fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
}

/// The names of all tests of the sources.
fn tests() -> BTreeSet<String> {
    let mut sources = Vec::new();
    files(&root().join("crates"), "rs", &mut sources);
    files(&root().join("xtask"), "rs", &mut sources);
    let mut found = BTreeSet::new();
    for source in sources {
        let mut is_test = false;
        for line in fs::read_to_string(source).unwrap().lines().map(str::trim) {
            if line == "#[test]" || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
                found.extend(rest.split('(').next().map(str::to_owned));
                is_test = false;
            }
            // Some are named in the arguments of a macro, or in the table of a program that is its own harness.
            let of_macro = line.split_once(": ").map(|(name, _)| name);
            let of_table =
                line.strip_prefix("(\"").and_then(|rest| rest.split_once("\", ")).map(|(name, _)| name);
            found.extend(of_macro.or(of_table).filter(is_a_sentence).map(str::to_owned));
        }
    }
    found
}

fn is_a_sentence(word: &&str) -> bool {
    word.matches('_').count() >= 3
        && word.chars().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '_')
}

/// What stands between backquotes and reads like a sentence: the name of a test.
fn tests_named_in(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).filter(is_a_sentence).collect()
}

/// What people read.
fn documents() -> Vec<PathBuf> {
    let of_root = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let mut documents: Vec<PathBuf> =
        of_root.filter(|path| path.extension().is_some_and(|own| own == "md")).collect();
    files(&root().join("docs"), "md", &mut documents);
    documents
}

#[test]
fn every_test_that_the_documentation_names_exists() {
    let tests = tests();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let named = tests_named_in(&text);
        let (name, document) = (document.file_name().unwrap().to_str().unwrap(), document.display());
        if matches!(name, "reference-map.md" | "attacks.md") {
            assert!(named.len() > 20, "{document} names {} tests", named.len());
        }
        let missing: Vec<&str> = named.into_iter().filter(|name| !tests.contains(*name)).collect();
        assert!(missing.is_empty(), "{document} names tests that do not exist: {missing:?}");
    }
}

#[test]
fn the_pam_service_of_the_documentation_is_the_one_that_is_installed() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let installed = read("packaging/pam.d/common/stead-interactive");
    let (heading, service) = installed.split_once('\n').unwrap();
    assert!(heading.starts_with('#'), "{heading}");
    assert!(read("docs/linux.md").contains(&format!("```text\n{service}```")), "{service}");
}

#[test]
fn every_link_of_the_documentation_leads_to_a_file() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            let leads =
                path.is_empty() || path.contains("://") || document.parent().unwrap().join(path).exists();
            assert!(leads, "{}: {link}", document.display());
        }
    }
}
