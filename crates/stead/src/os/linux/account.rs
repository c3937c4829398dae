//! The account database as a server needs it: users and groups by name and by id, exactly as asked.

use std::ffi::{CString, OsStr, OsString};
use std::ops::RangeInclusive;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::account::AccountEntry;
use crate::sys::{group, subordinate};

use super::{Gid, GroupSet, Uid};

/// A user of the account database (NSS).
///
/// Reference: [getpwnam(3)](https://man7.org/linux/man-pages/man3/getpwnam.3.html).
///
/// ```
/// use stead::os::linux::{Uid, User};
/// # fn main() -> stead::Result<()> {
/// let root = User::by_name("root")?.expect("every system has it");
/// assert_eq!(root.uid(), Uid::ROOT);
/// assert!(User::by_name("0")?.is_none(), "a name is never a number");
/// # Ok(()) }
/// ```
#[doc(alias = "getpwnam")]
#[doc(alias = "LookupAccountName")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User(AccountEntry);

impl User {
    /// The user of exactly this name; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] where the database cannot be asked, or its last source (`/etc/nsswitch.conf`) cannot answer: a
    /// directory's daemon that does not run is no sign that there is no such user.
    pub fn by_name(name: impl AsRef<OsStr>) -> Result<Option<Self>> {
        // What holds a NUL byte is the name of nobody.
        let Ok(name) = CString::new(name.as_ref().as_bytes()) else { return Ok(None) };
        let entry = AccountEntry::by_name(&name);
        Ok(entry.map_err(|source| failed("a user", "getpwnam_r", source))?.map(Self))
    }

    /// The user whom the database finds by this name, in whatever spelling: directories (sssd, winbind) know one account as
    /// `alice`, `Alice` and `alice@example.com`. [`name`](Self::name) is its own.
    ///
    /// # Errors
    ///
    /// As [`User::by_name`].
    ///
    /// ```
    /// # fn main() -> stead::Result<()> {
    /// let found = stead::os::linux::User::by_any_spelling("root")?;
    /// assert_eq!(found.expect("every system has it").name(), "root");
    /// # Ok(()) }
    /// ```
    pub fn by_any_spelling(name: impl AsRef<OsStr>) -> Result<Option<Self>> {
        let Ok(name) = CString::new(name.as_ref().as_bytes()) else { return Ok(None) };
        let entry = AccountEntry::by_any_name(&name);
        Ok(entry.map_err(|source| failed("a user", "getpwnam_r", source))?.map(Self))
    }

    /// The user of this uid; `None` where there is none. Of several the one that the database names first.
    ///
    /// # Errors
    ///
    /// As [`User::by_name`].
    pub fn by_uid(uid: Uid) -> Result<Option<Self>> {
        let entry = AccountEntry::by_uid(uid);
        Ok(entry.map_err(|source| failed("a user", "getpwuid_r", source))?.map(Self))
    }

    /// Its name.
    pub fn name(&self) -> &OsStr {
        self.0.name()
    }

    /// Its uid.
    pub fn uid(&self) -> Uid {
        self.0.uid
    }

    /// Its primary group.
    pub fn gid(&self) -> Gid {
        self.0.gid
    }

    /// All groups that the group database has it in, the primary one among them: what `initgroups` would give.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] where the database cannot be asked.
    #[doc(alias = "getgrouplist")]
    pub fn groups(&self) -> Result<GroupSet> {
        group::groups_of(&self.0.name, self.0.gid)
            .map_err(|source| failed("a user's groups", "getgrouplist", source))
    }
}

/// The gid of the group that has exactly this name; `None` where there is none.
///
/// # Errors
///
/// [`ErrorKind::System`] where the database cannot be asked.
///
/// ```
/// use stead::os::linux::{Gid, group_by_name};
/// # fn main() -> stead::Result<()> {
/// assert_eq!(group_by_name("root")?, Some(Gid::ROOT));
/// # Ok(()) }
/// ```
#[doc(alias = "getgrnam")]
pub fn group_by_name(name: impl AsRef<OsStr>) -> Result<Option<Gid>> {
    let Ok(name) = CString::new(name.as_ref().as_bytes()) else { return Ok(None) };
    group::group_by_name(&name).map_err(|source| failed("a group", "getgrnam_r", source))
}

/// The name of a group; `None` where the database has none.
///
/// # Errors
///
/// [`ErrorKind::System`] where the database cannot be asked.
#[doc(alias = "getgrgid")]
pub fn group_name(gid: Gid) -> Result<Option<OsString>> {
    let name = group::group_name(gid).map_err(|source| failed("a group", "getgrgid_r", source))?;
    Ok(name.map(|name| OsString::from_vec(name.into_bytes())))
}

/// The ids of each line of a text like `/etc/subuid` or `/etc/subgid`, that users were given besides their own; of a line
/// that is not understood, its number. Names are bytes, and numbers what newuidmap(1) takes for such.
///
/// Reference: [subuid(5)](https://man7.org/linux/man-pages/man5/subuid.5.html).
///
/// ```
/// let read: Vec<_> = stead::os::linux::subordinate_ids(b"alice:100000:65536\nbob:0x30000:0x10\ncarol\n").collect();
/// assert_eq!(read, [Ok(100_000..=165_535), Ok(0x30000..=0x3000f), Err(3)]);
/// ```
pub fn subordinate_ids(text: &[u8]) -> impl Iterator<Item = std::result::Result<RangeInclusive<u32>, usize>> {
    subordinate::ranges(text)
}

fn failed(what: &str, call: &'static str, source: std::io::Error) -> Error {
    Error::new(format!("looking up {what}"), ErrorKind::System { call }).with_source(source)
}
