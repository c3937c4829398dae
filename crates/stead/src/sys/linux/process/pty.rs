//! Pseudoterminals: the master stays the server's, the slave becomes the client's.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, fchmod, fchown, fstat};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::error::{Error, ErrorKind, Result};
use crate::privilege::Privilege;
use crate::process::PtySize;
use crate::sys::token::Uid;

/// Both ends of a new pseudoterminal.
pub(crate) struct Pair {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// Opens a pseudoterminal and gives its slave to `owner`, so that the client can open it again by name.
pub(crate) fn open(size: PtySize, owner: Uid, doing: &str) -> Result<Pair> {
    let system = |call| move |errno: Errno| Error::system(doing.to_owned(), call, errno);
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).map_err(system("posix_openpt"))?;
    unlockpt(&master).map_err(system("unlockpt"))?;
    // By the master, not by a name below /dev: the name may mean another devpts in this mount namespace.
    let slave = ioctl_tiocgptpeer(&master, flags).map_err(system("TIOCGPTPEER"))?;
    resize(&master, size)?;

    // devpts gives the slave the group of its gid= option (tty, for write(1)); only then may that group
    // write.
    let group = fstat(&slave).map_err(system("fstat"))?.st_gid;
    let own_group = rustix::process::getegid().as_raw();
    let mode = if group == own_group { Mode::from_raw_mode(0o600) } else { Mode::from_raw_mode(0o620) };
    let owner = rustix::fs::Uid::from_raw(owner.as_raw());
    fchown(&slave, Some(owner), None).map_err(|errno| match errno {
        Errno::PERM => {
            let held = rustix::thread::capabilities(None)
                .is_ok_and(|sets| sets.permitted.contains(rustix::thread::CapabilitySet::CHOWN));
            Error::new(
                doing.to_owned(),
                ErrorKind::PrivilegeMissing {
                    privilege: Privilege::AssignPrimaryToken,
                    missing: "CAP_CHOWN, to give the terminal to the client".into(),
                    held,
                    enabled: false,
                },
            )
        }
        errno => Error::system(doing.to_owned(), "fchown", errno),
    })?;
    fchmod(&slave, mode).map_err(system("fchmod"))?;
    Ok(Pair { master, slave })
}

/// Tells the programs on the terminal its new size (they get SIGWINCH).
pub(crate) fn resize(terminal: impl AsFd, size: PtySize) -> Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: size.pixel_width,
        ws_ypixel: size.pixel_height,
    };
    tcsetwinsize(terminal, size).map_err(|errno| Error::system("resizing a terminal", "TIOCSWINSZ", errno))
}

/// What Linux says when the last holder of the other end has closed it.
pub(crate) fn is_hung_up(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}
