use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use super::handshake::{decode, encode};
use super::*;
use crate::ImpersonationLevel;
use crate::error::ErrorKind;
use crate::os::linux::{ConnectOptionsExt, Uid};

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("stead-local-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn address(&self) -> Address {
        Address::path(self.0.join("socket"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const LEVELS: [ImpersonationLevel; 4] = [
    ImpersonationLevel::Anonymous,
    ImpersonationLevel::Identification,
    ImpersonationLevel::Impersonation,
    ImpersonationLevel::Delegation,
];

#[test]
fn every_level_arrives_as_it_was_granted() {
    let place = Place::new("levels");
    let listener = Listener::bind(&place.address()).unwrap();
    for level in LEVELS {
        let options = ConnectOptions::new().level(level);
        let mut client = Stream::connect_with(&place.address(), &options).unwrap();
        client.write_all(b"hello").unwrap();
        let mut server = listener.accept().unwrap();
        let mut text = [0; 5];
        server.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
        assert_eq!(server.level().unwrap(), level);
        server.write_all(b"world").unwrap();
        client.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"world");
    }
}

#[test]
fn the_record_is_read_in_any_pieces() {
    for level in LEVELS {
        let record = encode(level);
        for end in 0..record.len() {
            assert_eq!(decode(&record[..end]).unwrap(), None);
        }
        assert_eq!(decode(&record).unwrap(), Some(level));
    }
}

#[test]
fn no_other_record_grants_anything() {
    let record = encode(ImpersonationLevel::Impersonation);
    for position in 0..record.len() {
        for byte in 0..=u8::MAX {
            let mut other = record;
            other[position] = byte;
            let granted = decode(&other).ok().flatten();
            let expected = match position {
                7 => LEVELS.get(usize::from(byte)).copied(),
                _ => (byte == record[position]).then_some(ImpersonationLevel::Impersonation),
            };
            assert_eq!(granted, expected, "{other:?}");
        }
    }
}

#[test]
fn a_client_without_the_record_is_refused() {
    let place = Place::new("bare");
    let listener = Listener::bind(&place.address()).unwrap();
    let mut bare = UnixStream::connect(place.address().as_path()).unwrap();
    bare.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let server = listener.accept().unwrap();
    assert!(matches!(server.client().unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
    let error = (&server).read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

#[test]
fn a_silent_client_does_not_hold_up_the_server() {
    let place = Place::new("silent");
    let options = ListenOptions::new().handshake_timeout(Duration::from_millis(20));
    let listener = options.bind(&place.address()).unwrap();
    let _silent = UnixStream::connect(place.address().as_path()).unwrap();
    let server = listener.accept().unwrap();
    assert!(matches!(server.level().unwrap_err().kind(), ErrorKind::DeadlinePassed { .. }));
    assert_eq!((&server).read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    server.set_nonblocking(true).unwrap();
    assert_eq!((&server).read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_client_that_closes_first_is_refused() {
    let place = Place::new("closes");
    let listener = Listener::bind(&place.address()).unwrap();
    drop(UnixStream::connect(place.address().as_path()).unwrap());
    let server = listener.accept().unwrap();
    assert!(matches!(server.level().unwrap_err().kind(), ErrorKind::ClientChanged { .. }));
}

#[test]
fn nothing_is_granted_to_another_users_server() {
    let place = Place::new("server");
    let listener = Listener::bind(&place.address()).unwrap();
    let own = rustix::process::geteuid().as_raw();
    let other = ConnectOptions::new().server_uid(Uid::new(own + 1).unwrap());
    let refused = Stream::connect_with(&place.address(), &other).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::AccessDenied { .. }), "{refused}");
    let mut server =
        UnixListener::from(OwnedFd::from(listener.socket.try_clone().unwrap())).accept().unwrap().0;
    assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
    let own = ConnectOptions::new().server_uid(Uid::new(own).unwrap());
    assert!(Stream::connect_with(&place.address(), &own).is_ok());
}

#[test]
fn a_socket_is_the_servers_own_unless_it_says_otherwise() {
    let place = Place::new("mode");
    let mode = || std::fs::symlink_metadata(place.address().as_path()).unwrap().mode() & 0o777;
    let listener = Listener::bind(&place.address()).unwrap();
    assert_eq!(mode(), 0o600);
    drop(listener);
    let _listener = ListenOptions::new().open_to_all().bind(&place.address()).unwrap();
    assert_eq!(mode(), 0o666);
}

#[test]
fn a_listener_takes_its_socket_away_and_no_other() {
    let place = Place::new("unlink");
    drop(Listener::bind(&place.address()).unwrap());
    assert!(!place.address().as_path().exists());

    let listener = Listener::bind(&place.address()).unwrap();
    std::fs::remove_file(place.address().as_path()).unwrap();
    let _other = UnixListener::bind(place.address().as_path()).unwrap();
    drop(listener);
    assert!(place.address().as_path().exists());
}

#[test]
fn what_is_there_already_is_not_replaced() {
    let place = Place::new("replace");
    let invalid = || {
        let refused = Listener::bind(&place.address()).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
    };
    let live = UnixListener::bind(place.address().as_path()).unwrap();
    invalid();
    // What a crash leaves: our own, and nobody listens.
    drop(live);
    drop(Listener::bind(&place.address()).unwrap());

    std::fs::write(place.address().as_path(), "a file").unwrap();
    invalid();
    std::fs::remove_file(place.address().as_path()).unwrap();
    std::os::unix::fs::symlink("/dev/null", place.address().as_path()).unwrap();
    invalid();
}

#[test]
fn a_directory_where_others_write_is_refused() {
    let place = Place::new("directory");
    let mode = |mode| std::fs::set_permissions(&place.0, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    assert!(matches!(Listener::bind(&place.address()).unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
    mode(0o1777);
    assert!(Listener::bind(&place.address()).is_ok());
}

#[test]
fn a_name_is_no_path() {
    for name in ["", ".", "..", ".x", "a/b", "/etc/passwd", "a b", "a\0b", "\u{fc}", &"x".repeat(81)] {
        assert!(Address::name(name).is_err(), "{name:?}");
    }
    assert_eq!(Address::name("re-port_1.0").unwrap().to_string(), "/run/stead/local/re-port_1.0");
}

#[test]
fn two_handles_of_a_connection_read_the_record_once() {
    let place = Place::new("clone");
    let listener = Listener::bind(&place.address()).unwrap();
    let mut client = Stream::connect(&place.address()).unwrap();
    client.write_all(b"ab").unwrap();
    let mut one = listener.accept().unwrap();
    let mut other = one.try_clone().unwrap();
    let mut byte = [0];
    one.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"a");
    other.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"b");
    assert_eq!(other.level().unwrap(), ImpersonationLevel::Impersonation);
}

#[test]
fn only_a_connected_socket_becomes_a_stream() {
    let place = Place::new("descriptor");
    let listener = Listener::bind(&place.address()).unwrap();
    let copy = OwnedFd::from(listener.socket.try_clone().unwrap());
    assert!(Stream::try_from(copy.try_clone().unwrap()).is_err());
    assert!(Listener::try_from(copy).is_ok());
    let (one, _other) = UnixStream::pair().unwrap();
    assert!(Stream::try_from(OwnedFd::from(one)).is_err());
    let _client = Stream::connect(&place.address()).unwrap();
    let accepted = OwnedFd::from(listener.socket.accept().unwrap().0);
    assert!(Stream::try_from(accepted).unwrap().level().is_ok());
}
