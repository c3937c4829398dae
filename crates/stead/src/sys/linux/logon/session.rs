//! The server's hold on a session worker.

use std::ffi::CString;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::process::{Launch, Started};

/// The server's hold on a session worker: shared by the session's tokens and children. When the last
/// one is dropped the worker is told, and the session ends after its last process.
pub(crate) struct SessionHandle {
    environment: Vec<CString>,
    umask: u32,
    exec_label: Option<Box<[u8]>>,
}

/// A process that the worker created.
pub(crate) struct SessionProcess {
    pub(crate) started: Started,
    /// What the worker calls it.
    pub(crate) id: u32,
}

impl SessionHandle {
    /// Lets the worker create a process; whether its program runs is for the report to say.
    pub(crate) fn launch(&self, _launch: &Launch) -> Result<SessionProcess> {
        Err(Error::new("asking the session worker", ErrorKind::SessionEnded))
    }

    /// The wait status of the process `id`, if it has ended: asked once its pidfd is readable.
    pub(crate) fn exit_status(&self, _id: u32) -> Result<Option<i32>> {
        Err(Error::new("asking the session worker", ErrorKind::SessionEnded))
    }

    /// Kills the process `id` and everything that descends from it.
    pub(crate) fn kill_tree(&self, _id: u32) -> Result<()> {
        Err(Error::new("asking the session worker", ErrorKind::SessionEnded))
    }

    /// Nobody will ask for the status of process `id`.
    pub(crate) fn forget(&self, _id: u32) {}

    /// The environment that PAM gave the session, `NAME=value` each.
    pub(crate) fn environment(&self) -> &[CString] {
        &self.environment
    }

    /// The session's umask, as PAM left it.
    pub(crate) fn umask(&self) -> u32 {
        self.umask
    }

    /// The security label that PAM chose for the session's programs.
    pub(crate) fn exec_label(&self) -> Option<&[u8]> {
        self.exec_label.as_deref()
    }
}
