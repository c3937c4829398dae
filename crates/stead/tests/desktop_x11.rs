//! Interactive processes on a real X server (Xvfb, access control on, nobody in its host list).
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process_support;
mod x11_support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use process_support::{minted, needs_privileges_of_its_own, open_logon, without_privileges_of_its_own};
use stead::desktop::GrantTo;
use stead::os::linux::{DesktopExt, LogonSessionExt, TokenExt, Uid};
use stead::{Command, Desktop, ErrorKind};
use testbed::display::{Display, Options};
use testbed::until;
use x11_support::*;

#[test]
fn a_logon_session_is_let_onto_a_display_while_its_program_runs_and_nobody_else_is() {
    let bed = testbed::require!();
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options::default());
    let desktop = desktop(&display);
    let alice = log_on(bed, "alice", &counter);
    let another = log_on(bed, "alice", &counter);
    let bob = log_on(bed, "bob", &counter);
    let before = desktop.access().unwrap();
    assert_eq!(before.entries(), [], "nobody is let in");
    assert!(!is_let_in(bed, alice.token(), &display, None));
    assert_eq!(display.screenshot().count(BLUE), 0);

    let client = bed.bin("testbed-xclient");
    let stolen = bed.user("alice").home.join(format!("stolen-{}", std::process::id()));
    let script = format!("cat \"$XAUTHORITY\" >{}; exec {} show 3366cc", stolen.display(), client.display());
    let mut program = Interactive::start(&script, alice.token(), &desktop);
    assert_eq!(program.line(), "shown");
    let picture = display.screenshot();
    assert_eq!(picture.count(BLUE), 200 * 150);
    picture.keep(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots/interactive-x11.png"));

    // One entry, for that logon session; and what it is let in by, only it can reach.
    let during = desktop.access().unwrap();
    let [entry] = during.entries() else { panic!("{during}") };
    assert_eq!(*entry.trustee(), desktop.trustee(alice.token()).unwrap());
    let file = &program.authority.clone();
    let folder = file.parent().unwrap();
    let (about, around) = (std::fs::metadata(file).unwrap(), std::fs::metadata(folder).unwrap());
    let user = bed.user("alice");
    let gid = alice.logon_gid().unwrap().as_raw();
    assert_eq!((about.uid(), about.permissions().mode() & 0o7777), (user.uid, 0o400));
    assert_eq!((around.uid(), around.gid(), around.permissions().mode() & 0o7777), (0, gid, 0o710));

    assert!(is_let_in(bed, alice.token(), &display, Some(file)), "the session itself is");
    assert!(!is_let_in(bed, another.token(), &display, Some(file)), "another session of alice is not");
    assert!(!is_let_in(bed, another.token(), &display, None));
    assert!(!is_let_in(bed, bob.token(), &display, Some(file)), "bob is not");
    assert!(!is_let_in(bed, bob.token(), &display, None));

    program.end();
    until("the lease is given back", || desktop.access().unwrap() == before);
    assert!(!is_let_in(bed, alice.token(), &display, None), "alice is refused again");
    assert!(!is_let_in(bed, alice.token(), &display, Some(&stolen)), "what she kept is worth nothing");
    until("its folder is gone", || !folder.exists());
    for session in [alice, another, bob] {
        session.close().unwrap();
    }
}

#[test]
fn an_interactive_process_is_told_where_and_another_is_told_nothing() {
    let bed = testbed::require!();
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options::default());
    let alice = log_on(bed, "alice", &counter);
    let asked_for = asked(&desktop(&display), alice.token());
    let seen = process_support::seen(process_support::probe(bed).desktop(asked_for), alice.token());
    assert_eq!(seen.variable("DISPLAY"), Some(display.name().as_str()));
    assert_eq!(seen.variable("XDG_SESSION_TYPE"), Some("x11"));
    assert!(seen.variable("XAUTHORITY").unwrap().starts_with("/run/stead/desktops/"));
    assert_eq!(seen.descriptors.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    let seen = process_support::seen(&process_support::probe(bed), alice.token());
    for name in ["DISPLAY", "XAUTHORITY", "XDG_SESSION_TYPE"] {
        assert_eq!(seen.variable(name), None, "{name}");
    }
    alice.close().unwrap();
}

#[test]
fn programs_of_others_agree_who_is_let_in() {
    let bed = testbed::require!();
    if !Path::new("/usr/bin/xdpyinfo").exists() {
        testbed::skip!("xdpyinfo is not installed");
    }
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options::default());
    let alice = log_on(bed, "alice", &counter);
    let mut info = Command::new("xdpyinfo");
    let refused = info.env("DISPLAY", display.name()).output_as(alice.token()).unwrap();
    assert!(
        !refused.status.success() && text(&refused).contains("unable to open display"),
        "{}",
        text(&refused)
    );
    let asked_for = asked(&desktop(&display), alice.token());
    let shown = Command::new("xdpyinfo").desktop(asked_for).output_as(alice.token()).unwrap();
    assert!(shown.status.success() && text(&shown).contains("640x480 pixels"), "{}", text(&shown));
    alice.close().unwrap();
}

#[test]
fn an_untrusted_program_sees_and_changes_nothing_of_others_and_a_trusted_one_does() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("how a display is entered");
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options::default());
    let alice = log_on(bed, "alice", &counter);
    let run = |what: &str, trusted| {
        let desktop = desktop(&display).trusted(trusted);
        let output = xclient(bed).arg(what).desktop(desktop).output_as(alice.token()).unwrap();
        (output.status.success(), text(&output))
    };
    for what in ["look", "admit"] {
        let (done, said) = run(what, false);
        assert!(!done && said.contains("Access"), "{what}: {said}");
    }
    assert_eq!(display.hosts().1, []);
    for what in ["look", "admit"] {
        let (done, said) = run(what, true);
        assert!(done, "{what}: {said}");
    }
    // As the documentation says of trusted programs: what they did stays.
    assert_eq!(display.hosts().1, [(5, b"localuser\0nobody".to_vec())]);
    alice.close().unwrap();
}

#[test]
fn the_host_list_admits_the_user_only_where_it_is_asked_for() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("how a display is entered");
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options { without_security: true, ..Options::default() });
    let alice = log_on(bed, "alice", &counter);
    let bob = log_on(bed, "bob", &counter);
    let by_session = desktop(&display);
    let error = by_session.grant(alice.token()).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::DesktopAccess { object, .. } if *object == display.name()),
        "{error}"
    );
    assert!(error.to_string().contains("+extension SECURITY"), "{error}");
    let error = by_session.clone().host_list(true).grant(alice.token()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");

    let by_user = by_session.host_list(true).grant_to(GrantTo::User);
    display.admit("mallory");
    let before = display.hosts();
    let lease = by_user.grant(alice.token()).unwrap();
    assert!(by_user.access().unwrap().names(lease.trustee()), "{}", by_user.access().unwrap());
    assert!(is_let_in(bed, alice.token(), &display, None));
    assert!(!is_let_in(bed, bob.token(), &display, None));
    let second = lease.clone();
    lease.give_back().unwrap();
    assert!(is_let_in(bed, alice.token(), &display, None), "one more lease lives");
    drop(second);
    assert!(!is_let_in(bed, alice.token(), &display, None));
    assert_eq!(display.hosts(), before, "and mallory is where somebody put him");

    // An entry that is there already is nobody's to take away.
    display.admit(&format!("#{}", bed.user("alice").uid));
    let before = display.hosts();
    by_user.grant(alice.token()).unwrap().give_back().unwrap();
    assert_eq!(display.hosts(), before);
    for session in [alice, bob] {
        session.close().unwrap();
    }
}

#[test]
fn an_x_server_that_forgets_everything_with_its_last_client_does_not_forget_a_lease() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a lease that it takes by hand");
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options { resets: true, ..Options::default() });
    let desktop = desktop(&display);
    let alice = log_on(bed, "alice", &counter);
    let lease = desktop.grant(alice.token()).unwrap();
    let (_, authority) = lease.environment().find(|(name, _)| *name == "XAUTHORITY").unwrap();
    for _ in 0..3 {
        // Each is the last client but ours when it leaves.
        assert!(is_let_in(bed, alice.token(), &display, Some(Path::new(authority))));
    }
    let path = Path::new(authority).to_owned();
    lease.give_back().unwrap();
    assert!(!path.exists());
    assert!(!is_let_in(bed, alice.token(), &display, None));
    alice.close().unwrap();
}

#[test]
fn an_x_server_that_begins_anew_after_each_client_answers_each_time() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("reading a display's access list");
    let display = Display::start(bed, &Options { resets: true, ..Options::default() });
    let desktop = desktop(&display);
    for _ in 0..50 {
        // Each is the last client, and the next may come while the X server sends everybody away.
        assert_eq!(desktop.access().unwrap().entries(), []);
    }
}

#[test]
fn an_x_server_that_was_started_anew_is_granted_anew() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a lease that it takes by hand");
    let counter = bed.scratch("desktop").join("gids");
    let folder = bed.scratch("authority");
    let mut display = Display::start(bed, &Options::default());
    let ours = folder.join("authority");
    let desktop = Desktop::by_name(display.name()).unwrap().authority_file(&ours);
    std::fs::copy(display.authority(), &ours).unwrap();
    let alice = log_on(bed, "alice", &counter);
    let lease = desktop.grant(alice.token()).unwrap();
    display.kill();
    let display = Display::start(bed, &Options { number: Some(display.number()), ..Options::default() });
    std::fs::copy(display.authority(), &ours).unwrap();
    let output = xclient(bed).arg("try").desktop(desktop.clone()).output_as(alice.token()).unwrap();
    assert!(output.status.success(), "{}", text(&output));
    lease.give_back().unwrap();
    until("the process's lease is given back, too", || desktop.access().unwrap().entries().is_empty());
    alice.close().unwrap();
}

#[test]
fn what_keeps_the_server_from_a_display_is_named_with_what_would_mend_it() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("how a display is entered");
    let counter = bed.scratch("desktop").join("gids");
    let alice = log_on(bed, "alice", &counter);
    let refusal = |desktop: Desktop| {
        let error = desktop.grant(alice.token()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::DesktopAccess { .. }), "{error}");
        assert!(error.remedy().is_some(), "{error}");
        error.to_string()
    };
    let said = refusal(Desktop::by_name(":59999").unwrap());
    assert!(said.contains(":59999") && said.contains("no X server listens there"), "{said}");
    let display = Display::start(bed, &Options::default());
    let said = refusal(Desktop::by_name(display.name()).unwrap());
    assert!(said.contains("does not let this server in") && said.contains("authority_file"), "{said}");
    // What a user could have put there is never opened as the server.
    let user = bed.user("alice");
    let theirs = user.home.join("authority");
    std::fs::copy(display.authority(), &theirs).unwrap();
    let said = refusal(Desktop::by_name(display.name()).unwrap().authority_file(&theirs));
    assert!(said.contains(&format!("belongs to uid {}", user.uid)), "{said}");
    drop(display);

    // Anybody can listen where no X server does: not even the cookie is shown to him.
    let display = Display::start(bed, &Options { user: Some("bob".into()), ..Options::default() });
    let desktop = desktop(&display);
    let bob = Uid::new(bed.user("bob").uid).unwrap();
    let said = refusal(desktop.clone());
    assert!(said.contains(&format!("belongs to uid {bob}")) && said.contains("display_owner"), "{said}");
    desktop.display_owner(bob).grant(alice.token()).unwrap().give_back().unwrap();

    let without =
        stead::Logon::s4u(stead::Account::local("alice")).kind(stead::LogonType::Interactive).open();
    let without = without.unwrap();
    assert_eq!(without.token().logon_gid(), None);
    let error = Desktop::by_name(display.name()).unwrap().grant(without.token()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoLogonSid), "{error}");
    assert!(error.to_string().contains("Logon::logon_sid"), "{error}");
    let error = Command::new("true").desktop(Desktop::by_name(":1").unwrap()).spawn_as(without.token());
    assert!(matches!(error.unwrap_err().kind(), ErrorKind::NoLogonSid));
    for name in ["", "here", "host:1", ":x"] {
        let error = Desktop::by_name(name).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    }
    for session in [alice, without] {
        session.close().unwrap();
    }
}

#[test]
fn an_x_server_that_does_not_answer_holds_nobody_for_long() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a lease that it takes by hand");
    let counter = bed.scratch("desktop").join("gids");
    let display = Display::start(bed, &Options::default());
    let desktop = desktop(&display);
    let alice = log_on(bed, "alice", &counter);
    let silent = |error: stead::Error| {
        assert!(matches!(error.kind(), ErrorKind::DesktopAccess { .. }), "{error}");
        assert!(error.to_string().contains("does not answer"), "{error}");
    };
    let lease = desktop.grant(alice.token()).unwrap();
    display.pause();
    silent(desktop.access().unwrap_err());
    silent(desktop.clone().trusted(true).grant(alice.token()).unwrap_err());
    silent(lease.give_back().unwrap_err());
    // What could not be taken back is swept when it can be.
    // (Another test's server may have begun with it: then it is not this one's to sweep.)
    if let Err(error) = stead::desktop::sweep() {
        silent(error);
    }
    #[cfg(feature = "tokio")]
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut command = Command::new("true");
            command.desktop(desktop.clone());
            let (mut ticks, mut spawn) = (0, std::pin::pin!(command.spawn_as_async(alice.token())));
            let error = loop {
                tokio::select! {
                    result = &mut spawn => break result.unwrap_err(),
                    () = tokio::time::sleep(std::time::Duration::from_millis(50)) => ticks += 1,
                }
            };
            silent(error);
            assert!(ticks > 10, "the runtime's only thread went on: {ticks}");
        });
    }
    display.resume();
    until("what was left is swept", || {
        stead::desktop::sweep().is_ok() && desktop.access().unwrap().entries().is_empty()
    });
    assert!(xclient(bed).arg("try").desktop(desktop).status_as(alice.token()).unwrap().success());
    alice.close().unwrap();
}
