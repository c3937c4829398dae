//! What is done to a window station and a desktop, wherever they are: here, or by the helper in their session.
#![forbid(unsafe_code)]

use std::fmt::{self, Write};
use std::io;

use super::{helper, object};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::dacl::{Ace, Dacl};
use crate::sys::logon::is_there;

/// Which of the two objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Object {
    Station,
    Desktop,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Station => "station",
            Self::Desktop => "desktop",
        })
    }
}

impl Object {
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "station" => Some(Self::Station),
            "desktop" => Some(Self::Desktop),
            _ => None,
        }
    }
}

/// Where the two are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Names {
    /// The session; `None` for the process's own.
    pub(super) session: Option<u32>,
    pub(super) station: String,
    pub(super) desktop: String,
}

impl Names {
    /// One of the two, for messages.
    pub(super) fn of(&self, object: Object) -> String {
        match object {
            Object::Station => self.station.clone(),
            Object::Desktop => format!(r"{}\{}", self.station, self.desktop),
        }
    }
}

/// One entry of one of the two lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) object: Object,
    pub(super) ace: Ace,
}

impl Entry {
    /// Two words: the object, and the entry's bytes.
    pub(super) fn to_words(&self) -> io::Result<String> {
        Ok(format!("{} {}", self.object, to_hex(&self.ace.to_bytes()?)))
    }

    pub(super) fn parse(object: &str, ace: &str) -> Option<Self> {
        let bytes = from_hex(ace)?;
        let (ace, rest) = Ace::parse(&bytes).ok()?;
        rest.is_empty().then_some(())?;
        Some(Self { object: Object::parse(object)?, ace })
    }
}

/// What is to be done with entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing: only read.
    Read,
    /// Each is added once.
    Add,
    /// One that is equal to each is taken away, if there is one.
    Remove,
}

/// Both lists, as they are after it; `None` where there is none at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lists {
    pub(super) station: Option<Dacl>,
    pub(super) desktop: Option<Dacl>,
}

impl Lists {
    pub(super) fn get(&self, object: Object) -> Option<&Dacl> {
        match object {
            Object::Station => self.station.as_ref(),
            Object::Desktop => self.desktop.as_ref(),
        }
    }
}

/// What the system said, and about which object.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) object: Object,
    pub(super) source: io::Error,
}

impl Refusal {
    pub(super) fn error(self, names: &Names, doing: &'static str) -> Error {
        let object = names.of(self.object);
        let kind = match self.source.raw_os_error() {
            // ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND
            Some(2 | 3) => ErrorKind::NotFound { object },
            // ERROR_ACCESS_DENIED
            Some(5) => ErrorKind::DesktopAccess {
                object,
                why: "the server may not read or change its access list".into(),
                mend: Some("run the server as a LocalSystem service".into()),
            },
            _ => ErrorKind::DesktopAccess { object, why: self.source.to_string().into(), mend: None },
        };
        Error::new(doing, kind).with_source(self.source)
    }
}

/// Does it, in this process where that reaches, else by the helper.
pub(super) fn work(names: &Names, change: Change, entries: &[Entry], doing: &'static str) -> Result<Lists> {
    let own = object::own_session().map_err(|source| Error::system(doing, "ProcessIdToSessionId", source))?;
    let session = names.session.unwrap_or(own);
    if session == own && object::is_own_station(&names.station) {
        return object::work(names, change, entries).map_err(|refusal| refusal.error(names, doing));
    }
    // Nobody can be sent into a session that has ended, and its desktops have ended with it.
    if session != own && !is_there(session)? {
        let object = format!("interactive session {session}");
        return Err(Error::new(doing, ErrorKind::NotFound { object }));
    }
    helper::work(session, names, change, entries, doing)
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_granted_in_a_session_that_has_ended_has_ended_too() {
        const GONE: u32 = 0x7fff_fff0;
        match is_there(GONE) {
            Ok(there) => assert!(!there),
            Err(error) if crate::sys::wine::is_wine() => {
                println!("skipped: under Wine: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        }
        let names = Names { session: Some(GONE), station: "winsta0".into(), desktop: "default".into() };
        let done = work(&names, Change::Remove, &[], "taking back access");
        let error = done.as_ref().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NotFound { .. }), "{error}");
        super::super::gone(done).unwrap();
    }
}
