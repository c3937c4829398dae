//! Variables that a caller may set for any client and any program, for they say how to show things, and name no code.

/// A variable that is set to a value, or taken away.
pub type Variable<'a> = (&'a [u8], Option<&'a [u8]>);

const NAMES: &[&str] = &["COLORTERM", "LANG", "LANGUAGE", "LC_*", "TERM"];

/// Whether `name` is among these, whatever the value.
pub(crate) fn says_how_to_show(name: &[u8]) -> bool {
    NAMES.iter().any(|one| covers(one, name))
}

/// Whether a value leads to no file and is no format. Else it would be the caller who says what a program shows: of
/// `LANGUAGE=../../../home/caller/x` the C library loads message catalogs, which are format strings (what sudo's `env_check`
/// is for).
pub(crate) fn is_plain(value: &[u8]) -> bool {
    !value.iter().any(|byte| matches!(byte, b'/' | b'%'))
}

/// Whether it is one of these, with such a value.
pub(crate) fn is_harmless((name, value): Variable<'_>) -> bool {
    says_how_to_show(name) && value.is_none_or(is_plain)
}

/// Whether `TZ` says so where the system keeps its time zones, and names no other file (tzset(3)).
pub(crate) fn is_time_zone(value: &[u8]) -> bool {
    let leads_out = |part: &[u8]| part == b"..";
    !value.starts_with(b":")
        && !value.starts_with(b"/")
        && !value.contains(&b'%')
        && !value.split(|byte| *byte == b'/').any(leads_out)
}

/// Whether a name is the pattern, or begins as one does that ends in `*`.
pub(super) fn covers(pattern: &str, name: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning.as_bytes()),
        None => name == pattern.as_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_shows_text_leads_to_no_file_and_is_no_format() {
        let harmless = |name: &str, value: &str| is_harmless((name.as_bytes(), Some(value.as_bytes())));
        for (name, value) in [
            ("LANG", "de_DE.UTF-8@euro"),
            ("LANGUAGE", "de:en"),
            ("LC_ALL", "C.UTF-8"),
            ("TERM", "xterm-256color"),
            ("COLORTERM", ""),
        ] {
            assert!(harmless(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("LANGUAGE", "../../../run/home/portal/loc/xx"),
            ("LC_MESSAGES", "/tmp/x"),
            ("TERM", "/tmp/terminfo"),
            ("LANG", "%n"),
            ("LOCPATH", "x"),
            ("LD_PRELOAD", "x"),
        ] {
            assert!(!harmless(name, value), "{name}={value}");
        }
        assert!(is_harmless((b"LANG", None)));
    }

    #[test]
    fn a_time_zone_is_one_of_the_systems() {
        for zone in ["Europe/Berlin", "UTC", "CET-1CEST,M3.5.0,M10.5.0/3", "<+03>-3", ""] {
            assert!(is_time_zone(zone.as_bytes()), "{zone}");
        }
        for zone in [":/dev/tty", "/home/x/zone", ":Europe/Berlin", "../../../home/x", "a/../../b", "%s"] {
            assert!(!is_time_zone(zone.as_bytes()), "{zone}");
        }
    }
}
