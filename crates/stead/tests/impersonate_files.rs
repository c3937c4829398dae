//! Files and sockets as the client: its rights, no more and no less.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

mod impersonate_support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use impersonate_support::*;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use stead::impersonate::{Access, OpenOptions};
use stead::os::linux::OpenOptionsExt;
use stead::{Error, ErrorKind};

fn denied<T>(result: Result<T, Error>) -> bool {
    matches!(result.map(drop).unwrap_err().kind(), ErrorKind::AccessDenied { .. })
}

#[test]
fn a_file_of_the_client_is_opened_and_anothers_is_not() {
    let bed = testbed::require!();
    let directory = open_directory(bed);
    let (alice, bob) = (bed.user("alice"), bed.user("bob"));
    for user in [alice, bob] {
        let path = directory.join(&user.name);
        fs::write(&path, &user.name).unwrap();
        chown(&path, Some(user.uid), Some(user.gid)).unwrap();
        mode(&path, 0o600);
    }
    let mut text = String::new();
    token(bed, "alice")
        .impersonate(|me| {
            me.open(directory.join("alice")).unwrap().read_to_string(&mut text).unwrap();
            assert!(denied(me.open(directory.join("bob"))));
            assert!(denied(me.create(directory.join("bob"))));
            assert!(denied(me.open("/etc/shadow")));
        })
        .unwrap();
    assert_eq!(text, "alice");
    assert_eq!(fs::read_to_string(directory.join("bob")).unwrap(), "bob");
}

#[test]
fn a_file_that_is_created_belongs_to_the_client() {
    let bed = testbed::require!();
    let path = open_directory(bed).join("new");
    token(bed, "alice")
        .impersonate(|me| {
            me.create(&path).unwrap().write_all(b"one").unwrap();
            me.open_with(&path, OpenOptions::new().append(true)).unwrap().write_all(b"two").unwrap();
            let again = me.open_with(&path, OpenOptions::new().write(true).create_new(true));
            assert_eq!(again.unwrap_err().os_error().unwrap().kind(), std::io::ErrorKind::AlreadyExists);
            me.open_with(
                path.with_extension("secret"),
                OpenOptions::new().write(true).create_new(true).mode(0o600),
            )
            .unwrap();
        })
        .unwrap();
    let alice = bed.user("alice");
    let made = fs::metadata(&path).unwrap();
    assert_eq!((made.uid(), made.gid()), (alice.uid, alice.gid));
    assert_eq!(fs::read_to_string(&path).unwrap(), "onetwo");
    assert_eq!(fs::metadata(path.with_extension("secret")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn an_existing_file_is_emptied_and_keeps_its_owner() {
    let bed = testbed::require!();
    let path = open_directory(bed).join("shared");
    fs::write(&path, "long content").unwrap();
    mode(&path, 0o666);
    token(bed, "alice").impersonate(|me| me.create(&path).unwrap().write_all(b"x").unwrap()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "x");
    assert_eq!(fs::metadata(&path).unwrap().uid(), 0);
}

#[test]
fn a_group_that_is_shut_out_is_shut_out() {
    // Negative permissions (CVE-2014-8989): a group's own bits count for its members, and not those of others.
    let bed = testbed::require!();
    let directory = open_directory(bed);
    let alice = bed.user("alice");
    let gid = *alice.groups.iter().find(|gid| !bed.user("mallory").all_groups().contains(gid)).unwrap();
    let by_mode = directory.join("by-mode");
    fs::write(&by_mode, "").unwrap();
    chown(&by_mode, Some(0), Some(gid)).unwrap();
    mode(&by_mode, 0o604);

    // The same with an access list: system.posix_acl_access, version 2, entries of tag, permissions, id.
    let by_list = directory.join("by-list");
    fs::write(&by_list, "").unwrap();
    let none = u32::MAX;
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, none), (4, 4, none), (8, 0, gid), (16, 4, none), (32, 4, none)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    let flags = rustix::fs::XattrFlags::empty();
    let has_lists = rustix::fs::setxattr(&by_list, "system.posix_acl_access", &list, flags).is_ok();

    let opens = |name: &str, path: &Path| token(bed, name).impersonate(|me| me.open(path).is_ok()).unwrap();
    assert!(!opens("alice", &by_mode));
    assert!(opens("mallory", &by_mode));
    if !has_lists {
        testbed::skip!("the file system has no access lists");
    }
    assert!(!opens("alice", &by_list));
    assert!(opens("mallory", &by_list));
}

#[test]
fn a_relative_path_starts_at_the_clients_home() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    let before = std::env::current_dir().unwrap();
    let name = format!("notes-of-a-test-{}", std::process::id());
    token(bed, "alice").impersonate(|me| me.create(&name).unwrap()).unwrap();
    let made = alice.home.join(&name);
    assert_eq!(fs::metadata(&made).unwrap().uid(), alice.uid);
    fs::remove_file(made).unwrap();
    assert_eq!(std::env::current_dir().unwrap(), before);
}

#[test]
fn a_relative_path_of_a_client_without_an_account_is_refused() {
    let bed = testbed::require!();
    token_of(&["--reuid=46999", "--regid=46999", "--clear-groups"])
        .impersonate(|me| {
            let refused = me.open("notes").unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
            assert!(me.open("/etc/passwd").is_ok());
        })
        .unwrap();
    let _ = bed;
}

#[test]
fn procfs_and_its_magic_links_are_refused() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("a thread of its own that procfs could show");
    let secret = bed.scratch("secret").join("secret");
    fs::write(&secret, "the server's").unwrap();
    mode(&secret, 0o600);
    let held = fs::File::open(&secret).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&held);
    let link = open_directory(bed).join("link");
    symlink(format!("/proc/self/fd/{number}"), &link).unwrap();
    let pid = std::process::id();
    let paths = [
        "/proc/self/maps".into(),
        "/proc/self/environ".into(),
        "/proc/self/mem".into(),
        "/proc/thread-self/status".into(),
        format!("/proc/{pid}/maps"),
        format!("/proc/self/fd/{number}"),
        format!("/proc/{pid}/fd/{number}"),
        format!("/dev/fd/{number}"),
        "/dev/stdin".into(),
        "/proc/self/root/etc/passwd".into(),
        "/proc/self/cwd".into(),
        "/proc/self/exe".into(),
        "/proc/1/../self/maps".into(),
        "/proc".into(),
        link.to_str().unwrap().to_owned(),
    ];
    token(bed, "alice")
        .impersonate(|me| {
            for path in &paths {
                assert!(denied(me.open(path)), "{path}");
                assert!(denied(me.metadata(path)), "{path}");
                assert!(denied(me.open_with(path, OpenOptions::new().write(true))), "{path}");
                assert!(denied(me.connect(path)), "{path}");
                assert!(denied(me.read_dir(path)), "{path}");
                assert!(!matches!(me.access(path, Access::READ), Ok(true)), "{path}");
            }
        })
        .unwrap();
}

/// `0` in a file of a control group means whoever writes it: the client's group would have the server, to freeze it or
/// to end it.
#[test]
fn what_is_written_in_a_clients_name_does_not_move_the_server_into_its_cgroup() {
    let bed = testbed::require!();
    let Some((group, _)) = bed.cgroup("delegated") else {
        testbed::skip!("needs a cgroup that can be written")
    };
    let alice = bed.user("alice");
    let procs = group.join("cgroup.procs");
    for path in [&group, &procs] {
        chown(path, Some(alice.uid), Some(alice.gid)).unwrap();
    }
    let before = fs::read_to_string("/proc/self/cgroup").unwrap();
    token(bed, "alice")
        .impersonate(|me| {
            let mut file = me.open_with(&procs, OpenOptions::new().write(true)).unwrap();
            assert!(file.write_all(b"0").is_err());
            assert!(file.write_all(std::process::id().to_string().as_bytes()).is_err());
        })
        .unwrap();
    assert_eq!(fs::read_to_string("/proc/self/cgroup").unwrap(), before);
    fs::remove_dir(&group).unwrap();
}

#[test]
fn a_fifo_of_the_clients_does_not_hold_the_server() {
    let bed = testbed::require!();
    let path = open_directory(bed).join("fifo");
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    mode(&path, 0o666);
    token(bed, "alice")
        .impersonate(|me| {
            for options in [OpenOptions::new().read(true), OpenOptions::new().write(true).create(true)] {
                let refused = me.open_with(&path, options).unwrap_err();
                assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
            }
            let asked = me.open_with(&path, OpenOptions::new().read(true).special_files(true)).unwrap();
            assert!(asked.metadata().unwrap().file_type().is_fifo());
            assert!(rustix::fs::fcntl_getfl(&asked).unwrap().contains(OFlags::NONBLOCK));
        })
        .unwrap();
}

#[test]
fn a_lease_of_the_clients_does_not_hold_the_server() {
    let bed = testbed::require!();
    let path = open_directory(bed).join("leased");
    fs::write(&path, "").unwrap();
    chown(&path, Some(bed.user("alice").uid), Some(bed.user("alice").gid)).unwrap();
    // F_SETLEASE is 1024, F_WRLCK 1.
    let script = "$SIG{IO} = 'IGNORE'; open(my $f, '+<', $ARGV[0]) or die; \
                  fcntl($f, 1024, 1) or die $!; $| = 1; print \"leased\\n\"; <STDIN>";
    let mut holder = bed
        .as_user("alice", &[], "perl")
        .args(["-e", script])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    if line != "leased\n" {
        holder.wait().unwrap();
        testbed::skip!("no lease could be taken here");
    }
    let refused = token(bed, "alice").impersonate(|me| me.open(&path).unwrap_err()).unwrap();
    assert_eq!(refused.os_error().unwrap().kind(), std::io::ErrorKind::WouldBlock, "{refused}");
    drop(holder.stdin.take());
    holder.wait().unwrap();
}

#[test]
fn an_opened_file_is_close_on_exec_and_blocks_as_usual() {
    let bed = testbed::require!();
    let path = open_directory(bed).join("new");
    token(bed, "alice")
        .impersonate(|me| {
            let options = OpenOptions::new().append(true).read(true).create(true).clone();
            for _ in ["created", "found"] {
                let file = me.open_with(&path, &options).unwrap();
                assert!(rustix::io::fcntl_getfd(&file).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
                let flags = rustix::fs::fcntl_getfl(&file).unwrap();
                assert!(flags.contains(OFlags::APPEND) && !flags.contains(OFlags::NONBLOCK));
            }
        })
        .unwrap();
}

#[test]
fn symbolic_links_are_followed_with_the_clients_rights_or_not_at_all() {
    let bed = testbed::require!();
    let directory = open_directory(bed);
    symlink("/etc/shadow", directory.join("to-shadow")).unwrap();
    symlink("/etc/passwd", directory.join("to-passwd")).unwrap();
    symlink(directory.join("nowhere"), directory.join("dangling")).unwrap();
    token(bed, "alice")
        .impersonate(|me| {
            assert!(denied(me.open(directory.join("to-shadow"))));
            assert!(me.open(directory.join("to-passwd")).is_ok());
            let strict = OpenOptions::new().read(true).no_follow(true).clone();
            assert!(denied(me.open_with(directory.join("to-passwd"), &strict)));
            me.create(directory.join("dangling")).unwrap_err();
            assert!(!directory.join("nowhere").exists());
            needs_privileges_of_its_own("more than opening files");
            assert!(me.symlink_metadata(directory.join("to-passwd")).unwrap().file_type().is_symlink());
            assert!(me.metadata(directory.join("to-passwd")).unwrap().file_type().is_file());
        })
        .unwrap();
    assert!(!directory.join("nowhere").exists());
}

#[test]
fn access_is_asked_for_the_effective_ids() {
    // access(2) would answer for the server's real ones.
    let bed = testbed::require!();
    needs_privileges_of_its_own("more than opening files");
    let directory = open_directory(bed);
    let closed = directory.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("file"), "").unwrap();
    mode(&closed, 0o700);
    token(bed, "alice")
        .impersonate(|me| {
            assert!(!me.access("/etc/shadow", Access::READ).unwrap());
            assert!(me.access("/etc/shadow", Access::EXISTS).unwrap());
            assert!(me.access("/etc/passwd", Access::READ).unwrap());
            assert!(!me.access("/etc/passwd", Access::READ.and(Access::WRITE)).unwrap());
            assert!(me.access("/bin/sh", Access::EXECUTE).unwrap());
            assert!(me.access(&directory, Access::WRITE).unwrap());
            assert!(!me.access(closed.join("file"), Access::EXISTS).unwrap());
            let missing = me.access(directory.join("missing"), Access::EXISTS).unwrap_err();
            assert!(matches!(missing.kind(), ErrorKind::NotFound { .. }), "{missing}");
        })
        .unwrap();
}

#[test]
fn a_directory_is_listed_where_the_client_may() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("more than opening files");
    let directory = open_directory(bed);
    fs::write(directory.join("one"), "").unwrap();
    fs::write(directory.join("two"), "").unwrap();
    let closed = bed.scratch("closed");
    mode(&closed, 0o700);
    token(bed, "alice")
        .impersonate(|me| {
            let mut names: Vec<_> = me.read_dir(&directory).unwrap().map(Result::unwrap).collect();
            names.sort();
            assert_eq!(names, ["one", "two"]);
            assert!(denied(me.read_dir(&closed)));
            assert!(me.read_dir("/etc/passwd").is_err());
        })
        .unwrap();
}

#[test]
fn a_socket_is_connected_where_the_client_may_and_its_peer_sees_the_client() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("more than opening files");
    let directory = open_directory(bed);
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let alice = bed.user("alice");
    chown(&path, Some(alice.uid), Some(alice.gid)).unwrap();
    mode(&path, 0o600);
    let mut stream = token(bed, "alice").impersonate(|me| me.connect(&path)).unwrap().unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let peer = rustix::net::sockopt::socket_peercred(&accepted).unwrap();
    assert_eq!((peer.uid.as_raw(), peer.gid.as_raw()), (alice.uid, alice.gid));
    accepted.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert!(!rustix::fs::fcntl_getfl(&stream).unwrap().contains(OFlags::NONBLOCK));

    token(bed, "mallory").impersonate(|me| assert!(denied(me.connect(&path)))).unwrap();
    token(bed, "alice").impersonate(|me| me.connect("/etc/passwd").unwrap_err()).unwrap();
}

#[test]
fn a_socket_that_nobody_accepts_from_does_not_hold_the_server() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("more than opening files");
    let path = open_directory(bed).join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    mode(&path, 0o777);
    rustix::net::listen(&listener, 0).unwrap();
    let refused = token(bed, "alice")
        .impersonate(|me| {
            let mut held = Vec::new();
            loop {
                match me.connect(&path) {
                    Ok(stream) => held.push(stream),
                    Err(refused) => return refused,
                }
            }
        })
        .unwrap();
    assert_eq!(refused.os_error().unwrap().kind(), std::io::ErrorKind::WouldBlock, "{refused}");
}

#[test]
fn bad_paths_and_options_are_told_apart() {
    let bed = testbed::require!();
    token(bed, "alice")
        .impersonate(|me| {
            let kind = |error: Error| error.kind().clone();
            assert!(matches!(kind(me.open("").unwrap_err()), ErrorKind::InvalidInput { .. }));
            assert!(matches!(kind(me.open("/etc/pass\0wd").unwrap_err()), ErrorKind::InvalidInput { .. }));
            assert!(matches!(kind(me.open("/no/such").unwrap_err()), ErrorKind::NotFound { .. }));
            assert!(matches!(kind(me.open("/etc/passwd/x").unwrap_err()), ErrorKind::NotFound { .. }));
            let nothing = me.open_with("/etc/passwd", &OpenOptions::new());
            assert!(matches!(kind(nothing.unwrap_err()), ErrorKind::InvalidInput { .. }));
            let contradiction = me.open_with("/etc/passwd", OpenOptions::new().read(true).create(true));
            assert!(matches!(kind(contradiction.unwrap_err()), ErrorKind::InvalidInput { .. }));
            let long = me.open(format!("/{}", "x".repeat(5000))).unwrap_err();
            assert!(long.to_string().contains("as uid"), "{long}");
        })
        .unwrap();
}

#[test]
fn without_openat2_the_kernel_is_too_old() {
    let bed = testbed::require!();
    needs_privileges_of_its_own("opening files itself");
    let alice = token(bed, "alice");
    std::thread::spawn(move || {
        let filter = testbed::confine::Filter::new().deny(libc_numbers::OPENAT2, libc_numbers::ENOSYS);
        filter.install_on_this_thread().unwrap();
        let refused = alice.impersonate(|me| me.open("/etc/passwd").unwrap_err()).unwrap();
        assert!(matches!(refused.kind(), ErrorKind::KernelTooOld { .. }), "{refused}");
    })
    .join()
    .unwrap();
}

/// The same on x86-64 and aarch64.
mod libc_numbers {
    pub const OPENAT2: i64 = 437;
    pub const ENOSYS: i32 = 38;
}

#[test]
fn a_file_in_a_directory_closed_to_the_client_is_out_of_reach_through_the_servers_cwd() {
    let bed = testbed::require!();
    let closed = bed.scratch("closed");
    fs::write(closed.join("open-to-all"), "").unwrap();
    mode(&closed.join("open-to-all"), 0o666);
    mode(&closed, 0o700);
    std::env::set_current_dir(&closed).unwrap();
    token(bed, "alice")
        .impersonate(|me| {
            assert!(denied(me.open(closed.join("open-to-all"))));
            assert!(me.open("open-to-all").is_err());
        })
        .unwrap();
}
