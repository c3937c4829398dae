//! Files, opened as the client.

use serde::{Deserialize, Serialize};

use crate::{Index, Text};

/// Opens a file with the rights of a token, and nothing else.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "as std's OpenOptions")]
pub struct OpenFile {
    /// The token.
    pub token: u64,
    /// The file; a relative path begins at the home directory of the token's user.
    pub path: Text,
    /// For reading.
    #[serde(default)]
    pub read: bool,
    /// For writing.
    #[serde(default)]
    pub write: bool,
    /// Writes go to the end.
    #[serde(default)]
    pub append: bool,
    /// Empties it.
    #[serde(default)]
    pub truncate: bool,
    /// Creates it where it is not there.
    #[serde(default)]
    pub create: bool,
    /// Creates it, and fails where it is there.
    #[serde(default)]
    pub create_new: bool,
    /// Fails where the last component is a symbolic link.
    #[serde(default)]
    pub no_follow: bool,
    /// Accepts what is neither a file nor a directory.
    #[serde(default)]
    pub special_files: bool,
    /// The permissions of a file that is created, before the umask; 0666 where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// How long it may take, in milliseconds; ten seconds where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
}

/// The file that was opened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenedFile {
    /// Its descriptor.
    pub file: Index,
}
