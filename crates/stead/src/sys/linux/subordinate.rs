//! Ids that users were given besides their own.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;

/// The ids of each line of a text like `/etc/subuid`; of one that is not understood, its number.
pub(crate) fn ranges(text: &[u8]) -> impl Iterator<Item = Result<RangeInclusive<u32>, usize>> {
    let lines = (1..).zip(text.split(|byte| *byte == b'\n'));
    lines.filter_map(|(place, line)| {
        if line.trim_ascii().is_empty() || line.starts_with(b"#") {
            return None;
        }
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let range = match fields[..] {
            [_, first, count] => number(first).zip(number(count)),
            _ => None,
        };
        let Some((first, count)) = range else { return Some(Err(place)) };
        // -1 is no id.
        let last = |more| first.saturating_add(more).min(u32::MAX - 1);
        count.checked_sub(1).map(|more| Ok(first..=last(more)))
    })
}

/// A number as newuidmap(1) reads it: also with `0x`, and with a zero in front to the base of eight.
fn number(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    match (hexadecimal, text.strip_prefix('0')) {
        (Some(digits), _) => u32::from_str_radix(digits, 16).ok(),
        (None, Some(digits)) if !digits.is_empty() => u32::from_str_radix(digits, 8).ok(),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_read_as_those_read_them_who_give_them_away() {
        let read = |text: &[u8]| ranges(text).collect::<Vec<_>>();
        assert_eq!(read(b"a:100000:65536\n1000:300000:1\n"), [Ok(100_000..=165_535), Ok(300_000..=300_000)]);
        assert_eq!(read(b"jos\xe9:0x70000000:0x10\nold:010:2\n"), [Ok(0x7000_0000..=0x7000_000f), Ok(8..=9)]);
        assert_eq!(read(b"a:4294967294:2\nb:5:0\n\n# c\n"), [Ok(u32::MAX - 1..=u32::MAX - 1)]);
        assert_eq!(read(b"a:1:1\n \nb:x:1\nc:7\n"), [Ok(1..=1), Err(3), Err(4)]);
    }
}
