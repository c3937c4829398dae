//! Callers that are slow, stuck, or send what is no call: nobody else is held up, and nothing is left behind.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use service_support::{Service, another, call, output, own, part, refusal, shell};
use stead_protocol::client::{CallError, Connection};
use stead_protocol::{
    CreateProcess, FailureKind, GetStatus, LARGEST_MESSAGE, Lifetime, ListProcesses, LogOn, Monitor,
    OpenFile, Strings, Text, WaitProcess,
};
use testbed::until;

fn raw(service: &Service) -> UnixStream {
    UnixStream::connect(service.socket()).unwrap()
}

/// How many descriptors the service has open.
fn descriptors(service: &Service) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap().count()
}

fn is_served(service: &Service) {
    assert_eq!(call(&mut service.connect(), &GetStatus {}, &[]).0.pid, service.pid());
}

fn send_with(socket: &UnixStream, bytes: &[u8], beside: &[BorrowedFd<'_>]) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(beside));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

#[test]
fn garbage_ends_the_connection_that_sent_it_and_no_other() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    let mut good = service.connect();
    call(&mut good, &GetStatus {}, &[]);
    let before = descriptors(&service);
    for garbage in [
        &b"\0"[..],
        b"\xff\xfe\0",
        b"[]\0",
        b"{}\0",
        b"{\"method\":3}\0",
        b"null\0",
        b"{\"method\":\"\x01\"}\0",
    ] {
        let mut socket = raw(&service);
        socket.write_all(garbage).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{garbage:?}: {}", String::from_utf8_lossy(&answer));
    }
    call(&mut good, &GetStatus {}, &[]);
    until("nothing of them is left", || descriptors(&service) <= before);
}

#[test]
fn a_message_that_is_too_long_is_not_kept() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    let mut socket = raw(&service);
    let piece = vec![b' '; 64 << 10];
    let mut sent = 0;
    // The service hangs up somewhere behind the limit.
    while sent < 4 * LARGEST_MESSAGE && socket.write_all(&piece).is_ok() {
        sent += piece.len();
    }
    assert!(sent < 4 * LARGEST_MESSAGE);
    is_served(&service);
}

#[test]
fn more_descriptors_than_a_call_may_have_end_the_connection() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    is_served(&service);
    let before = descriptors(&service);
    let null = File::open("/dev/null").unwrap();
    let many = vec![null.as_fd(); 100];
    let mut socket = raw(&service);
    send_with(&socket, b"{\"method\":\"io.stead.Service.GetStatus\"}\0", &many);
    let _ = socket.read_to_end(&mut Vec::new());
    // Message after message, each with some, and no end to any of them.
    let socket = raw(&service);
    for _ in 0..3 {
        let flags = SendFlags::NOSIGNAL;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(60))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&many[..60]));
        let _ = sendmsg(&socket, &[IoSlice::new(b"{")], &mut control, flags);
    }
    drop(socket);
    until("nothing of them is left", || descriptors(&service) <= before);
    is_served(&service);
}

#[test]
fn half_a_message_is_waited_for_no_longer_than_the_deadline() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    let mut socket = raw(&service);
    socket.write_all(b"{\"method\":").unwrap();
    is_served(&service);
    // The service hangs up.
    let _ = socket.read_to_end(&mut Vec::new());
    is_served(&service);
}

#[test]
fn a_caller_that_reads_no_replies_holds_up_nobody() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    let socket = raw(&service);
    socket.set_nonblocking(true).unwrap();
    let ask = br#"{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"io.stead.Service"}}"#;
    let mut many = Vec::new();
    for _ in 0..500 {
        many.extend_from_slice(ask);
        many.push(0);
    }
    let _ = (&socket).write(&many);
    is_served(&service);
}

#[test]
fn calls_that_wait_hold_up_nobody_else_and_no_other_user() {
    let bed = testbed::require!();
    let service = Service::start(bed, POLICY);
    let folder = bed.scratch("stuck");
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let (stuck, served) = (folder.join("stuck"), folder.join("served"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let variables = [("STEAD_TEST_FOLDER", folder.to_str().unwrap())];
            service.caller_with(bed, "svc", "role_waits_in_many_ways", &variables);
        });
        until("the callers are stuck", || stuck.exists());
        is_served(&service);
        service.caller(bed, "alice", "role_is_served");
        std::fs::write(&served, "").unwrap();
    });
}

#[test]
fn role_is_served() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    let (text, code) = output(&mut service, shell(token, "echo served"));
    assert_eq!((text.as_str(), code), ("served\n", Some(0)));
}

const POLICY: &str = r#"
[[allow]]
callers = { users = ["svc"] }
clients = { users = ["alice"] }
privileges = ["logon"]
logon-types = ["interactive"]
"#;

#[test]
fn role_waits_in_many_ways() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    // Logons whose secret never comes, as many as one user may have under way, and more.
    let (reader, _writer) = std::io::pipe().unwrap();
    let json = r#"{"account":{"name":"alice"},"logon_type":"interactive","secret":0}"#;
    let logon: LogOn = serde_json::from_str(json).unwrap();
    let message = stead_protocol::frame::encode_call(&logon, stead_protocol::frame::Replies::One).unwrap();
    let stuck: Vec<UnixStream> = (0..40)
        .map(|_| {
            let path = std::env::var_os("STEAD_TEST_SERVICE_SOCKET").unwrap();
            let socket = UnixStream::connect(path).unwrap();
            send_with(&socket, &message, &[reader.as_fd()]);
            socket
        })
        .collect();
    // The same user's other calls are answered.
    let (text, code) = output(&mut service, shell(token, "echo served"));
    assert_eq!((text.as_str(), code), ("served\n", Some(0)));
    call(&mut another(), &GetStatus {}, &[]);
    // So are other users', before any of these ends.
    let folder = std::path::PathBuf::from(std::env::var_os("STEAD_TEST_FOLDER").unwrap());
    std::fs::write(folder.join("stuck"), "").unwrap();
    until("others were served", || folder.join("served").exists());
    drop(stuck);
}

#[test]
fn a_file_system_that_never_answers_holds_up_one_call_until_its_deadline() {
    let bed = testbed::require!();
    let folder = bed.scratch("stuck");
    let Ok(device) = File::options().read(true).write(true).open("/dev/fuse") else {
        testbed::skip!("needs /dev/fuse");
    };
    // Whoever looks into it waits for an answer that never comes.
    let number = std::os::fd::AsRawFd::as_raw_fd(&device);
    let data = format!("fd={number},rootmode=40000,user_id=0,group_id=0,allow_other");
    let data = std::ffi::CString::new(data).unwrap();
    let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
    if let Err(errno) = rustix::mount::mount("stuck", &folder, "fuse", flags, &*data) {
        testbed::skip!("no FUSE file system can be mounted here: {errno}");
    }
    let service = Service::start(bed, "");
    service.caller_with(
        bed,
        "alice",
        "role_opens_what_never_opens",
        &[("STEAD_TEST_FOLDER", folder.to_str().unwrap())],
    );
    is_served(&service);
    drop(device);
    rustix::mount::unmount(&folder, rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[test]
fn role_opens_what_never_opens() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    let path = format!("{}/file", std::env::var("STEAD_TEST_FOLDER").unwrap());
    let open =
        OpenFile { token, path: Text::from(path), read: true, deadline: Some(300), ..OpenFile::default() };
    assert!(matches!(refusal(&mut service, &open, &[]), FailureKind::DeadlinePassed { .. }));
    let (text, _) = output(&mut service, shell(token, "echo served"));
    assert_eq!(text, "served\n");
}

#[test]
fn whoever_watches_sees_its_own_records_and_not_why_it_was_refused() {
    let bed = testbed::require!();
    let service = Service::start(bed, POLICY);
    service.caller(bed, "mallory", "role_watches");
    let audit = service.audit();
    assert!(audit.iter().any(|record| record["outcome"] == "denied" && record["detail"].is_string()));
}

#[test]
fn role_watches() {
    let Some(mut service) = part() else { return };
    let mut watching = another();
    watching.call_more(&Monitor {}).unwrap();
    let json = r#"{"account":{"name":"alice"},"logon_type":"batch","s4u":true}"#;
    let logon: LogOn = serde_json::from_str(json).unwrap();
    // The stream has begun when a record comes; until then one more is made.
    watching_ends_with(&mut watching, || {
        assert!(matches!(refusal(&mut service, &logon, &[]), FailureKind::PolicyDenied { .. }));
    });
}

fn watching_ends_with(watching: &mut Connection, mut act: impl FnMut()) {
    act();
    act();
    let (record, more) = watching.next_reply::<Monitor>().unwrap();
    assert!(more);
    let record: serde_json::Value = serde_json::from_str(record.record.get()).unwrap();
    assert_eq!((&record["event"], &record["outcome"]), (&"decision".into(), &"denied".into()));
    assert_eq!(record["client"]["name"], "alice");
    assert!(
        record["client"]["uid"].is_null() && record["detail"].is_null() && record["rule"].is_null(),
        "{record}"
    );
}

/// An error in the service itself, as far as there could be one: nothing that is shipped is built with this feature.
#[cfg(feature = "fuzzing")]
#[test]
fn a_call_in_which_the_service_panics_fails_and_leaves_its_connection_and_sessions_alone() {
    let bed = testbed::require!();
    let policy = service_support::everything(&["root"], &["alice"]);
    let mut service = Service::prepare(bed, &policy, None);
    service.variables.push(("STEAD_TEST_PANIC", "io.stead.Service.ListProcesses"));
    service.run(bed);
    let mut caller = service.connect();
    let logon = LogOn { lifetime: Lifetime::Tied, ..service_support::s4u("alice") };
    let session = call(&mut caller, &logon, &[]).0;
    let process = call(&mut caller, &shell(session.token, "sleep 600"), &[]).0.process;
    for _ in 0..3 {
        let failed = refusal(&mut caller, &ListProcesses::default(), &[]);
        assert!(matches!(&failed, FailureKind::Other { text } if text.contains("failed")), "{failed:?}");
    }
    // The same connection, with the same token; and nothing has ended.
    let (said, code) = output(&mut caller, shell(session.token, "id -un"));
    assert_eq!((said.as_str(), code), ("alice\n", Some(0)));
    assert!(service_support::alive(process.pid));
    assert!(service.audit().iter().all(|record| record["event"] != "session-lost"));
    let mut another = service.connect();
    refusal(&mut another, &ListProcesses::default(), &[]);
    is_served(&service);
    drop(caller);
    until("the tie is as good as before", || !service_support::alive(process.pid));
}

#[test]
fn a_panic_outside_of_a_call_ends_its_connection_with_what_it_holds_and_nothing_else() {
    let bed = testbed::require!();
    let policy = service_support::everything(&["root"], &["alice"]);
    let mut service = Service::prepare(bed, &policy, None);
    // Not handled as other calls are: the connection itself waits.
    service.variables.push(("STEAD_TEST_PANIC", "io.stead.Service.WaitProcess"));
    service.run(bed);
    let (mut caller, mut another) = (service.connect(), service.connect());
    let start = |caller: &mut Connection, lifetime: Lifetime| {
        let logon = LogOn { lifetime, ..service_support::s4u("alice") };
        let token = call(caller, &logon, &[]).0.token;
        call(caller, &shell(token, "sleep 600"), &[]).0.process
    };
    let tied = start(&mut caller, Lifetime::Tied);
    let detached = start(&mut caller, Lifetime::Detached);
    let anothers = start(&mut another, Lifetime::Tied);
    let lost = caller.call(&WaitProcess { process: tied.id, timeout: None }, &[]);
    assert!(!matches!(&lost, Ok(_) | Err(CallError::Failed(_))), "{lost:?}");
    until("its tied session is over", || !service_support::alive(tied.pid));
    until("nothing of the connection is left", || call(&mut another, &GetStatus {}, &[]).0.connections == 1);
    assert!(service_support::alive(detached.pid) && service_support::alive(anothers.pid));
    is_served(&service);
}

#[test]
fn strings_beside_a_call_are_taken_from_nothing_but_a_sealed_memory_file_that_holds_them() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    let mut root = service.connect();
    let token = own(&mut root).token;
    let strings =
        Strings { arguments: vec![Text::from("-c"), Text::from("echo here")], ..Strings::default() };
    let right = strings.encode().unwrap();
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    let memory = |bytes: &[u8], length: u64, seals: SealFlags| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create("strings", flags).unwrap());
        file.write_all(bytes).unwrap();
        file.set_len(length).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        OwnedFd::from(file)
    };
    let length = right.len() as u64;
    let process = CreateProcess {
        token,
        program: Some(Text::from("/bin/sh")),
        strings: Some(1),
        stdout: Some(0),
        ..CreateProcess::default()
    };
    let run = |root: &mut Connection, process: &CreateProcess, file: &OwnedFd| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let answer = root.call(process, &[writer.as_fd(), file.as_fd()]);
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        let refused = answer.is_err();
        assert!(!refused || said.is_empty(), "it was refused, and ran");
        answer.map(|_| said)
    };
    assert_eq!(run(&mut root, &process, &memory(&right, length, all)).unwrap(), "here\n");

    let ordinary = bed.scratch("strings").join("file");
    std::fs::write(&ordinary, &right).unwrap();
    let (pipe, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&right).unwrap();
    let many = [&700_000_u32.to_le_bytes()[..], &[0; 8]].concat();
    let wrong = [
        memory(&right, length, SealFlags::empty()),
        memory(&right, length, SealFlags::SHRINK | SealFlags::GROW),
        memory(&right, length, SealFlags::GROW | SealFlags::WRITE),
        memory(&right, length - 1, all),
        memory(&right, length + 1, all),
        memory(&[], 0, all),
        memory(&many, 4096, all),
        File::open(ordinary).unwrap().into(),
        File::open("/dev/zero").unwrap().into(),
        pipe.into(),
        raw(&service).into(),
    ];
    for (number, file) in wrong.iter().enumerate() {
        let error = run(&mut root, &process, file).unwrap_err();
        assert!(
            matches!(&error, CallError::Failed(failure) if matches!(failure.kind, FailureKind::InvalidInput { .. })),
            "{number}: {error}"
        );
    }
    // No more is read than the kernel could take, whatever such a file says of itself.
    let before = resident(&service);
    for file in [memory(&[], 1 << 40, all), memory(&[0xff; 12], 12, all), memory(&[0xff; 12], 6 << 20, all)] {
        let error = run(&mut root, &process, &file).unwrap_err();
        let CallError::Failed(failure) = &error else { panic!("{error}") };
        let why = "arguments_too_long".to_owned();
        let program = "/bin/sh".to_owned();
        assert_eq!(failure.kind, FailureKind::ProgramUnusable { program, why });
    }
    assert!(resident(&service) < before + (8 << 20), "it held what it refused");
    // Some here and some there would be two ways to say one thing.
    let both = CreateProcess { arguments: vec![Text::from("-c")], ..process };
    let error = run(&mut root, &both, &memory(&right, length, all)).unwrap_err();
    assert!(error.to_string().contains("beside"), "{error}");
    is_served(&service);
}

/// What the service has in memory, in bytes.
fn resident(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
