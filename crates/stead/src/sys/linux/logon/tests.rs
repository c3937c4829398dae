//! What is said over the wire: everything that is sent is understood, and nothing else is.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use zeroize::Zeroizing;

use super::message::*;
use super::wire;
use crate::sys::account::AccountEntry;
use crate::sys::token::*;

fn pair() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

fn open() -> Open {
    let text = |text: &str| CString::new(text).unwrap();
    Open {
        id: u64::MAX,
        service: text("stead-interactive"),
        user: text("alice"),
        exact_name: true,
        authenticate: true,
        empty_password: false,
        secret: Some(Zeroizing::new(b"correct horse".to_vec())),
        conversation: false,
        tty: Some(text("pts/3")),
        remote_host: None,
        remote_user: Some(text("")),
        environment: vec![text("A=1"), text("B=")],
        logon_gid: Some(LogonGidRequest { directory: text("/x"), first: 1, last: 2 }),
        socket: None,
    }
}

fn snapshot() -> Snapshot {
    let text = |text: &str| CString::new(text).unwrap();
    Snapshot {
        id: 7,
        account: AccountEntry {
            name: text("alice"),
            uid: Uid::new(4_000_000_000).unwrap(),
            gid: Gid::new(5).unwrap(),
            home: text("/home/alice"),
            shell: text("/bin/sh"),
        },
        context: SecurityContext {
            uid: Uid::new(4_000_000_000).unwrap(),
            gid: Gid::new(5).unwrap(),
            groups: [5, 6].into_iter().filter_map(Gid::new).collect(),
            capabilities: CapabilitySets {
                bounding: CapabilitySet::from_bits(u64::MAX),
                ..Default::default()
            },
            securebits: SecureBits(3),
            no_new_privs: true,
            label: Some(Label(b"unconfined"[..].into())),
            login_uid: LoginUid::Set(Uid::new(9).unwrap()),
        },
        environment: vec![text("LANG=C")],
        umask: 0o77,
        exec_label: Some(b"user_u".to_vec()),
        logon_gid: Some(1 << 30),
        audit_session: None,
        processes: vec![(1, 2), (3, 4)],
    }
}

fn replies() -> Vec<Reply> {
    vec![
        Reply::Prompt { echo: true, text: b"Code: \xff".to_vec() },
        Reply::Inform { error: false, text: Vec::new() },
        Reply::Opened(Box::new(snapshot())),
        Reply::Failed(Failure { phase: Phase::Listen, why: Why::Stated, code: -1, text: "x".into() }),
        Reply::Launched { id: 1, pid: 2 },
        Reply::NotLaunched { step: 3, errno: 11, detail: 9 },
        Reply::Status(Some(9)),
        Reply::Status(None),
        Reply::Unknown,
        Reply::Done,
        Reply::Processes(vec![1, i32::MAX]),
        Reply::Ended { close: 0, delete: 14, text: String::new() },
        Reply::Stale,
    ]
}

#[test]
fn every_reply_comes_back_as_it_was() {
    for reply in replies() {
        let (kind, body) = reply.encode();
        assert_eq!(Reply::decode(kind, &body), Some(reply));
    }
}

#[test]
fn a_logon_request_comes_back_as_it_was() {
    let (kind, body) = Request::Open(Box::new(open())).encode();
    let Some(Request::Open(again)) = Request::decode(kind, &body) else { panic!("not decoded") };
    assert_eq!(*again, open());
}

#[test]
fn a_launch_of_two_mebibytes_with_many_descriptors_arrives_whole() {
    let (server, worker) = pair();
    let launch = LaunchRequest {
        spec: vec![c"spec".to_owned()],
        argv: vec![c"program".to_owned(), c"".to_owned()],
        envp: vec![CString::new(vec![b'x'; 2 << 20]).unwrap()],
        targets: (0..600).collect(),
        cgroup: true,
        watched: true,
    };
    let (kind, body) = Request::Launch(launch.clone()).encode();
    let null = std::fs::File::open("/dev/null").unwrap();
    std::thread::scope(|scope| {
        let descriptors = vec![null.as_fd(); 600];
        scope.spawn(move || wire::send(&server, kind, &body, &descriptors).unwrap());
        let frame = wire::receive(&worker).unwrap().unwrap();
        assert_eq!(frame.descriptors.len(), 600);
        let Some(Request::Launch(again)) = Request::decode(frame.kind, &frame.body) else {
            panic!("not decoded")
        };
        assert_eq!(again, launch);
    });
    assert!(wire::receive(&worker).unwrap().is_none(), "nothing follows");
}

#[test]
fn what_is_cut_off_or_too_long_is_refused() {
    let mut bodies: Vec<(bool, u8, Vec<u8>)> =
        replies().iter().map(Reply::encode).map(|(kind, body)| (false, kind, body.to_vec())).collect();
    let (kind, body) = Request::Open(Box::new(open())).encode();
    bodies.push((true, kind, body.to_vec()));
    let decodes = |request: bool, kind: u8, body: &[u8]| {
        if request { Request::decode(kind, body).is_some() } else { Reply::decode(kind, body).is_some() }
    };
    for (request, kind, body) in bodies {
        assert!(decodes(request, kind, &body));
        for length in 0..body.len() {
            assert!(!decodes(request, kind, &body[..length]), "{kind} cut at {length}");
        }
        let longer = [body.as_slice(), &[0]].concat();
        assert!(!decodes(request, kind, &longer), "{kind} with a byte more");
    }
}

/// A generator of the xorshift family: the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn no_bytes_make_the_decoders_panic_or_allocate_what_the_bytes_only_promise() {
    let mut random = Random(0x5eed_0047);
    let valid: Vec<(u8, Vec<u8>)> =
        replies().iter().map(Reply::encode).map(|(kind, body)| (kind, body.to_vec())).collect();
    for _ in 0..200_000 {
        let length = usize::try_from(random.next() % 64).unwrap();
        let body: Vec<u8> = (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
        let kind = random.next().to_le_bytes()[0] % 14;
        let _ = Request::decode(kind, &body);
        let _ = Reply::decode(kind, &body);
        // And what is almost right.
        let (kind, mut body) = valid[usize::try_from(random.next()).unwrap_or(0) % valid.len()].clone();
        if !body.is_empty() {
            let at = usize::try_from(random.next()).unwrap_or(0) % body.len();
            body[at] ^= random.next().to_le_bytes()[0];
            let _ = Reply::decode(kind, &body);
            let _ = Request::decode(kind, &body);
        }
    }
}

#[test]
fn a_peer_of_another_version_is_told_apart_and_a_huge_frame_refused() {
    let other = |header: [u8; 12]| {
        let (server, worker) = pair();
        rustix::io::write(&server, &header).unwrap();
        let said = wire::receive_or_tell(&worker).err().unwrap();
        (wire::OtherVersion::is(&said), said.to_string(), server)
    };
    let [low, high] = wire::VERSION.to_le_bytes();
    let (told_apart, said, peer) = other([0, 0, 0, 0, 7, 0xfe, 1, 0, 0, 0, 0, 0]);
    assert!(told_apart && said.contains("version 254.7"), "{said}");
    // It is answered by a frame that it, too, sees to be of another version.
    let mut answer = [0; 12];
    assert_eq!(rustix::io::read(&peer, &mut answer).unwrap(), answer.len());
    assert_eq!(answer[4..6], [low, high]);
    let (told_apart, said, _) = other([0xff, 0xff, 0xff, 0xff, low, high, 1, 0, 0, 0, 0, 0]);
    assert!(!told_apart && said.contains("16 MiB"), "{said}");
    let (told_apart, said, _) = other([0, 0, 0, 0, low, high, 1, 0, 3, 0, 0, 0]);
    assert!(!told_apart && said.contains("descriptors"), "{said}");
}
