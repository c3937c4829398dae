//! What another process does with a token in this one's place: stead's service, for a server without privileges.
//!
//! A token, a process or a logon session of the service's is known here by its description, and what is to be done
//! with it is asked of these. Where nothing of the service is used there is none of them.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::process::Pid;

use super::process::Names;
use super::token::{Taken, Uid};
use crate::error::Result;
use crate::impersonate::OpenOptions;
use crate::process::{Command, Containment};
use crate::token::{Impersonation, ImpersonationLevel, Token};

/// A token that another process holds.
pub(crate) trait TokenElsewhere: Send + Sync {
    /// Everything that creating a process from it takes, but for doing it.
    fn prepare(&self, order: Order<'_>) -> Result<Creation>;

    /// The same context as a primary token.
    fn primary(&self) -> Result<Arc<dyn TokenElsewhere>>;

    /// The same token without what is taken.
    fn restrict(&self, taken: &Taken) -> Result<Arc<dyn TokenElsewhere>>;

    /// Opens a file with the token's rights.
    fn open(&self, path: &Path, options: &OpenOptions) -> Result<File>;
}

/// A client whose token another process makes.
pub(crate) trait ClientElsewhere: Send + Sync {
    /// The client's token, as of now.
    fn token(&self, level: ImpersonationLevel) -> Result<Token<Impersonation>>;
}

/// Creates a process, and waits until its program runs or it is suspended.
pub(crate) type Creation = Box<dyn FnOnce() -> Result<Spawned> + Send>;

/// A process to be created elsewhere.
pub(crate) struct Order<'a> {
    pub(crate) command: &'a Command,
    /// The process's ends of its standard streams; none where its terminal is meant.
    pub(crate) streams: [Option<OwnedFd>; 3],
    pub(crate) names: &'a Names,
    /// Whose the process will be.
    pub(crate) user: Uid,
}

/// A process that was created elsewhere.
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) process: Box<dyn ProcessElsewhere>,
    /// The server's end of its terminal, where one was asked for.
    pub(crate) pty: Option<OwnedFd>,
}

/// A process that another process started; dropping it lets go of it.
pub(crate) trait ProcessElsewhere: Send + Sync {
    /// How it ended, in the encoding of wait(2): asked once its pidfd is readable. None where nobody knows.
    fn status(&self) -> Result<Option<i32>>;

    /// Sends a signal to it alone, or to the whole group that it leads.
    fn signal(&self, signal: i32, group: bool) -> Result<()>;

    /// Kills it and all that descends from it.
    fn kill_tree(&self) -> Result<()>;

    /// Lets it execute its program, and waits until it does.
    fn resume(&self) -> Result<()>;

    /// What holds it and its descendants together.
    fn containment(&self) -> Containment;
}

/// A logon session that another process keeps; dropping it lets go of it.
pub(crate) trait SessionElsewhere: Send + Sync {
    /// The ids of its processes.
    fn processes(&self) -> Result<Vec<u32>>;

    /// Kills its processes, and waits until they have ended.
    fn terminate(&self) -> Result<()>;

    /// How a process that an earlier server started ended, if it has.
    fn exit_status(&self, process: u32) -> Result<Option<i32>>;

    /// Kills such a process and all that descends from it.
    fn kill_tree(&self, process: u32) -> Result<()>;

    /// What waits for the session's end, when this is dropped; where it is to be so, it ends its processes first.
    fn ending(&self, terminate: bool) -> Box<dyn FnOnce() -> Result<()> + Send>;
}
