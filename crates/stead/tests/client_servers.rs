//! Servers as they are: not root, behind a /proc that hides, impersonating already, on other kinds of sockets.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/client.rs"]
mod common;

use std::os::fd::OwnedFd;
use std::process::Command;

use common::{Server, may_inspect, play, played, refused, role};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use stead::os::linux::{ClientExt, TokenExt};
use stead::token::ConfinementKnowledge;
use stead::{Client, Confinement, ErrorKind};
use testbed::Bed;

/// A client of alice, in a directory where this server may make sockets.
fn serve(bed: &Bed, choice: Confinement) -> (testbed::RunningClient, stead::Result<Client>) {
    let directory = std::env::var_os("STEAD_TEST_DIRECTORY");
    let path = std::path::PathBuf::from(directory.unwrap()).join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let process = bed.client("alice").connect(&path);
    let (socket, _) = listener.accept().unwrap();
    (process, Client::with(choice).of(&socket))
}

/// A directory for a server of this user.
fn directory(bed: &Bed, user: &str) -> std::path::PathBuf {
    let directory = bed.scratch("servers");
    let user = bed.user(user);
    std::os::unix::fs::chown(&directory, Some(user.uid), Some(user.gid)).unwrap();
    directory
}

#[test]
fn a_server_that_is_not_root_may_look_at_its_clients_with_cap_sys_ptrace() {
    let bed = testbed::require!();
    if role().is_some() {
        let (_process, client) = serve(bed, Confinement::Refuse);
        let token = client.unwrap().token().unwrap();
        assert_eq!(token.uid().as_raw(), bed.user("alice").uid);
        assert_eq!(token.confinement(), &ConfinementKnowledge::Verified);
        assert!(token.capabilities().permitted.is_empty());
        println!("served");
        return;
    }
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let mut command = bed.as_user("svc", &["setuid", "setgid", "setpcap", "sys_ptrace"], bed.this_program());
    command.env("STEAD_TEST_DIRECTORY", directory(bed, "svc"));
    let test = "a_server_that_is_not_root_may_look_at_its_clients_with_cap_sys_ptrace";
    assert!(played(&play(command, test, "server")).contains("served"));
}

#[test]
fn a_client_that_proc_hides_is_refused_unless_the_server_accepts_that() {
    let bed = testbed::require!();
    testbed::confine::need_pinned_clients();
    if role().is_some() {
        // Before Linux 6.13 not even whether it is still the one that connected is known.
        let (_process, client) = serve(bed, Confinement::Refuse);
        let error = client.and_then(|client| client.token()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ConfinementUnknown { .. }), "{error}");
        println!("served");
        return;
    }
    let server = bed.as_user("svc", &["setuid", "setgid", "setpcap"], bed.this_program());
    // A /proc of its own that shows a user nothing of others' processes.
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--",
            "sh",
            "-c",
            "mount -t proc -o hidepid=invisible proc /proc && exec \"$@\"",
            "sh",
        ])
        .arg(server.get_program())
        .args(server.get_args())
        .env("STEAD_TEST_DIRECTORY", directory(bed, "svc"));
    let output =
        play(command, "a_client_that_proc_hides_is_refused_unless_the_server_accepts_that", "server");
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("mount:") || errors.contains("unshare:") {
        testbed::skip!("{}", errors.trim());
    }
    assert!(played(&output).contains("served"));
}

#[test]
fn a_server_that_impersonates_one_client_can_take_another() {
    let bed = testbed::require!();
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let server = Server::new(bed, "nested");
    let _alice = bed.client("alice").connect(&server.path);
    let alice = Client::of(server.accept()).unwrap().token().unwrap();
    let _bob = bed.client("bob").connect(&server.path);
    let socket = server.accept();
    let token = alice.impersonate(|_| Client::of(&socket).unwrap().token()).unwrap().unwrap();
    assert_eq!(token.uid().as_raw(), bed.user("bob").uid);
    assert_eq!(token.confinement(), &ConfinementKnowledge::Verified);
    // The server's own token is its own inside, too.
    let own = alice.impersonate(|_| stead::Token::current()).unwrap().unwrap();
    assert_eq!(own, stead::Token::current().unwrap());
}

#[test]
fn a_seqpacket_client_is_known_as_well() {
    let make = || {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    };
    if let Some(path) = role() {
        let socket = make();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        let _ = rustix::io::read(&socket, &mut [0_u8]);
        return;
    }
    let bed = testbed::require!();
    let path = bed.scratch("seqpacket").join("socket");
    let address = SocketAddrUnix::new(&path).unwrap();
    testbed::confine::need_pinned_clients();
    let listener: OwnedFd = make();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 8).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let mut process = bed
        .as_user("alice", &[], bed.this_program())
        .args(["--exact", "a_seqpacket_client_is_known_as_well"])
        .env(common::ROLE, &path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let socket = rustix::net::accept(&listener).unwrap();
    let client = Client::of(&socket).unwrap();
    assert_eq!(client.identity().unwrap().uid.as_raw(), bed.user("alice").uid);
    drop(socket);
    process.wait().unwrap();
}

#[cfg(feature = "tokio")]
#[test]
fn a_connection_of_tokios_is_a_clients_as_any_other() {
    let bed = testbed::require!();
    testbed::confine::need_pinned_clients();
    let server = Server::new(bed, "tokio");
    let _process = bed.client("alice").connect(&server.path);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async {
        server.listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixListener::from_std(server.listener.try_clone().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        Client::of(&stream).unwrap()
    });
    assert_eq!(client.identity().unwrap().uid.as_raw(), bed.user("alice").uid);
}

/// A file system of one empty directory, whose server answers until it is told not to any more.
struct Fuse {
    directory: std::path::PathBuf,
    answering: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Fuse {
    fn mount(bed: &Bed, owner: &testbed::User) -> Result<Self, String> {
        use std::os::fd::AsRawFd;
        let directory = bed.scratch("fuse");
        let device = std::fs::File::options().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|error| format!("/dev/fuse: {error}"))?;
        let (fd, uid, gid) = (device.as_raw_fd(), owner.uid, owner.gid);
        let options = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid}");
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
        rustix::mount::mount("stead-test", &directory, "fuse", flags, options.as_c_str())
            .map_err(|error| format!("mounting FUSE: {error}"))?;
        let answering = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let answers = std::sync::Arc::clone(&answering);
        std::thread::spawn(move || serve_fuse(device, &answers));
        Ok(Self { directory, answering })
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.directory, rustix::mount::UnmountFlags::DETACH);
    }
}

/// The protocol of include/uapi/linux/fuse.h, as far as entering the directory goes.
fn serve_fuse(mut device: std::fs::File, answering: &std::sync::atomic::AtomicBool) {
    use std::io::{Read, Write};
    const GETATTR: u32 = 3;
    const INIT: u32 = 26;
    let mut request = vec![0; 1 << 17];
    while let Ok(length) = device.read(&mut request) {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        assert!(length >= 40);
        let body: Vec<u32> = match word(4) {
            // Version 7.31; fuse_init_out.
            INIT => [7, 31, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec(),
            _ if !answering.load(std::sync::atomic::Ordering::SeqCst) => continue,
            // Valid for no time; fuse_attr: inode 1, a directory that all may search.
            GETATTR => {
                let mut body = vec![0; 26];
                (body[4], body[19], body[20], body[24]) = (1, 0o40_755, 2, 512);
                body
            }
            _ => Vec::new(),
        };
        let error = if body.is_empty() { -libc::ENOSYS } else { 0 };
        let total = u32::try_from(16 + 4 * body.len()).unwrap();
        let head = [total, error.cast_unsigned(), word(8), word(12)];
        let reply: Vec<u8> = head.iter().chain(&body).flat_map(|word| word.to_ne_bytes()).collect();
        let _ = device.write(&reply);
    }
}

#[test]
fn a_client_on_a_file_system_of_its_own_that_never_answers_does_not_hold_the_server() {
    let bed = testbed::require!();
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let fuse = match Fuse::mount(bed, bed.user("alice")) {
        Ok(fuse) => fuse,
        Err(reason) => testbed::skip!("{reason}"),
    };
    let server = Server::new(bed, "fuse");
    let mut process = match bed.client("alice").holding(&["sys_chroot"]).try_connect(&server.path) {
        Ok(process) => process,
        Err(reason) => testbed::skip!("{reason}"),
    };
    let client = Client::of(server.accept()).unwrap();
    client.token().unwrap();
    process.confine(&["--chroot", fuse.directory.to_str().unwrap()]);
    fuse.answering.store(false, std::sync::atomic::Ordering::SeqCst);
    let part = stead::error::ConfinedPart::RootDirectory;
    assert_eq!(refused(&client), ErrorKind::ClientConfined { part });
}
