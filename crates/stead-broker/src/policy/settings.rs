//! What a policy says besides who may do what.

use std::time::Duration;

/// How much one caller may hold at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Logon sessions.
    pub sessions: u32,
    /// Processes.
    pub processes: u32,
    /// Connections to the service.
    pub connections: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self { sessions: 32, processes: 256, connections: 64 }
    }
}

/// A quota that leaves open what it does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PartialQuota {
    pub(super) sessions: Option<u32>,
    pub(super) processes: Option<u32>,
    pub(super) connections: Option<u32>,
}

impl PartialQuota {
    /// What it names in place of what `all` has.
    pub(super) fn instead_of(self, all: Quota) -> Quota {
        Quota {
            sessions: self.sessions.unwrap_or(all.sessions),
            processes: self.processes.unwrap_or(all.processes),
            connections: self.connections.unwrap_or(all.connections),
        }
    }

    /// `all`, and more where it names more.
    pub(super) fn over(self, all: Quota) -> Quota {
        let more = self.instead_of(all);
        Quota {
            sessions: more.sessions.max(all.sessions),
            processes: more.processes.max(all.processes),
            connections: more.connections.max(all.connections),
        }
    }
}

/// How failed logons are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedLogons {
    /// How many may fail before the next one has to wait.
    pub free_attempts: u32,
    /// How long the first wait is; each later one is twice as long.
    pub first_delay: Duration,
    /// The longest wait.
    pub longest_delay: Duration,
    /// After how long one failure is forgotten.
    pub forget_after: Duration,
}

impl Default for FailedLogons {
    fn default() -> Self {
        Self {
            free_attempts: 3,
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(300),
            forget_after: Duration::from_secs(600),
        }
    }
}
