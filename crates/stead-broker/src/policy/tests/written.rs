//! The policies that are written down for people are policies.

use std::fs;
use std::path::PathBuf;

use crate::policy::{NameTable, Policy};

fn checkout() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn names() -> NameTable {
    let groups = ["students", "staff", "sudo"].into_iter().zip(500..);
    let users = ["portal", "reports", "greeter"].into_iter().zip(990..);
    let names = groups.fold(NameTable::new(), |names, (name, gid)| names.group(name, gid));
    users.fold(names, |names, (name, uid)| names.user(name, uid)).user("root", 0)
}

#[test]
fn the_policy_that_is_installed_has_no_mistakes_and_gives_nobody_but_root_anything() {
    let text = fs::read_to_string(checkout().join("packaging/policy.toml")).unwrap();
    let policy = Policy::parse("policy.toml", &text, &names()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(policy.rule_counts(), (1, 0));
    assert!(text.contains("callers = { users = [\"root\"] }"));
}

#[test]
fn what_is_commented_out_in_it_has_no_mistakes_either() {
    let text = fs::read_to_string(checkout().join("packaging/policy.toml")).unwrap();
    // Prose has a space after the sign.
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let text: Vec<_> = text.lines().map(uncommented).collect();
    let policy = Policy::parse("policy.toml", &text.join("\n"), &names());
    assert_eq!(policy.unwrap_or_else(|errors| panic!("{errors}")).rule_counts(), (3, 1));
}

#[test]
fn the_examples_in_the_documentation_have_no_mistakes() {
    let text = fs::read_to_string(checkout().join("docs/policy.md")).unwrap();
    let examples: Vec<_> =
        text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 4, "{}", examples.len());
    for example in examples {
        Policy::parse("docs/policy.md", example, &names())
            .unwrap_or_else(|errors| panic!("{errors}\n{example}"));
    }
}
