//! Where a listener is.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::local::NAMES;

/// Longer names would not fit into `sockaddr_un` with the directory.
const LONGEST_NAME: usize = 80;

/// The address of a [`Listener`](super::Listener): a name, or a path.
///
/// Reference: [Pipe Names](https://learn.microsoft.com/windows/win32/ipc/pipe-names),
/// [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    path: PathBuf,
    #[cfg(unix)]
    named: bool,
}

impl Address {
    /// The address with this name: ASCII letters, digits, `-`, `_` and `.`, not beginning with a dot.
    ///
    /// On Linux a socket in `/run/stead/local`, a directory that root owns and that the listener creates:
    /// only servers that run as root can have a name, and no other user can take one beforehand. Abstract
    /// sockets, which anyone can bind first, are not used. On Windows the pipe `stead.NAME`, which any program may
    /// take that is there first: a server that is not fails, and a client can demand whose its server is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for any other name.
    pub fn name(name: &str) -> Result<Self> {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > LONGEST_NAME || name.starts_with('.') || !name.bytes().all(letters)
        {
            let what = format!("{name:?} is no name for a local address").into();
            return Err(Error::new("naming a local address", ErrorKind::InvalidInput { what }));
        }
        Ok(Self {
            path: format!("{NAMES}{name}").into(),
            #[cfg(unix)]
            named: true,
        })
    }

    /// The socket at `path`; on Windows the pipe, `\\\\.\\pipe\\name`.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            #[cfg(unix)]
            named: false,
        }
    }

    /// Where the socket is in the file system.
    pub fn as_path(&self) -> &Path {
        &self.path
    }

    /// The directory that has to be there first, if it is this library's to create.
    #[cfg(unix)]
    pub(crate) fn own_directory(&self) -> Option<&Path> {
        if self.named { self.path.parent() } else { None }
    }
}

impl AsRef<Path> for Address {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}
