//! An existing terminal: a virtual terminal, or a serial line.
//!
//! The trustee gets an entry in the device's access list, and the process has it as its standard streams and, where no
//! other session has it already, as its controlling terminal.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::entry::{self, Held};
use super::inode::{Inode, named, refusal};
use super::posix_acl::Rights;
use super::record::Record;
use crate::desktop::{AccessList, Trustee};
use crate::error::{Error, Result};
use crate::sys::token::Uid;

const GRANTING: &str = "granting access to a terminal";
const READING: &str = "reading who may use a terminal";
const TAKING_BACK: &str = "taking back access to a terminal";
/// What its records are called.
pub(super) const KIND: &str = "terminal";
const OPENING: &str = "opening the terminal of a process";

/// A terminal's device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Terminal {
    path: PathBuf,
    /// Whose it must be, where it was found by that user's session.
    owner: Option<Uid>,
}

/// What the kernel's list of terminal drivers says a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One of the screen's.
    Virtual,
    /// A line with something at its other end.
    Line,
    /// The client's end of a pseudoterminal.
    Pty,
}

impl Kind {
    /// What login(1) is told by the system's own getty units.
    fn term(self) -> &'static str {
        match self {
            Self::Virtual => "linux",
            Self::Line | Self::Pty => "vt220",
        }
    }
}

impl Terminal {
    /// A plain path below /dev.
    pub(crate) fn parse(name: &OsStr) -> Option<Self> {
        let path = Path::new(name);
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        (plain && path.starts_with("/dev") && path != Path::new("/dev"))
            .then(|| Self { path: path.components().collect(), owner: None })
    }

    /// The same, as long as it is this user's: login(1) gives it to whoever it logs on.
    pub(super) fn of(self, owner: Uid) -> Self {
        Self { owner: Some(owner), ..self }
    }

    fn open(&self, doing: &'static str) -> Result<(Inode, Kind)> {
        let inode = Inode::open(&self.path, doing)?;
        let drivers = std::fs::read_to_string("/proc/tty/drivers").unwrap_or_default();
        let number = inode.stat().st_rdev;
        let kind = (inode.kind() == FileType::CharacterDevice)
            .then(|| kind(&drivers, rustix::fs::major(number), rustix::fs::minor(number)))
            .flatten();
        if self.owner.is_some_and(|owner| inode.stat().st_uid != owner.as_raw()) {
            return Err(refusal(
                doing,
                &self.to_string(),
                "it is not the terminal of the user whose session it was",
                Some("name the terminal itself (\"/dev/tty3\")"),
            ));
        }
        match kind {
            Some(kind) => Ok((inode, kind)),
            None => Err(refusal(
                doing,
                &self.to_string(),
                "it is no terminal of its own",
                Some("name a virtual terminal (\"/dev/tty3\") or a serial line"),
            )),
        }
    }

    /// The terminal as a process's streams; nobody becomes its owner by that.
    pub(crate) fn stream(&self) -> Result<OwnedFd> {
        let (inode, _) = self.open(OPENING)?;
        let system = |call| move |errno: Errno| Error::system(OPENING, call, errno);
        // Without waiting for a line's carrier.
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::open(&self.path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::IO | Errno::NXIO | Errno::NODEV => {
                refusal(OPENING, &self.to_string(), "there is nothing at its other end", None)
                    .with_source(errno)
            }
            errno => Error::system(OPENING, "open", errno),
        })?;
        let stat = rustix::fs::fstat(&opened).map_err(system("fstat"))?;
        if stat.st_rdev != inode.stat().st_rdev || !rustix::termios::isatty(&opened) {
            return Err(refusal(OPENING, &self.to_string(), "it changed while it was opened", None));
        }
        let flags = rustix::fs::fcntl_getfl(&opened).map_err(system("fcntl"))?;
        rustix::fs::fcntl_setfl(&opened, flags - OFlags::NONBLOCK).map_err(system("fcntl"))?;
        Ok(opened)
    }
}

impl fmt::Display for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// What `/proc/tty/drivers` says of a device: five columns, of which the third is the major number, the fourth the
/// minor numbers and the last the kind.
fn kind(drivers: &str, major: u32, minor: u32) -> Option<Kind> {
    drivers.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace().rev();
        let (kind, minors, its_major) = (columns.next()?, columns.next()?, columns.next()?);
        let (first, last) = minors.split_once('-').unwrap_or((minors, minors));
        let within = first.parse::<u32>().ok()? <= minor && minor <= last.parse::<u32>().ok()?;
        if its_major.parse::<u32>().ok()? != major || !within {
            return None;
        }
        // What is left are the other names of whatever terminal is at hand ("system"), and masters.
        match kind {
            "console" => Some(Kind::Virtual),
            "serial" => Some(Kind::Line),
            "pty:slave" => Some(Kind::Pty),
            _ => None,
        }
    })
}

/// Who may read and write it.
pub(crate) fn access(terminal: &Terminal) -> Result<AccessList> {
    Ok(AccessList::new(terminal.open(READING)?.0.entries(READING)?))
}

/// A terminal that was granted.
#[derive(Debug)]
pub(crate) struct Grant {
    kind: Kind,
    held: Held,
}

/// Lets the trustee read and write it.
pub(crate) fn grant(terminal: &Terminal, trustee: &Trustee) -> Result<Grant> {
    let who = named(trustee, GRANTING)?;
    let (inode, kind) = terminal.open(GRANTING)?;
    if kind == Kind::Pty {
        return Err(refusal(
            GRANTING,
            &terminal.to_string(),
            "a pseudoterminal has no access list",
            Some("give the process a terminal of its own with Command::pty"),
        ));
    }
    let held = Held::grant(KIND, &terminal.path, inode, who, Rights::READ_WRITE, GRANTING)?;
    Ok(Grant { kind, held })
}

impl Grant {
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![("TERM".into(), self.kind.term().into()), ("XDG_SESSION_TYPE".into(), "tty".into())]
    }

    /// Whether the device is still the one that was granted.
    pub(crate) fn is_alive(&self) -> bool {
        self.held.is_alive()
    }

    pub(crate) fn revoke(self) -> Result<()> {
        self.held.take_back(TAKING_BACK, || Ok(()))
    }
}

/// Takes back what a server that is gone had granted.
pub(super) fn undo(record: Record) -> Result<()> {
    entry::undo(record, |_| None, TAKING_BACK, || Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.18 prints it.
    const DRIVERS: &str = "\
/dev/tty             /dev/tty        5       0 system:/dev/tty
/dev/console         /dev/console    5       1 system:console
/dev/ptmx            /dev/ptmx       5       2 system
/dev/vc/0            /dev/vc/0       4       0 system:vtmaster
serial               /dev/ttyS       4 64-67 serial
pty_slave            /dev/pts      136 0-1048575 pty:slave
pty_master           /dev/ptm      128 0-1048575 pty:master
unknown              /dev/tty        4 1-63 console
";

    #[test]
    fn the_kernels_list_of_drivers_tells_what_is_a_terminal_of_its_own() {
        assert_eq!(kind(DRIVERS, 4, 3), Some(Kind::Virtual));
        assert_eq!(kind(DRIVERS, 4, 64), Some(Kind::Line));
        assert_eq!(kind(DRIVERS, 136, 7), Some(Kind::Pty));
        for (major, minor) in [(5, 0), (5, 1), (5, 2), (4, 0), (128, 0), (8, 0), (4, 70)] {
            assert_eq!(kind(DRIVERS, major, minor), None, "{major}:{minor}");
        }
        assert_eq!(kind("nonsense\n\n4 x-y console", 4, 1), None);
    }

    #[test]
    fn one_that_was_found_by_a_session_must_be_its_users() {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let terminal = Terminal::parse(std::str::from_utf8(name.as_bytes()).unwrap().as_ref()).unwrap();
        let own = rustix::process::geteuid().as_raw();
        let [own, other] = [own, own + 1].map(|uid| Uid::new(uid).unwrap());
        assert!(terminal.clone().of(own).open(READING).is_ok());
        let refused = terminal.of(other).open(READING).unwrap_err();
        assert!(refused.to_string().contains("not the terminal of the user"), "{refused}");
    }

    #[test]
    fn one_terminal_has_one_name() {
        for name in ["/dev//tty3", "/dev/./tty3", "//dev/tty3/", "/dev/tty3/."] {
            assert_eq!(Terminal::parse(name.as_ref()).unwrap().to_string(), "/dev/tty3", "{name}");
        }
    }

    #[test]
    fn a_terminal_is_named_by_a_plain_path_below_dev() {
        assert_eq!(Terminal::parse("/dev/tty3".as_ref()).unwrap().to_string(), "/dev/tty3");
        for bad in ["tty3", "/dev", "/dev/../etc/passwd", ":1", "/run/tty3", ""] {
            assert_eq!(Terminal::parse(bad.as_ref()), None, "{bad}");
        }
    }
}
