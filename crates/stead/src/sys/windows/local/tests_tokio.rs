//! Of what tokio reads ahead, before it is known whose it is.

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::os::windows::io::{AsRawHandle, BorrowedHandle, IntoRawHandle};
use std::ptr::null_mut;
use std::time::Duration;

use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ::tokio::net::windows::named_pipe::NamedPipeServer;
use ::tokio::runtime::{Builder, Runtime};
use windows_sys::Win32::System::Pipes::PeekNamedPipe;

use super::tests::{address, elsewhere, pair};
use super::tokio::poll_first;
use crate::local::{self, Listener};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// How much is in the pipe that nobody has read.
fn unread(pipe: BorrowedHandle<'_>) -> u32 {
    let mut available = 0;
    // SAFETY: nothing is read; `available` is written only by this call; the handle is borrowed and so open.
    let done = unsafe {
        PeekNamedPipe(pipe.as_raw_handle(), null_mut(), 0, null_mut(), &raw mut available, null_mut())
    };
    assert_ne!(done, 0);
    available
}

/// Where the next message is read, the client is whoever wrote that.
#[test]
fn nothing_behind_the_first_message_is_read_before_it_is_known_whose_it_was() {
    let (runtime, address) = (runtime(), address("ahead"));
    let listener = Listener::bind(&address).unwrap();
    let mut client = local::Stream::connect(&address).unwrap();
    client.write_all(b"one").unwrap();
    client.write_all(b"another").unwrap();
    runtime.block_on(async {
        let instance = listener.0.next.lock().unwrap().take().unwrap();
        // SAFETY: the handle is a pipe's server end, overlapped, and given away here.
        let server = unsafe { NamedPipeServer::from_raw_handle(instance.into_raw_handle()) };
        let mut server = server.unwrap();
        server.connect().await.unwrap();
        assert!(poll_fn(|task| poll_first(&server, task)).await.unwrap());
        // SAFETY: the pipe is open for as long as `server`.
        let left = unread(unsafe { BorrowedHandle::borrow_raw(server.as_raw_handle()) });
        assert_eq!(left, 7, "the second message is where it was");
        let mut buffer = [0; 64];
        assert_eq!(server.read(&mut buffer).await.unwrap(), 3);
        assert_eq!(server.read(&mut buffer).await.unwrap(), 7);
    });
}

#[test]
fn by_tokio_too_a_read_takes_from_one_message_and_a_long_one_comes_whole() {
    runtime().block_on(async {
        let (server, client) = pair("tokio-messages");
        let long: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        (&client).write_all(b"one").unwrap();
        (&client).write_all(&long).unwrap();
        let mut server = local::tokio::Stream::new(server).unwrap();
        let mut buffer = vec![0; 64 * 1024];
        assert_eq!(server.read(&mut buffer).await.unwrap(), 3);
        let mut all = vec![0; long.len()];
        server.read_exact(&mut all).await.unwrap();
        assert_eq!(all, long);
        server.write_all(&long).await.unwrap();
        let mut all = vec![0; long.len()];
        (&client).read_exact(&mut all).unwrap();
        assert_eq!(all, long);
    });
}

#[test]
fn an_end_before_any_words_is_the_end_and_nobody_is_known() {
    runtime().block_on(async {
        let (server, client) = pair("tokio-nothing");
        let mut server = local::tokio::Stream::new(server).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        for _ in 0..2 {
            assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        }
        assert!(server.client().is_err());
        server.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        (&client).read_exact(&mut answer).unwrap();
    });
}

#[test]
fn what_tokio_reads_ahead_of_is_first_read_by_no_other_handle() {
    runtime().block_on(async {
        let (server, client) = pair("tokio-turn");
        let other = server.try_clone().unwrap();
        other.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        let mut server = local::tokio::Stream::new(server).unwrap();
        (&client).write_all(b"one").unwrap();
        assert_eq!((&other).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 3);
        drop(server);
        assert_eq!((&other).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut, "it has its turn");
    });
}

#[test]
fn a_pipe_of_bytes_is_tokios_only_when_its_client_is_known() {
    runtime().block_on(async {
        let new = |name: &str| {
            let pipe = elsewhere(name, 0);
            let client = local::Stream::connect(&address(name)).unwrap();
            (local::Stream::try_from(pipe).unwrap(), client)
        };
        let (server, _client) = new("tokio-bytes");
        let refused = local::tokio::Stream::new(server).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        let (server, client) = new("tokio-bytes-known");
        (&client).write_all(b"one").unwrap();
        (&server).read_exact(&mut [0]).unwrap();
        let mut server = local::tokio::Stream::new(server).unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 2);
    });
}

/// One pipe with two handles: what is read by the one tells the runtime, which waits by the other, nothing.
#[test]
fn a_handle_beside_tokios_reads_and_writes_without_the_runtimes_knowledge() {
    runtime().block_on(async {
        let (server, client) = pair("tokio-beside");
        let other = client.try_clone().unwrap();
        other.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        for words in ["one", "two", "six"] {
            (&server).write_all(words.as_bytes()).unwrap();
        }
        let mut client = local::tokio::Stream::new(client).unwrap();
        let mut buffer = [0; 8];
        for _ in 0..2 {
            assert_eq!((&other).read(&mut buffer).unwrap(), 3);
        }
        assert_eq!((&other).read(&mut buffer).unwrap_err().kind(), ErrorKind::TimedOut);
        (&other).write_all(b"from beside").unwrap();
        // The runtime now takes what has come for it, and only that.
        assert_eq!(client.read(&mut buffer).await.unwrap(), 3);
        client.write_all(b"and from tokio").await.unwrap();
        let mut all = [0; 25];
        (&server).read_exact(&mut all).unwrap();
        assert_eq!(&all, b"from besideand from tokio");
    });
}
