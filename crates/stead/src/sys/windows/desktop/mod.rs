//! Window stations and desktops.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt;

pub(crate) use super::sid::{Sid as User, Sid as Group, Sid as LogonSession};

use crate::desktop::{AccessList, InteractiveSession, Trustee};
use crate::error::{Error, ErrorKind, Result};
use crate::token::TokenData;

/// The number of a terminal services session.
pub(crate) type InteractiveId = u32;

/// What a desktop is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    name: OsString,
}

/// Access that was granted.
#[derive(Debug)]
pub(crate) enum Grant {}

fn not_yet(object: String) -> Error {
    let why = "access to desktops is not changed here yet".into();
    Error::new("opening a desktop", ErrorKind::DesktopAccess { object, why, mend: None })
}

impl Place {
    pub(crate) fn interactive(session: InteractiveSession) -> Result<Self> {
        Err(not_yet(format!("winsta0\\default of the session {session:?}")))
    }

    pub(crate) fn by_name(name: &OsStr) -> Result<Self> {
        Ok(Self { name: name.to_owned() })
    }

    pub(crate) fn access(&self) -> Result<AccessList> {
        Err(not_yet(self.to_string()))
    }

    pub(crate) fn grant(&self, _trustee: &Trustee) -> Result<Grant> {
        Err(not_yet(self.to_string()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.display().fmt(f)
    }
}

impl Grant {
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        match *self {}
    }

    pub(crate) fn is_alive(&self) -> bool {
        match *self {}
    }

    pub(crate) fn revoke(self) -> Result<()> {
        match self {}
    }
}

pub(crate) fn logon_session(token: &TokenData) -> Option<LogonSession> {
    token.context.logon_sid()
}

pub(crate) fn user(token: &TokenData) -> User {
    token.context.user
}

pub(crate) fn sweep() -> Result<()> {
    Ok(())
}

pub(crate) fn sweep_once() {}
