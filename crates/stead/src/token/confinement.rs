//! What is known of the confinement of the process that a token comes from.

use std::fmt;

use crate::error::ConfinedPart;

/// What is known of how the process that a token comes from was confined.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ConfinementKnowledge {
    /// No more than the server is, apart from what the token itself carries.
    Verified,
    /// These parts could not be read, and the server accepts that.
    Partial(Box<[ConfinedPart]>),
    /// Nothing: ids and groups as of connect, which is all that the kernel tells here.
    Unknown,
}

impl fmt::Display for ConfinementKnowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified => f.write_str("no more than the server"),
            Self::Partial(parts) => {
                f.write_str("confinement partly unknown (")?;
                for (index, part) in parts.iter().enumerate() {
                    write!(f, "{}{part}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str(" could not be read)")
            }
            Self::Unknown => f.write_str("confinement unknown (ids and groups as of connect)"),
        }
    }
}
