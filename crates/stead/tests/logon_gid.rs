//! Logon gids: what names one logon session in an access list.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]
#![allow(
    unused_qualifications,
    dead_code,
    reason = "`crate::` is not this where the service's tests take it in"
)]

mod logon_support;

use std::ops::RangeInclusive;
use std::path::Path;

use logon_support::*;
use stead::os::linux::{LogonExt, LogonGid, LogonSessionExt};
use stead::{Command, ErrorKind, Logon, LogonSession, LogonType, Stdio};
use testbed::Bed;

/// Gids that this bed's user namespace has.
fn range() -> RangeInclusive<u32> {
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap();
    let all = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    if all { 0x7000_0000..=0x7000_0fff } else { 61_000..=61_999 }
}

/// A logon with a gid of its own. The program says of whose: the library's tests of a counter of their own, those of the
/// service of the service's.
fn asking_for_a_gid(logon: Logon, counter: &Path) -> Logon {
    logon.logon_gid(LogonGid::range(range()).directory(counter))
}

/// Where its gid is from.
fn gids() -> RangeInclusive<u32> {
    range()
}

fn with_gid(bed: &Bed, counter: &Path) -> LogonSession {
    crate::asking_for_a_gid(logon(bed, "alice"), counter).opened().unwrap()
}

#[test]
fn each_session_that_asks_gets_a_gid_of_its_own_beside_its_groups() {
    let bed = testbed::require!();
    let counter = bed.scratch("gids").join("state");
    let without = seen(bed, &session(bed, "alice"));
    let mut given = Vec::new();
    for _ in 0..3 {
        let session = with_gid(bed, &counter);
        let gid = session.logon_gid().unwrap().as_raw();
        let ours = seen(bed, &session);
        let mut expected = without.groups.clone();
        expected.push(gid);
        expected.sort_unstable();
        assert_eq!(ours.groups, expected);
        assert_eq!(ours.gid, without.gid, "never a primary gid");
        assert!(!given.contains(&gid) && crate::gids().contains(&gid));
        given.push(gid);
        session.close().unwrap();
    }
}

#[test]
fn an_access_list_admits_one_session_and_not_another_of_the_same_user() {
    let bed = testbed::require!();
    let folder = bed.scratch("acl");
    let (one, other) = (with_gid(bed, &folder.join("state")), with_gid(bed, &folder.join("state")));
    let file = folder.join("notes");
    std::fs::write(&file, "for one session").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let entry = format!("g:{}:r", one.logon_gid().unwrap());
    match std::process::Command::new("setfacl").arg("-m").arg(entry).arg(&file).status() {
        Ok(status) if status.success() => {}
        _ => testbed::skip!("setfacl is missing, or the file system has no access lists"),
    }
    let read = |session: &LogonSession| {
        Command::new("/bin/cat").arg(&file).stdout(Stdio::piped()).output_as(session.token()).unwrap()
    };
    assert_eq!(read(&one).stdout, b"for one session");
    assert!(!read(&other).status.success());
    assert!(!read(&session(bed, "alice")).status.success());
    assert!(!read(&session(bed, "bob")).status.success());
}

#[test]
fn exhaustion_is_an_error_and_no_session_is_left() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a range of gids of its own");
    let counter = bed.scratch("few").join("state");
    let first = *range().start();
    let ask = || logon(bed, "alice").logon_gid(LogonGid::range(first..=first + 1).directory(&counter));
    let given = [ask().open().unwrap(), ask().open().unwrap()].map(|one| one.logon_gid().unwrap().as_raw());
    assert_eq!(given, [first, first + 1]);
    for _ in 0..2 {
        let kind = refusal(ask());
        assert!(matches!(&kind, ErrorKind::InvalidInput { what } if what.contains("given out")), "{kind:?}");
    }
    assert!(children().iter().all(|pid| !lives(*pid)));
}

#[test]
fn a_logon_that_fails_later_does_not_give_its_gid_to_the_next() {
    let bed = testbed::require!();
    let counter = bed.scratch("failed").join("state");
    let before = with_gid(bed, &counter).logon_gid().unwrap();
    let fails = logon(bed, "alice").kind(LogonType::Service).remote_host("refuses-to-open.example");
    let error = refused(crate::asking_for_a_gid(fails, &counter));
    assert!(matches!(error.kind(), ErrorKind::LogonFailed | ErrorKind::System { .. }), "{error:?}");
    let after = with_gid(bed, &counter).logon_gid().unwrap();
    assert!(after > before);
}

#[test]
fn a_counter_that_is_not_the_servers_own_is_not_believed() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a counter of its own");
    let counter = bed.scratch("theirs").join("state");
    drop(with_gid(bed, &counter));
    std::os::unix::fs::chown(counter.join("logon-gid"), Some(bed.user("mallory").uid), None).unwrap();
    let kind = refusal(logon(bed, "alice").logon_gid(LogonGid::range(range()).directory(&counter)));
    assert!(matches!(&kind, ErrorKind::InvalidInput { what } if what.contains("belongs to uid")), "{kind:?}");
}
