//! Descriptors of a caller's own file system, which never answers when they are closed, or when they are looked at.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use service_support::{
    Service, be_told, call, everything, output, own, part, refusal, s4u, say, shell, stream,
};
use stead_protocol::client::Connection;
use stead_protocol::{ClientToken, CreateProcess, FailureKind, GetStatus, ListSessions};
use testbed::Bed;

const FOLDER: &str = "STEAD_TEST_FOLDER";

/// What each close(2) asks.
const FLUSH: u32 = 25;
/// What fstat(2) asks.
const GETATTR: u32 = 3;

/// Serves one file, and answers everything of it but one operation.
const FILE_SYSTEM: &str = r"
import ctypes, os, struct, sys
path, (uid, gid, silent) = sys.argv[1], map(int, sys.argv[2:])
libc = ctypes.CDLL(None, use_errno=True)
fuse = os.open('/dev/fuse', os.O_RDWR)
options = 'fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other' % (fuse, uid, gid)
if libc.mount(b'fuse', path.encode(), b'fuse', 6, options.encode()):
    print('refused: ' + os.strerror(ctypes.get_errno()), flush=True)
    sys.exit()
print('mounted', flush=True)
def attributes(inode, mode):
    return struct.pack('<QQQQQQIIIIIIIIII', inode, *[0] * 8, mode, 1, uid, gid, 0, 4096, 0)
while True:
    request = os.read(fuse, 1 << 20)
    _, operation, unique, node = struct.unpack_from('<IIQQ', request)
    error, answer = 0, b''
    if operation == silent and node == 2: continue
    if operation == 26: answer = struct.pack('<IIIIHHIIHHI7I', 7, 31, 65536, 0, 16, 12, 65536, 1, *[0] * 10)
    elif operation == 1: answer = struct.pack('<QQQQII', 2, 0, 0, 0, 0, 0) + attributes(2, 0o100666)
    elif operation == 3: answer = struct.pack('<QII', 0, 0, 0) + attributes(*((1, 0o40755) if node == 1 else (2, 0o100666)))
    elif operation == 14: answer = struct.pack('<QII', 1, 0, 0)
    elif operation == 17: answer = bytes(80)
    elif operation in (2, 36, 42): continue
    elif operation != 18: error = -38
    try: os.write(fuse, struct.pack('<IiQ', 16 + len(answer), error, unique) + answer)
    except OSError: pass
";

/// Its end ends the file system's silence: the kernel then answers for it.
struct FileSystem {
    server: Child,
    path: PathBuf,
}

impl FileSystem {
    fn mount(bed: &Bed, owner: &str, silent: u32) -> Result<Self, String> {
        let path = bed.scratch("silent");
        let owner = bed.user(owner);
        std::os::unix::fs::chown(&path, Some(owner.uid), Some(owner.gid)).unwrap();
        let mut server = Command::new("python3")
            .args(["-c", FILE_SYSTEM])
            .arg(&path)
            .args([owner.uid, owner.gid, silent].map(|number| number.to_string()))
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("python3: {error}"))?;
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mounted = line.trim_end() == "mounted";
        let made = Self { server, path };
        if mounted { Ok(made) } else { Err(format!("no file system in user space here: {line}")) }
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.path).stderr(Stdio::null()).status();
    }
}

#[test]
fn descriptors_that_cannot_be_closed_hold_up_nobodys_processes() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    // Ends after the file system: its own descriptors cannot be closed before, either.
    let mut alice = None;
    let silent = match FileSystem::mount(bed, "alice", FLUSH) {
        Ok(silent) => silent,
        Err(reason) => testbed::skip!("{reason}"),
    };
    let variables = [(FOLDER, silent.path.to_str().unwrap())];
    let by_alice = bed.as_user("alice", &[], bed.this_program());
    let alice = alice.insert(service.part_by(by_alice, "role_passes_what_cannot_be_closed", &variables));
    alice.says();
    let held = || {
        let of_service = format!("/proc/{}/fd", service.pid());
        let links = std::fs::read_dir(of_service).unwrap().flatten();
        let is_silent = |link: PathBuf| link.starts_with(&silent.path);
        links.filter(|link| std::fs::read_link(link.path()).is_ok_and(is_silent)).count()
    };
    testbed::until("the service is closing them", || held() > 0);
    // More at once than there are slots.
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| service.caller(bed, "bob", "role_has_a_process_all_the_same"));
        }
    });
    assert!(held() > 0, "they are still there");
}

#[test]
fn files_that_were_sent_and_cannot_be_closed_hold_up_nobodys_calls() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    // Ends after the file system: its own descriptors cannot be closed before, either.
    let mut alice = None;
    let silent = match FileSystem::mount(bed, "alice", FLUSH) {
        Ok(silent) => silent,
        Err(reason) => testbed::skip!("{reason}"),
    };
    let variables = [(FOLDER, silent.path.to_str().unwrap())];
    let by_alice = bed.as_user("alice", &[], bed.this_program());
    let alice = alice.insert(service.part_by(by_alice, "role_opens_what_cannot_be_closed", &variables));
    alice.says();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            service.caller(bed, "bob", "role_has_a_process_all_the_same");
            tell.send(()).unwrap();
        });
        let answered = told.recv_timeout(std::time::Duration::from_secs(30));
        if answered.is_err() {
            // Else bob's call would never end, either.
            drop(silent);
        }
        answered.expect("nobody is served any more");
    });
}

#[test]
fn role_opens_what_cannot_be_closed() {
    let Some(_) = part() else { return };
    let path = Path::new(&std::env::var_os(FOLDER).unwrap()).join("f");
    let info = "{\"method\":\"org.varlink.service.GetInfo\"}\0";
    // How many small replies that nobody reads fill a socket.
    let mut full = stream();
    full.write_all(info.repeat(900).as_bytes()).unwrap();
    let waiting = || rustix::io::ioctl_fionread(&full).unwrap();
    let mut most = 0;
    while most == 0 || most != waiting() {
        most = waiting();
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let length = BufReader::new(&full).read_until(0, &mut Vec::new()).unwrap();
    let fit = usize::try_from(most).unwrap() / length;
    // The reply after them waits, and is sent by whichever thread sees to sockets: more than there are of those.
    let mut streams: Vec<UnixStream> = (0..12).map(|_| stream()).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        let token = own(&mut Connection::from(stream.try_clone().unwrap())).token;
        stream.write_all(info.repeat(fit + number % 4 - 2).as_bytes()).unwrap();
        let parameters = serde_json::json!({ "token": token, "path": path, "read": true });
        let open = serde_json::json!({ "method": "io.stead.Service.OpenFile", "parameters": parameters });
        stream.write_all(format!("{open}\0").as_bytes()).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    let mut opened = 0;
    for stream in &mut streams {
        // Where nobody is served any more, the test finds out.
        stream.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        let mut told = Vec::new();
        let _ = stream.read_to_end(&mut told);
        opened += usize::from(told.windows(6).any(|some| some == b"\"file\""));
    }
    assert!(opened > 0, "no file was opened");
    say("opened");
    be_told();
}

#[test]
fn a_worker_that_waits_for_ever_keeps_nobody_from_listing_sessions() {
    let bed = testbed::require!();
    let service = Service::start(bed, &everything(&["svc"], &["alice"]));
    // Ends after the file system: its own descriptors cannot be closed before, either.
    let mut portal = None;
    let silent = match FileSystem::mount(bed, "svc", FLUSH) {
        Ok(silent) => silent,
        Err(reason) => testbed::skip!("{reason}"),
    };
    let variables = [(FOLDER, silent.path.to_str().unwrap())];
    let by_svc = bed.as_user("svc", &[], bed.this_program());
    let portal =
        portal.insert(service.part_by(by_svc, "role_passes_to_a_worker_what_cannot_be_closed", &variables));
    let worker = portal.says();
    // Its child closes it before it executes, and the worker waits for that (vfork(2)).
    let is_stuck = || {
        let children = std::fs::read_to_string(format!("/proc/{worker}/task/{worker}/children"));
        children.unwrap_or_default().split_whitespace().any(|child| {
            let status = std::fs::read_to_string(format!("/proc/{child}/status"));
            status.is_ok_and(|status| status.contains("Uid:\t0\t"))
        })
    };
    testbed::until("the session's worker waits for its child", is_stuck);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(is_stuck());
    // More than a worker has places for who waits to be let in.
    for _ in 0..8 {
        service.caller(bed, "bob", "role_lists_sessions");
    }
}

#[test]
fn what_is_passed_as_a_socket_is_asked_nothing_that_its_file_system_answers() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    let silent = match FileSystem::mount(bed, "svc", GETATTR) {
        Ok(silent) => silent,
        Err(reason) => testbed::skip!("{reason}"),
    };
    let variables = [(FOLDER, silent.path.to_str().unwrap())];
    let mut portal =
        service.part_by(bed.as_user("svc", &[], bed.this_program()), "role_passes_files", &variables);
    // It would wait for an answer until its file system ends.
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let said = [portal.says(), portal.says()];
        portal.wait();
        tell.send(said).unwrap();
    });
    let said = told.recv_timeout(std::time::Duration::from_secs(30));
    assert_eq!(said.expect("the call waits"), ["the listener is no socket", "NETLINK_SOCK_DIAG"]);
}

#[test]
fn role_passes_files() {
    let Some(mut service) = part() else { return };
    let file = File::open(Path::new(&std::env::var_os(FOLDER).unwrap()).join("f")).unwrap();
    let path = Bed::current().unwrap().user("svc").home.join(format!("listener-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let of = ClientToken { socket: 0, listener: 1, level: None };
    for listener in [file.as_fd(), listener.as_fd()] {
        match refusal(&mut service, &of, &[file.as_fd(), listener]) {
            FailureKind::InvalidInput { what } => say(what),
            FailureKind::System { call } => say(call),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn role_lists_sessions() {
    let Some(mut service) = part() else { return };
    call(&mut service, &ListSessions {}, &[]);
}

#[test]
fn role_passes_to_a_worker_what_cannot_be_closed() {
    let Some(mut service) = part() else { return };
    let session = call(&mut service, &s4u("alice"), &[]).0;
    let parent = output(&mut service, shell(session.token, "echo $PPID")).0;
    let path = Path::new(&std::env::var_os(FOLDER).unwrap()).join("f");
    let file = File::open(path).unwrap();
    let with = CreateProcess { stdin: Some(0), ..shell(session.token, "true") };
    say(parent.trim_end());
    // The answer comes when it is closed.
    let _ = service.call(&with, &[file.as_fd()]);
    be_told();
}

#[test]
fn role_passes_what_cannot_be_closed() {
    let Some(mut service) = part() else { return };
    let path = Path::new(&std::env::var_os(FOLDER).unwrap()).join("f");
    let files: Vec<File> = (0..12).map(|_| File::open(&path).unwrap()).collect();
    let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    say("sent");
    // The answer comes when they are closed.
    let _ = service.call(&GetStatus {}, &descriptors);
    be_told();
}

#[test]
fn role_has_a_process_all_the_same() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    assert_eq!(output(&mut service, shell(token, "echo here")).0, "here\n");
}
