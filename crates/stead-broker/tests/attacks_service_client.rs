//! A caller's client that is none: sockets by which a caller would be taken for somebody else.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod through_support;

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio as Std;

use stead::{ErrorKind, Service};
use stead_protocol::client::Connection;
use stead_protocol::{ClientToken, FailureKind};
use testbed::until;
use through_support::{
    Connected, TheService, alive, connect_and_stay, folder_of, judged, listener, say, trusting, words,
};

#[test]
fn role_that_connects() {
    connect_and_stay();
}

/// The polkit and "potato" family: a caller passes its own end of a connection to a service that root runs, to be
/// taken for root.
#[test]
fn the_connecting_end_of_a_connection_to_roots_service_does_not_make_its_holder_root() {
    let bed = testbed::require!();
    let service = trusting(bed);
    let said =
        service.play(bed, "svc", "role_that_passes_connecting_ends", &[service.socket.to_str().unwrap()]);
    assert_eq!(said, "refused\nrefused\nrefused\n");
}

/// As svc: its own listener is real, what it passes as accepted is its end of connections to root's service, unbound
/// and bound to a name of its own, and of one to itself.
#[test]
fn role_that_passes_connecting_ends() {
    let Some(words) = words() else { return };
    let service = Service::connect().unwrap();
    let own = std::env::temp_dir().join(format!("stead-attack-{}", std::process::id()));
    let own_listener = UnixListener::bind(&own).unwrap();
    let unbound = UnixStream::connect(&words[0]).unwrap();
    let bound = bound_and_connected(&own.with_extension("bound"), Path::new(&words[0]));
    let to_itself = bound_and_connected(&own.with_extension("itself"), &own);
    for end in [OwnedFd::from(unbound), bound, to_itself] {
        // This library refuses some by itself: what counts is what the service says, so it is asked past it.
        let mut connection = Connection::connect(&words[0]).unwrap();
        let call = ClientToken { socket: 0, listener: 1, level: None };
        let answer = connection.call(&call, &[end.as_fd(), own_listener.as_fd()]);
        say(if answer.is_err() { "refused" } else { "taken" });
        assert!(service.client_of(&end, &own_listener).and_then(|client| client.token()).is_err());
    }
    for path in [own.clone(), own.with_extension("bound"), own.with_extension("itself")] {
        let _ = fs::remove_file(path);
    }
}

fn bound_and_connected(name: &Path, to: &Path) -> OwnedFd {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, socket};
    let end = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&end, &SocketAddrUnix::new(name).unwrap()).unwrap();
    connect(&end, &SocketAddrUnix::new(to).unwrap()).unwrap();
    end
}

/// A connecting end bound to the very path at which the listener listened a moment before: path and descriptor
/// look accepted.
#[test]
fn a_connecting_end_bound_to_the_listeners_own_path_is_not_taken_for_accepted() {
    let bed = testbed::require!();
    let service = trusting(bed);
    let folder = bed.scratch("server");
    let (listener, path) = listener(&folder);
    // The listener's name is free again, and the listener still listens.
    let moved = folder.join("moved");
    fs::rename(&path, &moved).unwrap();
    let end = bound_and_connected(&path, &moved);
    let refused = judged(&service, &end, &listener).unwrap_err();
    let FailureKind::InvalidInput { what } = refused else { panic!("{refused:?}") };
    assert!(what.contains("not accepted by that listener"), "{what}");
    // An accepted one is a real one, of this very process's user; with a name at its other end it proves nothing.
    let (accepted, _) = listener.accept().unwrap();
    drop(end);
    let refused = judged(&service, &accepted, &listener).unwrap_err();
    assert!(matches!(&refused, FailureKind::InvalidInput { what } if what.contains("a name")), "{refused:?}");
    let _end = UnixStream::connect(&moved).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(!matches!(judged(&service, &accepted, &listener), Err(FailureKind::InvalidInput { .. })));
}

/// A file system in user space gives two sockets' files one number: a listener of the caller's, and an end that it
/// connected to a service of alice's.
#[test]
fn two_files_of_one_number_make_no_client_of_whom_a_caller_connected_to() {
    let bed = testbed::require!();
    let service = trusting(bed);
    let folder = folder_of(bed, bed.user("alice"));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let mounted = folder.join("mounted");
    fs::create_dir(&mounted).unwrap();
    let Ok(device) = fs::File::options().read(true).write(true).open("/dev/fuse") else {
        testbed::skip!("needs /dev/fuse");
    };
    let options = "fd=0,rootmode=40000,user_id=0,group_id=0,allow_other";
    let mut mount = std::process::Command::new("mount");
    mount.args(["-i", "-t", "fuse", "-o", options, "twins"]).arg(&mounted);
    if !mount.stdin(device.try_clone().unwrap()).status().unwrap().success() {
        testbed::skip!("a file system in user space cannot be mounted here");
    }
    std::thread::spawn(move || twins(device));

    let mut part = service.part(bed, "alice", "role_that_listens", &[folder.to_str().unwrap()]);
    let mut part = part.stdout(Std::piped()).stderr(Std::piped()).stdin(Std::piped()).spawn().unwrap();
    until("alice listens", || folder.join("of-alice").exists() || !alive(part.id()));
    // What root left to it is one of a pair that root made.
    let (left, _other) = UnixStream::pair().unwrap();
    let mut twin = service.part(bed, "svc", "role_that_connects_a_twin", &[folder.to_str().unwrap()]);
    let said = through_support::played(&twin.stdin(OwnedFd::from(left)).output().unwrap());
    drop(part.stdin.take());
    through_support::played(&part.wait_with_output().unwrap());
    let unmounted = std::process::Command::new("umount").arg("-l").arg(&mounted).status();
    assert!(unmounted.unwrap().success());
    let [of_alice, of_root] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(of_alice.starts_with("refused: ") && of_alice.contains("the other end has a name"), "{said}");
    assert!(of_root.starts_with("refused: ") && of_root.contains("another user accepted"), "{said}");
}

#[test]
fn role_that_listens() {
    let Some(words) = words() else { return };
    let path = Path::new(&words[0]).join("of-alice");
    let _listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn role_that_connects_a_twin() {
    let Some(words) = words() else { return };
    let folder = Path::new(&words[0]);
    let listener = UnixListener::bind(folder.join("mounted/one")).unwrap();
    let end = bound_and_connected(&folder.join("mounted/two"), &folder.join("of-alice"));
    let left = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let name = rustix::net::SocketAddrUnix::new(folder.join("mounted/three")).unwrap();
    rustix::net::bind(&left, &name).unwrap();
    let path = std::env::var_os("STEAD_SERVICE").unwrap();
    for socket in [end, left] {
        let mut connection = Connection::connect(&path).unwrap();
        let call = ClientToken { socket: 0, listener: 1, level: None };
        match connection.call(&call, &[socket.as_fd(), listener.as_fd()]) {
            Ok((opened, _)) => say(format_args!("taken for uid {}", opened.context.uid)),
            Err(error) => say(format_args!("refused: {error}")),
        }
    }
}

/// A file system in which every socket's file has the number 5. Reference: include/uapi/linux/fuse.h.
fn twins(mut device: fs::File) {
    let mut request = vec![0; 1 << 20];
    let mut nodes = 1_u64;
    while let Ok(length) = device.read(&mut request) {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let mut body: Vec<u8> = Vec::new();
        let mut error = 0_i32;
        let attributes = |number: u64, mode: u32| {
            let numbers = [number, 0, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
            [numbers, [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes).concat()].concat()
        };
        match word(4) {
            // FORGET and BATCH_FORGET have no answer.
            2 | 42 => continue,
            // GETATTR: of the root directory, or of a socket.
            3 => {
                body.extend([0_u8; 16]);
                let root = word(16) == 1;
                body.extend(if root { attributes(1, 0o40777) } else { attributes(5, 0o140_777) });
            }
            // MKNOD
            8 => {
                nodes += 1;
                body.extend([nodes, 0, 3600, 3600, 0].map(u64::to_ne_bytes).concat());
                body.extend(attributes(5, 0o140_777));
            }
            // INIT
            26 => {
                body.extend([7_u32, 31, 0, 0, 0, 4096, 1].map(u32::to_ne_bytes).concat());
                body.resize(64, 0);
            }
            // LOOKUP finds nothing; the rest there is not.
            1 => error = -2,
            _ => error = -38,
        }
        assert!(length >= 40);
        let mut answer = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        answer.extend(error.to_ne_bytes());
        answer.extend_from_slice(&request[8..16]);
        answer.extend(body);
        let _ = std::io::Write::write_all(&mut device, &answer);
    }
}

#[test]
fn one_of_a_pair_and_unnamed_and_abstract_listeners_are_refused() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let bed = testbed::require!();
    let service = trusting(bed);
    let (listener, path) = listener(&bed.scratch("server"));
    let (one, other) = UnixStream::pair().unwrap();
    assert!(judged(&service, &one, &listener).is_err());
    assert!(judged(&service, &one, &other).is_err());
    let client = Connected::by(
        &["setpriv", "--reuid=47001", "--regid=47001", "--clear-groups", "--"],
        bed,
        &listener,
        &path,
    );
    // A socket that does not listen is no listener, be it the accepted one itself.
    assert!(judged(&service, &client.stream, &client.stream).is_err());
    let abstract_one = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let name = format!("stead-attack-{}", std::process::id());
    bind(&abstract_one, &SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()).unwrap();
    listen(&abstract_one, 1).unwrap();
    let to_it = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::connect(&to_it, &SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()).unwrap();
    let accepted = rustix::net::accept(&abstract_one).unwrap();
    let refused = judged(&service, &accepted, &abstract_one).unwrap_err();
    assert!(matches!(refused, FailureKind::InvalidInput { .. }), "{refused:?}");
    // Two real ones that do not belong together.
    let (another, _) = through_support::listener(&bed.scratch("another"));
    assert!(judged(&service, &client.stream, &another).is_err());
    assert_eq!(judged(&service, &client.stream, &listener).unwrap(), 47001);
}

/// A root process is lured into connecting to the attacker's listener: everything about the connection is real.
#[test]
fn a_root_process_that_was_lured_into_connecting_gives_nothing() {
    let bed = testbed::require!();
    let service = trusting(bed);
    let folder = folder_of(bed, bed.user("svc"));
    let socket = folder.join("socket");
    let mut part = service.part(bed, "svc", "role_that_lures", &[folder.to_str().unwrap()]);
    let part = part.stdout(Std::piped()).stderr(Std::piped()).spawn().unwrap();
    until("it listens", || socket.exists() || !alive(part.id()));
    let _lured = UnixStream::connect(&socket).unwrap();
    let said = through_support::played(&part.wait_with_output().unwrap());
    assert!(said.contains("policy does not give this server impersonate"), "{said}");
}

#[test]
fn role_that_lures() {
    let Some(words) = words() else { return };
    let service = Service::connect().unwrap();
    let (listener, _) = listener(Path::new(&words[0]));
    let (stream, _) = listener.accept().unwrap();
    let client = service.client_of(&stream, &listener).unwrap();
    let refused = client.token().unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::PolicyDenied { .. }), "{refused}");
    say(refused);
}

/// The listener is another user's: whose client it is may only be asked by whom it connected to.
#[test]
fn nobody_speaks_for_anothers_listener() {
    let bed = testbed::require!();
    let service = TheService::start(
        bed,
        r#"
        [[allow]]
        callers = { users = ["svc", "mallory"] }
        clients = "everyone"
        privileges = ["impersonate", "assign-primary-token"]
        programs = "any"
        "#,
    );
    let folder = folder_of(bed, bed.user("svc"));
    // Made by svc, and handed to mallory's process as its standard input and output.
    let mut part = service.part(bed, "svc", "role_that_hands_its_listener_on", &[folder.to_str().unwrap()]);
    let part = part.stdout(Std::piped()).stderr(Std::piped()).stdin(Std::piped()).spawn().unwrap();
    let handed = folder.join("handed");
    until("it listens", || handed.exists() || !alive(part.id()));
    let _client = bed.client("alice").connect(folder.join("socket"));
    let receiver = UnixStream::connect(&handed).unwrap();
    let [listener, stream] = received(&receiver);
    let mut thief = service.part(bed, "mallory", "role_that_uses_a_listener", &["x"]);
    thief.stdin(listener).stderr(stream).stdout(Std::piped());
    let said = thief.spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("said: refused: ") && said.contains("another user's"), "{said}");
    drop(receiver);
    assert_eq!(through_support::played(&part.wait_with_output().unwrap()), "mine: alice\n");
}

fn received(from: &UnixStream) -> [OwnedFd; 2] {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(from, &mut [std::io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut all = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            all.extend(some);
        }
    }
    all.try_into().unwrap()
}

#[test]
fn role_that_hands_its_listener_on() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let Some(words) = words() else { return };
    let folder = Path::new(&words[0]);
    let (listener, _) = listener(folder);
    let handing = UnixListener::bind(folder.join("handed")).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let (mut to, _) = handing.accept().unwrap();
    let descriptors = [listener.as_fd(), stream.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(&to, &[std::io::IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
    let _ = to.read(&mut [0]);
    // For its own it is a client as any.
    let token = Service::connect().unwrap().client_of(&stream, &listener).unwrap().token().unwrap();
    say(format_args!("mine: {}", token.user_name().unwrap().unwrap().display()));
}

/// As mallory, with svc's listener as standard input and the accepted connection as standard error.
#[test]
fn role_that_uses_a_listener() {
    if words().is_none() {
        return;
    }
    let service = Service::connect().unwrap();
    let (listener, stream) = (std::io::stdin(), std::io::stderr());
    let token = service.client_of(stream.as_fd(), listener.as_fd()).and_then(|client| client.token());
    match token {
        Ok(token) => say(format_args!("taken: {token:?}")),
        Err(error) => say(format_args!("refused: {error}")),
    }
}
