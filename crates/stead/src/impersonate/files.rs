//! Reaching files and sockets as the client.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::path::{Component, Path, PathBuf};

use super::Impersonating;
use crate::error::{Error, ErrorKind, Result};
use crate::local::Stream;
use crate::sys::impersonate::{as_server, files};

/// How [`Impersonating::open_with`] opens a file; the manner of [`std::fs::OpenOptions`].
///
/// ```no_run
/// # fn example(token: stead::Token<stead::Impersonation>) -> stead::Result<()> {
/// use stead::impersonate::OpenOptions;
///
/// let log = token.impersonate(|me| me.open_with("log", OpenOptions::new().append(true).create(true)))??;
/// # Ok(()) }
/// ```
#[doc(alias = "CreateFile")]
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent, as in std")]
pub struct OpenOptions {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) truncate: bool,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    /// What only this platform has.
    #[cfg(unix)]
    pub(crate) native: files::NativeOptions,
}

impl OpenOptions {
    /// Nothing is asked for yet: at least one of read, write and append must be.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            #[cfg(unix)]
            native: files::NativeOptions::new(),
        }
    }

    /// For reading.
    pub const fn read(&mut self, read: bool) -> &mut Self {
        self.read = read;
        self
    }

    /// For writing.
    pub const fn write(&mut self, write: bool) -> &mut Self {
        self.write = write;
        self
    }

    /// For writing at the end, always.
    pub const fn append(&mut self, append: bool) -> &mut Self {
        self.append = append;
        self
    }

    /// Empties the file.
    pub const fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self
    }

    /// Creates the file where there is none. Not through a symbolic link that leads nowhere.
    pub const fn create(&mut self, create: bool) -> &mut Self {
        self.create = create;
        self
    }

    /// Creates the file, and fails where there is one.
    pub const fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.create_new = create_new;
        self
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What [`Impersonating::access`] asks.
///
/// ```
/// use stead::impersonate::Access;
/// let both = Access::READ.and(Access::WRITE);
/// ```
#[derive(Debug, Clone, Copy)]
#[doc(alias = "AccessCheck")]
pub struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) execute: bool,
}

impl Access {
    /// That it is there, and may be reached.
    pub const EXISTS: Self = Self { read: false, write: false, execute: false };
    /// That it may be read; a directory: listed.
    pub const READ: Self = Self { read: true, ..Self::EXISTS };
    /// That it may be written; a directory: entries created and removed.
    pub const WRITE: Self = Self { write: true, ..Self::EXISTS };
    /// That it may be executed; a directory: passed through.
    pub const EXECUTE: Self = Self { execute: true, ..Self::EXISTS };

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            read: self.read || other.read,
            write: self.write || other.write,
            execute: self.execute || other.execute,
        }
    }
}

/// The names in a directory, without `.` and `..`; see [`Impersonating::read_dir`].
#[derive(Debug)]
pub struct Names {
    names: files::Names,
    directory: PathBuf,
}

impl Iterator for Names {
    type Item = Result<OsString>;

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.names.next()?;
        Some(name.map_err(|refused| {
            refused.into_error(format!("reading the directory {}", self.directory.display()), &self.directory)
        }))
    }
}

impl Impersonating<'_> {
    /// Opens a file or a directory for reading.
    ///
    /// What is neither (a FIFO, a device) is refused; `os::linux::OpenOptionsExt` can ask for it.
    ///
    /// # Errors
    ///
    /// As of all that [reaches files](Impersonating#errors).
    #[doc(alias = "CreateFile")]
    #[doc(alias = "openat2")]
    pub fn open(&self, path: impl AsRef<Path>) -> Result<File> {
        self.open_with(path, OpenOptions::new().read(true))
    }

    /// Opens a file for writing, empty; creates it, as the client's, where there is none.
    ///
    /// # Errors
    ///
    /// As of all that [reaches files](Impersonating#errors).
    pub fn create(&self, path: impl AsRef<Path>) -> Result<File> {
        self.open_with(path, OpenOptions::new().write(true).create(true).truncate(true))
    }

    /// Opens a file as `options` say.
    ///
    /// A file that is created has the client's uid and gid, and the server's umask.
    ///
    /// # Errors
    ///
    /// As of all that [reaches files](Impersonating#errors).
    #[doc(alias = "CreateFile")]
    pub fn open_with(&self, path: impl AsRef<Path>, options: &OpenOptions) -> Result<File> {
        const DOING: &str = "opening";
        let path = path.as_ref();
        #[cfg(unix)]
        if let Some(holder) = &self.token.data().elsewhere.0 {
            self.may_start(path, || self.doing(DOING, path))?;
            return holder.open(&self.absolute(path)?, options);
        }
        self.reach(DOING, path, |path| files::open(path, options))
    }

    /// Connects to the Unix socket or the named pipe at `path`, which an [`Address`](crate::local::Address) is too.
    ///
    /// The other side sees the client's identity: on Linux its effective ids, and the server's process id; on Windows
    /// it may impersonate the client. A listener that takes no more connections is not waited for.
    ///
    /// # Errors
    ///
    /// As of all that [reaches files](Impersonating#errors).
    #[doc(alias = "CreateFile")]
    pub fn connect(&self, path: impl AsRef<Path>) -> Result<Stream> {
        self.reach("connecting to", path.as_ref(), files::connect).map(Stream)
    }

    /// What the file system says of the object at `path`; of what a symbolic link leads to.
    ///
    /// # Errors
    ///
    /// As of all that [reaches files](Impersonating#errors).
    #[doc(alias = "stat")]
    #[doc(alias = "GetFileInformationByHandle")]
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        self.reach("looking at", path.as_ref(), |path| files::metadata(path, false))
    }

    /// The same, of a symbolic link itself.
    ///
    /// # Errors
    ///
    /// As of all that [reaches files](Impersonating#errors).
    #[doc(alias = "lstat")]
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        self.reach("looking at", path.as_ref(), |path| files::metadata(path, true))
    }

    /// Whether the client may do so now; a later open can still find otherwise.
    ///
    /// # Errors
    ///
    /// As of all that [reaches files](Impersonating#errors).
    #[doc(alias = "AccessCheck")]
    #[doc(alias = "faccessat2")]
    pub fn access(&self, path: impl AsRef<Path>, access: Access) -> Result<bool> {
        self.reach("checking access to", path.as_ref(), |path| files::may(path, access))
    }

    /// The names in a directory.
    ///
    /// # Errors
    ///
    /// As of all that [reaches files](Impersonating#errors).
    #[doc(alias = "FindFirstFile")]
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Names> {
        let path = path.as_ref();
        let names = self.reach("reading the directory", path, files::read_dir)?;
        Ok(Names { names, directory: path.to_owned() })
    }

    fn reach<R>(
        &self,
        doing: &'static str,
        path: &Path,
        act: impl FnOnce(&Path) -> Result<R, files::Refused>,
    ) -> Result<R> {
        let doing = || self.doing(doing, path);
        #[cfg(unix)]
        if self.token.data().elsewhere.0.is_some() {
            let what =
                "the service hands out descriptors, and the thread stays the server's: open it instead";
            return Err(Error::new(doing(), ErrorKind::NotThroughService { what: what.into() }));
        }
        self.may_start(path, doing)?;
        act(&self.absolute(path)?).map_err(|refused| refused.into_error(doing(), path))
    }

    fn doing(&self, doing: &str, path: &Path) -> String {
        format!("{doing} {} as {}", path.display(), self.token.data().context.user())
    }

    fn may_start(&self, path: &Path, doing: impl Fn() -> String) -> Result<()> {
        self.require_on_thread()?;
        if path.as_os_str().is_empty() {
            return Err(Error::new(doing(), ErrorKind::InvalidInput { what: "the path is empty".into() }));
        }
        Ok(())
    }

    /// `path`, from the client's home where it is relative.
    fn absolute<'p>(&self, path: &'p Path) -> Result<Cow<'p, Path>> {
        if path.is_absolute() {
            return Ok(path.into());
        }
        // On Windows `C:notes.txt` is of the server's own directory on that drive, and `\notes.txt` of its drive.
        if matches!(path.components().next(), Some(Component::Prefix(_) | Component::RootDir)) {
            let what = format!("{} is neither absolute nor below the client's home", path.display());
            return Err(Error::new("reaching a file", ErrorKind::InvalidInput { what: what.into() }));
        }
        // As the server: NSS modules speak to daemons and read files that are not the client's business.
        let account = as_server(|| self.token.account())?;
        let home = files::home(self.token, account);
        match home {
            Some(home) if home.is_absolute() => Ok(home.join(path).into()),
            _ => {
                let what = format!("{} is relative, and the client has no home directory", path.display());
                Err(Error::new("reaching a file", ErrorKind::InvalidInput { what: what.into() }))
            }
        }
    }
}
