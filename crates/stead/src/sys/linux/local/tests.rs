use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use crate::ImpersonationLevel;
use crate::error::ErrorKind;
use crate::local::{Address, ConnectOptions, ListenOptions, Listener, Stream};
use crate::os::linux::{ConnectOptionsExt, Uid};
use crate::sys::client::level;

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
        assert_eq!(level::stated(&server).unwrap(), level);
        server.write_all(b"world").unwrap();
        client.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"world");
    }
}

#[test]
fn nothing_is_granted_to_another_users_server() {
    let place = Place::new("server");
    let listener = Listener::bind(&place.address()).unwrap();
    let own = rustix::process::geteuid().as_raw();
    let other = ConnectOptions::new().server_uid(Uid::new(own + 1).unwrap());
    let refused = Stream::connect_with(&place.address(), &other).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::AccessDenied { .. }), "{refused}");
    let mut server = UnixListener::from(listener.as_fd().try_clone_to_owned().unwrap()).accept().unwrap().0;
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
fn only_a_connected_socket_becomes_a_stream() {
    let place = Place::new("descriptor");
    let listener = Listener::bind(&place.address()).unwrap();
    let copy = listener.as_fd().try_clone_to_owned().unwrap();
    assert!(Stream::try_from(copy.try_clone().unwrap()).is_err());
    assert!(Listener::try_from(copy).is_ok());
    let (one, _other) = UnixStream::pair().unwrap();
    assert!(Stream::try_from(OwnedFd::from(one)).is_err());
    let _client = Stream::connect(&place.address()).unwrap();
    let accepted = OwnedFd::from(listener.accept().unwrap());
    assert!(Stream::try_from(accepted).is_ok());
    // The client's own end is none, though it has a name.
    let options = ConnectOptions::new().level(ImpersonationLevel::Identification);
    let client = Stream::connect_with(&place.address(), &options).unwrap();
    assert!(Stream::try_from(client.as_fd().try_clone_to_owned().unwrap()).is_err());
}
