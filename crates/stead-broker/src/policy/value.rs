//! TOML values, each with its place, read with errors that say what was expected.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Place, PolicyError};
use super::near::hint;

/// A value and where it stands.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// No file has more errors told than this.
const MOST_ERRORS: usize = 50;

/// One file while it is read: what is wrong with it is collected.
pub(super) struct Reader<'r> {
    pub(super) file: &'r str,
    pub(super) text: &'r str,
    pub(super) errors: &'r mut Vec<PolicyError>,
    told: usize,
}

impl<'r> Reader<'r> {
    pub(super) fn new(file: &'r str, text: &'r str, errors: &'r mut Vec<PolicyError>) -> Self {
        Self { file, text, errors, told: 0 }
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        Place::at(self.file, self.text, span.start)
    }

    pub(super) fn error(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.told += 1;
        if self.told <= MOST_ERRORS {
            let place = self.place(span);
            self.errors.push(PolicyError { place, message: message.into() });
        }
    }

    /// An error for each key that is not among `known`.
    pub(super) fn refuse_unknown(&mut self, table: &DeTable<'_>, known: &[&str], what: &str) {
        self.refuse_unknown_but(table, known, &[], what);
    }

    /// The same, but for keys that were looked at already.
    pub(super) fn refuse_unknown_but(
        &mut self,
        table: &DeTable<'_>,
        known: &[&str],
        looked_at: &[&str],
        what: &str,
    ) {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if known.contains(&name) || looked_at.contains(&name) {
                continue;
            }
            let near = hint(name, known.iter().copied());
            let near = if near.is_empty() { format!("; known are {}", known.join(", ")) } else { near };
            self.error(&key.span(), format!("{what} has no key {name:?}{near}"));
        }
    }

    /// The one of `known` that `name` is; else an error that suggests one.
    pub(super) fn one_of(
        &mut self,
        name: &str,
        span: &Range<usize>,
        what: &str,
        known: &[&'static str],
    ) -> Option<&'static str> {
        let found = known.iter().copied().find(|known| *known == name);
        if found.is_none() {
            let near = hint(name, known.iter().copied());
            let near = if near.is_empty() { format!("; there are {}", known.join(", ")) } else { near };
            self.error(span, format!("there is no {what} {name:?}{near}"));
        }
        found
    }

    fn expected(&mut self, value: &Value<'_>, what: &str) {
        let found = value.get_ref().type_str();
        self.error(&value.span(), format!("expected {what}, found {}", with_article(found)));
    }

    pub(super) fn table<'t, 'v>(&mut self, value: &'v Value<'t>, what: &str) -> Option<&'v DeTable<'t>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.expected(value, what);
        }
        table
    }

    pub(super) fn string<'v>(&mut self, value: &'v Value<'_>, what: &str) -> Option<&'v str> {
        let string = value.get_ref().as_str();
        if string.is_none() {
            self.expected(value, what);
        }
        string
    }

    /// The strings of an array that is not empty, each with its place.
    pub(super) fn strings(&mut self, value: &Value<'_>, what: &str) -> Vec<(String, Range<usize>)> {
        let Some(array) = value.get_ref().as_array() else {
            self.expected(value, &format!("a list of {what}"));
            return Vec::new();
        };
        if array.is_empty() {
            self.error(&value.span(), format!("an empty list of {what} covers nothing; leave the rule out"));
        }
        let one = format!("one of the {what}, as a string");
        let strings = array.iter().filter_map(|item| {
            let string = self.string(item, &one)?.to_owned();
            Some((string, item.span()))
        });
        strings.collect()
    }

    /// A whole number between two others.
    pub(super) fn integer(&mut self, value: &Value<'_>, least: u64, most: u64) -> Option<u64> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.expected(value, "a whole number");
            return None;
        };
        let parsed = i128::from_str_radix(integer.as_str(), integer.radix());
        match parsed.ok().and_then(|number| u64::try_from(number).ok()) {
            Some(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                self.error(&value.span(), format!("must be a whole number from {least} to {most}"));
                None
            }
        }
    }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}
