//! Files, reached as the client that is on the thread.
//!
//! Every call here is made by the thread that impersonates, and the system checks it with the client's token; drive
//! letters are the client's too. What a path leads to is opened at anonymous level, so that a pipe which the client
//! listens at learns nothing of the server, and is given up when it is neither a file nor a directory.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, IsTerminal};
use std::os::windows::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_FILE_NOT_FOUND, ERROR_INVALID_NAME, ERROR_PATH_NOT_FOUND,
    ERROR_SHARING_VIOLATION,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_ATTRIBUTE_DIRECTORY, FILE_EXECUTE, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_READ_ATTRIBUTES, FILE_READ_DATA, FILE_WRITE_DATA, SECURITY_ANONYMOUS,
};

use crate::error::{Error, ErrorKind};
use crate::impersonate::{Access, OpenOptions};
use crate::local::{Address, ConnectOptions};
use crate::sys::account::AccountEntry;
use crate::sys::local::Stream;
use crate::token::{Impersonation, Token};

/// Why an object was not reached.
#[derive(Debug)]
pub(crate) enum Refused {
    /// A call failed.
    Call { call: &'static str, source: io::Error },
    /// Neither a file nor a directory: a pipe, a console, a device.
    Special,
    /// A pipe could not be connected to.
    Pipe(Error),
}

impl Refused {
    /// The error that says so: `path` as the server named it.
    pub(crate) fn into_error(self, doing: String, path: &Path) -> Error {
        let (call, source) = match self {
            Self::Special => {
                let what = format!("{} is neither a file nor a directory", path.display());
                return Error::new(doing, ErrorKind::InvalidInput { what: what.into() });
            }
            Self::Pipe(error) => return error,
            Self::Call { call, source } => (call, source),
        };
        let object = || path.display().to_string();
        let kind = match source.raw_os_error().map(i32::cast_unsigned) {
            Some(ERROR_ACCESS_DENIED) => ErrorKind::AccessDenied { object: object() },
            Some(ERROR_FILE_NOT_FOUND | ERROR_PATH_NOT_FOUND) => ErrorKind::NotFound { object: object() },
            Some(ERROR_INVALID_NAME) => {
                ErrorKind::InvalidInput { what: format!("{} is no path", path.display()).into() }
            }
            // What std says of options that contradict each other, and of a NUL in a path.
            None if source.kind() == io::ErrorKind::InvalidInput => {
                ErrorKind::InvalidInput { what: source.to_string().into() }
            }
            _ => ErrorKind::System { call },
        };
        Error::new(doing, kind).with_source(source)
    }
}

fn in_call(call: &'static str) -> impl Fn(io::Error) -> Refused {
    move |source| Refused::Call { call, source }
}

/// Where relative paths of a client start: its profile directory.
pub(crate) fn home(token: &Token<Impersonation>, _account: Option<&AccountEntry>) -> Option<PathBuf> {
    crate::sys::thread_token::profile_directory(token.data().context.handle())
}

pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<File, Refused> {
    let mut std = std::fs::OpenOptions::new();
    std.read(options.read)
        .write(options.write)
        .append(options.append)
        .truncate(options.truncate)
        .create(options.create)
        .create_new(options.create_new)
        .security_qos_flags(SECURITY_ANONYMOUS);
    // A directory can be opened for reading, as elsewhere.
    let reads = !options.write && !options.append;
    let file = if reads { open_either(&mut std, 0, path) } else { std.open(path) };
    require_ordinary(file.map_err(in_call("CreateFileW"))?)
}

/// Connects to the pipe at `path`, of this machine; one that is busy is not waited for.
pub(crate) fn connect(path: &Path) -> Result<Stream, Refused> {
    let options = ConnectOptions::new().timeout(Duration::ZERO);
    Stream::connect(&Address::path(path), &options).map_err(Refused::Pipe)
}

/// A file or a directory, or nothing.
fn require_ordinary(file: File) -> Result<File, Refused> {
    // A pipe or a console has no such information; a name like `NUL` leads to a device wherever it stands.
    let found = if file.is_terminal() { None } else { file.metadata().ok() };
    let ordinary = found.is_some_and(|found| {
        let kind = found.file_type();
        kind.is_file() || kind.is_dir() || kind.is_symlink_dir() || kind.is_symlink_file()
    });
    if ordinary { Ok(file) } else { Err(Refused::Special) }
}

/// Whether the system would let the thread's token do so: it is asked by opening, which changes nothing.
pub(crate) fn may(path: &Path, rights: Access) -> Result<bool, Refused> {
    let mut access = FILE_READ_ATTRIBUTES;
    for (wanted, right) in
        [(rights.read, FILE_READ_DATA), (rights.write, FILE_WRITE_DATA), (rights.execute, FILE_EXECUTE)]
    {
        access |= if wanted { right } else { 0 };
    }
    match hold(path, access, 0) {
        Ok(_) => Ok(true),
        Err(error) if is(&error, ERROR_ACCESS_DENIED) => Ok(false),
        // Somebody else has it open and shares it not; the right was there.
        Err(error) if is(&error, ERROR_SHARING_VIOLATION) => Ok(true),
        Err(source) => Err(Refused::Call { call: "CreateFileW", source }),
    }
}

fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error() == Some(code.cast_signed())
}

fn hold(path: &Path, access: u32, flags: u32) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.access_mode(access).security_qos_flags(SECURITY_ANONYMOUS);
    open_either(&mut options, flags, path)
}

/// Opens a file, or a directory: for that the system wants to be told of a backup, and whoever has SeBackupPrivilege
/// enabled, as an administrator who comes over the network, is then let pass over a file's access list
/// ([CreateFileW](https://learn.microsoft.com/windows/win32/api/fileapi/nf-fileapi-createfilew), dwFlagsAndAttributes).
fn open_either(options: &mut std::fs::OpenOptions, flags: u32, path: &Path) -> io::Result<File> {
    let denied = match options.custom_flags(flags).open(path) {
        // What it says of a directory too.
        Err(error) if is(&error, ERROR_ACCESS_DENIED) => error,
        done => return done,
    };
    let directory = options.custom_flags(FILE_FLAG_BACKUP_SEMANTICS | flags).open(path)?;
    let attributes = directory.metadata().map_or(0, |found| found.file_attributes());
    if attributes & FILE_ATTRIBUTE_DIRECTORY == 0 { Err(denied) } else { Ok(directory) }
}

/// What the file system says of the object at `path`.
pub(crate) fn metadata(path: &Path, no_follow: bool) -> Result<Metadata, Refused> {
    let flags = if no_follow { FILE_FLAG_OPEN_REPARSE_POINT } else { 0 };
    let found = hold(path, FILE_READ_ATTRIBUTES, flags).map_err(in_call("CreateFileW"))?;
    require_ordinary(found)?.metadata().map_err(in_call("GetFileInformationByHandle"))
}

/// The entries of a directory that the client may read.
pub(crate) fn read_dir(path: &Path) -> Result<Names, Refused> {
    std::fs::read_dir(path).map(Names).map_err(in_call("FindFirstFileExW"))
}

/// The names in a directory, without `.` and `..`. The directory was opened as the client.
#[derive(Debug)]
pub(crate) struct Names(std::fs::ReadDir);

impl Iterator for Names {
    type Item = Result<OsString, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.0.next()?;
        Some(entry.map(|entry| entry.file_name()).map_err(in_call("FindNextFileW")))
    }
}
