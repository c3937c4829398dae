//! Who may log on, and what the session's processes become.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod logon_support;

use logon_support::*;

#[test]
fn a_right_password_opens_a_session_whose_process_is_the_user() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    let session = session(bed, "alice");
    let process = seen(bed, &session);
    assert_eq!(process.uid.real, alice.uid);
    assert_eq!(process.gid.real, alice.gid);
    session.close().unwrap();
}
