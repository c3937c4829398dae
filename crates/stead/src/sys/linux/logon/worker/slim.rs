//! An idle worker's memory: there is one worker for each logon session, and they mostly wait.
//!
//! What PAM's modules needed during the logon (their text, tables of libcrypt) stays mapped and resident. Pages
//! that are still exactly what their file holds are given back; they come again from the page cache when they
//! are needed.

use std::fs;

/// Gives back what an idle worker does not need.
pub(super) fn slim() {
    // Read before, freed before: the list itself is not to be what is left over.
    for (start, end) in unchanged(&fs::read_to_string("/proc/self/smaps").unwrap_or_default()) {
        // SAFETY: the range is a mapping of this process, private, not writable, and without any page that
        // differs from its file: dropping its pages changes no byte of memory. Nothing can have changed
        // meanwhile, for the worker has one thread. An error leaves the pages where they are.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
    // SAFETY: malloc_trim has no preconditions.
    unsafe { libc::malloc_trim(0) };
}

/// The private mappings of files that can be read or executed, not written, and hold no page of their own:
/// no relocations (RELRO pages are read-only too), no breakpoints, none of these in the swap.
fn unchanged(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    let (mut anonymous, mut swapped) = (None, None);
    for line in smaps.lines() {
        if let Some(mapping) = parse_header(line) {
            current = mapping;
            (anonymous, swapped) = (None, None);
            continue;
        }
        let value = |name: &str| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
        anonymous = value("Anonymous:").or(anonymous);
        swapped = value("Swap:").or(swapped);
        // The last line of each mapping.
        if line.starts_with("VmFlags:")
            && let Some(range) = current.take()
            && anonymous == Some(0)
            && swapped == Some(0)
        {
            found.push(range);
        }
    }
    found
}

/// The first line of a mapping; the inner `None` for one that is not to be touched.
#[expect(clippy::option_option, reason = "no first line, or one of another kind of mapping")]
fn parse_header(line: &str) -> Option<Option<(usize, usize)>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let (mode, _offset, _device, inode) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let suits = matches!(mode, "r-xp" | "r--p") && inode != "0" && start < end;
    Some(suits.then_some((start, end)))
}

/// Any text: what is given back is a range.
#[cfg(feature = "fuzzing")]
pub(in crate::sys) fn fuzz(data: &[u8]) {
    for (start, end) in unchanged(&String::from_utf8_lossy(data)) {
        assert!(start < end, "{start:x}-{end:x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d000000000-55d000010000 r-xp 00000000 fe:00 47   /usr/libexec/stead/stead-session
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex
55d000010000-55d000020000 r--p 00010000 fe:00 47   /usr/libexec/stead/stead-session
Anonymous:             8 kB
Swap:                  0 kB
VmFlags: rd
55d000020000-55d000030000 rw-p 00020000 fe:00 47   /usr/libexec/stead/stead-session
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd wr
7ffd00000000-7ffd00010000 r-xp 00000000 00:00 0    [vdso]
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex
55d000040000-55d000050000 r--p 00010000 fe:00 47   /usr/libexec/stead/stead-session
Anonymous:             0 kB
Swap:                  8 kB
VmFlags: rd
7f0000000000-7f0000010000 r-xp 00000000 fe:00 9    /lib/x with spaces.so
Anonymous:             0 kB
VmFlags: rd ex
";

    #[test]
    fn only_what_is_certainly_as_in_its_file_is_given_back() {
        assert_eq!(unchanged(SMAPS), [(0x55d0_0000_0000, 0x55d0_0001_0000)]);
        assert_eq!(unchanged(""), []);
        assert_eq!(unchanged("garbage\n-\nVmFlags:\n"), []);
    }

    #[test]
    fn a_process_goes_on_after_it() {
        slim();
        assert_eq!(format!("{}", 47), "47");
    }
}
