//! A display of this machine, and how the server itself is let into it.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::net::UCred;

use super::wire::{Connection, Fault};
use super::xauth;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::linux::proc;
use crate::sys::token::Uid;

/// No authority file that means well is longer.
const LONGEST: u64 = 1 << 20;

/// A display of this machine, how this server is let into it, and how clients are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Display {
    /// The number after the colon.
    pub(crate) number: u16,
    /// Whether clients are trusted.
    pub(crate) trusted: bool,
    /// Whether the host list is used, and not an authorization.
    pub(crate) host_list: bool,
    /// Where the server's own cookie is, if not where its `XAUTHORITY` says.
    pub(crate) authority: Option<PathBuf>,
    /// Whose the X server may be, beside root's and the server's own.
    pub(crate) owner: Option<Uid>,
    /// Where the session is that it was found by: then the X server is its owner's, or root's that shows it there.
    pub(crate) screen: Option<Screen>,
}

/// The screen of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Screen {
    /// The number of its virtual terminal, where it has one.
    pub(crate) vt: Option<u32>,
}

/// How long an X server that hung up is left alone, each time, before it is asked again.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(80), Duration::from_millis(320)];

impl Display {
    /// `:1`, or `:1.0`; displays of other machines are not this machine's to grant.
    pub(crate) fn parse(name: &OsStr) -> Option<Self> {
        let name = name.to_str()?.strip_prefix(':')?;
        let (number, screen) = name.split_once('.').unwrap_or((name, "0"));
        screen.parse::<u16>().ok()?;
        let number = number.parse().ok().filter(|parsed: &u16| parsed.to_string() == number)?;
        Some(Self { number, trusted: false, host_list: false, authority: None, owner: None, screen: None })
    }

    /// Connects as the server.
    pub(super) fn open(&self, doing: &'static str) -> Result<Connection> {
        let named = self.authority.clone().or_else(|| std::env::var_os("XAUTHORITY").map(PathBuf::from));
        let cookie = match &named {
            None => None,
            Some(path) => {
                let file = read_own(path).map_err(|error| self.unreadable(doing, path, error))?;
                xauth::cookie(&file, self.number)
            }
        };
        self.connect(cookie.as_deref()).map_err(|fault| self.refused(doing, fault))
    }

    /// Connects, showing this cookie.
    ///
    /// An X server without `-noreset` begins anew when its last client has left, and hangs up on whoever connects just
    /// then (KillAllClients in its dispatch.c): connecting changes nothing, and is tried again.
    pub(super) fn connect(&self, cookie: Option<&[u8]>) -> Result<Connection, Fault> {
        let mut pauses = PAUSES.iter();
        loop {
            match (Connection::open(self.number, |peer| self.check(peer), cookie), pauses.next()) {
                (Err(Fault::System(error)), Some(pause)) if hung_up(&error) => std::thread::sleep(*pause),
                (result, _) => return result,
            }
        }
    }

    /// Whether what listens may be told the server's own cookie: anybody can listen where no X server does.
    fn check(&self, peer: UCred) -> Result<(), Fault> {
        let is = |uid: Uid| peer.uid.as_raw() == uid.as_raw();
        let own = || peer.uid == rustix::process::geteuid();
        if self.owner.is_some_and(is) {
            return Ok(());
        }
        match self.screen {
            None if is(Uid::ROOT) || own() => Ok(()),
            // One that a display manager has started for the session has that terminal; another may be anybody's.
            Some(Screen { vt: Some(vt) }) if is(Uid::ROOT) && terminal_of(peer.pid) == Some(vt) => Ok(()),
            Some(_) if is(Uid::ROOT) || own() => Err(Fault::Elsewhere),
            _ => Err(Fault::Stranger(peer.uid.as_raw())),
        }
    }

    fn unreadable(&self, doing: &'static str, path: &Path, error: io::Error) -> Error {
        let kind = ErrorKind::DesktopAccess {
            object: self.to_string(),
            why: format!("the server's own authority file {} cannot be used", path.display()).into(),
            mend: Some(
                "name one that belongs to root or the server, in folders that do too: \
                 os::linux::DesktopExt::authority_file"
                    .into(),
            ),
        };
        Error::new(doing, kind).with_source(error)
    }

    /// What the X server's no means.
    pub(super) fn refused(&self, doing: &'static str, fault: Fault) -> Error {
        let access = |why: String, mend: &'static str| {
            let mend = if mend.is_empty() { None } else { Some(mend.into()) };
            Error::new(doing, ErrorKind::DesktopAccess { object: self.to_string(), why: why.into(), mend })
        };
        match fault {
            Fault::Nobody => access("no X server listens there".into(), "start it, or name another display"),
            Fault::Stranger(uid) => access(
                format!("what listens there belongs to uid {uid}, and could be anybody's"),
                "if that user's X server is meant, say so: os::linux::DesktopExt::display_owner",
            ),
            Fault::Elsewhere => access(
                "that X server is not at the virtual terminal of the session that names it, and could be anybody's".into(),
                "name the display itself (Desktop::by_name), if it is meant",
            ),
            Fault::Refused(reason) => access(
                format!("the X server does not let this server in: {reason:?}"),
                "name the X server's authority file (-auth): os::linux::DesktopExt::authority_file, or XAUTHORITY in \
                 the server's environment; or let root in: xhost +si:localuser:root",
            ),
            Fault::NoSecurity => access(
                "the X server has no SECURITY extension, so that it cannot tell one logon session from another".into(),
                "start it with +extension SECURITY; or grant to the user by the host list \
                 (os::linux::DesktopExt::host_list)",
            ),
            Fault::Error(super::wire::BAD_ACCESS) => access(
                "the X server lets this server in, but not change who else may come (BadAccess)".into(),
                "the server must be a trusted client: let it in by the cookie of the X server's own authority file",
            ),
            Fault::Error(code) => access(format!("the X server answered with error {code}"), ""),
            Fault::System(error) if error.kind() == io::ErrorKind::TimedOut => access(
                "the X server does not answer".into(),
                "it hangs, or a client has grabbed it (XGrabServer)",
            ),
            Fault::System(error) => Error::system(doing, "speaking to the X server", error),
        }
    }
}

/// Whether the other end closed the connection.
fn hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

/// The virtual terminal that a process has as its controlling terminal, by its number.
fn terminal_of(pid: rustix::process::Pid) -> Option<u32> {
    /// TTY_MAJOR in linux/major.h; serial lines come after the last virtual one (MAX_NR_CONSOLES in linux/vt.h).
    const VIRTUAL: u32 = 4;
    let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    proc::parse_terminal(&stat)
        .filter(|(major, minor)| *major == VIRTUAL && (1..64).contains(minor))
        .map(|(_, minor)| minor)
}

impl fmt::Display for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ":{}", self.number)
    }
}

/// The whole of a file to which only root and the server can have led the way: each folder, and the file, is theirs,
/// nothing on the way is a symbolic link, and none of it can be written by others.
fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let denied = |what: String| io::Error::new(io::ErrorKind::PermissionDenied, what);
    if !path.is_absolute() {
        return Err(denied("the path is not absolute".into()));
    }
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::PATH;
    let mut at: OwnedFd = openat(CWD, "/", flags, Mode::empty())?;
    let mut way = PathBuf::from("/");
    let mut names = path.components().filter(|component| *component != Component::RootDir).peekable();
    while let Some(component) = names.next() {
        let Component::Normal(name) = component else {
            return Err(denied("the path has .. in it".into()));
        };
        way.push(name);
        let flags = if names.peek().is_some() {
            flags
        } else {
            OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK
        };
        at = openat(&at, name, flags, Mode::empty())?;
        let status = fstat(&at)?;
        let own = rustix::process::geteuid().as_raw();
        let kind = FileType::from_raw_mode(status.st_mode);
        let sticky = kind == FileType::Directory && status.st_mode & 0o1000 != 0;
        if status.st_uid != 0 && status.st_uid != own {
            return Err(denied(format!("{} belongs to uid {}", way.display(), status.st_uid)));
        }
        if status.st_mode & 0o022 != 0 && !sticky {
            return Err(denied(format!("{} can be written by others", way.display())));
        }
        let expected = if names.peek().is_some() { FileType::Directory } else { FileType::RegularFile };
        if kind != expected {
            return Err(denied(format!("{} is neither a folder nor a regular file", way.display())));
        }
    }
    let mut bytes = Vec::new();
    File::from(at).take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn number(name: &str) -> Option<u16> {
        Display::parse(OsStr::new(name)).map(|display| display.number)
    }

    #[test]
    fn a_display_is_one_of_this_machine() {
        assert_eq!([":0", ":12", ":1.0", ":65535"].map(number), [Some(0), Some(12), Some(1), Some(65535)]);
        for name in
            ["", ":", "1", "host:1", "unix:1", ":01", ":+1", ":-1", ":65536", ":1.x", ":1.", "::1", "/:1"]
        {
            assert_eq!(number(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_displays_name_reads_back(number in any::<u16>()) {
            let display = Display::parse(OsStr::new(&format!(":{number}"))).unwrap();
            prop_assert_eq!(display.to_string(), format!(":{number}"));
        }
    }

    #[test]
    fn only_a_file_that_nobody_else_can_have_put_there_is_read() {
        let folder = std::env::temp_dir().join(format!("stead-authority-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("authority");
        std::fs::write(&file, b"cookies").unwrap();
        let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        assert_eq!(read_own(&file).unwrap(), b"cookies");
        mode(0o620);
        assert_eq!(read_own(&file).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        mode(0o600);
        let link = folder.join("link");
        symlink("authority", &link).unwrap();
        assert!(read_own(&link).is_err());
        std::fs::remove_file(&link).unwrap();
        symlink(&folder, &link).unwrap();
        assert!(read_own(&link.join("authority")).is_err(), "a link on the way");
        assert!(read_own(Path::new("authority")).is_err(), "a relative path");
        assert!(read_own(&folder).is_err(), "a folder");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
