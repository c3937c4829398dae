//! The name of an X display of this machine.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fmt;

/// A display of this machine, and how this server is let into it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Display {
    /// The number after the colon.
    pub(crate) number: u16,
}

impl Display {
    /// `:1`, or `:1.0`; displays of other machines are not this machine's to grant.
    pub(crate) fn parse(name: &OsStr) -> Option<Self> {
        let name = name.to_str()?.strip_prefix(':')?;
        let number = name.split_once('.').map_or(name, |(number, _)| number);
        let number = number.parse().ok().filter(|parsed: &u16| parsed.to_string() == number)?;
        Some(Self { number })
    }
}

impl fmt::Display for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ":{}", self.number)
    }
}
