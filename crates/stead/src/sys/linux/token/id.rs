//! User and group ids that cannot be confused with each other, nor be the invalid ones.

use std::fmt;

/// The id that stands for "leave unchanged" in the set*id calls (CVE-2019-14287), never an identity.
const UNCHANGED: u32 = u32::MAX;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
        #[repr(transparent)]
        pub struct $name(u32);

        impl $name {
            /// Root's.
            pub const ROOT: Self = Self(0);

            /// The id with this number; `None` for -1, which the kernel takes for "leave unchanged".
            pub const fn new(raw: u32) -> Option<Self> {
                if raw == UNCHANGED { None } else { Some(Self(raw)) }
            }

            /// The number.
            pub const fn as_raw(self) -> u32 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A user id. Never -1.
    Uid
}
id! {
    /// A group id. Never -1.
    Gid
}

/// The audit system's login uid of a process: set once at logon, inherited by all that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum LoginUid {
    /// The kernel keeps none (no audit support), or the client's process is hidden
    /// ([`Confinement::Unknown`](crate::Confinement::Unknown)). What is created from such a token has none set.
    Unsupported,
    /// Nobody has logged on.
    Unset,
    /// The user who logged on.
    Set(Uid),
}

/// Supplementary groups, compared as sets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
pub struct GroupSet(Box<[Gid]>);

impl GroupSet {
    /// The groups in ascending order, each once.
    pub fn as_slice(&self) -> &[Gid] {
        &self.0
    }

    /// Whether `gid` is among them.
    pub fn contains(&self, gid: Gid) -> bool {
        self.0.binary_search(&gid).is_ok()
    }
}

impl FromIterator<Gid> for GroupSet {
    fn from_iter<I: IntoIterator<Item = Gid>>(groups: I) -> Self {
        let mut groups: Vec<Gid> = groups.into_iter().collect();
        groups.sort_unstable();
        groups.dedup();
        Self(groups.into())
    }
}
