//! What the service is started with, and why it could not begin.

use std::io;
use std::path::PathBuf;

use stead_protocol::SOCKET;

use crate::audit;
use crate::policy::{DEFAULT_FOLDER, PolicyErrors};

/// What the service is started with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where it listens, unless its service manager listens for it.
    pub socket: PathBuf,
    /// The folder of the policy.
    pub policy: PathBuf,
    /// The folder of what it writes down to find it again after a restart.
    pub state: PathBuf,
    /// The program of session workers, where it is not beside the service's own.
    pub worker: Option<PathBuf>,
    /// Whether a worker is kept ready for the next logon, of each type that there were logons of lately.
    pub ready_workers: bool,
    /// Where the audit records go.
    pub audit: audit::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            socket: SOCKET.into(),
            policy: DEFAULT_FOLDER.into(),
            state: "/run/stead/service".into(),
            worker: None,
            ready_workers: true,
            audit: audit::Options::default(),
        }
    }
}

/// Why the service could not begin, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The policy has errors.
    #[error("the policy has errors:\n{0}")]
    Policy(PolicyErrors),
    /// It cannot listen.
    #[error("cannot listen at {}: {error}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What it writes down has no place.
    #[error("cannot keep the service's records in {}: {error}", path.display())]
    State {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another service runs already.
    #[error("another service runs already: it holds {}", path.display())]
    AnotherRuns {
        /// What it holds.
        path: PathBuf,
    },
    /// The audit log cannot be opened.
    #[error("cannot open the audit log: {0}")]
    Audit(io::Error),
    /// It lacks what it takes.
    #[error("{0}")]
    Library(stead::Error),
    /// The system lacks what it takes.
    #[error("cannot start: {0}")]
    System(io::Error),
}
