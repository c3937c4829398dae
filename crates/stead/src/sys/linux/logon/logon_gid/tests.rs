use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::*;

const RANGE: RangeInclusive<u32> = 100..=109;
const MAPPED: &[RangeInclusive<u32>] = &[0..=u32::MAX - 1];

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("stead-logon-gid-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn take(&self) -> Result<u32, String> {
        self.take_from(RANGE)
    }

    fn take_from(&self, range: RangeInclusive<u32>) -> Result<u32, String> {
        allocate_checked(&self.name(), range, MAPPED, &[], &|_| Ok(false))
    }

    fn name(&self) -> CString {
        CString::new(self.0.as_os_str().as_bytes()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn no_gid_is_given_out_twice() {
    let folder = Folder::new("twice");
    let taken: Vec<u32> = (0..10).map(|_| folder.take().unwrap()).collect();
    assert_eq!(taken, RANGE.collect::<Vec<u32>>());
}

#[test]
fn an_exhausted_range_is_an_error_and_stays_one() {
    let folder = Folder::new("exhausted");
    for _ in RANGE {
        folder.take().unwrap();
    }
    for _ in 0..2 {
        assert!(folder.take().unwrap_err().contains("have been given out"));
    }
    assert_eq!(folder.take_from(100..=110).unwrap(), 110);
    assert!(folder.take_from(50..=99).is_err());
}

#[test]
fn a_damaged_counter_is_an_error_and_never_a_new_beginning() {
    let damages: &[&[u8]] = &[
        b"",
        b"stead logon gid 1, next ",
        b"stead logon gid 1, next +105\n",
        b"stead logon gid 1, next 0105\n",
        b"\xff",
    ];
    for damage in damages {
        let folder = Folder::new("damaged");
        folder.take().unwrap();
        fs::write(folder.0.join(COUNTER), damage).unwrap();
        assert!(folder.take().unwrap_err().contains("damaged"), "{damage:?}");
    }
}

#[test]
fn a_lost_counter_is_an_error_and_never_a_new_beginning() {
    let folder = Folder::new("lost");
    folder.take().unwrap();
    fs::remove_file(folder.0.join(COUNTER)).unwrap();
    assert!(folder.take().unwrap_err().contains("missing"));
}

#[test]
fn a_crash_at_any_step_of_writing_gives_no_gid_twice() {
    let folder = Folder::new("crash");
    let before = folder.take().unwrap();
    // Half a new counter, as a crash leaves it.
    fs::write(folder.0.join(NEW_COUNTER), b"stead logon g").unwrap();
    let after = folder.take().unwrap();
    assert!(after > before);
    // A crash before the marker of the very first counter.
    fs::remove_file(folder.0.join(MARKER)).unwrap();
    assert!(folder.take().unwrap() > after);
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let folder = Folder::new("link");
    folder.take().unwrap();
    let elsewhere = folder.0.join("elsewhere");
    fs::rename(folder.0.join(COUNTER), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, folder.0.join(COUNTER)).unwrap();
    assert!(folder.take().is_err());
}

#[test]
fn gids_of_groups_and_of_subordinate_ranges_are_passed_over() {
    let folder = Folder::new("passed");
    let subordinate = subordinate_ranges(b"alice:102:3\n# nobody\n\ncarol:107:0\n").unwrap();
    assert_eq!(subordinate, [102..=104]);
    let take = || allocate_checked(&folder.name(), RANGE, MAPPED, &subordinate, &|gid| Ok(gid == 101));
    assert_eq!([take().unwrap(), take().unwrap()], [100, 105]);
}

#[test]
fn a_gid_outside_the_user_namespace_is_an_error_that_says_what_to_set() {
    let folder = Folder::new("unmapped");
    let error = allocate_checked(&folder.name(), RANGE, &[0..=65], &[], &|_| Ok(false)).unwrap_err();
    assert!(error.contains("set a range of logon gids within 0..=65"), "{error}");
}

#[test]
fn many_at_once_get_different_gids() {
    let folder = Folder::new("at-once");
    let name = folder.name();
    let all: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| allocate_checked(&name, 100..=199, MAPPED, &[], &|_| Ok(false)).unwrap()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut sorted = all.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), all.len());
}

#[test]
fn what_cannot_be_read_of_other_gids_is_an_error_and_no_free_gid() {
    let folder = Folder::new("unread");
    let unread = || allocate_checked(&folder.name(), RANGE, MAPPED, &[], &|_| Err("no answer".to_owned()));
    assert_eq!(unread().unwrap_err(), "no answer");
    assert_eq!(lines_of("/nowhere/subgid").unwrap(), b"");
    assert!(lines_of("/").unwrap_err().contains('/'));
}

#[test]
fn files_of_accounts_are_read_as_others_read_them() {
    // A name in Latin-1, which is no UTF-8.
    assert_eq!(primary_gids(b"jos\xe9:x:7:1234:Jos\xe9:/:/bin/sh\nbroken\n+:::\n"), [1234]);
    for broken in [&b"alice:102:3\nbroken\n"[..], b"bob:x:1", b"bob:1:2:3", b"bob:-1:5", b"bob: 1:5"] {
        assert!(subordinate_ranges(broken).unwrap_err().contains("is not understood"), "{broken:?}");
    }
}
