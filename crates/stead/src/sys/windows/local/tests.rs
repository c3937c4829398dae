//! Of pipes and what they carry. What a pipe says of its client is false under Wine, and not tested here.

use super::*;
use crate::sys::dacl::{AceKind, Descriptor, PIPE_CLIENT, PIPE_SERVER};
use crate::sys::sid::Sid;
use crate::sys::thread_token::process_user;
use std::io::{self, Read, Write};
use std::os::windows::io::AsHandle;
use std::time::Duration;

fn address(name: &str) -> Address {
    Address::path(format!(r"\\.\pipe\stead-test-{}-{name}", std::process::id()))
}

fn pair(name: &str) -> (Stream, Stream) {
    let address = address(name);
    let listener = Listener::bind(&address).unwrap();
    let client = Stream::connect(&address).unwrap();
    (listener.accept().unwrap(), client)
}

#[test]
fn bytes_travel_both_ways_and_the_end_is_told() {
    let (mut server, mut client) = pair("both-ways");
    client.write_all(b"today\n").unwrap();
    let mut buffer = [0; 6];
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"today\n");
    server.write_all(b"42").unwrap();
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"42");
    assert_eq!(client.write(b"more").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_name_that_is_taken_is_not_listened_at() {
    if crate::sys::wine::is_wine() {
        println!("skipped: under Wine: FILE_FLAG_FIRST_PIPE_INSTANCE has no effect");
        return;
    }
    let address = address("taken");
    let first = Listener::bind(&address).unwrap();
    let second = ListenOptions::new().open_to_all().bind(&address);
    assert!(matches!(second.unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
    let _client = Stream::connect(&address).unwrap();
    let _server = first.accept().unwrap();
    let third = Listener::bind(&address);
    assert!(matches!(third.unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
}

#[test]
fn there_is_always_room_for_one_more_client() {
    let address = address("room");
    let listener = Listener::bind(&address).unwrap();
    let mut pairs = Vec::new();
    for _ in 0..20 {
        let client = Stream::connect(&address).unwrap();
        pairs.push((listener.accept().unwrap(), client));
    }
    for (number, (server, client)) in pairs.iter_mut().enumerate() {
        client.write_all(&[number.try_into().unwrap()]).unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        assert_eq!(usize::from(byte[0]), number);
    }
}

#[test]
fn one_thread_reads_while_another_writes() {
    let (server, client) = pair("full-duplex");
    let reader = server.try_clone().unwrap();
    let sums = std::thread::scope(|scope| {
        let total = 1_000_000;
        let reading = scope.spawn(move || {
            let mut bytes = vec![0; total];
            (&reader).read_exact(&mut bytes).unwrap();
            bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>()
        });
        // The server's reader waits for this, and must not keep the server from writing.
        (&server).write_all(b"go").unwrap();
        let mut go = [0; 2];
        (&client).read_exact(&mut go).unwrap();
        (&client).write_all(&vec![3; total]).unwrap();
        (reading.join().unwrap(), total as u64 * 3)
    });
    assert_eq!(sums.0, sums.1);
}

#[test]
fn a_read_gives_up_when_its_time_is_over_and_loses_nothing() {
    let (mut server, mut client) = pair("patience");
    server.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    assert!(server.set_read_timeout(Some(Duration::ZERO)).is_err());
    let mut buffer = [0; 4];
    assert_eq!(server.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::TimedOut);
    client.write_all(b"late").unwrap();
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"late");
}

#[test]
fn a_listener_that_may_not_wait_says_so_and_keeps_its_client() {
    let address = address("nonblocking");
    let listener = Listener::bind(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    for _ in 0..3 {
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    let mut client = Stream::connect(&address).unwrap();
    let mut server = listener.accept().unwrap();
    client.write_all(b"here").unwrap();
    let mut buffer = [0; 4];
    server.read_exact(&mut buffer).unwrap();
}

#[test]
fn only_pipes_of_this_machine_are_addresses() {
    for path in [r"\\server\pipe\name", r"C:\pipe", r"\\.\pipe\", r"\\.\PhysicalDrive0", "name"] {
        let address = Address::path(path);
        let bound = Listener::bind(&address).unwrap_err();
        assert!(matches!(bound.kind(), ErrorKind::InvalidInput { .. }), "{bound}");
        let connected = Stream::connect(&address).unwrap_err();
        assert!(matches!(connected.kind(), ErrorKind::InvalidInput { .. }), "{connected}");
    }
    let nobody = Stream::connect(&address("nobody")).unwrap_err();
    assert!(matches!(nobody.kind(), ErrorKind::System { call: "CreateFileW" }), "{nobody}");
}

#[test]
fn a_pipe_has_the_access_list_that_it_was_given() {
    let (server, client) = pair("access");
    let own = process_user().unwrap();
    for end in [server.as_handle(), client.as_handle()] {
        let found = Descriptor::of(end).unwrap();
        assert_eq!(found.owner.as_ref(), Some(&own));
        let dacl = found.dacl.unwrap();
        assert_eq!(dacl.0[0].sid, Sid::NETWORK, "{dacl}");
        assert_eq!(dacl.0[0].kind, AceKind::Deny, "{dacl}");
        let masks: Vec<_> = dacl.0[1..].iter().map(|ace| ace.mask).collect();
        assert_eq!(masks, [PIPE_SERVER, PIPE_CLIENT, PIPE_CLIENT], "{dacl}");
    }
}

#[test]
fn a_client_connects_only_to_the_server_that_it_demands() {
    let address = address("demands");
    let listener = Listener::bind(&address).unwrap();
    let mut own = ConnectOptions::new();
    own.server = Some(process_user().unwrap());
    let mut client = Stream::connect_with(&address, &own).unwrap();
    let mut server = listener.accept().unwrap();
    client.write_all(b"x").unwrap();
    server.read_exact(&mut [0]).unwrap();
    let mut system = ConnectOptions::new();
    system.server = Some(Sid::LOCAL_SYSTEM);
    let refused = Stream::connect_with(&address, &system).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::AccessDenied { .. }), "{refused}");
    let mut server = listener.accept().unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0, "nothing was sent to it");
}

#[test]
fn a_client_is_known_only_after_its_first_message_and_only_at_the_servers_end() {
    let (server, client) = pair("first-message");
    let early = server.client().unwrap_err();
    assert!(matches!(early.kind(), ErrorKind::NoIdentity { .. }), "{early}");
    let wrong = client.client().unwrap_err();
    assert!(matches!(wrong.kind(), ErrorKind::InvalidInput { .. }), "{wrong}");
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let no_pipe = Stream::try_from(std::os::windows::io::OwnedHandle::from(file)).unwrap_err();
    assert!(matches!(no_pipe.kind(), ErrorKind::InvalidInput { .. }), "{no_pipe}");
}
