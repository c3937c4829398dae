//! Clients of named pipes, and impersonation, by the public interface alone.
#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};

use stead::impersonate::Access;
use stead::local::{Address, ConnectOptions, ListenOptions, Listener, Stream};
use stead::os::windows::{ConnectOptionsExt, Sid, TokenExt};
use stead::{Client, ErrorKind, Impersonation, ImpersonationLevel, Primary, Token};

fn address(name: &str) -> Address {
    Address::name(&format!("test-{}-{name}", std::process::id())).unwrap()
}

/// A connection of which the server has read one message.
fn connected(name: &str, options: &ConnectOptions) -> (Stream, Stream) {
    let address = address(name);
    let listener = ListenOptions::new().open_to_all().bind(&address).unwrap();
    let mut client = Stream::connect_with(&address, options).unwrap();
    let mut server = listener.accept().unwrap();
    client.write_all(b"hello").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    (server, client)
}

#[test]
fn a_client_grants_what_it_chose_and_the_server_has_no_more() {
    testbed::skip_under_wine!("ImpersonateNamedPipeClient impersonates the server itself");
    for level in [ImpersonationLevel::Identification, ImpersonationLevel::Impersonation] {
        let (server, _client) = connected(&format!("grants-{level}"), &ConnectOptions::new().level(level));
        let client = server.client().unwrap();
        assert_eq!(client.level(), level);
        let token = client.token().unwrap();
        assert_eq!((token.level(), token.user_sid()), (level, Token::current().unwrap().user_sid()));
        let acted = client.impersonate(|_| ());
        let enough = level >= ImpersonationLevel::Impersonation;
        assert_eq!(acted.is_ok(), enough, "{acted:?}");
        assert_eq!(token.to_primary().is_ok(), enough);
    }
    let anonymous = ConnectOptions::new().level(ImpersonationLevel::Anonymous);
    let (server, _client) = connected("grants-nothing", &anonymous);
    let refused = server.client().and_then(|client| client.token()).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::LevelTooLow { .. }), "{refused}");
}

#[test]
fn a_client_that_demands_its_server_grants_it_the_same() {
    testbed::skip_under_wine!("ImpersonateNamedPipeClient impersonates the server itself");
    let own = Token::current().unwrap().user_sid();
    let (server, _client) = connected("demands", &ConnectOptions::new().server_sid(own));
    assert_eq!(server.client().unwrap().token().unwrap().user_sid(), own);
}

#[test]
fn a_pipe_from_elsewhere_has_a_client_too() {
    testbed::skip_under_wine!("ImpersonateNamedPipeClient impersonates the server itself");
    let (server, client) = connected("elsewhere", &ConnectOptions::new());
    assert_eq!(Client::of(&server).unwrap().level(), ImpersonationLevel::Impersonation);
    let wrong_end = Client::of(&client).unwrap_err();
    assert!(matches!(wrong_end.kind(), ErrorKind::InvalidInput { .. }), "{wrong_end}");
}

#[test]
fn a_client_that_demands_another_server_sends_nothing() {
    let address = address("another");
    let listener = Listener::bind(&address).unwrap();
    let options = ConnectOptions::new().server_sid(Sid::NETWORK_SERVICE);
    let refused = Stream::connect_with(&address, &options).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::AccessDenied { .. }), "{refused}");
    assert_eq!(listener.accept().unwrap().read(&mut [0]).unwrap(), 0);
}

fn own() -> Token<Impersonation> {
    Token::<Primary>::current().unwrap().duplicate(ImpersonationLevel::Impersonation).unwrap()
}

#[test]
fn files_are_reached_in_the_closure() {
    let directory = std::env::temp_dir().join(format!("stead-test-{}-files", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let notes = directory.join("notes.txt");
    let (text, names, may, metadata, nul) = own()
        .impersonate(|me| {
            me.create(&notes).unwrap().write_all(b"today").unwrap();
            let mut text = String::new();
            me.open(&notes).unwrap().read_to_string(&mut text).unwrap();
            let names: Vec<_> = me.read_dir(&directory).unwrap().map(Result::unwrap).collect();
            let may = me.access(&notes, Access::READ.and(Access::WRITE)).unwrap();
            (text, names, may, me.metadata(&notes).unwrap(), me.open(directory.join("NUL")))
        })
        .unwrap();
    assert_eq!((text.as_str(), names, may, metadata.len()), ("today", vec!["notes.txt".into()], true, 5));
    assert!(nul.is_err(), "a device is no file: {nul:?}");
    // Neither below the server's directory on a drive, nor at the root of it.
    for path in ["C:notes.txt", r"\notes.txt", "/notes.txt", "C:"] {
        let refused = own().impersonate(|me| me.open(path).unwrap_err()).unwrap();
        assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{path}: {refused}");
    }
    // A directory is opened for reading too.
    let (opened, may) =
        own().impersonate(|me| (me.open(&directory).map(drop), me.access(&directory, Access::READ))).unwrap();
    opened.unwrap();
    assert!(may.unwrap());
    let missing = own().impersonate(|me| me.open(directory.join("missing")).unwrap_err()).unwrap();
    assert!(matches!(missing.kind(), ErrorKind::NotFound { .. }), "{missing}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_threads_token_is_the_one_that_was_put_there() {
    assert!(matches!(stead::impersonate::current().unwrap_err().kind(), ErrorKind::NotImpersonating));
    let (outer, inner) = (own(), own());
    outer
        .impersonate(|me| {
            assert_eq!(Token::open_thread(me).unwrap(), outer);
            me.impersonate(&inner, |me| Token::open_thread(me).unwrap().to_primary().unwrap()).unwrap();
            assert_eq!(stead::impersonate::current().unwrap(), outer);
        })
        .unwrap();
    let known = outer.duplicate(ImpersonationLevel::Identification).unwrap();
    let refused = known.impersonate(|_| ()).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::LevelTooLow { .. }), "{refused}");
}

#[test]
fn a_pipe_is_reached_in_the_closure() {
    let address = address("in-the-closure");
    let listener = ListenOptions::new().open_to_all().bind(&address).unwrap();
    let mut client = own().impersonate(|me| me.connect(&address)).unwrap().unwrap();
    let mut server = listener.accept().unwrap();
    client.write_all(b"as the client").unwrap();
    let mut text = [0; 13];
    server.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"as the client");
    // Neither another machine's pipe, nor what is no pipe.
    for path in [r"\\server\pipe\name", r"C:\pipe", "notes.txt"] {
        let refused = own().impersonate(|me| me.connect(path)).unwrap().unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{path}: {refused}");
    }
}

#[cfg(feature = "tokio")]
#[test]
fn a_pipe_of_tokios_own_has_a_client_once_something_was_read() {
    use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
    use ::tokio::net::windows::named_pipe::ServerOptions;

    let runtime = ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (client, other_end) = runtime.block_on(async {
        let address = address("tokios-own");
        let mut server = ServerOptions::new().create(address.as_path()).unwrap();
        let options = ConnectOptions::new();
        let mut stream = stead::local::tokio::Stream::connect_with(&address, &options).await.unwrap();
        server.connect().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        server.read_exact(&mut [0; 5]).await.unwrap();
        (Client::of(&server), Client::of(&stream))
    });
    let other_end = other_end.unwrap_err();
    assert!(matches!(other_end.kind(), ErrorKind::InvalidInput { .. }), "{other_end}");
    let client = client.unwrap();
    testbed::skip_under_wine!("ImpersonateNamedPipeClient impersonates the server itself");
    let token = client.token().unwrap();
    assert_eq!((token.level(), token.user_sid()), (ImpersonationLevel::Impersonation, own().user_sid()));
}

#[cfg(feature = "tokio")]
#[test]
fn an_end_is_told_by_tokio_too() {
    use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
    use stead::local::tokio;

    let runtime = ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = address("tokio-end");
        let listener = tokio::Listener::new(Listener::bind(&address).unwrap()).unwrap();
        let options = ConnectOptions::new();
        let (client, server) =
            ::tokio::join!(tokio::Stream::connect_with(&address, &options), listener.accept());
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
    });
}

#[cfg(feature = "tokio")]
#[test]
fn the_same_pair_works_with_tokio() {
    use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
    use stead::local::tokio;

    let runtime = ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = address("tokio");
        let listener = tokio::Listener::new(Listener::bind(&address).unwrap()).unwrap();
        for _ in 0..3 {
            let options = ConnectOptions::new();
            let (client, server) =
                ::tokio::join!(tokio::Stream::connect_with(&address, &options), listener.accept());
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            assert!(server.client().is_err(), "nothing was read yet");
            client.write_all(b"hello").await.unwrap();
            let mut buffer = [0; 5];
            server.read_exact(&mut buffer).await.unwrap();
            assert_eq!(&buffer, b"hello");
            drop(server);
            assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
        }
    });
}
