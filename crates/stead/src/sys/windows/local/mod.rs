//! Local connections as named pipes.

mod listener;
mod pipe;
mod shared;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(all(test, feature = "tokio"))]
mod tests_tokio;
#[cfg(feature = "tokio")]
pub(crate) mod tokio;

pub(crate) use listener::Listener;
pub(crate) use stream::Stream;

use std::ffi::OsStr;
use std::os::windows::ffi::OsStrExt;

use crate::error::{Error, ErrorKind, Result};
use crate::local::{Address, ConnectOptions};

/// How a client says whose its server must be.
pub(crate) type ServerIdentity = crate::sys::sid::Sid;

/// Where names live. Any program may take one: a server takes its own first, or fails, and a client can demand
/// whose the server is.
pub(crate) const NAMES: &str = r"\\.\pipe\stead.";

/// Where every pipe of this machine is.
const PIPES: &str = r"\\.\pipe\";

/// The address as CreateNamedPipeW and CreateFileW take it.
///
/// Of this machine only: `\\host\pipe\name` would send the client's credentials to that host.
fn wide(address: &Address, doing: &str) -> Result<Vec<u16>> {
    let path = address.as_path().as_os_str();
    let local = path.as_encoded_bytes().get(..PIPES.len());
    let local = local.is_some_and(|start| start.eq_ignore_ascii_case(PIPES.as_bytes()));
    let mut wide: Vec<u16> = path.encode_wide().collect();
    // CreateNamedPipe: the whole name is 256 characters at most.
    if !local || !is_plain(path) || wide.len() > 256 || wide.contains(&0) {
        let what = format!(r"{address} is no local pipe (\\.\pipe\name, 256 characters at most)");
        return Err(Error::new(format!("{doing} {address}"), ErrorKind::InvalidInput { what: what.into() }));
    }
    wide.push(0);
    Ok(wide)
}

/// Whether the system takes what follows the prefix as it stands. It resolves `.` and `..` below `\\.\` too, where
/// `pipe\..\UNC\host` is another machine's and `pipe\..\C:` a disk, takes `/` for `\`, and drops dots and spaces at
/// the end ([File path formats](https://learn.microsoft.com/dotnet/standard/io/file-path-formats#path-normalization)).
fn is_plain(path: &OsStr) -> bool {
    let name = path.as_encoded_bytes().get(PIPES.len()..).unwrap_or_default();
    !name.contains(&b'/')
        && name
            .split(|byte| *byte == b'\\')
            .all(|part| !part.is_empty() && !part.ends_with(b".") && !part.ends_with(b" "))
}
