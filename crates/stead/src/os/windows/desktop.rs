//! What only Windows has of desktops.
#![forbid(unsafe_code)]

use crate::desktop::Desktop;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::dacl::Dacl;
use crate::sys::desktop::DesktopRight;
use crate::sys::impersonate::as_server;

/// The access lists of a desktop, and of the window station that it is in.
///
/// `None` where an object has no list at all, and everybody may do everything.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DesktopDacls {
    /// The window station's.
    pub station: Option<Dacl>,
    /// The desktop's.
    pub desktop: Option<Dacl>,
}

/// What only Windows has of a [`Desktop`].
///
/// ```no_run
/// # fn example(token: stead::Token<stead::Primary>) -> stead::Result<()> {
/// use stead::os::windows::{DesktopExt, DesktopRight};
/// use stead::{Command, Desktop};
/// let desktop = Desktop::by_name(r"winsta0\default")?.allow(DesktopRight::Clipboard);
/// let child = Command::new("editor").desktop(desktop).spawn_as(&token)?;
/// # Ok(()) }
/// ```
pub trait DesktopExt: sealed::Sealed + Sized {
    /// Grants one right more than the fewest with which a program shows windows.
    #[must_use]
    fn allow(self, right: DesktopRight) -> Self;

    /// Both access lists as they are, with what denies and in their order.
    ///
    /// # Errors
    ///
    /// Those of [`Desktop::access`].
    #[doc(alias = "GetKernelObjectSecurity")]
    #[doc(alias = "GetUserObjectSecurity")]
    fn dacls(&self) -> Result<DesktopDacls>;
}

impl DesktopExt for Desktop {
    fn allow(mut self, right: DesktopRight) -> Self {
        self.place = self.place.map(|place| place.with(right));
        self
    }

    fn dacls(&self) -> Result<DesktopDacls> {
        let Some(place) = &self.place else {
            let what = "there is no desktop".into();
            return Err(Error::new("reading access lists", ErrorKind::InvalidInput { what }));
        };
        let (station, desktop) = as_server(|| place.dacls())?;
        Ok(DesktopDacls { station, desktop })
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::desktop::Desktop {}
}
