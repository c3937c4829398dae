//! Who may log on, what is asked, and what PAM is told.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod logon_support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use logon_support::*;
use stead::error::AccountRestriction;
use stead::os::linux::LogonExt;
use stead::{Account, Conversation, ErrorKind, Logon, LogonType, Prompt, Secret};
use testbed::until;

#[test]
fn a_right_password_opens_a_session_whose_process_is_the_user() {
    let bed = testbed::require!();
    for name in ["alice", "bob", "0day", "carol"] {
        let Some(user) = bed.find_user(name) else { continue };
        let session = session(bed, name);
        let process = seen(bed, &session);
        assert_eq!(process.uid.real, user.uid, "{name}");
        assert_eq!(process.gid.real, user.gid, "{name}");
        assert_eq!(session.account(), name);
        session.close().unwrap();
    }
}

#[test]
fn a_wrong_password_and_an_unknown_account_are_refused_alike() {
    let bed = testbed::require!();
    let wrong = refused(Logon::password(Account::local("alice"), "not hers").kind(LogonType::Interactive));
    let unknown = refused(Logon::password(Account::local("nobody-here"), "x").kind(LogonType::Interactive));
    let password = bed.user("bob").password.as_str();
    let another = refused(Logon::password(Account::local("alice"), password).kind(LogonType::Interactive));
    for error in [&wrong, &unknown, &another] {
        assert_eq!(*error.kind(), ErrorKind::LogonFailed, "{error}");
    }
    assert_eq!(wrong.to_string().replace("alice", "nobody-here"), unknown.to_string());
}

#[test]
fn what_keeps_an_account_from_logging_on_is_named() {
    let bed = testbed::require!();
    let restricted = |restriction| ErrorKind::AccountRestriction { restriction };
    // pam_unix cannot tell a locked password from a wrong one.
    assert_eq!(refusal(logon(bed, "dave")), ErrorKind::LogonFailed);
    assert_eq!(refusal(logon(bed, "erin")), restricted(AccountRestriction::AccountExpired));
    assert_eq!(refusal(logon(bed, "frank")), restricted(AccountRestriction::PasswordExpired));
    let denied = refusal(logon(bed, "alice").pam_service("stead-fail-account"));
    assert!(
        matches!(&denied, ErrorKind::LogonTypeDenied { logon_type } if logon_type == "stead-fail-account"),
        "{denied:?}"
    );
}

#[test]
fn without_a_password_the_account_is_still_asked_for() {
    let bed = testbed::require!();
    let s4u = |name: &str| Logon::s4u(Account::local(name)).kind(LogonType::Batch);
    let session = from(s4u("alice"), "s4u-alice").opened().unwrap();
    assert_eq!(seen(bed, &session).uid.real, bed.user("alice").uid);
    session.close().unwrap();
    assert_eq!(
        phases(bed, "s4u-alice"),
        ["auth", "account", "open_session", "close_session", "auth"]
            .map(String::from)
            .into_iter()
            .filter(|phase| phase != "auth")
            .collect::<Vec<_>>(),
    );
    let expired = ErrorKind::AccountRestriction { restriction: AccountRestriction::AccountExpired };
    assert_eq!(refusal(s4u("erin")), expired);
    for name in ["nobody-here", "0", "0x0", "-1", "4294967295", "47001"] {
        assert_eq!(refusal(s4u(name)), ErrorKind::AccountUnknown { name: name.to_owned() });
    }
    let nobody = refusal(s4u("nobody"));
    assert!(matches!(nobody, ErrorKind::NoIdentity { .. }), "{nobody:?}");
}

#[test]
fn a_service_that_no_password_opens_admits_who_needs_none() {
    let bed = testbed::require!();
    assert_eq!(refusal(logon(bed, "alice").pam_service("stead-s4u")), ErrorKind::LogonFailed);
    let session = Logon::s4u(Account::local("alice")).pam_service("stead-s4u").opened().unwrap();
    assert_eq!(seen(bed, &session).umask, bed.pam_umask("stead-s4u"));
}

#[test]
fn a_second_question_goes_to_the_conversation() {
    let bed = testbed::require!();
    let otp = |code: &'static str| {
        logon(bed, "alice").pam_service("stead-otp").conversation(move |prompt: &Prompt<'_>| {
            assert!(prompt.text().starts_with("Password required"), "{prompt}");
            assert!(!prompt.echo());
            Some(Secret::from(code))
        })
    };
    otp("246810").opened().unwrap().close().unwrap();
    assert_eq!(refusal(otp("000000")), ErrorKind::LogonFailed);
    let silent = refusal(logon(bed, "alice").pam_service("stead-otp"));
    assert!(
        matches!(&silent, ErrorKind::InvalidInput { what } if what.contains("Password required")),
        "{silent:?}"
    );
    let refuses = logon(bed, "alice").pam_service("stead-otp").conversation(|_: &Prompt<'_>| None);
    refused(refuses);
}

struct Everything {
    password: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Conversation for Everything {
    fn answer(&mut self, prompt: &Prompt<'_>) -> Option<Secret> {
        let heard = &mut *self.heard.lock().unwrap();
        heard.push(prompt.text().to_owned());
        Some(Secret::from(if heard.len() == 1 { self.password.as_str() } else { "246810" }))
    }

    fn inform(&mut self, text: &str, is_error: bool) {
        assert!(!is_error);
        self.heard.lock().unwrap().push(text.to_owned());
    }
}

#[test]
fn a_conversation_alone_answers_the_password_and_hears_what_is_told() {
    let bed = testbed::require!();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let conversation = Everything { password: bed.user("alice").password.clone(), heard: Arc::clone(&heard) };
    let logon = Logon::with_conversation(Account::local("alice"), conversation).pam_service("stead-otp");
    logon.opened().unwrap().close().unwrap();
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert!(heard[0].starts_with("Password:"), "{heard:?}");
}

#[test]
fn an_expired_password_is_changed_in_the_conversation() {
    const NEW: &str = "a door that 47 others never opened";
    let bed = testbed::require!(alone);
    let before = std::fs::read("/etc/shadow").unwrap();
    let old = bed.user("frank").password.clone();
    let changes = logon(bed, "frank").conversation(move |prompt: &Prompt<'_>| {
        let current = prompt.text().starts_with("Current");
        Some(Secret::from(if current { old.as_str() } else { NEW }))
    });
    let first = changes.opened();
    let again = Logon::password(Account::local("frank"), NEW).kind(LogonType::Interactive).opened();
    let with_old = refusal(logon(bed, "frank"));
    std::fs::write("/etc/shadow", before).unwrap();
    assert_eq!(seen(bed, &first.unwrap()).uid.real, bed.user("frank").uid);
    again.unwrap().close().unwrap();
    assert_eq!(with_old, ErrorKind::LogonFailed);
}

#[test]
fn an_empty_password_opens_a_session_at_the_machine_alone() {
    let bed = testbed::require!(alone);
    // Before anything is changed.
    needs_privileges_of_its_own("a PAM service by name (the logon type says which)");
    let before = std::fs::read_to_string("/etc/shadow").unwrap();
    let emptied = |line: &str| {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields[0] == "mallory" {
            fields[1] = "";
        }
        fields.join(":") + "\n"
    };
    std::fs::write("/etc/shadow", before.lines().map(emptied).collect::<String>()).unwrap();
    let with = |kind| Logon::password(Account::local("mallory"), "").kind(kind).pam_service("stead-nullok");
    let kinds = [LogonType::Network, LogonType::NetworkCleartext, LogonType::Batch, LogonType::Service];
    let refused = kinds.map(|kind| with(kind).opened());
    let from_afar = with(LogonType::Interactive).remote_host("192.0.2.1").opened();
    let interactive = with(LogonType::Interactive).opened();
    std::fs::write("/etc/shadow", before).unwrap();
    for session in refused.into_iter().chain([from_afar]) {
        assert_eq!(session.unwrap_err().kind(), &ErrorKind::LogonFailed);
    }
    assert_eq!(seen(bed, &interactive.unwrap()).uid.real, bed.user("mallory").uid);
}

#[test]
fn the_time_of_a_conversation_is_not_counted() {
    let bed = testbed::require!();
    let slow = logon(bed, "alice").pam_service("stead-otp").deadline(Duration::from_secs(8)).conversation(
        |_: &Prompt<'_>| {
            std::thread::sleep(Duration::from_secs(9));
            Some(Secret::from("246810"))
        },
    );
    slow.opened().unwrap();
}

#[test]
fn a_module_that_hangs_is_left_at_the_deadline() {
    let bed = testbed::require!();
    for service in ["stead-slow", "stead-slow-account", "stead-slow-session"] {
        let kind = refusal(logon(bed, "alice").pam_service(service).deadline(Duration::from_secs(1)));
        assert!(matches!(kind, ErrorKind::DeadlinePassed { .. }), "{service}: {kind:?}");
    }
    // Nor is a worker that had no time to start one that is not installed.
    let kind = refusal(logon(bed, "alice").deadline(Duration::ZERO));
    assert!(matches!(kind, ErrorKind::DeadlinePassed { .. }), "{kind:?}");
    until("the workers are gone", || {
        // Collected when the library is used the next time.
        let _ = stead::LogonSession::detached_sessions();
        let _ = Logon::password(Account::local("x"), "x").pam_service("none").opened();
        children().iter().all(|pid| !lives(*pid))
    });
}

#[test]
fn the_phases_come_in_the_order_of_login_programs_and_pam_hears_where_from() {
    let bed = testbed::require!();
    let logon = from(logon(bed, "alice"), "order.example");
    let session = logon.tty("pts/47").remote_user("mallory").opened().unwrap();
    session.close().unwrap();
    let events = events(bed, "order.example");
    let phases: Vec<&str> = events.iter().map(|event| event.phase.as_str()).collect();
    // setcred runs the auth modules again, for pam_exec under no name of its own.
    assert_eq!(
        phases.iter().filter(|phase| **phase != "setcred").copied().collect::<Vec<_>>(),
        ["auth", "account", "open_session", "close_session"],
    );
    for event in &events {
        assert_eq!((event.user.as_str(), event.service.as_str()), ("alice", "stead-interactive"));
        assert_eq!((event.tty.as_str(), event.ruser.as_str()), ("pts/47", "mallory"));
    }
    let callers: Vec<i32> = events.iter().map(|event| event.caller).collect();
    assert!(callers.iter().all(|caller| *caller == callers[0]), "one process calls PAM: {callers:?}");
    assert_ne!(u32::try_from(callers[0]).unwrap(), std::process::id(), "it is not the server");
}

#[test]
fn a_phase_that_fails_leaves_nothing_behind() {
    let bed = testbed::require!();
    session(bed, "alice").close().unwrap();
    let before = descriptors();
    for (service, host) in [
        ("stead-fail-auth", "fail-1"),
        ("stead-fail-account", "fail-2"),
        ("stead-fail-setcred", "fail-3"),
        ("stead-fail-session", "fail-4"),
    ] {
        let error = refused(from(logon(bed, "alice").pam_service(service), host));
        assert!(!matches!(error.kind(), ErrorKind::WorkerUnavailable { .. }), "{service}: {error}");
        assert_eq!(descriptors(), before, "{service}");
        assert!(children().is_empty(), "{service}");
        assert!(!phases(bed, host).contains(&"open_session".to_owned()), "{service}");
    }
}

#[test]
fn another_account_in_the_users_place_is_refused() {
    let bed = testbed::require!();
    assert_eq!(refusal(logon(bed, "alice").pam_service("stead-renames")), ErrorKind::LogonFailed);
}

#[test]
fn a_service_without_a_file_is_an_error_that_says_which_file_to_create() {
    let bed = testbed::require!();
    let said = |service: &str| refused(logon(bed, "alice").pam_service(service)).to_string();
    assert!(said("stead-nowhere").contains("create /etc/pam.d/stead-nowhere"), "{}", said("stead-nowhere"));
    for service in ["", "../../etc/passwd", ".", ".."] {
        assert!(said(service).contains("no name of a PAM service"), "{}", said(service));
    }
}

#[test]
fn bad_input_is_refused_before_anything_is_asked() {
    testbed::require!();
    let kind = |logon: Logon| refusal(logon);
    let invalid = |kind: ErrorKind| assert!(matches!(kind, ErrorKind::InvalidInput { .. }), "{kind:?}");
    invalid(kind(Logon::s4u(Account::local(""))));
    invalid(kind(Logon::s4u(Account::local("ali\0ce"))));
    invalid(kind(Logon::password(Account::local("alice"), "with\0NUL")));
    invalid(kind(Logon::s4u(Account::local("alice")).env("A=B", "c")));
    invalid(kind(Logon::s4u(Account::local("alice")).env("", "c")));
    invalid(kind(Logon::s4u(Account::local("alice")).tty("t\0")));
}

#[test]
fn what_did_not_become_a_worker_is_reaped_before_the_error_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let bed = testbed::require!();
    let folder = bed.scratch("no-worker");
    std::fs::write(folder.join("text"), "no program").unwrap();
    std::fs::set_permissions(folder.join("text"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::copy("/bin/true", folder.join("true")).unwrap();
    for _ in 0..20 {
        for name in ["text", "true"] {
            let error = refused(logon(bed, "alice").worker(folder.join(name)));
            assert!(matches!(error.kind(), ErrorKind::WorkerUnavailable { .. }), "{error}");
            assert!(children().is_empty(), "{name}");
        }
    }
}

#[test]
fn a_worker_that_others_can_write_is_not_started() {
    use std::os::unix::fs::PermissionsExt;
    let bed = testbed::require!();
    let folder = bed.scratch("worker");
    let with = |name: &str| logon(bed, "alice").worker(folder.join(name));
    let said = |name: &str| {
        let error = refused(with(name));
        assert!(matches!(error.kind(), ErrorKind::WorkerUnavailable { .. }), "{error}");
        error.to_string()
    };
    let place = |name: &str, mode: u32, owner: Option<u32>| {
        std::fs::copy(worker_program(), folder.join(name)).unwrap();
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(folder.join(name), owner, None).unwrap();
    };
    place("good", 0o755, None);
    with("good").opened().unwrap();
    place("by-others", 0o757, None);
    assert!(said("by-others").contains("can be written"));
    place("by-group", 0o775, None);
    assert!(said("by-group").contains("can be written"));
    place("mallorys", 0o755, Some(bed.user("mallory").uid));
    assert!(said("mallorys").contains("belongs to uid"));
    assert!(said("missing").contains("No such file"));
    // Another program is not taken for a worker that answers.
    std::fs::copy("/bin/true", folder.join("true")).unwrap();
    assert!(said("true").contains("ended before it answered"));
}

#[test]
fn the_secret_is_in_nobodys_arguments_environment_or_readable_memory() {
    let bed = testbed::require!();
    let secret = bed.user("alice").password.clone();
    let session = session(bed, "alice");
    let worker = children().into_iter().find(|pid| lives(*pid)).expect("the worker is a child");
    let file = |name: &str| std::fs::read(format!("/proc/{worker}/{name}"));
    let arguments = file("cmdline").unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(&secret));
    // Not dumpable: its files in /proc belong to root, whoever it is, and nobody of a lower rank can trace it.
    if !testbed::confine::may("sys_ptrace") {
        for name in ["environ", "mem"] {
            let refused = std::fs::File::open(format!("/proc/{worker}/{name}")).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{name}");
        }
        testbed::skip!("looking into the worker needs CAP_SYS_PTRACE; that nobody can look was tested");
    }
    assert_eq!(file("environ").unwrap(), b"");
    assert!(!memory_contains(worker, secret.as_bytes()), "the worker still has the secret");
    drop(session);
}

/// Whether a process's writable memory holds these bytes.
fn memory_contains(pid: u32, needle: &[u8]) -> bool {
    use std::os::unix::fs::FileExt;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.contains(" rw")).any(|line| {
        let range = line.split(' ').next().unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let from = u64::from_str_radix(from, 16).unwrap();
        let length = u64::from_str_radix(to, 16).unwrap() - from;
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        let read = memory.read_at(&mut bytes, from).unwrap_or(0);
        bytes[..read].windows(needle.len()).any(|window| window == needle)
    })
}
