//! Of pipes and what they carry. What a pipe says of its client is false under Wine, and not tested here.

use crate::error::ErrorKind;
use crate::local::{Address, ConnectOptions, ListenOptions, Listener, Stream};
use crate::sys::dacl::{AceKind, Descriptor, PIPE_CLIENT, PIPE_SERVER};
use crate::sys::sid::Sid;
use crate::sys::thread_token::process_user;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::windows::io::{AsHandle, FromRawHandle, OwnedHandle};
use std::time::Duration;
use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;
use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_OVERLAPPED, PIPE_ACCESS_DUPLEX};
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, PIPE_READMODE_MESSAGE, PIPE_TYPE_BYTE, PIPE_TYPE_MESSAGE,
};

pub(super) fn address(name: &str) -> Address {
    Address::path(format!(r"\\.\pipe\stead-test-{}-{name}", std::process::id()))
}

/// The server's end of a pipe that is not this library's.
pub(super) fn elsewhere(name: &str, mode: u32) -> OwnedHandle {
    let name: Vec<u16> =
        format!(r"\\.\pipe\stead-test-{}-{name}", std::process::id()).encode_utf16().chain([0]).collect();
    // SAFETY: the name ends with a NUL; no attributes; on success the handle is new and nobody else's.
    unsafe {
        let raw = CreateNamedPipeW(
            name.as_ptr(),
            PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED,
            mode,
            1,
            4096,
            4096,
            0,
            std::ptr::null(),
        );
        assert_ne!(raw, INVALID_HANDLE_VALUE);
        OwnedHandle::from_raw_handle(raw)
    }
}

pub(super) fn pair(name: &str) -> (Stream, Stream) {
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
    // What is resolved to something else, with the caller's credentials: another machine's pipe, a disk.
    let other = [
        r"..\UNC\server\pipe\name",
        r"..\C:\notes.txt",
        r"..\GLOBALROOT\Device\Null",
        r"a\..\..\UNC\server\pipe\name",
        "../UNC/server/pipe/name",
        "a/b",
        r".\a",
        r"a\\b",
        r"\a",
        r"a\",
        "a.",
        "a ",
        r"a. \b",
        "..",
    ];
    let other = other.iter().map(|name| format!(r"\\.\pipe\{name}"));
    let none = [r"\\server\pipe\name", r"C:\pipe", r"\\.\pipe\", r"\\.\PhysicalDrive0", "name"];
    for path in none.into_iter().map(str::to_owned).chain(other) {
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
        assert_eq!(dacl.entries()[0].sid(), Some(&Sid::NETWORK), "{dacl}");
        assert_eq!(dacl.entries()[0].kind(), AceKind::Deny, "{dacl}");
        let masks: Vec<_> = dacl.entries()[1..].iter().map(|ace| ace.mask).collect();
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
    let no_pipe = Stream::try_from(OwnedHandle::from(file)).unwrap_err();
    assert!(matches!(no_pipe.kind(), ErrorKind::InvalidInput { .. }), "{no_pipe}");
}

#[test]
fn the_end_is_told_in_one_direction_and_the_other_goes_on() {
    let (mut server, mut client) = pair("half-closed");
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.write(b"more").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let mut question = Vec::new();
    server.read_to_end(&mut question).unwrap();
    assert_eq!(question, b"question");
    assert_eq!(server.read(&mut [0; 8]).unwrap(), 0, "the end stays the end");
    server.write_all(b"answer").unwrap();
    server.shutdown(Shutdown::Both).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
}

#[test]
fn a_reader_that_waits_ends_when_reading_is_shut_down_and_a_writer_does_not() {
    let (server, client) = pair("shut-down");
    let reader = server.try_clone().unwrap();
    let waiting = std::thread::spawn(move || (&reader).read(&mut [0; 8]).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    server.shutdown(Shutdown::Read).unwrap();
    assert_eq!(waiting.join().unwrap(), 0);
    assert_eq!((&server).read(&mut [0; 8]).unwrap(), 0);
    (&server).write_all(b"still").unwrap();
    let mut buffer = [0; 5];
    (&client).read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"still");
}

#[test]
fn a_stream_that_may_not_wait_says_so_and_loses_nothing() {
    let (mut server, mut client) = pair("stream-nonblocking");
    server.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4];
    for _ in 0..3 {
        assert_eq!(server.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    client.write_all(b"late").unwrap();
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"late");
    server.write_all(b"back").unwrap();
    client.read_exact(&mut buffer).unwrap();
    server.set_nonblocking(false).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert_eq!(server.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(client);
    server.set_nonblocking(true).unwrap();
    assert_eq!(server.read(&mut buffer).unwrap(), 0, "the end is no waiting");
}

#[test]
fn a_full_pipe_says_so_to_who_may_not_wait() {
    if crate::sys::wine::is_wine() {
        println!("skipped: under Wine: a full pipe takes more, or waits in spite of PIPE_NOWAIT");
        return;
    }
    let (mut server, mut client) = pair("full");
    server.set_nonblocking(true).unwrap();
    let sent = (0..1000).map_while(|_| server.write(&[7; 1000]).ok()).sum::<usize>();
    assert!(sent > 0 && sent < 1_000_000, "{sent}");
    assert_eq!(server.write(&[7]).err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    let mut all = vec![0; sent];
    client.read_exact(&mut all).unwrap();
    assert!(server.write(&[7]).is_ok());
}

#[test]
fn a_pipe_of_bytes_cannot_tell_its_end_and_says_so() {
    let pipe = elsewhere("bytes", PIPE_TYPE_BYTE);
    let client = Stream::connect(&address("bytes")).unwrap();
    let server = Stream::try_from(pipe).unwrap();
    for end in [&server, &client] {
        assert_eq!(end.shutdown(Shutdown::Write).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
    (&client).write_all(b"goes on").unwrap();
    let mut buffer = [0; 7];
    (&server).read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"goes on");
}

/// Whoever wrote the last of what a read takes is the client: so it takes from one message, or one byte.
#[test]
fn the_first_read_takes_what_was_written_at_once_and_no_more() {
    let (mut server, mut client) = pair("first-read");
    for words in ["one", "another"] {
        client.write_all(words.as_bytes()).unwrap();
    }
    let mut buffer = vec![0; 64 * 1024];
    assert_eq!((server.read(&mut buffer).unwrap(), &buffer[..3]), (3, &b"one"[..]));
    assert_eq!((server.read(&mut buffer).unwrap(), &buffer[..7]), (7, &b"another"[..]));

    for (name, mode, first) in [
        ("first-byte", PIPE_TYPE_BYTE, "o"),
        ("first-message", PIPE_TYPE_MESSAGE, "one"),
        ("by-messages", PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE, "one"),
    ] {
        let pipe = elsewhere(name, mode);
        let mut client = Stream::connect(&address(name)).unwrap();
        let mut server = Stream::try_from(pipe).unwrap();
        client.write_all(b"one").unwrap();
        client.write_all(b"another").unwrap();
        let bytes = server.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], first.as_bytes(), "{name}");
        let mut rest = vec![0; 10 - bytes];
        server.read_exact(&mut rest).unwrap();
        assert_eq!([first.as_bytes(), &rest].concat(), b"oneanother", "{name}");
    }
}

#[test]
fn what_of_a_message_finds_no_room_comes_with_the_next_read() {
    let pipe = elsewhere("no-room", PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE);
    let mut client = Stream::connect(&address("no-room")).unwrap();
    let mut server = Stream::try_from(pipe).unwrap();
    let message: Vec<u8> = (0..100).collect();
    client.write_all(&message).unwrap();
    server.write_all(&message).unwrap();
    for end in [&mut server, &mut client] {
        let mut all = Vec::new();
        while all.len() < message.len() {
            let mut buffer = [0; 30];
            let bytes = end.read(&mut buffer).unwrap();
            all.extend_from_slice(&buffer[..bytes]);
        }
        assert_eq!(all, message);
    }
}

#[test]
fn an_end_right_behind_the_last_words_is_read_after_them() {
    let (server, client) = pair("end-behind");
    for (mut writer, mut reader) in [(&client, &server), (&server, &client)] {
        writer.write_all(b"a").unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
        reader.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = vec![0; 64 * 1024];
        assert_eq!(reader.read(&mut buffer).unwrap(), 1);
        assert_eq!(reader.read(&mut buffer).unwrap(), 0);
    }
}
