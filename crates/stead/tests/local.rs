//! The named pair, between a server and clients of other users.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/client.rs"]
mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use common::{ROLE, may_inspect, role};
use stead::local::{Address, ConnectOptions, ListenOptions, Listener, Stream};
use stead::os::linux::{ClientExt, ConnectOptionsExt, TokenExt, Uid};
use stead::{Error, ErrorKind, ImpersonationLevel};
use testbed::Bed;

const LEVELS: [ImpersonationLevel; 4] = [
    ImpersonationLevel::Anonymous,
    ImpersonationLevel::Identification,
    ImpersonationLevel::Impersonation,
    ImpersonationLevel::Delegation,
];

/// A client of this library, in a process of `user`. It says what became of it, and stays until it is let go.
struct Client {
    process: Child,
}

impl Client {
    fn start(
        bed: &Bed,
        user: &str,
        address: &Address,
        level: ImpersonationLevel,
        server: Option<u32>,
    ) -> Self {
        testbed::confine::need_pinned_clients();
        let server = server.map_or_else(String::new, |uid| uid.to_string());
        let process = bed
            .as_user(user, &[], bed.this_program())
            .args(["--exact", "role_client", "--nocapture"])
            .env(ROLE, format!("{level}:{server}:{address}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { process }
    }

    /// What it printed, once it is let go.
    fn end(mut self) -> String {
        drop(self.process.stdin.take());
        let mut text = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.process.wait().unwrap();
        text
    }
}

/// Not a test of its own: what [`Client`] runs.
#[test]
fn role_client() {
    let Some(role) = role() else { return };
    let [level, server, path] = role.splitn(3, ':').collect::<Vec<_>>().try_into().unwrap();
    let level = LEVELS.into_iter().find(|one| one.to_string() == level).unwrap();
    let mut options = ConnectOptions::new().level(level);
    if let Ok(uid) = server.parse() {
        options = options.server_uid(Uid::new(uid).unwrap());
    }
    match Stream::connect_with(&Address::path(path), &options) {
        Ok(mut stream) => {
            stream.write_all(b"hello").unwrap();
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
            println!("\nserved");
        }
        Err(error) => println!("\nrefused: {:?}", error.kind()),
    }
}

fn too_low(error: &Error, granted: ImpersonationLevel, needed: ImpersonationLevel) {
    assert_eq!(error.kind(), &ErrorKind::LevelTooLow { granted, needed }, "{error}");
}

#[test]
fn a_server_may_do_what_the_client_granted_and_no_more() {
    use ImpersonationLevel::{Anonymous, Identification, Impersonation};
    let bed = testbed::require!();
    if !may_inspect() {
        testbed::skip!("needs CAP_SYS_PTRACE, and SO_PEERPIDFD (Linux 6.5)");
    }
    let address = Address::path(bed.scratch("levels").join("socket"));
    let listener = ListenOptions::new().open_to_all().bind(&address).unwrap();
    let alice = bed.user("alice");
    for level in LEVELS {
        let process = Client::start(bed, "alice", &address, level, None);
        let mut stream = listener.accept().unwrap();
        let client = stream.client().unwrap();
        assert_eq!(client.level(), level);
        let mut text = [0; 5];
        stream.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
        if level == Anonymous {
            too_low(&client.identity().unwrap_err(), level, Identification);
            too_low(&client.token().unwrap_err(), level, Identification);
        } else {
            assert_eq!(client.identity().unwrap().uid.as_raw(), alice.uid);
            let token = client.token().unwrap();
            assert_eq!((token.uid().as_raw(), token.level()), (alice.uid, level));
            if level < Impersonation {
                too_low(&token.to_primary().unwrap_err(), level, Impersonation);
                too_low(&token.impersonate(|_| ()).unwrap_err(), level, Impersonation);
                too_low(&token.duplicate(Impersonation).unwrap_err(), level, Impersonation);
            } else {
                assert_eq!(token.to_primary().unwrap().uid().as_raw(), alice.uid);
                token.impersonate(|_| ()).unwrap();
            }
        }
        assert!(process.end().contains("served"));
    }
}

#[test]
fn a_listener_is_open_to_others_only_where_the_server_says_so() {
    let bed = testbed::require!();
    let address = Address::path(bed.scratch("closed").join("socket"));
    let listener = Listener::bind(&address).unwrap();
    let process = Client::start(bed, "alice", &address, ImpersonationLevel::Impersonation, None);
    assert!(process.end().contains("refused: AccessDenied"));
    drop(listener);
}

#[test]
fn a_client_grants_nothing_to_a_server_of_another_user() {
    let bed = testbed::require!();
    let directory = bed.scratch("impostor");
    let address = Address::path(directory.join("socket"));
    let mallory = bed.user("mallory");
    // Mallory listens where the server is expected.
    std::os::unix::fs::chown(&directory, Some(mallory.uid), Some(mallory.gid)).unwrap();
    let mut impostor = bed
        .as_user("mallory", &[], bed.this_program())
        .args(["--exact", "role_impostor", "--nocapture"])
        .env(ROLE, address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // So that it is the impostor whom alice refuses, and not the socket that refuses alice.
    let open =
        || std::fs::metadata(address.as_path()).is_ok_and(|file| file.permissions().mode() & 0o777 == 0o777);
    while !open() {
        std::thread::yield_now();
    }
    let level = ImpersonationLevel::Delegation;
    let process = Client::start(bed, "alice", &address, level, Some(0));
    assert!(process.end().contains("refused: AccessDenied"));
    // It has had her connection, and nothing in it.
    let mut said = BufReader::new(impostor.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = said.find(|line| line.starts_with("impostor: "));
    assert_eq!(first.as_deref(), Some("impostor: 0 bytes"));
    drop(impostor.stdin.take());
    assert!(!said.any(|line| line.starts_with("impostor: ")));
    impostor.wait().unwrap();
}

/// Not a test of its own: accepts whoever comes, until its standard input ends.
#[test]
fn role_impostor() {
    let Some(path) = role() else { return };
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mode = PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&path, mode).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut first = Vec::new();
            stream.unwrap().read_to_end(&mut first).unwrap();
            println!("\nimpostor: {} bytes", first.len());
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_client_that_demands_the_servers_user_finds_it() {
    let bed = testbed::require!();
    let address = Address::path(bed.scratch("demands").join("socket"));
    let listener = ListenOptions::new().open_to_all().bind(&address).unwrap();
    let own = rustix::process::geteuid().as_raw();
    let process = Client::start(bed, "alice", &address, ImpersonationLevel::Identification, Some(own));
    let stream = listener.accept().unwrap();
    assert_eq!(stream.client().unwrap().level(), ImpersonationLevel::Identification);
    assert!(process.end().contains("served"));
}

#[test]
fn a_name_is_roots_to_give() {
    let bed = testbed::require!(alone);
    let address = Address::name("stead-test-name").unwrap();
    let listener = match ListenOptions::new().open_to_all().bind(&address) {
        Ok(listener) => listener,
        Err(error) => testbed::skip!("{error}"),
    };
    let process = Client::start(bed, "alice", &address, ImpersonationLevel::Impersonation, Some(0));
    let stream = listener.accept().unwrap();
    assert_eq!(stream.client().unwrap().level(), ImpersonationLevel::Impersonation);
    assert!(process.end().contains("served"));
    drop(listener);
    assert!(!address.as_path().exists());
    // Nobody else can take it meanwhile.
    let squatter = bed
        .as_user("mallory", &[], bed.this_program())
        .args(["--exact", "role_impostor", "--nocapture"])
        .env(ROLE, address.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!squatter.status.success());
    assert!(!address.as_path().exists());
}

#[test]
fn somebody_elses_socket_is_not_replaced() {
    let bed = testbed::require!();
    let directory = bed.scratch("others");
    let path = directory.join("socket");
    let alice = bed.user("alice");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    std::os::unix::fs::chown(&path, Some(alice.uid), Some(alice.gid)).unwrap();
    let refused = Listener::bind(&Address::path(&path)).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
    // Nor is a socket put where alice could replace it.
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::chown(&directory, Some(alice.uid), Some(alice.gid)).unwrap();
    let refused = Listener::bind(&Address::path(&path)).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
}

#[cfg(feature = "tokio")]
#[test]
fn an_async_server_knows_its_clients_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let bed = testbed::require!();
    let address = Address::path(bed.scratch("async").join("socket"));
    let alice = bed.user("alice");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = ListenOptions::new().open_to_all().bind(&address).unwrap();
        let listener = stead::local::tokio::Listener::new(listener).unwrap();
        // A silent client first: it holds up nobody.
        let _silent = std::os::unix::net::UnixStream::connect(address.as_path()).unwrap();
        let _waiting = listener.accept().await.unwrap();

        let process = Client::start(bed, "alice", &address, ImpersonationLevel::Identification, None);
        let mut stream = listener.accept().await.unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
        let client = stream.client().unwrap();
        assert_eq!(client.level(), ImpersonationLevel::Identification);
        assert_eq!(client.identity().unwrap().uid.as_raw(), alice.uid);
        assert!(process.end().contains("served"));

        // Its own client's side.
        let options = ConnectOptions::new().level(ImpersonationLevel::Delegation);
        let mut client = stead::local::tokio::Stream::connect_with(&address, &options).await.unwrap();
        let mut stream = listener.accept().await.unwrap();
        // Its own client is the server itself, and no client.
        assert!(stream.client().is_err());
        client.write_all(b"hello").await.unwrap();
        stream.read_exact(&mut text).await.unwrap();
        stream.write_all(b"world").await.unwrap();
        client.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"world");
    });
}
