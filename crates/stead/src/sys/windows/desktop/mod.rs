//! Window stations and desktops: which one a name means, who may use it, and leases of that.
//!
//! Only the work itself ([`object`]) and the records are calls of the system; what is granted, and what is taken back,
//! is decided here.
#![deny(unsafe_code)]

mod helper;
#[allow(unsafe_code)]
mod object;
#[allow(unsafe_code)]
mod record;
mod rights;
mod work;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;

pub(crate) use super::sid::{Sid as User, Sid as Group, Sid as LogonSession};
pub(crate) use helper::init;
pub use rights::DesktopRight;

use super::dacl::{Ace, AceKind, Dacl};
use super::logon::session_number;
use super::sid::Sid;
use super::token::SecurityContext;
use crate::desktop::{AccessEntry, AccessList, InteractiveSession, Trustee};
use crate::error::{Error, ErrorKind, Result};
use crate::token::TokenData;
use record::{Content, Folder, Leftover, Record};
use rights::{Named, OF_DESKTOP, OF_STATION, Rights};
use work::{Change, Entry, Lists, Names, Object, work};

/// The number of a terminal services session.
pub(crate) type InteractiveId = u32;

const READING: &str = "reading who may use a desktop";
const GRANTING: &str = "granting access to a desktop";
const TAKING_BACK: &str = "taking back access to a desktop";
const SWEEPING: &str = "taking back what servers that are gone had granted";

/// What a desktop is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    names: Names,
    /// What is granted on it.
    rights: Rights,
}

impl Place {
    #[expect(clippy::needless_pass_by_value, reason = "elsewhere it is taken apart")]
    pub(crate) fn interactive(session: InteractiveSession) -> Result<Self> {
        let names = Names {
            session: Some(session_number(&session)?),
            station: "winsta0".to_owned(),
            desktop: "default".to_owned(),
        };
        Ok(Self { names, rights: Rights::default() })
    }

    /// In the server's own session. The system does not tell capitals apart, and neither do two names.
    pub(crate) fn by_name(name: &OsStr) -> Result<Self> {
        let parts = name.to_str().and_then(|name| name.split_once('\\'));
        let usable = |part: &str| {
            !part.is_empty()
                && part.len() < 200
                && !part.contains(|one: char| one == '\\' || one.is_control())
        };
        let Some((station, desktop)) = parts.filter(|(one, other)| usable(one) && usable(other)) else {
            let what = format!(
                r"{} is no desktop: give a window station and a desktop, station\desktop",
                name.display()
            );
            return Err(Error::new("naming a desktop", ErrorKind::InvalidInput { what: what.into() }));
        };
        let (station, desktop) = (station.to_ascii_lowercase(), desktop.to_ascii_lowercase());
        Ok(Self { names: Names { session: None, station, desktop }, rights: Rights::default() })
    }

    /// The same, with one more right granted on it.
    pub(crate) fn with(mut self, right: DesktopRight) -> Self {
        self.rights = self.rights.with(right);
        self
    }

    /// The session that processes on it are in; `None` for the server's own.
    pub(crate) fn session(&self) -> Option<u32> {
        self.names.session
    }

    /// How `STARTUPINFO.lpDesktop` names it.
    pub(crate) fn startup_name(&self) -> String {
        self.names.of(Object::Desktop)
    }

    /// Both lists: the window station's, and the desktop's.
    pub(crate) fn dacls(&self) -> Result<(Option<Dacl>, Option<Dacl>)> {
        let Lists { station, desktop } = work(&self.names, Change::Read, &[], READING)?;
        Ok((station, desktop))
    }

    pub(crate) fn access(&self) -> Result<AccessList> {
        let (station, desktop) = self.dacls()?;
        let mut entries = Vec::new();
        for (object, list, rights) in
            [(Object::Station, station, &OF_STATION), (Object::Desktop, desktop, &OF_DESKTOP)]
        {
            let name = self.names.of(object);
            match list {
                None => {
                    entries.push(AccessEntry::new(name, Trustee::Everyone, "everything (no access list)"));
                }
                Some(list) => entries.extend(list.entries().iter().map(|ace| entry(&name, ace, rights))),
            }
        }
        Ok(AccessList::new(entries))
    }

    fn mask(&self, object: Object) -> u32 {
        match object {
            Object::Station => self.rights.station,
            Object::Desktop => self.rights.desktop,
        }
    }

    /// Names the trustee once on each of the two, where it has not all rights anyway.
    pub(crate) fn grant(&self, trustee: &Trustee) -> Result<Grant> {
        let sid = match trustee {
            Trustee::User(sid) | Trustee::Group(sid) | Trustee::LogonSession(sid) => *sid,
            Trustee::Everyone | Trustee::Other(_) => {
                let what = format!("{trustee} cannot be granted a lease").into();
                return Err(Error::new(GRANTING, ErrorKind::InvalidInput { what }));
            }
        };
        let own = object::own_session()
            .map_err(|source| Error::system(GRANTING, "ProcessIdToSessionId", source))?;
        let names = Names { session: Some(self.names.session.unwrap_or(own)), ..self.names.clone() };
        let folder = Folder::lock().map_err(|source| unrecorded(GRANTING, source))?;
        let (held, left) = folder.read().map_err(|source| unrecorded(GRANTING, source))?;
        // What counts below must not be what a crash left; where it cannot be undone, it does not suffice either.
        let known: Vec<Content> =
            held.into_iter().chain(left.iter().filter_map(|one| one.content.clone())).collect();
        if let Err(error) = undo(left) {
            tracing::warn!(%error, "what a server that is gone had granted could not be taken back");
        }
        let lists = work(&names, Change::Read, &[], GRANTING)?;
        let mut entries = Vec::new();
        for object in [Object::Station, Object::Desktop] {
            let (Some(list), mask) = (lists.get(object), self.mask(object)) else { continue };
            let entry = Entry { object, ace: Ace::allow(sid, mask) };
            // What other leases have added goes when they end: it does not suffice.
            let mut own_list = list.clone();
            let of_leases = known.iter().filter(|one| one.names == names).flat_map(|one| &one.entries);
            for (other, _) in of_leases.filter(|(other, _)| other.object == object) {
                own_list.remove(&other.ace);
            }
            if !suffices(&own_list, sid, mask) {
                entries.push((entry.clone(), list.count(&entry.ace)));
            }
        }
        if entries.is_empty() {
            return Ok(Grant { names, entries: Vec::new(), record: None });
        }
        let content = Content { names, entries };
        let record = folder.write(&content).map_err(|source| unrecorded(GRANTING, source))?;
        let Content { names, entries } = content;
        let entries = entries.into_iter().map(|(entry, _)| entry).collect();
        let grant = Grant { names, entries, record: Some(record) };
        let added = work(&grant.names, Change::Add, &grant.entries, GRANTING).and_then(|lists| {
            let denied = [Object::Station, Object::Desktop].into_iter().find(|object| {
                lists.get(*object).is_some_and(|list| !suffices(list, sid, self.mask(*object)))
            });
            denied.map_or(Ok(()), |object| {
                let object = grant.names.of(object);
                let why = format!("another entry of its access list denies it to {trustee}").into();
                Err(Error::new(GRANTING, ErrorKind::DesktopAccess { object, why, mend: None }))
            })
        });
        match added {
            Ok(()) => Ok(grant),
            Err(error) => {
                if let Err(error) = grant.take_back(&folder) {
                    tracing::warn!(%error, "access to a desktop that was half granted could not be taken back");
                }
                Err(error)
            }
        }
    }
}

/// Whether everybody with this SID has these rights by the list.
fn suffices(list: &Dacl, sid: Sid, mask: u32) -> bool {
    list.allowed(&[sid, Sid::EVERYONE]) & mask == mask
}

fn entry(object: &str, ace: &Ace, rights: &'static [(u32, &'static str)]) -> AccessEntry {
    let trustee = match ace.sid() {
        Some(sid) if *sid == Sid::EVERYONE => Trustee::Everyone,
        Some(sid) if sid.is_logon_session() => Trustee::LogonSession(*sid),
        // A list does not say which of the two its SIDs are.
        Some(sid) if is_account(sid) => Trustee::User(*sid),
        Some(sid) => Trustee::Group(*sid),
        None => Trustee::Other(ace.to_string()),
    };
    let entry = AccessEntry::new(object, trustee, Named(ace.mask(), rights).to_string());
    if ace.kind() == AceKind::Deny { entry.denying() } else { entry }
}

/// Whether it is a SID of accounts, and not one of the well-known groups among them.
fn is_account(sid: &Sid) -> bool {
    let text = sid.to_string();
    let of_a_domain = text.strip_prefix("S-1-5-21-").and_then(|rest| rest.rsplit('-').next()?.parse().ok());
    let services = [Sid::LOCAL_SYSTEM, Sid::LOCAL_SERVICE, Sid::NETWORK_SERVICE].contains(sid);
    services || of_a_domain.is_some_and(|number: u32| !(512..600).contains(&number))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.startup_name())?;
        match self.names.session {
            Some(session) => write!(f, " of session {session}"),
            None => Ok(()),
        }
    }
}

/// Access that was granted.
#[derive(Debug)]
pub(crate) struct Grant {
    /// With the session's number.
    names: Names,
    /// What was added; nothing where the trustee had the access anyway.
    entries: Vec<Entry>,
    record: Option<Record>,
}

impl Grant {
    /// A process on Windows is on its desktop, and needs no variables to find it.
    #[expect(clippy::unused_self, reason = "elsewhere it is the grant's")]
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        Vec::new()
    }

    /// A desktop lives as long as its session.
    #[expect(clippy::unused_self, reason = "elsewhere a desktop's server can be started anew")]
    pub(crate) fn is_alive(&self) -> bool {
        true
    }

    /// Takes away what was added, each entry once, and nothing that is not equal to it in every bit.
    pub(crate) fn revoke(self) -> Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let folder = Folder::lock().map_err(|source| unrecorded(TAKING_BACK, source))?;
        self.take_back(&folder)
    }

    fn take_back(self, _locked: &Folder) -> Result<()> {
        gone(work(&self.names, Change::Remove, &self.entries, TAKING_BACK))?;
        match self.record {
            Some(record) => record.remove().map_err(|source| unrecorded(TAKING_BACK, source)),
            None => Ok(()),
        }
    }
}

/// A window station that is not there any more has no entries either.
fn gone(done: Result<Lists>) -> Result<()> {
    match done {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound { .. }) => Err(error),
        _ => Ok(()),
    }
}

fn unrecorded(doing: &'static str, source: io::Error) -> Error {
    let object = "the records below ProgramData".to_owned();
    let why = source.to_string().into();
    Error::new(doing, ErrorKind::DesktopAccess { object, why, mend: None }).with_source(source)
}

/// Undoes what servers that are gone had granted; the caller has the folder locked. Everything that can be undone
/// is, whatever happens to the rest.
fn undo(mut left: Vec<Leftover>) -> Result<()> {
    // The newest first, where several added equal entries: each then leaves those that were there before it.
    let before =
        |one: &Leftover| one.content.iter().flat_map(|one| &one.entries).map(|(_, before)| *before).sum();
    left.sort_by_key(|one| std::cmp::Reverse::<usize>(before(one)));
    let mut result = Ok(());
    for leftover in left {
        let undone = match &leftover.content {
            Some(content) => undo_one(content),
            None => Ok(()),
        };
        let undone = undone.and_then(|()| leftover.remove().map_err(|source| unrecorded(SWEEPING, source)));
        result = result.and(undone);
    }
    result
}

fn undo_one(content: &Content) -> Result<()> {
    let lists = match work(&content.names, Change::Read, &[], SWEEPING) {
        Ok(lists) => lists,
        Err(error) => return gone(Err(error)),
    };
    // The server may have ended before it added them: what was there before is not its own.
    let added = |(entry, before): &&(Entry, usize)| {
        lists.get(entry.object).is_some_and(|list| list.count(&entry.ace) > *before)
    };
    let entries: Vec<Entry> = content.entries.iter().filter(added).map(|(entry, _)| entry.clone()).collect();
    if entries.is_empty() {
        return Ok(());
    }
    gone(work(&content.names, Change::Remove, &entries, SWEEPING))
}

/// Whether a process of this token would be on a desktop without being asked: the system connects processes of the
/// logon session that sits before a screen to its own `winsta0`, where none is named.
///
/// Reference: [Process Connection to a Window Station](https://learn.microsoft.com/windows/win32/winstation/process-connection-to-a-window-station).
pub(crate) fn needs_choice(context: &SecurityContext) -> Result<bool> {
    let at_a_screen = context.groups.iter().any(|group| group.sid == Sid::INTERACTIVE && group.is_enabled());
    if context.session_id == 0 || !at_a_screen {
        return Ok(false);
    }
    // Where the server is, its own processes are not a surprise.
    let own = super::token::own_context()?;
    if (own.logon_id, own.user) == (context.logon_id, context.user) {
        return Ok(false);
    }
    // An interactive logon need not be that of the session's user. Without SeTcbPrivilege nobody tells.
    match super::logon::of_session(&InteractiveSession::Id(context.session_id)) {
        Ok(user) if user.logon_id == context.logon_id => Ok(true),
        // The other half of a split administrator has a logon session of its own.
        Ok(user) => Ok(user.user == context.user),
        Err(_) => Ok(true),
    }
}

pub(crate) fn logon_session(token: &TokenData) -> Option<LogonSession> {
    token.context.logon_sid()
}

pub(crate) fn user(token: &TokenData) -> User {
    token.context.user
}

/// Undoes what servers that are gone had granted.
pub(crate) fn sweep() -> Result<()> {
    let folder = Folder::lock().map_err(|source| unrecorded(SWEEPING, source))?;
    let (_, left) = folder.read().map_err(|source| unrecorded(SWEEPING, source))?;
    undo(left)
}

/// Nothing: every grant begins with it.
pub(crate) fn sweep_once() {}
