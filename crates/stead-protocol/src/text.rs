//! Strings of the system, which need not be UTF-8.

use std::fmt;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A string of the system: a path, an argument, a variable, a name. It has no NUL byte and need not be UTF-8.
///
/// On the wire it is a JSON string. A byte that belongs to no UTF-8 character is written as U+0000 and two
/// hexadecimal digits, which no other string can hold: what is UTF-8 stands there as it is.
///
/// ```
/// use stead_protocol::Text;
/// let name = Text::from(b"na\xefve".to_vec());
/// assert_eq!(serde_json::to_string(&name).unwrap(), r#""na\u0000efve""#);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(Vec<u8>);

impl Text {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The string, with what is not UTF-8 replaced: for people to read.
    pub fn to_string_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// As the system's own string.
    #[cfg(unix)]
    pub fn as_os_str(&self) -> &std::ffi::OsStr {
        std::os::unix::ffi::OsStrExt::from_bytes(&self.0)
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

#[cfg(unix)]
impl From<&std::ffi::OsStr> for Text {
    fn from(text: &std::ffi::OsStr) -> Self {
        Self(std::os::unix::ffi::OsStrExt::as_bytes(text).to_vec())
    }
}

#[cfg(unix)]
impl From<Text> for std::ffi::OsString {
    fn from(text: Text) -> Self {
        std::os::unix::ffi::OsStringExt::from_vec(text.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string_lossy(), f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // It would be read as the escape of another string.
        if self.0.contains(&0) {
            return Err(S::Error::custom("a string of the system holds no NUL"));
        }
        if let Ok(text) = std::str::from_utf8(&self.0) {
            return serializer.serialize_str(text);
        }
        let mut escaped = String::with_capacity(self.0.len() + 16);
        for chunk in self.0.utf8_chunks() {
            escaped.push_str(chunk.valid());
            for byte in chunk.invalid() {
                escaped.push('\0');
                escaped.extend(
                    [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])),
                );
            }
        }
        serializer.serialize_str(&escaped)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if !text.contains('\0') {
            return Ok(Self(text.into_bytes()));
        }
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((byte, after)) = rest.split_first() {
            if *byte == 0 {
                let (digits, after) =
                    after.split_at_checked(2).ok_or_else(|| D::Error::custom("an escape is cut off"))?;
                let byte = hexadecimal(digits).ok_or_else(|| D::Error::custom("an escape is no byte"))?;
                if byte == 0 {
                    return Err(D::Error::custom("a string of the system holds no NUL"));
                }
                bytes.push(byte);
                rest = after;
            } else {
                bytes.push(*byte);
                rest = after;
            }
        }
        Ok(Self(bytes))
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0, |value: u8, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some((value << 4) | u8::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_string_with_a_nul_is_not_written_as_another_string() {
        assert!(serde_json::to_string(&Text::from("ali\0ce")).is_err());
        assert!(serde_json::to_string(&Text::from(b"\xff\0".to_vec())).is_err());
    }

    proptest! {
        #[test]
        fn every_string_of_the_system_survives_the_wire(bytes in proptest::collection::vec(1_u8..=255, 0..64)) {
            let text = Text::from(bytes);
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), text);
        }

        #[test]
        fn a_decoded_string_never_holds_a_nul(json in any::<String>()) {
            let quoted = serde_json::to_string(&json).unwrap();
            if let Ok(text) = serde_json::from_str::<Text>(&quoted) {
                prop_assert!(!text.as_bytes().contains(&0));
            }
        }
    }

    #[test]
    fn a_nul_cannot_be_smuggled_in() {
        for json in [r#""a\u000000""#, r#""a\u0000""#, r#""a\u0000zz""#, r#""a\u00000""#] {
            assert!(serde_json::from_str::<Text>(json).is_err(), "{json}");
        }
    }
}
