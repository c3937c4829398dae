//! The steps on the way to a new process.

use std::fmt;

/// One step on the way to a new process, in the order in which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Creating the child.
    Clone,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clone => "create the child",
        })
    }
}
