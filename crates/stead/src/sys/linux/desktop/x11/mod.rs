//! X displays: a per-logon-session authorization by the SECURITY extension, and the host list where it is asked for.
#![forbid(unsafe_code)]
#![allow(dead_code, clippy::unused_self, clippy::unnecessary_wraps)]

mod display;

use std::ffi::OsString;

pub(crate) use display::Display;

use crate::desktop::{AccessList, Trustee};
use crate::error::{Error, ErrorKind, Result};

/// Access that was granted.
#[derive(Debug)]
pub(crate) struct Grant {
    environment: Vec<(OsString, OsString)>,
}

impl Grant {
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        self.environment.clone()
    }

    pub(crate) fn is_alive(&self) -> bool {
        true
    }

    pub(crate) fn revoke(self) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn access(display: &Display) -> Result<AccessList> {
    Err(Error::new("reading who may use a desktop", ErrorKind::NotFound { object: display.to_string() }))
}

pub(crate) fn grant(display: &Display, _trustee: &Trustee) -> Result<Grant> {
    Err(Error::new("granting access to a desktop", ErrorKind::NotFound { object: display.to_string() }))
}
