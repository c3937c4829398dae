//! Privileges of the calling thread: held, enabled, missing, and enabled for one call.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

mod impersonate_support;

use impersonate_support::*;
use rustix::thread::CapabilitySet;
use stead::{ErrorKind, Privilege};

/// Gives up capabilities of the calling thread: from all sets, or from the effective one.
fn give_up(capabilities: CapabilitySet, also_permitted: bool) {
    let mut sets = rustix::thread::capabilities(None).unwrap();
    sets.effective &= !capabilities;
    if also_permitted {
        sets.permitted &= !capabilities;
    }
    rustix::thread::set_capabilities(None, sets).unwrap();
}

#[test]
fn the_report_is_what_the_kernel_says() {
    let bed = testbed::require!();
    let thread = seen();
    let bit = |capability: CapabilitySet| thread.effective & capability.bits() != 0;
    for status in Privilege::report().unwrap() {
        let all = match status.privilege {
            Privilege::AssignPrimaryToken => {
                bit(CapabilitySet::SETUID)
                    && bit(CapabilitySet::SETGID)
                    && bit(CapabilitySet::SETPCAP)
                    && bit(CapabilitySet::KILL)
            }
            Privilege::IncreaseQuota => testbed::confine::may("sys_resource"),
            Privilege::Impersonate => bit(CapabilitySet::SETUID) && bit(CapabilitySet::SETGID),
            Privilege::InspectClient => bit(CapabilitySet::SYS_PTRACE),
            Privilege::Logon => bit(CapabilitySet::DAC_READ_SEARCH) && testbed::confine::may("audit_control"),
            other => panic!("{other} is new"),
        };
        assert_eq!(status.enabled, all, "{status}");
        assert_eq!(status.privilege.require().is_ok(), all);
        assert_eq!(status.missing.is_empty(), all);
    }
    assert_eq!(Privilege::report().unwrap().len(), Privilege::ALL.len());
    let _ = bed;
}

#[test]
fn a_missing_privilege_is_named_with_what_would_mend_it() {
    let bed = testbed::require!();
    give_up(CapabilitySet::SETPCAP | CapabilitySet::KILL, true);
    let refused = Privilege::AssignPrimaryToken.require().unwrap_err();
    let ErrorKind::PrivilegeMissing { privilege, missing, held, enabled } = refused.kind() else {
        panic!("{refused}");
    };
    assert_eq!(*privilege, Privilege::AssignPrimaryToken);
    assert_eq!(missing, "CAP_KILL, CAP_SETPCAP");
    assert!(!held && !enabled);
    assert!(refused.remedy().unwrap().contains("CAP_KILL"), "{refused}");
    let ran = Privilege::AssignPrimaryToken.enabled(|| panic!("it ran")).map(|(): ()| ());
    assert!(matches!(ran.unwrap_err().kind(), ErrorKind::PrivilegeMissing { .. }));
    Privilege::Impersonate.require().unwrap();
    // What was being done is the logon, and the password does not get as far as a worker.
    let alice = stead::Account::local("alice");
    let refused = stead::Logon::password(alice, bed.user("alice").password.as_str()).open().unwrap_err();
    assert_eq!(refused.doing(), "logging on alice");
    assert!(matches!(refused.kind(), ErrorKind::PrivilegeMissing { .. }), "{refused}");
}

#[test]
fn held_and_not_enabled_is_said_and_enabled_for_one_call_on_one_thread() {
    let bed = testbed::require!();
    if !testbed::confine::may("sys_ptrace") {
        testbed::skip!("needs CAP_SYS_PTRACE");
    }
    give_up(CapabilitySet::SYS_PTRACE, false);
    let before = seen();
    let status = Privilege::InspectClient.status().unwrap();
    assert!(status.held && !status.enabled);
    assert_eq!(status.missing, ["CAP_SYS_PTRACE"]);
    let refused = Privilege::InspectClient.require().unwrap_err();
    assert!(refused.to_string().contains("Privilege::enabled"), "{refused}");

    let (within, elsewhere) = Privilege::InspectClient
        .enabled(|| {
            let elsewhere = seen_in(&format!("/proc/self/task/{}/status", std::process::id()));
            (seen(), elsewhere)
        })
        .unwrap();
    assert_eq!(within.effective, before.effective | CapabilitySet::SYS_PTRACE.bits());
    // The test runs on a thread of its own; the main thread has what it had.
    assert!(elsewhere.effective & CapabilitySet::SYS_PTRACE.bits() != 0);
    assert_eq!(seen(), before);
    let _ = bed;
}

#[test]
fn what_was_enabled_before_stays_enabled_after() {
    let bed = testbed::require!();
    let before = seen();
    Privilege::Impersonate.enabled(|| assert_eq!(seen(), before)).unwrap();
    assert_eq!(seen(), before);
    let _ = bed;
}

#[test]
fn a_panic_disables_again_what_was_enabled() {
    let bed = testbed::require!();
    give_up(CapabilitySet::SETUID, false);
    let before = seen();
    let caught = std::panic::catch_unwind(|| Privilege::Impersonate.enabled(|| panic!("in the closure")));
    assert!(caught.is_err());
    assert_eq!(seen(), before);
    let _ = bed;
}

#[test]
fn nothing_is_enabled_while_the_thread_impersonates() {
    let bed = testbed::require!();
    token(bed, "alice")
        .impersonate(|_| {
            for status in Privilege::report().unwrap() {
                assert!(!status.enabled, "{status}");
            }
            let refused = Privilege::Impersonate.enabled(|| panic!("it ran")).map(|(): ()| ());
            assert!(matches!(refused.unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
            assert_eq!(seen().effective, 0);
        })
        .unwrap();
}
