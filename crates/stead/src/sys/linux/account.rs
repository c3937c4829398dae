//! The account database (NSS), asked by name or by uid.

use std::ffi::CString;
use std::io;

use super::token::{Gid, Uid};

/// One entry of the account database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountEntry {
    pub(crate) name: CString,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) home: CString,
    pub(crate) shell: CString,
}

impl AccountEntry {
    /// The entry for this uid; `None` where the account database has none.
    pub(crate) fn by_uid(_uid: Uid) -> io::Result<Option<Self>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
