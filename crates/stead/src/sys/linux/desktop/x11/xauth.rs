//! Authority files (Xauthority): where the server's own cookie is found, and where a client finds its.
//!
//! Reference: [Xsecurity(7)](https://man7.org/linux/man-pages/man7/Xsecurity.7.html), libXau's `Xau.h`.
#![forbid(unsafe_code)]

use super::wire::COOKIE;

/// Matches whatever the machine is called.
const WILD: u16 = 65535;
/// A display of the machine of that name.
const LOCAL: u16 = 256;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry<'a> {
    family: u16,
    address: &'a [u8],
    /// The display's number; empty for any.
    number: &'a [u8],
    name: &'a [u8],
    data: &'a [u8],
}

/// The file of a client that has this cookie for the display.
pub(super) fn print(number: u16, cookie: &[u8]) -> Vec<u8> {
    let number = number.to_string();
    let entry = Entry {
        family: WILD,
        address: b"",
        number: number.as_bytes(),
        name: COOKIE.as_bytes(),
        data: cookie,
    };
    entry.print()
}

/// The cookie for the display in an authority file: the first that fits, as libXau has it.
pub(super) fn cookie(file: &[u8], number: u16) -> Option<Vec<u8>> {
    let host = rustix::system::uname();
    find(file, number, host.nodename().to_bytes())
}

fn find(mut file: &[u8], number: u16, host: &[u8]) -> Option<Vec<u8>> {
    let number = number.to_string();
    while let Some((entry, rest)) = Entry::parse(file) {
        let here = entry.family == WILD || (entry.family == LOCAL && entry.address == host);
        let this = entry.number.is_empty() || entry.number == number.as_bytes();
        if here && this && entry.name == COOKIE.as_bytes() {
            return Some(entry.data.to_vec());
        }
        file = rest;
    }
    None
}

impl<'a> Entry<'a> {
    /// The first entry, and what comes after it; `None` at the end, and where the file is cut off.
    fn parse(file: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (family, rest) = number(file)?;
        let (address, rest) = counted(rest)?;
        let (number, rest) = counted(rest)?;
        let (name, rest) = counted(rest)?;
        let (data, rest) = counted(rest)?;
        Some((Self { family, address, number, name, data }, rest))
    }

    fn print(&self) -> Vec<u8> {
        let mut bytes = self.family.to_be_bytes().to_vec();
        for part in [self.address, self.number, self.name, self.data] {
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            bytes.extend(length.to_be_bytes());
            bytes.extend(&part[..usize::from(length)]);
        }
        bytes
    }
}

fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = number(bytes)?;
    rest.split_at_checked(usize::from(length))
}

/// Any file; each entry that is read is written as the same bytes.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(mut file: &[u8]) {
    let _ = cookie(file, 1);
    while let Some((entry, rest)) = Entry::parse(file) {
        assert_eq!(entry.print(), file[..file.len() - rest.len()]);
        file = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..24)
    }

    proptest! {
        #[test]
        fn an_authority_file_that_was_printed_reads_back(
            parts in proptest::collection::vec((any::<u16>(), part(), part(), part(), part()), 0..5),
        ) {
            let entries: Vec<Entry<'_>> = parts
                .iter()
                .map(|(family, address, number, name, data)| Entry { family: *family, address, number, name, data })
                .collect();
            let file: Vec<u8> = entries.iter().flat_map(Entry::print).collect();
            let mut rest = &file[..];
            let mut read = Vec::new();
            while let Some((entry, after)) = Entry::parse(rest) {
                read.push(entry);
                rest = after;
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(read, entries);
        }

        #[test]
        fn a_cookie_is_found_among_the_entries_of_others(
            before in proptest::collection::vec((part(), part()), 0..4),
            number in any::<u16>(),
            cookie in part(),
        ) {
            let mut file = Vec::new();
            for (address, data) in &before {
                let entry = Entry { family: LOCAL, address, number: b"", name: COOKIE.as_bytes(), data };
                file.extend(entry.print());
            }
            file.extend(print(number, &cookie));
            prop_assert_eq!(find(&file, number, b"a name that is longer than any of theirs"), Some(cookie));
        }

        #[test]
        fn any_file_is_read_without_a_panic(file in proptest::collection::vec(any::<u8>(), 0..200), number in any::<u16>()) {
            let _ = cookie(&file, number);
        }
    }

    #[test]
    fn a_cookie_is_that_of_this_machine_and_this_display() {
        let entry = |family, address: &'static [u8], number: &'static [u8], data: &'static [u8]| {
            Entry { family, address, number, name: COOKIE.as_bytes(), data }.print()
        };
        let file = [
            entry(0, b"\x7f\0\0\x01", b"1", b"of another protocol"),
            entry(LOCAL, b"elsewhere", b"1", b"of another machine"),
            entry(LOCAL, b"here", b"2", b"of another display"),
            entry(LOCAL, b"here", b"1", b"the one"),
        ]
        .concat();
        assert_eq!(find(&file, 1, b"here").as_deref(), Some(&b"the one"[..]));
        assert_eq!(find(&file, 3, b"here"), None);
        assert_eq!(find(&file[..file.len() - 1], 1, b"here"), None, "cut off");
    }
}
