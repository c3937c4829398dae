//! Whose identity a thread has: while it impersonates, and after.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

mod impersonate_support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use impersonate_support::*;
use stead::os::linux::RestrictionExt;
use stead::{Client, ErrorKind, ImpersonationLevel, Token, impersonate};

#[test]
fn the_thread_has_exactly_the_clients_effective_ids_and_no_capability() {
    let bed = testbed::require!();
    let before = seen();
    for name in ["alice", "bob", "0day", "carol"] {
        let Some(user) = bed.find_user(name) else { continue };
        let within = token(bed, name).impersonate(|_| seen()).unwrap();
        assert_eq!(within, before.acting_for(user), "{name}");
        assert_eq!(seen(), before, "{name}");
    }
}

#[test]
fn a_primary_token_and_a_client_impersonate_just_as_well() {
    let bed = testbed::require!();
    let before = seen();
    let wanted = before.acting_for(bed.user("alice"));
    let (_process, client) = client(bed, "alice");
    assert_eq!(client.impersonate(|_| seen()).unwrap(), wanted);
    let primary = client.token().unwrap().to_primary().unwrap();
    assert_eq!(primary.impersonate(|_| seen()).unwrap(), wanted);
    assert_eq!(seen(), before);
}

#[test]
fn below_impersonation_level_nothing_runs() {
    let bed = testbed::require!();
    let before = seen();
    let known = token(bed, "alice").duplicate(ImpersonationLevel::Identification).unwrap();
    let ran = AtomicBool::new(false);
    let refused = known.impersonate(|_| ran.store(true, Ordering::Relaxed)).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::LevelTooLow { .. }), "{refused}");
    assert!(!ran.load(Ordering::Relaxed));
    assert_eq!(seen(), before);
}

#[test]
fn a_client_that_grants_identification_is_not_impersonated() {
    let bed = testbed::require!();
    let path = bed.scratch("socket").join("server");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    mode(&path, 0o777);
    let _process = bed.client("alice").connect(&path);
    let (stream, _) = listener.accept().unwrap();
    for level in [ImpersonationLevel::Anonymous, ImpersonationLevel::Identification] {
        let client = Client::with(confinement()).level(level).of(&stream).unwrap();
        let refused = client.impersonate(|_| panic!("it ran")).map(|(): ()| ()).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::LevelTooLow { .. }), "{refused}");
    }
}

#[test]
fn a_nested_impersonation_gives_back_the_one_around_it() {
    let bed = testbed::require!();
    let before = seen();
    let (alice, bob) = (token(bed, "alice"), token(bed, "bob"));
    let (as_alice, as_bob) = (before.acting_for(bed.user("alice")), before.acting_for(bed.user("bob")));
    alice
        .impersonate(|me| {
            assert_eq!(seen(), as_alice);
            me.impersonate(&bob, |inner| {
                assert_eq!(seen(), as_bob);
                inner.impersonate(&alice, |_| assert_eq!(seen(), as_alice)).unwrap();
                assert_eq!(seen(), as_bob);
                assert_eq!(Token::open_thread(inner).unwrap(), bob);
            })
            .unwrap();
            assert_eq!(seen(), as_alice);
            // Also past the handle: the thread knows by itself what is on it.
            bob.impersonate(|_| assert_eq!(seen(), as_bob)).unwrap();
            assert_eq!(seen(), as_alice);
            assert_eq!(Token::open_thread(me).unwrap(), alice);
        })
        .unwrap();
    assert_eq!(seen(), before);
}

#[test]
fn a_nested_impersonation_that_is_refused_leaves_the_one_around_it() {
    let bed = testbed::require!();
    let before = seen();
    let as_alice = before.acting_for(bed.user("alice"));
    let known = token(bed, "bob").duplicate(ImpersonationLevel::Identification).unwrap();
    token(bed, "alice")
        .impersonate(|me| {
            me.impersonate(&known, |_| panic!("it ran")).map(|(): ()| ()).unwrap_err();
            assert_eq!(seen(), as_alice);
        })
        .unwrap();
    assert_eq!(seen(), before);
}

#[test]
fn an_outer_handle_does_not_act_while_another_identity_is_on_the_thread() {
    let bed = testbed::require!();
    let (alice, bob) = (token(bed, "alice"), token(bed, "bob"));
    alice
        .impersonate(|me| {
            bob.impersonate(|_| {
                for refused in [me.open("/etc/passwd").map(drop), Token::open_thread(me).map(drop)] {
                    let refused = refused.unwrap_err();
                    assert!(matches!(refused.kind(), ErrorKind::ImpersonationChanged { .. }), "{refused}");
                }
            })
            .unwrap();
            me.open("/etc/passwd").unwrap();
        })
        .unwrap();
}

#[test]
fn a_panic_in_the_closure_restores_the_server() {
    let bed = testbed::require!();
    let before = seen();
    let (alice, bob) = (token(bed, "alice"), token(bed, "bob"));
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _ = alice.impersonate(|me| {
            let inner = catch_unwind(AssertUnwindSafe(|| me.impersonate(&bob, |_| panic!("inner"))));
            assert!(inner.is_err());
            assert_eq!(seen(), before.acting_for(bed.user("alice")));
            panic!("outer");
        });
    }));
    assert!(caught.is_err());
    assert_eq!(seen(), before);
    assert!(matches!(impersonate::current().unwrap_err().kind(), ErrorKind::NotImpersonating));
}

#[test]
fn what_was_there_before_comes_back_and_not_root() {
    // As libkrun#723: a server whose groups and effective ids are not plain root's.
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    std::thread::spawn(move || {
        let group = rustix::fs::Gid::from_raw(47_117);
        rustix::thread::set_thread_groups(&[group, rustix::fs::Gid::from_raw(7), group]).unwrap();
        rustix::thread::set_thread_res_gid(None, Some(group), None).unwrap();
        let before = seen();
        assert_eq!(before.gid, [0, 47_117, 0, 47_117]);
        alice.impersonate(|_| assert_eq!(seen(), before.acting_for(bed.user("alice")))).unwrap();
        assert_eq!(seen(), before);
    })
    .join()
    .unwrap();
}

#[test]
fn the_parent_death_signal_of_the_thread_survives() {
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    let signal = rustix::process::Signal::USR1;
    rustix::process::set_parent_process_death_signal(Some(signal)).unwrap();
    alice.impersonate(|_| ()).unwrap();
    assert_eq!(rustix::process::parent_process_death_signal().unwrap(), Some(signal));
}

#[test]
fn the_thread_tells_its_token_and_only_then() {
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    assert!(matches!(impersonate::current().unwrap_err().kind(), ErrorKind::NotImpersonating));
    alice
        .impersonate(|me| {
            assert_eq!(Token::open_thread(me).unwrap(), alice);
            assert_eq!(impersonate::current().unwrap(), alice);
            assert_eq!(me.token(), &alice);
            std::thread::scope(|scope| {
                let other = scope.spawn(|| impersonate::current().is_err());
                assert!(other.join().unwrap(), "another thread impersonates nobody");
            });
        })
        .unwrap();
    assert!(matches!(impersonate::current().unwrap_err().kind(), ErrorKind::NotImpersonating));
}

#[test]
fn an_identity_changed_behind_the_library_is_noticed_and_undone() {
    let bed = testbed::require!();
    let before = seen();
    let alice = token(bed, "alice");
    let changes: [(&str, fn()); 3] = [
        ("uid", || rustix::thread::set_thread_res_uid(None, Some(rustix::fs::Uid::ROOT), None).unwrap()),
        ("gid", || {
            rustix::thread::set_thread_res_uid(None, Some(rustix::fs::Uid::ROOT), None).unwrap();
            rustix::thread::set_thread_res_gid(None, Some(rustix::fs::Gid::ROOT), None).unwrap();
            rustix::thread::set_thread_res_uid(None, Some(rustix::fs::Uid::from_raw(1)), None).unwrap();
        }),
        ("capabilities", || {
            let mut sets = rustix::thread::capabilities(None).unwrap();
            sets.effective = sets.permitted;
            rustix::thread::set_capabilities(None, sets).unwrap();
        }),
    ];
    for (name, change) in changes {
        alice
            .impersonate(|me| {
                change();
                let refused = Token::open_thread(me).unwrap_err();
                assert!(
                    matches!(refused.kind(), ErrorKind::ImpersonationChanged { .. }),
                    "{name}: {refused}"
                );
            })
            .unwrap();
        assert_eq!(seen(), before, "{name}");
    }
}

#[test]
fn a_removed_group_does_not_come_back_on_the_thread() {
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    let gid = bed.user("alice").groups[0];
    let without = stead::token::Restriction::new().without_group(stead::os::linux::Gid::new(gid).unwrap());
    let least = alice.restrict(&without).unwrap();
    let groups = least.impersonate(|_| seen().groups).unwrap();
    assert!(!groups.contains(&gid));
    assert_eq!(groups.len() + 1, bed.user("alice").all_groups().len());
}

#[test]
fn the_first_impersonation_makes_the_process_undumpable() {
    use rustix::process::{DumpableBehavior, dumpable_behavior};
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
    alice.impersonate(|_| ()).unwrap();
    assert_ne!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
}

#[test]
fn roots_own_token_has_no_capability_on_the_thread_either() {
    let bed = testbed::require!();
    let before = seen();
    let within = Token::current().unwrap().impersonate(|_| seen()).unwrap();
    assert_eq!(within.uid, before.uid);
    assert_eq!(within.effective, 0);
    assert_eq!(seen(), before);
    let _ = bed;
}

#[test]
fn sixty_four_threads_act_for_different_users_while_others_stay_the_server() {
    let bed = testbed::require!();
    let before = seen();
    let names = ["alice", "bob", "mallory", "0day"];
    let tokens: Vec<_> = names.iter().map(|name| token(bed, name)).collect();
    let done = AtomicBool::new(false);
    let start = Barrier::new(64);
    std::thread::scope(|scope| {
        let watchers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(seen(), before);
                    }
                })
            })
            .collect();
        let workers: Vec<_> = (0..64)
            .map(|number| {
                let (tokens, start, before) = (&tokens, &start, &before);
                scope.spawn(move || {
                    start.wait();
                    for turn in 0..50 {
                        let which = (number + turn) % names.len();
                        let within = tokens[which].impersonate(|_| seen()).unwrap();
                        assert_eq!(within, before.acting_for(bed.user(names[which])));
                        assert_eq!(seen(), *before);
                    }
                })
            })
            .collect();
        let results: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        for result in results {
            result.unwrap();
        }
        for watcher in watchers {
            watcher.join().unwrap();
        }
    });
    assert_eq!(seen(), before);
}

#[test]
fn a_program_started_inside_an_impersonation_is_the_servers_work_and_the_tokens_process() {
    let bed = testbed::require!();
    let before = seen();
    let (alice, bob) = (token(bed, "alice"), token(bed, "bob").to_primary().unwrap());
    alice
        .impersonate(|me| {
            let own = Token::open_thread(me).unwrap().to_primary().unwrap();
            for (token, name) in [(&own, "alice"), (&bob, "bob")] {
                let output = stead::Command::new(bed.bin("probe")).output_as(token).unwrap();
                let process = testbed::Probe::parse(&output.stdout);
                assert_eq!(process.uid.real, bed.user(name).uid);
                assert_eq!(process.uid.saved, bed.user(name).uid);
                assert_eq!(process.groups, bed.user(name).all_groups());
                assert_eq!(process.capabilities.permitted, 0);
            }
            assert_eq!(seen(), before.acting_for(bed.user("alice")));
        })
        .unwrap();
    assert_eq!(seen(), before);
}

#[test]
fn before_linux_6_4_a_program_is_started_inside_an_impersonation_just_as_well() {
    let bed = testbed::require!();
    let mut server = std::process::Command::new(bed.this_program());
    let test = "a_program_started_inside_an_impersonation_is_the_servers_work_and_the_tokens_process";
    server.args(["--exact", test, "--nocapture"]);
    testbed::confine::Filter::without_auxiliary_vector().install_on(&mut server);
    let output = server.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    testbed::skip_if_skipped(&output.stdout);
}

#[test]
fn a_client_is_identified_inside_an_impersonation_as_by_the_server() {
    let bed = testbed::require!();
    let (_process, bob) = client(bed, "bob");
    let before = seen();
    token(bed, "alice")
        .impersonate(|_| {
            assert_eq!(bob.impersonate(|_| seen()).unwrap(), before.acting_for(bed.user("bob")));
        })
        .unwrap();
}
