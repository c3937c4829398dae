//! What a call is answered with.

use std::os::fd::OwnedFd;

use serde::Serialize;
use serde_json::Value;
use stead_protocol::{Failure, FailureKind};

/// What a call is answered with.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) parameters: Value,
    pub(super) descriptors: Vec<OwnedFd>,
    /// Whether closing them may wait for a file system of a caller's.
    pub(super) of_files: bool,
}

impl Answer {
    /// A reply alone.
    pub(super) fn plain(reply: &impl Serialize) -> Result<Self, Failure> {
        Self::with(reply, Vec::new())
    }

    /// A reply with descriptors.
    pub(super) fn with(reply: &impl Serialize, descriptors: Vec<OwnedFd>) -> Result<Self, Failure> {
        let parameters: Value = serde_json::to_value(reply)
            .map_err(|error| FailureKind::Other { text: error.to_string() }.while_doing("writing a reply"))?;
        Ok(Self { parameters, descriptors, of_files: false })
    }

    /// A reply with files, of whichever file system.
    pub(super) fn with_files(reply: &impl Serialize, files: Vec<OwnedFd>) -> Result<Self, Failure> {
        Ok(Self { of_files: true, ..Self::with(reply, files)? })
    }
}
