//! The authority file that a process is given: the user's, read-only, where only its trustee comes to it.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, fchmod, fchown, openat};

use super::super::record::Record;
use super::GRANTING;
use crate::desktop::Trustee;
use crate::error::{Error, ErrorKind};
use crate::privilege::Privilege;

const FILE: &str = "authority";

/// Writes the file, and opens its folder to the trustee: last, when all of it is there.
///
/// | trustee | folder | file |
/// |---|---|---|
/// | logon session | root:logon gid 0710 | the user's, 0400 |
/// | user | 0711 | the user's, 0400 |
/// | group | 0711 | root:group 0440 |
///
/// Some programs refuse a file that is not the user's own.
pub(super) fn write(record: &Record, trustee: &Trustee, content: &[u8]) -> io::Result<PathBuf> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(record.folder(), FILE, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(content)?;
    let uid = |uid: crate::sys::token::Uid| Some(rustix::fs::Uid::from_raw(uid.as_raw()));
    let gid = |gid: crate::sys::token::Gid| Some(rustix::fs::Gid::from_raw(gid.as_raw()));
    let (owner, group, mode) = match trustee {
        Trustee::LogonSession(sid) => (uid(sid.uid), None, 0o400),
        Trustee::User(user) => (uid(*user), None, 0o400),
        Trustee::Group(group) => (None, gid(*group), 0o440),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    fchmod(&file, Mode::from_raw_mode(mode))?;
    fchown(&file, owner, group)?;
    match trustee {
        Trustee::LogonSession(sid) => {
            fchown(record.folder(), None, gid(sid.gid))?;
            fchmod(record.folder(), Mode::from_raw_mode(0o710))?;
        }
        _ => fchmod(record.folder(), Mode::from_raw_mode(0o711))?,
    }
    Ok(record.path().join(FILE))
}

/// Why it could not be written.
pub(super) fn refused(error: io::Error) -> Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Error::system(GRANTING, "writing the authority file", error);
    }
    let held = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.permitted.contains(rustix::thread::CapabilitySet::CHOWN));
    let kind = ErrorKind::PrivilegeMissing {
        privilege: Privilege::AssignPrimaryToken,
        missing: "CAP_CHOWN, to give the authority file to the client".into(),
        held,
        enabled: false,
    };
    Error::new(GRANTING, kind).with_source(error)
}
