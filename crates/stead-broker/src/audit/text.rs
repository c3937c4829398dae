//! Text that somebody else chose.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

/// No text in a record is longer, in bytes of what was given.
const LONGEST: usize = 1024;
/// No name of an account is: `LOGIN_NAME_MAX` in limits.h.
const LONGEST_NAME: usize = 256;

/// Text that a client or caller chose, made harmless: only printable characters, anything else as an escape
/// (`\n`, `\u{202e}`, `\xff` for what is not UTF-8), a backslash as two, and an end that was cut off as `…`.
///
/// ```
/// use stead_broker::audit::Text;
/// assert_eq!(Text::new("a\nroot allowed").as_str(), r"a\nroot allowed");
/// assert_eq!(Text::new([b'x', 0xff, 0x1b]).as_str(), r"x\xff\u{1b}");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// What `bytes` look like.
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self::within(LONGEST, bytes.as_ref())
    }

    /// The same of an account's name.
    pub(super) fn name(name: &str) -> Self {
        Self::within(LONGEST_NAME, name.as_bytes())
    }

    /// As it stands among other words.
    pub(super) fn among_words(&self) -> Cow<'_, str> {
        among_words(&self.0)
    }

    fn within(most: usize, bytes: &[u8]) -> Self {
        let (kept, cut) = match bytes.get(..most) {
            Some(beginning) if bytes.len() > most => (beginning, true),
            _ => (bytes, false),
        };
        let mut text = String::with_capacity(kept.len());
        for chunk in kept.utf8_chunks() {
            chunk.valid().chars().for_each(|c| push(&mut text, c));
            // A character that the cut went through is no invalid one.
            let through = cut && std::ptr::eq(chunk.invalid().as_ptr_range().end, kept.as_ptr_range().end);
            if !through {
                text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
            }
        }
        if cut {
            text.push('…');
        }
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text as it stands among other words: in quotes where it could be taken for some of them.
pub fn among_words(text: &str) -> Cow<'_, str> {
    if !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '"') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("\"{}\"", text.replace('"', "\\\"")))
}

fn push(text: &mut String, c: char) {
    match c {
        '\'' | '"' => text.push(c),
        // Says what cannot be printed, and doubles a backslash.
        _ => text.extend(c.escape_debug()),
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T: AsRef<[u8]> + ?Sized> From<&T> for Text {
    fn from(bytes: &T) -> Self {
        Self::new(bytes)
    }
}
