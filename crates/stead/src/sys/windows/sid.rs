//! Security identifiers: pure code, the same on every platform.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Revision, count, and the authority in six bytes.
const HEADER: usize = 8;
/// `SID_MAX_SUB_AUTHORITIES`.
const MOST: usize = 15;
const LONGEST: usize = HEADER + 4 * MOST;

/// A security identifier: who a user, a group, or a logon session is.
///
/// Printed and parsed in its usual form, `S-1-5-18`. Two are equal when all of their bytes are; they are ordered
/// by their bytes.
///
/// Reference: [\[MS-DTYP\] 2.4.2](https://learn.microsoft.com/openspecs/windows_protocols/ms-dtyp/78eb9013-1c3a-4970-ad1f-2b1dad588a25).
///
/// ```
/// # fn main() -> stead::Result<()> {
/// # #[cfg(windows)] {
/// use stead::os::windows::Sid;
/// let system: Sid = "S-1-5-18".parse()?;
/// assert_eq!(system, Sid::LOCAL_SYSTEM);
/// # }
/// # Ok(()) }
/// ```
#[doc(alias = "PSID")]
#[doc(alias = "EqualSid")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid {
    /// The SID as Windows keeps it; zero after its end.
    bytes: [u8; LONGEST],
}

impl Sid {
    /// Everybody, anonymous clients not among them.
    pub const EVERYONE: Self = Self::new(1, &[0]);
    /// Who logged on over the network.
    pub const NETWORK: Self = Self::new(5, &[2]);
    /// Who logged on at the machine.
    pub const INTERACTIVE: Self = Self::new(5, &[4]);
    /// Anonymous clients.
    pub const ANONYMOUS: Self = Self::new(5, &[7]);
    /// Everybody with an account.
    pub const AUTHENTICATED_USERS: Self = Self::new(5, &[11]);
    /// The system itself.
    pub const LOCAL_SYSTEM: Self = Self::new(5, &[18]);
    /// The account of services with few rights.
    pub const LOCAL_SERVICE: Self = Self::new(5, &[19]);
    /// The same, known on the network as the machine.
    pub const NETWORK_SERVICE: Self = Self::new(5, &[20]);
    /// The machine's administrators.
    pub const ADMINISTRATORS: Self = Self::new(5, &[32, 544]);
    /// The machine's users.
    pub const USERS: Self = Self::new(5, &[32, 545]);

    /// One of an authority that fits into a byte.
    const fn new(authority: u8, parts: &[u32]) -> Self {
        assert!(parts.len() <= MOST, "a SID has no more than fifteen parts");
        let mut bytes = [0; LONGEST];
        bytes[0] = 1;
        #[expect(clippy::cast_possible_truncation, reason = "at most 15")]
        {
            bytes[1] = parts.len() as u8;
        }
        bytes[7] = authority;
        let mut at = 0;
        while at < parts.len() {
            let part = parts[at].to_le_bytes();
            let mut byte = 0;
            while byte < 4 {
                bytes[HEADER + 4 * at + byte] = part[byte];
                byte += 1;
            }
            at += 1;
        }
        Self { bytes }
    }

    /// The SID at the beginning of `bytes`, in the form in which Windows keeps it; what follows is not looked at.
    #[doc(alias = "IsValidSid")]
    #[doc(alias = "CopySid")]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[revision, count], _) = bytes.split_first_chunk()?;
        let length = HEADER + 4 * usize::from(count);
        if revision != 1 || length > LONGEST {
            return None;
        }
        let mut copy = [0; LONGEST];
        copy[..length].copy_from_slice(bytes.get(..length)?);
        Some(Self { bytes: copy })
    }

    /// The form in which Windows keeps it.
    #[doc(alias = "GetLengthSid")]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..HEADER + 4 * usize::from(self.bytes[1])]
    }

    /// Its parts after the authority.
    fn parts(&self) -> impl Iterator<Item = u32> + '_ {
        self.as_bytes()[HEADER..].as_chunks().0.iter().map(|part| u32::from_le_bytes(*part))
    }

    /// Whether it is that of a logon session: `S-1-5-5-x-y`.
    #[doc(alias = "SE_GROUP_LOGON_ID")]
    pub fn is_logon_session(&self) -> bool {
        self.as_bytes()[2..HEADER] == [0, 0, 0, 0, 0, 5]
            && self.bytes[1] == 3
            && self.parts().next() == Some(5)
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.bytes[2..HEADER].iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
        // As ConvertSidToStringSid does: hexadecimal from 2^32 on.
        if u32::try_from(authority).is_ok() {
            write!(f, "S-1-{authority}")?;
        } else {
            write!(f, "S-1-0x{authority:012X}")?;
        }
        self.parts().try_for_each(|part| write!(f, "-{part}"))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sid({self})")
    }
}

impl FromStr for Sid {
    type Err = Error;

    /// Reads the usual form, exactly as it is printed: no other spelling of a number, and none of the two-letter
    /// names of SDDL.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || {
            let what = format!("{text:?} is no SID").into();
            Error::new("reading a SID", ErrorKind::InvalidInput { what })
        };
        let parse = || {
            let mut parts = text.strip_prefix("S-1-")?.split('-');
            let authority = parts.next()?;
            let authority = match authority.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok()?,
                None => authority.parse().ok()?,
            };
            let parts = parts.map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>()?;
            if parts.len() > MOST {
                return None;
            }
            let mut sid = Self::new(0, &parts);
            let [0, 0, authority @ ..] = authority.to_be_bytes() else { return None };
            sid.bytes[2..HEADER].copy_from_slice(&authority);
            Some(sid)
        };
        parse().filter(|sid| sid.to_string() == text).ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn well_known_sids_have_their_well_known_forms() {
        for (sid, text) in [
            (Sid::EVERYONE, "S-1-1-0"),
            (Sid::NETWORK, "S-1-5-2"),
            (Sid::AUTHENTICATED_USERS, "S-1-5-11"),
            (Sid::LOCAL_SYSTEM, "S-1-5-18"),
            (Sid::ADMINISTRATORS, "S-1-5-32-544"),
        ] {
            assert_eq!(sid.to_string(), text);
            assert_eq!(text.parse::<Sid>().unwrap(), sid);
        }
        assert_eq!(Sid::ADMINISTRATORS.as_bytes(), [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0]);
    }

    #[test]
    fn nothing_but_the_usual_form_is_read() {
        let sixteen = format!("S-1-5{}", "-1".repeat(16));
        for text in [
            "",
            "S-1",
            "S-1-",
            "s-1-5-18",
            "S-2-5-18",
            "S-1-5-18 ",
            "S-1-5-+18",
            "S-1-5-018",
            "S-1-5--18",
            "S-1-0x5-18",
            "S-1-5-4294967296",
            "S-1-281474976710656",
            "BA",
            &sixteen,
        ] {
            assert!(text.parse::<Sid>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_a_logon_sessions_sid_is_one() {
        assert!("S-1-5-5-0-123".parse::<Sid>().unwrap().is_logon_session());
        for text in ["S-1-5-5", "S-1-5-5-0", "S-1-5-5-0-1-2", "S-1-1-5-0-1", "S-1-5-21-0-1"] {
            assert!(!text.parse::<Sid>().unwrap().is_logon_session(), "{text}");
        }
    }

    fn any_sid() -> impl Strategy<Value = Sid> {
        (0..1_u64 << 48, proptest::collection::vec(any::<u32>(), 0..=MOST)).prop_map(|(authority, parts)| {
            let mut sid = Sid::new(0, &parts);
            sid.bytes[2..HEADER].copy_from_slice(&authority.to_be_bytes()[2..]);
            sid
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(sid in any_sid()) {
            prop_assert_eq!(sid.to_string().parse::<Sid>().unwrap(), sid);
        }

        #[test]
        fn what_stands_in_bytes_is_read_again(sid in any_sid(), rest in proptest::collection::vec(any::<u8>(), 0..9)) {
            let bytes = [sid.as_bytes(), &rest].concat();
            prop_assert_eq!(Sid::from_bytes(&bytes), Some(sid));
            prop_assert_eq!(Sid::from_bytes(&bytes[..sid.as_bytes().len() - 1]), None);
        }

        #[test]
        fn any_bytes_are_a_sid_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(sid) = Sid::from_bytes(&bytes) {
                prop_assert!(bytes.starts_with(sid.as_bytes()));
            }
        }

        #[test]
        fn any_text_is_a_sid_in_its_own_spelling_or_none(text in "S-1-[0-9a-fx-]{0,40}") {
            if let Ok(sid) = text.parse::<Sid>() {
                prop_assert_eq!(sid.to_string(), text);
            }
        }
    }
}
