//! Passwords and other answers, wiped when they are no longer needed.

use std::fmt;

use zeroize::Zeroizing;

/// A password or another answer: wiped from memory when dropped, and never shown.
///
/// It stands in no argument, environment, log, core dump or `Debug` output. What the caller copied it *from*
/// is the caller's to wipe; a `String` or `Vec<u8>` given by value is taken over, not copied.
///
/// ```
/// let secret = stead::Secret::from(String::from("correct horse"));
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    #[cfg(any(unix, test))]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(Zeroizing::new(secret.into_bytes()))
    }
}

impl From<Vec<u8>> for Secret {
    fn from(secret: Vec<u8>) -> Self {
        Self(Zeroizing::new(secret))
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        Self(Zeroizing::new(secret.as_bytes().to_vec()))
    }
}

impl From<Zeroizing<String>> for Secret {
    fn from(mut secret: Zeroizing<String>) -> Self {
        Self::from(std::mem::take(&mut *secret))
    }
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(secret: Zeroizing<Vec<u8>>) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_taken_over_and_not_copied() {
        let bytes = b"correct horse".to_vec();
        let before = bytes.as_ptr();
        assert_eq!(Secret::from(bytes).as_bytes().as_ptr(), before);
    }

    #[test]
    fn nothing_of_a_secret_is_in_what_debug_prints() {
        let logon = crate::Logon::password(crate::Account::local("alice"), "correct horse");
        let text = format!("{:?} {logon:?}", Secret::from("correct horse"));
        assert!(!text.contains("horse") && !text.contains("104"), "{text}");
    }
}
