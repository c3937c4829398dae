//! A real Wayland compositor (Weston, without a screen), and who may connect to it.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod desktop_support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use desktop_support::*;
use stead::desktop::GrantTo;
use stead::{Command, Desktop, ErrorKind, LogonSession};
use testbed::wayland::{Compositor, missing};
use testbed::{Bed, until};

/// A compositor of bob's, who sits before the screen; the test is skipped where there can be none.
macro_rules! compositor {
    ($bed:expr) => {{
        if let Some(reason) = missing() {
            testbed::skip!("{reason}");
        }
        if testbed::confine::is_out_of_reach("sys_admin") {
            testbed::skip!("a compositor's socket cannot be bound without CAP_SYS_ADMIN, which an ordinary container lacks");
        }
        Compositor::start($bed, $bed.user("bob")).unwrap()
    }};
}

fn client(bed: &Bed) -> Command {
    Command::new(bed.bin("testbed-wayland"))
}

fn desktop(compositor: &Compositor) -> Desktop {
    Desktop::by_name(compositor.socket()).unwrap()
}

/// Whether a program of the session, which has no lease itself, gets through to a socket.
fn connects(bed: &Bed, session: &LogonSession, socket: &Path) -> bool {
    let said = printed(client(bed).arg(socket), session);
    assert!(
        said.starts_with("connected: ")
            || said.contains("Permission denied")
            || said.contains("No such file"),
        "{said}"
    );
    said.starts_with("connected: ")
}

/// Where a process of the session, which is on the desktop, finds the compositor.
fn leads_to(desktop: &Desktop, session: &LogonSession) -> (Running, PathBuf) {
    let running =
        Running::start(shell("echo $WAYLAND_DISPLAY; read -r until_told").desktop(desktop.clone()), session);
    let path = PathBuf::from(&running.said);
    (running, path)
}

#[test]
fn one_logon_session_connects_while_it_has_a_process_there_and_nobody_else_ever() {
    let bed = testbed::require!();
    let compositor = compositor!(bed);
    let desktop = desktop(&compositor);
    let (ours, same_user, other) = (session(bed, "alice"), session(bed, "alice"), session(bed, "mallory"));
    // What a lax program of bob's leaves beside it, protected by the folder alone.
    let lax = compositor.runtime_directory().join("lax");
    let _listener = std::os::unix::net::UnixListener::bind(&lax).unwrap();
    std::fs::set_permissions(&lax, PermissionsExt::from_mode(0o777)).unwrap();

    let before = (desktop.access().unwrap(), getfacl(&compositor.socket()));
    let folder = getfacl(compositor.runtime_directory());
    for session in [&ours, &same_user, &other] {
        assert!(!connects(bed, session, &compositor.socket()));
    }

    let running = Running::start(client(bed).desktop(desktop.clone()), &ours);
    assert!(running.said.starts_with("connected: "), "{}", running.said);
    let (second, path) = leads_to(&desktop, &ours);
    assert!(path.is_absolute() && path.starts_with("/run/stead/desktops"), "{}", path.display());
    assert!(connects(bed, &ours, &path), "every process of the session");
    for session in [&same_user, &other] {
        assert!(!connects(bed, session, &path));
        assert!(!connects(bed, session, &compositor.socket()));
    }
    // No right on what else is there.
    assert_eq!(getfacl(compositor.runtime_directory()), folder);
    assert!(!connects(bed, &ours, &compositor.socket()) && !connects(bed, &ours, &lax));
    assert!(printed(shell("ls -a \"$(dirname $0)\"").arg(&path), &other).contains("denied"));

    running.end();
    assert!(connects(bed, &ours, &path), "the session has a process there still");
    second.end();
    until_as_before(&desktop, &before.0);
    assert_eq!(getfacl(&compositor.socket()), before.1);
    for session in [&ours, &same_user, &other] {
        assert!(!connects(bed, session, &path) && !connects(bed, session, &compositor.socket()));
    }
    until("the grant's folder is gone", || !path.parent().unwrap().exists());
}

#[test]
fn the_original_client_weston_info_works_with_the_lease_and_only_with_it() {
    let bed = testbed::require!();
    let compositor = compositor!(bed);
    let session = session(bed, "alice");
    let mut info = Command::new("weston-info");
    let refused = printed(info.env("WAYLAND_DISPLAY", compositor.socket()), &session);
    assert!(refused.contains("failed to create display"), "{refused}");
    let mut info = Command::new("weston-info");
    let shown = printed(info.desktop(desktop(&compositor)), &session);
    assert!(shown.contains("wl_compositor"), "{shown}");
}

#[test]
fn a_program_that_the_process_leaves_behind_keeps_the_lease_until_it_ends() {
    let bed = testbed::require!();
    let compositor = compositor!(bed);
    let desktop = desktop(&compositor);
    let (session, before) = (session(bed, "alice"), desktop.access().unwrap());
    let script = "(setsid sh -c 'read -r until_told < $0' $0 &) ; echo $WAYLAND_DISPLAY; read -r until_told";
    let fifo = bed.user("alice").home.join(format!("until-told-{}", std::process::id()));
    assert!(printed(shell("mkfifo $0").arg(&fifo), &session).is_empty());
    let running = Running::start(shell(script).arg(&fifo).desktop(desktop.clone()), &session);
    let path = PathBuf::from(&running.said);
    running.end();
    for _ in 0..20 {
        assert!(connects(bed, &session, &path), "its tree has not ended");
    }
    std::fs::write(&fifo, "go\n").unwrap();
    until_as_before(&desktop, &before);
    std::fs::remove_file(&fifo).unwrap();
}

#[test]
fn the_environment_leads_to_the_compositor_and_the_runtime_directory_is_the_clients_own_or_none() {
    let bed = testbed::require!(alone);
    let compositor = compositor!(bed);
    let (desktop, session) = (desktop(&compositor), session(bed, "alice"));
    let script = "echo \"$XDG_SESSION_TYPE|$XDG_RUNTIME_DIR|$DISPLAY|$WAYLAND_DISPLAY\"";
    let seen = || printed(shell(script).desktop(desktop.clone()), &session);
    assert!(seen().starts_with("wayland|||/run/stead/desktops/"), "{}", seen());
    let alice = bed.user("alice");
    let own = PathBuf::from(format!("/run/user/{}", alice.uid));
    std::fs::create_dir(&own).unwrap();
    let with = |owner: u32, mode: u32| {
        chown(&own, Some(owner), None).unwrap();
        std::fs::set_permissions(&own, PermissionsExt::from_mode(mode)).unwrap();
        seen().split('|').nth(1).unwrap().to_owned()
    };
    let seen = [(alice.uid, 0o700), (alice.uid, 0o755), (bed.user("mallory").uid, 0o700)]
        .map(|(owner, mode)| with(owner, mode));
    std::fs::remove_dir(&own).unwrap();
    assert_eq!(seen, [own.to_str().unwrap(), "", ""]);
}

#[test]
fn entries_that_others_made_stay_as_they_are() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a lease that it takes by hand");
    let compositor = compositor!(bed);
    let (desktop, session) = (desktop(&compositor), session(bed, "alice"));
    let svc = bed.user("svc").uid;
    setfacl(&format!("u:{svc}:rw"), &compositor.socket());
    let before = getfacl(&compositor.socket());
    let lease = desktop.grant(session.token()).unwrap();
    assert_ne!(getfacl(&compositor.socket()), before);
    lease.give_back().unwrap();
    assert_eq!(getfacl(&compositor.socket()), before);
    // One that is made meanwhile stays too.
    let lease = desktop.grant(session.token()).unwrap();
    setfacl(&format!("g:{}:r", bed.user("mallory").gid), &compositor.socket());
    drop(lease);
    setfacl(&format!("g:{}:r", bed.user("mallory").gid), &compositor.socket());
    let after = getfacl(&compositor.socket());
    let (named, theirs) = (format!("user:{svc}:rw-"), format!("group:{}:r--", bed.user("mallory").gid));
    let gid = session_gid(&session);
    assert!(after.contains(&named) && after.contains(&theirs) && !after.contains(&gid), "{after}");
}

/// The logon gid as getfacl prints an entry for it.
fn session_gid(session: &LogonSession) -> String {
    use stead::os::linux::LogonSessionExt;
    format!("group:{}:", session.logon_gid().unwrap())
}

#[test]
fn leases_of_a_hundred_processes_of_five_sessions_leave_the_list_as_it_was() {
    let bed = testbed::require!();
    testbed::time_limit!(300);
    let compositor = compositor!(bed);
    let desktop = desktop(&compositor);
    let before = (desktop.access().unwrap(), getfacl(&compositor.socket()));
    let sessions: Vec<LogonSession> =
        ["alice", "bob", "alice", "mallory", "alice"].iter().map(|user| session(bed, user)).collect();
    std::thread::scope(|scope| {
        for session in &sessions {
            let (desktop, bed) = (&desktop, bed);
            scope.spawn(move || {
                for _ in 0..20 {
                    let said = printed(client(bed).desktop(desktop.clone()), session);
                    assert!(said.starts_with("connected: "), "{said}");
                }
            });
        }
    });
    until_as_before(&desktop, &before.0);
    assert_eq!(getfacl(&compositor.socket()), before.1);
}

#[test]
fn a_lease_for_the_user_admits_all_his_sessions_and_nobody_else() {
    let bed = testbed::require!();
    let compositor = compositor!(bed);
    let desktop = desktop(&compositor).grant_to(GrantTo::User);
    let before = getfacl(&compositor.socket());
    let (ours, same_user, other) = (session(bed, "alice"), session(bed, "alice"), session(bed, "mallory"));
    let (running, path) = leads_to(&desktop, &ours);
    assert!(connects(bed, &ours, &path) && connects(bed, &same_user, &path) && !connects(bed, &other, &path));
    running.end();
    until("the list is what it was", || getfacl(&compositor.socket()) == before);
}

#[test]
fn a_mount_namespace_that_a_client_kept_leads_to_a_socket_that_refuses() {
    let bed = testbed::require!();
    let compositor = compositor!(bed);
    let (desktop, session) = (desktop(&compositor), session(bed, "alice"));
    let before = desktop.access().unwrap();
    let (running, path) = leads_to(&desktop, &session);
    // Not of the leased process's tree: the session's other processes may have such a namespace at any time.
    let kept = bed.user("alice").home.join(format!("kept-{}", std::process::id()));
    let script = "exec unshare --user --mount --map-root-user sh -c \
                  'touch $2 && mount --bind $1 $2 && echo kept; read -r until_told; exec $0 $2' $0 $1 $2";
    let mut command = shell(script);
    command.arg(bed.bin("testbed-wayland")).arg(&path).arg(&kept);
    let mut keeper = Running::start(&mut command, &session);
    if keeper.said != "kept" {
        testbed::skip!("needs user namespaces for ordinary users");
    }
    running.end();
    until_as_before(&desktop, &before);
    let socket = format!("/proc/{}/root{}", keeper.child.id(), kept.display());
    let kind = std::fs::metadata(socket).unwrap().file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_socket(&kind), "it is still bound there");
    keeper.tell("go");
    let said = keeper.line();
    assert!(said.starts_with("refused: Permission denied"), "{said}");
    keeper.end();
    std::fs::remove_file(&kept).unwrap();
}

#[test]
fn a_compositor_that_was_started_anew_is_granted_anew() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a lease that it takes by hand");
    let compositor = compositor!(bed);
    let (desktop, session) = (desktop(&compositor), session(bed, "alice"));
    let first = desktop.grant(session.token()).unwrap();
    let directory = compositor.runtime_directory().to_owned();
    drop(compositor);
    let _ = std::fs::remove_file(directory.join("wayland-0"));
    let compositor = Compositor::start_in(bed.user("bob"), &directory).unwrap();
    let before = getfacl(&compositor.socket());
    assert!(printed(client(bed).desktop(desktop.clone()), &session).starts_with("connected: "));
    first.give_back().unwrap();
    until("the new socket's list is what it was", || getfacl(&compositor.socket()) == before);
}

/// Takes a lease, says so, and waits to be killed.
#[test]
fn role_a_server_that_will_be_killed() {
    let Some(socket) = std::env::var_os("STEAD_TEST_SOCKET") else { return };
    let bed = Bed::current().unwrap();
    let session = session(bed, "alice");
    let desktop = Desktop::by_name(socket).unwrap();
    let lease = desktop.grant(session.token()).unwrap();
    let path = lease.environment().find(|(name, _)| *name == "WAYLAND_DISPLAY").unwrap().1.to_owned();
    println!("\nrole: {} {}", path.display(), session_gid(&session));
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

/// Starts that server, and gives it with what it said.
fn doomed_server(bed: &Bed, compositor: &Compositor) -> (std::process::Child, PathBuf, String) {
    let mut server = role(bed, &[], "role_a_server_that_will_be_killed")
        .env("STEAD_TEST_SOCKET", compositor.socket())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said =
        lines.find_map(|line| line.strip_prefix("role: ").map(str::to_owned)).expect("it has its lease");
    let (path, gid) = said.split_once(' ').unwrap();
    (server, path.into(), gid.to_owned())
}

#[test]
fn what_a_killed_server_had_granted_is_swept_and_nothing_else() {
    // Alone: other tests' servers would sweep it as well.
    let bed = testbed::require!(alone);
    needs_privileges_of_its_own("a lease that it takes by hand");
    let compositor = compositor!(bed);
    let socket = compositor.socket();
    let svc = format!("user:{}:rw-", bed.user("svc").uid);
    setfacl(&format!("u:{}:rw", bed.user("svc").uid), &socket);
    let before = getfacl(&socket);
    let living = session(bed, "mallory");

    let (mut server, path, gid) = doomed_server(bed, &compositor);
    let lease = desktop(&compositor).grant(living.token()).unwrap();
    stead::desktop::sweep().unwrap();
    assert!(getfacl(&socket).contains(&gid), "its server lives");
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(getfacl(&socket).contains(&gid) && path.exists(), "a killed server takes nothing back");
    stead::desktop::sweep().unwrap();
    let swept = getfacl(&socket);
    assert!(
        !swept.contains(&gid) && swept.contains(&svc) && swept.contains(&session_gid(&living)),
        "{swept}"
    );
    assert!(!path.exists() && !path.parent().unwrap().exists());
    lease.give_back().unwrap();
    assert_eq!(getfacl(&socket), before);
}

#[test]
fn what_a_killed_server_had_granted_is_swept_when_its_compositor_is_gone_too() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a lease that it takes by hand");
    let compositor = compositor!(bed);
    let (mut server, path, _) = doomed_server(bed, &compositor);
    server.kill().unwrap();
    server.wait().unwrap();
    drop(compositor);
    stead::desktop::sweep().unwrap();
    assert!(!path.parent().unwrap().exists());
}

#[test]
fn a_server_without_the_right_to_mount_is_told_so_and_grants_nothing() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a lease that it takes by hand");
    let compositor = compositor!(bed);
    let socket = compositor.socket();
    let before = getfacl(&socket);
    let prefix = ["setpriv", "--bounding-set=-sys_admin", "--"];
    let output = role(bed, &prefix, "role_a_server_without_cap_sys_admin")
        .env("STEAD_TEST_SOCKET", &socket)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("role: refused: "), "{said}");
    assert!(said.contains("CAP_SYS_ADMIN"), "{said}");
    assert_eq!(getfacl(&socket), before);
}

/// Tries to take a lease.
#[test]
fn role_a_server_without_cap_sys_admin() {
    let Some(socket) = std::env::var_os("STEAD_TEST_SOCKET") else { return };
    let bed = Bed::current().unwrap();
    let session = session(bed, "alice");
    let error = Desktop::by_name(socket).unwrap().grant(session.token()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DesktopAccess { .. }), "{error:?}");
    println!("\nrole: refused: {error}");
}

#[test]
fn what_somebody_could_have_put_in_the_sockets_place_is_not_granted() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a lease that it takes by hand");
    let compositor = compositor!(bed);
    let session = session(bed, "alice");
    let bob = bed.user("bob");
    let refused = |path: &Path| {
        let error = Desktop::by_name(path).unwrap().grant(session.token()).unwrap_err();
        error.to_string()
    };
    // bob leads his desktop's name to a socket of root's.
    let secret = bed.scratch("secret").join("root.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&secret).unwrap();
    let link = compositor.runtime_directory().join("wayland-7");
    symlink(&secret, &link).unwrap();
    chown(compositor.runtime_directory(), Some(bob.uid), None).unwrap();
    assert!(refused(&link).contains("symbolic link"), "{}", refused(&link));
    let hard = compositor.runtime_directory().join("wayland-8");
    std::fs::hard_link(&secret, &hard).unwrap();
    assert!(refused(&hard).contains("put something in its place"), "{}", refused(&hard));
    let file = compositor.runtime_directory().join("file");
    std::fs::write(&file, "").unwrap();
    chown(&file, Some(bob.uid), None).unwrap();
    assert!(refused(&file).contains("no socket"), "{}", refused(&file));
    let open = bed.scratch("open");
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    let anybodys = open.join("wayland-0");
    let _anybodys = std::os::unix::net::UnixListener::bind(&anybodys).unwrap();
    assert!(refused(&anybodys).contains("put something in its place"), "{}", refused(&anybodys));
    assert!(refused(&open.join("nothing")).contains("nothing"), "{}", refused(&open.join("nothing")));
    assert!(getfacl(&secret).lines().all(|line| !line.starts_with("mask")));
}
