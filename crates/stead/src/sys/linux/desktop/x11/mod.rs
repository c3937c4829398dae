//! X displays: an authorization of its own for each logon session, by the SECURITY extension; the host list only where
//! it is asked for.
//!
//! An authorization ends by itself [`SECONDS`] after its last client has left. One idle connection of ours, let in by
//! it, keeps it alive; so it goes with this server, whatever ends that. The connection also keeps an X server that was
//! started without `-noreset` from forgetting everything when the last program leaves.
#![forbid(unsafe_code)]

mod authority;
mod display;
mod hosts;
mod wire;
mod xauth;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

pub(crate) use display::{Display, Screen};

use super::keeper;
use super::record::{Fields, Record, living};
use crate::desktop::{AccessEntry, AccessList, Trustee};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::token::{Gid, Uid};
use wire::{Connection, Fault, Host, Trust};

#[cfg(feature = "fuzzing")]
pub(crate) use wire::fuzz as fuzz_replies;
#[cfg(feature = "fuzzing")]
pub(crate) use xauth::fuzz as fuzz_authority;

const GRANTING: &str = "granting access to an X display";
const REVOKING: &str = "taking back access to an X display";
const READING: &str = "reading who may use an X display";
/// How long an authorization outlives its last client; until it has a first one, too.
const SECONDS: u32 = 5;

/// What a record of ours begins with.
pub(super) const KIND: &str = "x11";

/// Access that was granted. Dropping it closes the connection that keeps it alive, and leaves the record to be swept.
#[derive(Debug)]
pub(crate) struct Grant {
    display: Display,
    record: Record,
    /// Keeps the authorization, and the X server's memory of the host list, alive.
    connection: Kept,
    what: What,
}

#[derive(Debug)]
enum What {
    /// An authorization, by its number, and where the cookie is.
    Authorization(u32, PathBuf),
    /// An entry of the host list, if it was not there before.
    Host(Option<Host>),
}

/// Lets the trustee use the display.
pub(crate) fn grant(display: &Display, trustee: &Trustee) -> Result<Grant> {
    let mut fields = Fields::from([
        ("kind".into(), KIND.into()),
        ("display".into(), display.number.to_string().into()),
        ("trustee".into(), describe(trustee).into()),
        ("trusted".into(), u8::from(display.trusted).to_string().into()),
    ]);
    if let Some(path) = &display.authority {
        fields.insert("authority".into(), path.as_os_str().as_encoded_bytes().to_vec());
    }
    if let Some(owner) = display.owner {
        fields.insert("owner".into(), owner.to_string().into());
    }
    let place = keeper::Place::take()?;
    let grant = if display.host_list {
        by_host_list(display, trustee, fields)?
    } else {
        by_authorization(display, trustee, fields)?
    };
    place.drain(Arc::clone(&grant.connection.0));
    Ok(grant)
}

fn by_authorization(display: &Display, trustee: &Trustee, fields: Fields) -> Result<Grant> {
    let refused = |fault| display.refused(GRANTING, fault);
    let mut control = display.open(GRANTING)?;
    let mut record = Record::write(fields)?;
    let trust = if display.trusted { Trust::Trusted } else { Trust::Untrusted };
    let made = control.generate(trust, SECONDS).map_err(refused).and_then(|authorization| {
        // Before `control` is closed: an X server without clients may forget everything.
        let kept = display.connect(Some(&authorization.cookie)).map_err(refused)?;
        Ok((authorization, kept))
    });
    let (authorization, kept) = match made {
        Ok(made) => made,
        Err(error) => {
            // What was made, if anything, nobody has the cookie of, and it ends by itself.
            let _ = record.remove();
            return Err(error);
        }
    };
    let cookie = &authorization.cookie;
    let noted = Fields::from([
        ("authorization".into(), authorization.id.to_string().into()),
        ("cookie".into(), cookie.clone()),
    ]);
    let written = record
        .update(noted)
        .and_then(|()| authority::write(&record, trustee, &xauth::print(display.number, cookie)));
    match written {
        Ok(path) => {
            let what = What::Authorization(authorization.id, path);
            Ok(Grant { display: display.clone(), record, connection: Kept(kept.into_socket()), what })
        }
        Err(error) => {
            if control.revoke(authorization.id).is_ok() {
                let _ = record.remove();
            }
            Err(authority::refused(error))
        }
    }
}

fn by_host_list(display: &Display, trustee: &Trustee, mut fields: Fields) -> Result<Grant> {
    let host = hosts::of(trustee)?;
    let refused = |fault| display.refused(GRANTING, fault);
    let mut control = display.open(GRANTING)?;
    let (_, present) = control.hosts().map_err(refused)?;
    // Where the entry is there already nothing is added, and so nothing will be taken away.
    let added = if present.contains(&host) { None } else { Some(host) };
    if let Some(host) = &added {
        fields.insert("host".into(), [&[host.family], host.address.as_slice()].concat());
    }
    let record = Record::write(fields)?;
    if let Some(host) = &added
        && let Err(fault) = control.change_host(host, true)
    {
        // Asked, and perhaps done, where no answer came: then it is for the sweep.
        if matches!(fault, Fault::Error(_)) {
            let _ = record.remove();
        }
        return Err(refused(fault));
    }
    Ok(Grant {
        display: display.clone(),
        record,
        connection: Kept(control.into_socket()),
        what: What::Host(added),
    })
}

impl Grant {
    /// What a process needs in its environment.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut variables = vec![
            ("DISPLAY".into(), self.display.to_string().into()),
            ("XDG_SESSION_TYPE".into(), "x11".into()),
        ];
        if let What::Authorization(_, path) = &self.what {
            variables.push(("XAUTHORITY".into(), path.clone().into()));
        }
        variables
    }

    /// Whether the X server still has the connection, and so the rest.
    pub(crate) fn is_alive(&self) -> bool {
        let mut polled = [PollFd::new(&self.connection.0, PollFlags::RDHUP)];
        loop {
            match poll(&mut polled, Some(&Timespec::default())) {
                Ok(ready) => return ready == 0,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Takes it back.
    pub(crate) fn revoke(self) -> Result<()> {
        if self.is_alive() {
            let refused = |fault| self.display.refused(REVOKING, fault);
            let mut control = self.display.open(REVOKING)?;
            match &self.what {
                What::Authorization(id, _) => control.revoke(*id).map_err(refused)?,
                What::Host(Some(host)) => control.change_host(host, false).map_err(refused)?,
                What::Host(None) => {}
            }
        }
        // Otherwise the X server has ended, or begun anew: it remembers nothing.
        self.record.remove().map_err(|error| Error::system(REVOKING, "removing its record", error))
    }
}

/// A connection that ends with its grant, whoever else still has the descriptor: the keeper reads from it.
#[derive(Debug)]
struct Kept(Arc<OwnedFd>);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

/// Undoes what a record says that a server left which is gone.
pub(super) fn undo(record: Record) -> Result<()> {
    let Some(display) = display_of(&record) else {
        let what = format!("the record {} names no display", record.path().display()).into();
        return Err(Error::new(REVOKING, ErrorKind::InvalidInput { what }));
    };
    let refused = |fault| display.refused(REVOKING, fault);
    if let Some(cookie) = record.fields().get("cookie") {
        let id = record.text("authorization").and_then(|id| id.parse().ok());
        // The X server uses no number twice while it remembers the cookie. If it lets the cookie in, then the number
        // still is that authorization's, and nobody else's.
        match (display.connect(Some(cookie)), id) {
            (Ok(_kept), Some(id)) => display.open(REVOKING)?.revoke(id).map_err(refused)?,
            (Ok(_) | Err(Fault::Nobody | Fault::Refused(_)), _) => {}
            (Err(fault), _) => return Err(refused(fault)),
        }
    }
    if let Some([family, address @ ..]) = record.fields().get("host").map(Vec::as_slice) {
        let host = Host { family: *family, address: address.to_vec() };
        match display.open(REVOKING) {
            Ok(mut control) => control.change_host(&host, false).map_err(refused)?,
            Err(error) if nobody(&error) => {}
            Err(error) => return Err(error),
        }
    }
    record.remove().map_err(|error| Error::system(REVOKING, "removing its record", error))
}

/// No X server: it took its lists with it.
fn nobody(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::DesktopAccess { why, .. } if why.contains("no X server"))
}

fn display_of(record: &Record) -> Option<Display> {
    let mut display = Display::parse(format!(":{}", record.text("display")?).as_ref())?;
    display.owner = record.text("owner").and_then(|owner| owner.parse().ok()).and_then(Uid::new);
    display.authority = record.text("authority").map(PathBuf::from);
    Some(display)
}

/// Who may use the display: the host list, and the authorizations that living servers have leased.
pub(crate) fn access(display: &Display) -> Result<AccessList> {
    let mut control: Connection = display.open(READING)?;
    let (restricted, hosts) = control.hosts().map_err(|fault| display.refused(READING, fault))?;
    let object = display.to_string();
    let mut entries = Vec::new();
    if !restricted {
        entries.push(AccessEntry::new(&object, Trustee::Everyone, "access control is off"));
    }
    entries.extend(hosts.iter().map(|host| AccessEntry::new(&object, hosts::trustee(host), "host list")));
    let records = living().map_err(|error| Error::system(READING, "reading /run/stead/desktops", error))?;
    for record in records {
        let text = |name| record.get(name).and_then(|value| std::str::from_utf8(value).ok());
        let ours = text("kind") == Some(KIND) && text("display") == Some(&display.number.to_string());
        if ours && record.contains_key("cookie") {
            let trusted = if text("trusted") == Some("1") { "trusted" } else { "untrusted" };
            let trustee = text("trustee").and_then(read_trustee).unwrap_or(Trustee::Other("unknown".into()));
            entries.push(AccessEntry::new(&object, trustee, format!("authorization, {trusted}")));
        }
    }
    Ok(AccessList::new(entries))
}

/// A trustee as a record has it.
fn describe(trustee: &Trustee) -> String {
    match trustee {
        Trustee::User(uid) => format!("user {uid}"),
        Trustee::Group(gid) => format!("group {gid}"),
        Trustee::LogonSession(sid) => format!("session {} {} {}", sid.session, sid.uid, sid.gid),
        other => format!("other {other}"),
    }
}

fn read_trustee(text: &str) -> Option<Trustee> {
    let words: Vec<&str> = text.split(' ').collect();
    let uid = |word: &str| word.parse().ok().and_then(Uid::new);
    let gid = |word: &str| word.parse().ok().and_then(Gid::new);
    Some(match words[..] {
        ["user", user] => Trustee::User(uid(user)?),
        ["group", group] => Trustee::Group(gid(group)?),
        ["session", session, user, group] => Trustee::LogonSession(super::LogonSid {
            session: session.parse().ok()?,
            uid: uid(user)?,
            gid: gid(group)?,
        }),
        _ => return None,
    })
}
