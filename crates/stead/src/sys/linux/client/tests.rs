use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::fs::OFlags;
use rustix::process::{Resource, Rlimit, setrlimit};
use testbed::confine::Filter;

use super::*;
use crate::error::{ConfinedPart, ErrorKind};
use crate::os::linux::{ClientExt, TokenExt};
use crate::token::{ConfinementKnowledge, Primary, Restriction, Token};
use crate::{Client, Confinement, ImpersonationLevel};

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("stead-client-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(self.0.join("socket")).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const HELPER: &str = "STEAD_TEST_CONNECT";

/// Not a test of its own: what [`connected`] runs in a process of its own.
#[test]
fn role_connects_and_waits() {
    if let Some(path) = std::env::var_os(HELPER) {
        let stream = UnixStream::connect(path).unwrap();
        let _ = std::io::Read::read(&mut &stream, &mut [0]);
    }
}

/// Not a test of its own, but what one runs: it has no_new_privs, and threads that come and go.
#[test]
fn role_confined_connects_and_waits_with_threads_that_come_and_go() {
    if let Some(path) = std::env::var_os(HELPER) {
        rustix::thread::set_no_new_privs(true).unwrap();
        for _ in 0..64 {
            std::thread::spawn(|| {
                loop {
                    std::thread::spawn(|| {}).join().unwrap();
                }
            });
        }
        let stream = UnixStream::connect(path).unwrap();
        let _ = std::io::Read::read(&mut &stream, &mut [0]);
    }
}

/// Not a test of its own, but what one runs: it has limits of its own.
#[test]
fn role_limited_connects_and_waits() {
    if let Some(path) = std::env::var_os(HELPER) {
        let limit = |current, maximum| Rlimit { current: Some(current), maximum: Some(maximum) };
        setrlimit(Resource::Nofile, limit(20, 30)).unwrap();
        setrlimit(Resource::Core, limit(0, 4096)).unwrap();
        let stream = UnixStream::connect(path).unwrap();
        let _ = std::io::Read::read(&mut &stream, &mut [0]);
    }
}

/// Another process, connected to a listener of this one.
fn connected(name: &str) -> (UnixStream, Child, Place) {
    connected_as(name, "role_connects_and_waits")
}

fn connected_as(name: &str, role: &str) -> (UnixStream, Child, Place) {
    let place = Place::new(name);
    let listener = place.listen();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("sys::linux::client::tests::{role}")])
        .env(HELPER, place.0.join("socket"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().unwrap();
    (stream, child, place)
}

fn kind(socket: impl AsFd) -> ErrorKind {
    Client::of(socket).unwrap_err().kind().clone()
}

#[test]
fn a_client_is_who_the_kernel_says() {
    let (stream, mut child, _place) = connected("identity");
    let client = Client::of(&stream).unwrap();
    let own = Token::current().unwrap();
    let identity = client.identity().unwrap();
    assert_eq!((identity.uid, identity.gid, identity.groups), (own.uid(), own.gid(), own.groups()));
    assert_eq!(identity.pid, child.id());
    assert_eq!(client.level(), ImpersonationLevel::Impersonation);

    let token = client.token().unwrap();
    assert_eq!(token.confinement(), &ConfinementKnowledge::Verified);
    assert!(token.capabilities().permitted.is_empty());
    assert_eq!(token.capabilities().bounding, own.capabilities().bounding);
    drop(stream);
    child.wait().unwrap();
    assert!(matches!(client.token().unwrap_err().kind(), ErrorKind::ClientChanged { .. }));
}

#[test]
fn a_client_that_is_gone_has_no_identity() {
    let (stream, mut child, _place) = connected("gone");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(kind(&stream), ErrorKind::ClientChanged { .. }));
}

#[test]
fn a_client_that_has_ended_and_was_not_reaped_has_no_identity() {
    let (stream, mut child, _place) = connected("zombie");
    child.kill().unwrap();
    // The end of file is sent when its descriptors are closed, just before it is a zombie.
    let _ = std::io::Read::read(&mut &stream, &mut [0]);
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    while !pidfd::has_ended(pidfd.as_fd()).unwrap() {
        std::thread::yield_now();
    }
    assert!(matches!(kind(&stream), ErrorKind::ClientChanged { .. }));
    assert_eq!(pidfd::ids(pidfd.as_fd(), None).unwrap(), None);
    child.wait().unwrap();
    assert_eq!(pidfd::ids(pidfd.as_fd(), None).unwrap(), None);
}

#[test]
fn an_anonymous_client_is_not_named() {
    let (stream, mut child, _place) = connected("anonymous");
    let client = Client::with(Confinement::Refuse).level(ImpersonationLevel::Anonymous).of(&stream).unwrap();
    let too_low = ErrorKind::LevelTooLow {
        granted: ImpersonationLevel::Anonymous,
        needed: ImpersonationLevel::Identification,
    };
    assert_eq!(client.identity().unwrap_err().kind(), &too_low);
    assert_eq!(client.token().unwrap_err().kind(), &too_low);
    assert_eq!(format!("{client:?}"), "Client { level: Anonymous, .. }");
    drop(stream);
    child.wait().unwrap();
}

#[test]
fn a_client_at_identification_level_is_known_and_no_more() {
    let (stream, mut child, _place) = connected("identification");
    let level = ImpersonationLevel::Identification;
    let token = Client::with(Confinement::Refuse).level(level).of(&stream).unwrap().token().unwrap();
    let needed = ImpersonationLevel::Impersonation;
    let too_low = ErrorKind::LevelTooLow { granted: level, needed };
    assert_eq!(token.to_primary().unwrap_err().kind(), &too_low);
    assert_eq!(token.duplicate(needed).unwrap_err().kind(), &too_low);
    drop(stream);
    child.wait().unwrap();
}

#[test]
fn the_servers_own_pair_of_sockets_is_no_client() {
    let (one, other) = UnixStream::pair().unwrap();
    assert!(matches!(kind(&one), ErrorKind::NoIdentity { .. }));
    assert!(matches!(kind(&other), ErrorKind::NoIdentity { .. }));
}

#[test]
fn the_server_is_no_client_of_itself() {
    let place = Place::new("itself");
    let listener = place.listen();
    let connecting = UnixStream::connect(place.0.join("socket")).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(matches!(kind(&accepted), ErrorKind::NoIdentity { .. }));
    assert!(matches!(kind(&connecting), ErrorKind::NoIdentity { .. }));
}

#[test]
fn what_is_no_connected_unix_socket_is_refused() {
    let place = Place::new("unconnected");
    let listener = place.listen();
    assert!(matches!(kind(&listener), ErrorKind::InvalidInput { .. }));

    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let _connecting = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    let (accepted, _) = tcp.accept().unwrap();
    assert!(matches!(kind(&accepted), ErrorKind::NoIdentity { .. }));

    let datagram = UnixDatagram::bind(place.0.join("datagram")).unwrap();
    assert!(matches!(kind(&datagram), ErrorKind::InvalidInput { .. }));

    let flags = rustix::net::SocketFlags::CLOEXEC;
    let unconnected = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        flags,
        None,
    )
    .unwrap();
    assert!(matches!(kind(&unconnected), ErrorKind::NoIdentity { .. }));
    let address = rustix::net::SocketAddrUnix::new(place.0.join("bound")).unwrap();
    rustix::net::bind(&unconnected, &address).unwrap();
    assert!(matches!(kind(&unconnected), ErrorKind::NoIdentity { .. }));

    assert!(matches!(kind(std::fs::File::open("/dev/null").unwrap()), ErrorKind::InvalidInput { .. }));
}

#[test]
fn a_client_is_refused_for_what_confines_it_however_its_threads_come_and_go() {
    let role = "role_confined_connects_and_waits_with_threads_that_come_and_go";
    let (stream, mut child, _place) = connected_as("churning", role);
    let began = std::time::Instant::now();
    let refused = Client::of(&stream).unwrap().token().unwrap_err();
    println!("after {:?}", began.elapsed());
    let part = ConfinedPart::NoNewPrivileges;
    assert_eq!(refused.kind(), &ErrorKind::ClientConfined { part });
    drop(stream);
    child.wait().unwrap();
}

#[test]
fn what_the_server_has_no_descriptor_left_to_read_is_not_unknown_as_what_is_hidden_is() {
    let (stream, mut child, _place) = connected("starving");
    let outcome = |errno: i32| {
        let client = Client::with(Confinement::Unknown).of(&stream).unwrap();
        let looking = move || {
            // Exactly the list of its threads: nothing else is opened so.
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::LARGEFILE;
            rustix::thread::set_no_new_privs(true).unwrap();
            let filter = Filter::new().deny_where(libc::SYS_openat, 2, flags.bits(), errno);
            filter.install_on_this_thread().unwrap();
            client.token().map(|token| token.confinement().clone())
        };
        std::thread::spawn(looking).join().unwrap()
    };
    assert_eq!(outcome(libc::EACCES).unwrap(), ConfinementKnowledge::Unknown);
    let refused = outcome(libc::EMFILE).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::ConfinementUnknown { .. }), "{refused}");
    drop(stream);
    child.wait().unwrap();
}

#[test]
fn a_process_has_the_limits_of_its_client_and_not_the_servers() {
    let (stream, mut child, _place) = connected_as("limited", "role_limited_connects_and_waits");
    let token = Client::of(&stream).unwrap().token().unwrap();
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let limits = |token: &Token<Primary>| {
        let mut command = crate::Command::new("/bin/cat");
        let output = command.arg("/proc/self/limits").current_dir("/").output_as(token).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let of_client = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    assert_ne!(of_client, own);
    let restricted = token.restrict(&Restriction::new()).unwrap();
    for token in [token.to_primary().unwrap(), restricted.to_primary().unwrap()] {
        assert_eq!(limits(&token), of_client);
    }
    assert_eq!(limits(&Token::current().unwrap()), own);
    drop(stream);
    child.wait().unwrap();
}

#[test]
fn a_process_by_pidfd_has_its_own_capabilities() {
    let (stream, mut child, _place) = connected("process");
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let own = Token::current().unwrap();
    let token = Token::of_process(&pidfd).unwrap();
    assert_eq!(token.uid(), own.uid());
    assert_eq!(token.capabilities().permitted, own.capabilities().permitted);
    let data = process_context(pidfd.as_fd(), Policy::default()).unwrap();
    assert_eq!(data.confinement, ConfinementKnowledge::Verified);
    drop(stream);
    child.wait().unwrap();
    assert!(matches!(Token::of_process(&pidfd).unwrap_err().kind(), ErrorKind::ClientChanged { .. }));
}

#[test]
fn what_is_no_pidfd_is_refused() {
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(Token::of_process(&file).unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
}

#[test]
fn every_part_has_its_weight() {
    // An error names the first of these that was found: one left out would let the client through.
    for part in [
        ConfinedPart::NoNewPrivileges,
        ConfinedPart::Seccomp,
        ConfinedPart::UserNamespace,
        ConfinedPart::MountNamespace,
        ConfinedPart::PidNamespace,
        ConfinedPart::NetworkNamespace,
        ConfinedPart::IpcNamespace,
        ConfinedPart::UtsNamespace,
        ConfinedPart::CgroupNamespace,
        ConfinedPart::TimeNamespace,
        ConfinedPart::RootDirectory,
        ConfinedPart::BoundingSet,
        ConfinedPart::Label,
    ] {
        assert_eq!(confinement::first(&[part]), Some(part));
    }
}
