//! What only Linux has of a desktop.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::desktop::Desktop;
use crate::sys::desktop::{Place, User};

/// What only Linux has of a [`Desktop`]: how an X display lets clients in.
///
/// Each of these says something of X displays, and changes nothing of other desktops.
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::Desktop;
/// use stead::os::linux::DesktopExt;
/// let desktop = Desktop::by_name(":1")?.authority_file("/run/xserver/authority").trusted(true);
/// println!("{}", desktop.access()?);
/// # Ok(()) }
/// ```
pub trait DesktopExt: Sized {
    /// Whether the X server shall trust the process; not, unless it is said.
    ///
    /// An untrusted client cannot see or touch the windows, input and properties of trusted ones, and has none of the
    /// extensions (RENDER, GLX and SHAPE among them: toolkits may be slow, plain, or refuse). A trusted one can do all
    /// that, and also make itself another authorization that outlives its lease, add hosts, or turn access control off:
    /// between trusted clients an X server is no boundary. Isolation needs an X server of its own.
    #[doc(alias = "xauth generate")]
    #[must_use]
    fn trusted(self, trusted: bool) -> Self;

    /// Whether the *user* shall be let in by the X server's host list (`SI:localuser`), and not a logon session by an
    /// authorization; not, unless it is said.
    ///
    /// It admits every process of the user, as a trusted client, and takes no SECURITY extension. It needs
    /// [`GrantTo::User`](crate::desktop::GrantTo::User), for a host list names no logon session.
    #[doc(alias = "xhost")]
    #[must_use]
    fn host_list(self, host_list: bool) -> Self;

    /// The authority file by which the server itself is let in, instead of the one that its `XAUTHORITY` names.
    ///
    /// It and all folders on the way must be root's or the server's own, and no symbolic links. Without any the server
    /// is let in by the host list (`xhost +si:localuser:root`), or not at all.
    #[doc(alias = "XAUTHORITY")]
    #[must_use]
    fn authority_file(self, path: impl AsRef<Path>) -> Self;

    /// Whose the X server may be, beside root's and the server's own: anybody can listen where no X server does.
    #[doc(alias = "SO_PEERCRED")]
    #[must_use]
    fn display_owner(self, owner: User) -> Self;
}

impl DesktopExt for Desktop {
    fn trusted(mut self, trusted: bool) -> Self {
        if let Some(Place::X11(display)) = &mut self.place {
            display.trusted = trusted;
        }
        self
    }

    fn host_list(mut self, host_list: bool) -> Self {
        if let Some(Place::X11(display)) = &mut self.place {
            display.host_list = host_list;
        }
        self
    }

    fn authority_file(mut self, path: impl AsRef<Path>) -> Self {
        if let Some(Place::X11(display)) = &mut self.place {
            display.authority = Some(path.as_ref().to_owned());
        }
        self
    }

    fn display_owner(mut self, owner: User) -> Self {
        if let Some(Place::X11(display)) = &mut self.place {
            (display.owner, display.screen) = (Some(owner), None);
        }
        self
    }
}
