//! Two hundred callers at once, of whom some are slow, some send garbage, and some are killed: none of the others
//! starves, and nothing is left behind. With `STEAD_LONG=1` for two minutes, else for a few seconds; `STEAD_ROUNDS` is how
//! many long rounds there are, where memory is to be watched.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod service_support;

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use service_support::{Service, another, call, exit_code, own, part, s4u};
use stead_protocol::{CloseSession, CreateProcess, GetStatus, KillTree, ListProcesses, SOCKET, Text};
use testbed::{Bed, until};

const POLICY: &str = r#"
[quotas]
sessions = 200
processes = 300
connections = 300
[[allow]]
callers = { users = ["svc"] }
clients = { groups = ["stead-shared"] }
privileges = ["tcb", "assign-primary-token"]
logon-types = ["batch"]
programs = "any"
"#;

/// Who calls: the role, its user, how many connections it has in all, and how many in each process.
const HONEST: &[(&str, &str, usize, usize)] = &[
    ("role_honest", "alice", 50, 1),
    ("role_honest", "bob", 50, 1),
    ("role_honest", "mallory", 50, 1),
    ("role_portal", "svc", 10, 10),
];
/// The same, all in one process.
const OTHERS: &[(&str, &str, usize)] = &[("role_slow", "alice", 14), ("role_garbage", "bob", 14)];
/// Processes of callers that are killed in the middle, each with one connection.
const KILLED: usize = 12;
const ALL: usize = 200;

/// Of each user's processes that have ended the service remembers so many.
const MOST_REMEMBERED: usize = 256;
/// From the first round to the last, in KiB: if each process of the long rounds left a hundred bytes it would be more. What
/// is remembered of the portal's processes, and heaps that are not filled evenly, take a part of it.
const MOST_GROWTH: u64 = 2048;

/// The variables that tell a role its part.
const CONNECTIONS: &str = "STEAD_TEST_CONNECTIONS";
const MILLISECONDS: &str = "STEAD_TEST_MILLISECONDS";

/// What one honest caller saw.
#[derive(Debug, Clone, Copy)]
struct Served {
    calls: u64,
    longest: Duration,
}

#[test]
fn two_hundred_callers_slow_garbage_and_killed_ones_among_them() {
    let bed = testbed::require!(alone);
    let honest: usize = HONEST.iter().map(|(_, _, number, _)| number).sum();
    let connections = honest + OTHERS.iter().map(|(_, _, number)| number).sum::<usize>();
    assert_eq!(connections + KILLED, ALL);
    let rounds: Option<u32> = std::env::var("STEAD_ROUNDS").ok().map(|rounds| rounds.parse().unwrap());
    let long = rounds.is_some() || std::env::var_os("STEAD_LONG").is_some();
    let (usual, round) = if long { (4, Duration::from_secs(30)) } else { (2, Duration::from_secs(4)) };
    let rounds = rounds.unwrap_or(usual);
    testbed::time_limit!(600 + u64::from(rounds) * 90);

    // What another test left behind is not the load's.
    let from_before = processes_of_users(bed);
    let service = Service::start(bed, POLICY);
    let mut root = service.connect();
    // What is made once, and what is remembered up to a bound, is not taken for a leak.
    until_the_most_is_remembered(bed, &service, &from_before);
    let mut held = vec![Held::at_rest(bed, &service, &from_before)];
    let mut all_served = Vec::new();
    for number in 1..=rounds {
        let served = load(bed, &service, round);
        held.push(Held::at_rest(bed, &service, &from_before));
        println!("round {number}, {round:?}: {}", summary(&served));
        all_served.extend(served);
    }
    println!("what the service held before the first round and after each:");
    for held in &held {
        println!("{held:?}");
    }

    assert!(all_served.iter().all(|served| served.calls > 0), "a caller starved: {all_served:?}");
    let [before, first, .., last] = held[..] else { panic!("too few rounds") };
    // Of each user's processes the service remembers the last sixteen trees, by a descriptor or two.
    let users = HONEST.len() + 1;
    let most = before.descriptors + users * 16 * 2;
    assert!(last.descriptors <= most, "descriptors are left: {last:?}, {:?}", descriptors(&service));
    assert!(last.kib <= first.kib + MOST_GROWTH, "memory grows: {held:?}");
    let (status, _) = call(&mut root, &GetStatus {}, &[]);
    assert_eq!((status.connections, status.sessions, status.processes), (1, 0, 0));
}

/// Lets the service have what it makes once, and remember as many processes of each user's as it ever does: a thousand that
/// were not there before are two MiB.
fn until_the_most_is_remembered(bed: &Bed, service: &Service, from_before: &[u32]) {
    let users = ["alice", "bob", "mallory", "svc", "0day"];
    let fill = |user: &&str| start(bed, service, "role_fills", user, &[]);
    let filling: Vec<Child> = users.iter().map(fill).collect();
    for child in filling {
        let output = child.wait_with_output().unwrap();
        testbed::skip_if_skipped(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    load(bed, service, Duration::from_secs(1));
    settle(bed, service, from_before);
    let (listed, _) = call(&mut service.connect(), &ListProcesses::default(), &[]);
    for user in users {
        let of_user = listed.processes.iter().filter(|process| process.owner == bed.user(user).uid);
        assert_eq!(of_user.count(), MOST_REMEMBERED, "of {user}");
    }
}

/// Processes, per second over all callers, and how even it was.
fn summary(served: &[Served]) -> String {
    let mut calls: Vec<u64> = served.iter().map(|served| served.calls).collect();
    calls.sort_unstable();
    let longest = served.iter().map(|served| served.longest).max().unwrap_or_default();
    let (least, most) = (calls.first().copied().unwrap_or(0), calls.last().copied().unwrap_or(0));
    let median = calls.get(calls.len() / 2).copied().unwrap_or(0);
    format!(
        "{} honest callers had {} processes (least {least}, median {median}, most {most}), the longest wait was \
         {longest:?}",
        served.len(),
        calls.iter().sum::<u64>(),
    )
}

/// What the service holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    #[allow(dead_code, reason = "printed")]
    threads: u64,
    /// Memory of its own that is resident.
    kib: u64,
    /// The same and its part of what it shares with others (smaps_rollup).
    #[allow(dead_code, reason = "printed")]
    pss_kib: u64,
    #[allow(dead_code, reason = "printed")]
    private_dirty_kib: u64,
}

impl Held {
    /// When nothing of a load is there any more, nor a thread that served it: the last of those gives back, on its way
    /// out, what all had freed.
    fn at_rest(bed: &Bed, service: &Service, from_before: &[u32]) -> Self {
        settle(bed, service, from_before);
        let always = std::thread::available_parallelism().map_or(2, |number| number.get().clamp(2, 8)) + 2;
        until("the threads that waited have ended", || Self::of(service).threads <= always as u64);
        Self::of(service)
    }

    fn of(service: &Service) -> Self {
        let process = format!("/proc/{}", service.pid());
        let read = |file: &str| std::fs::read_to_string(format!("{process}/{file}")).unwrap();
        let (status, memory) = (read("status"), read("smaps_rollup"));
        let field = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let descriptors = std::fs::read_dir(format!("{process}/fd")).unwrap().count();
        Self {
            descriptors,
            threads: field(&status, "Threads:"),
            kib: field(&status, "RssAnon:"),
            pss_kib: field(&memory, "Pss:"),
            private_dirty_kib: field(&memory, "Private_Dirty:"),
        }
    }
}

/// What the service's descriptors are, and how many of each.
fn descriptors(service: &Service) -> std::collections::BTreeMap<String, usize> {
    let mut kinds = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap().filter_map(Result::ok) {
        let link = std::fs::read_link(entry.path()).unwrap_or_default();
        let kind = link.to_string_lossy().split(['[', ':']).next().unwrap_or_default().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// All callers for `time`; what the honest ones saw.
fn load(bed: &Bed, service: &Service, time: Duration) -> Vec<Served> {
    let milliseconds = time.as_millis().to_string();
    let start = |role: &str, user: &str, connections: usize| {
        let variables = [(CONNECTIONS, connections.to_string()), (MILLISECONDS, milliseconds.clone())];
        start(bed, service, role, user, &variables)
    };
    let honest: Vec<_> = HONEST
        .iter()
        .flat_map(|(role, user, number, each)| vec![(role, user, *each); *number / *each])
        .map(|(role, user, each)| start(role, user, each))
        .collect();
    let others: Vec<_> = OTHERS.iter().map(|(role, user, number)| start(role, user, *number)).collect();
    let mut killed: Vec<_> = (0..KILLED).map(|_| start("role_killed", "0day", 1)).collect();
    let end = Instant::now() + time;
    let mut next = 0;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(40));
        let place = next % killed.len();
        next += 1;
        end_now(&mut killed[place]);
        killed[place] = start("role_killed", "0day", 1);
    }
    let mut served = Vec::new();
    for child in honest {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{error}");
        served.extend(said.lines().filter_map(|line| {
            let mut numbers = line.split_once("served ")?.1.split_whitespace().map(str::parse::<u64>);
            let (calls, longest) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
            Some(Served { calls, longest: Duration::from_millis(longest) })
        }));
    }
    others.into_iter().chain(killed).for_each(|mut child| end_now(&mut child));
    let expected: usize = HONEST.iter().map(|(_, _, number, _)| number).sum();
    assert_eq!(served.len(), expected);
    served
}

/// Starts a role as a user.
fn start(bed: &Bed, service: &Service, role: &str, user: &str, variables: &[(&str, String)]) -> Child {
    let mut command = bed.as_user(user, &[], bed.this_program());
    command.args(["--exact", role, "--nocapture", "--test-threads=1"]).current_dir("/");
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command.env("STEAD_TEST_SERVICE_SOCKET", service.socket());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end_now(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Ends what killed callers left running, as an administrator would, and waits until nothing of the load is there.
fn settle(bed: &Bed, service: &Service, from_before: &[u32]) {
    let mut root = service.connect();
    until("every process of the load has ended", || {
        let (listed, _) = call(&mut root, &ListProcesses::default(), &[]);
        let running: Vec<_> = listed.processes.into_iter().filter(|process| process.running).collect();
        for process in &running {
            // It may end by itself meanwhile.
            let _ = root.call(&KillTree { process: process.id.clone() }, &[]);
        }
        let (status, _) = call(&mut root, &GetStatus {}, &[]);
        // The test's own connections: this one, and the one that it looks on by.
        running.is_empty() && status.sessions == 0 && status.connections <= 2
    });
    drop(root);
    until("no process of the users is there but those from before", || {
        processes_of_users(bed).iter().all(|process| from_before.contains(process))
    });
    until("the connection is gone", || {
        let (status, _) = call(&mut service.connect(), &GetStatus {}, &[]);
        status.connections <= 2
    });
}

/// Every process of the bed's users.
fn processes_of_users(bed: &Bed) -> Vec<u32> {
    use std::os::unix::fs::MetadataExt;
    let uids: Vec<u32> = bed.users().iter().map(|user| user.uid).collect();
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let of_users = entries.filter(|entry| entry.metadata().is_ok_and(|found| uids.contains(&found.uid())));
    of_users.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn number(variable: &str) -> u64 {
    std::env::var(variable).unwrap().parse().unwrap()
}

/// Runs `work` until the time is over, on each of the role's connections, and says what each had.
fn on_every_connection(work: impl Fn(usize, Instant) -> Served + Send + Sync) {
    let end = Instant::now() + Duration::from_millis(number(MILLISECONDS));
    std::thread::scope(|scope| {
        let work = &work;
        let number = usize::try_from(number(CONNECTIONS)).unwrap();
        let threads: Vec<_> = (0..number).map(|which| scope.spawn(move || work(which, end))).collect();
        for thread in threads {
            let Served { calls, longest } = thread.join().unwrap();
            println!("\nserved {calls} {}", longest.as_millis());
        }
    });
}

/// Does it again and again until the time is over, at least once.
fn again_and_again(end: Instant, mut work: impl FnMut()) -> Served {
    let mut served = Served { calls: 0, longest: Duration::ZERO };
    while served.calls == 0 || Instant::now() < end {
        let began = Instant::now();
        work();
        served.calls += 1;
        served.longest = served.longest.max(began.elapsed());
    }
    served
}

fn program(token: u64, path: &str) -> CreateProcess {
    CreateProcess { token, program: Some(Text::from(path)), ..CreateProcess::default() }
}

/// As many processes as are remembered.
#[test]
fn role_fills() {
    const AT_ONCE: usize = 4;
    if part().is_none() {
        return;
    }
    let fill = || {
        let mut service = another();
        let token = own(&mut service).token;
        for _ in 0..MOST_REMEMBERED / AT_ONCE {
            let (created, _) = call(&mut service, &program(token, "/bin/true"), &[]);
            assert_eq!(exit_code(&mut service, &created), Some(0));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(fill);
        }
    });
}

#[test]
fn role_honest() {
    if part().is_none() {
        return;
    }
    on_every_connection(|_, end| {
        let mut service = another();
        let mut token = own(&mut service).token;
        let mut calls = 0;
        again_and_again(end, || {
            let (created, _) = call(&mut service, &program(token, "/bin/true"), &[]);
            assert_eq!(exit_code(&mut service, &created), Some(0));
            calls += 1;
            if calls % 16 == 0 {
                service = another();
                token = own(&mut service).token;
            }
        })
    });
}

#[test]
fn role_portal() {
    if part().is_none() {
        return;
    }
    on_every_connection(|which, end| {
        let mut service = another();
        let user = if which % 2 == 0 { "alice" } else { "bob" };
        again_and_again(end, || {
            let (session, _) = call(&mut service, &s4u(user), &[]);
            let (created, _) = call(&mut service, &program(session.token, "/bin/true"), &[]);
            assert_eq!(exit_code(&mut service, &created), Some(0));
            call(&mut service, &CloseSession { session: session.session.id, terminate: false }, &[]);
        })
    });
}

fn socket() -> UnixStream {
    UnixStream::connect(std::env::var_os("STEAD_TEST_SERVICE_SOCKET").unwrap_or_else(|| SOCKET.into()))
        .unwrap()
}

/// Writes its calls byte by byte, and never reads what comes back.
#[test]
fn role_slow() {
    if part().is_none() {
        return;
    }
    let call = b"{\"method\":\"io.stead.Service.GetStatus\",\"parameters\":{}}\0";
    let number = number(CONNECTIONS);
    let mut sockets: Vec<_> = (0..number).map(|_| socket()).collect();
    for socket in &sockets {
        socket.set_nonblocking(true).unwrap();
    }
    for byte in call.iter().cycle() {
        for socket in &mut sockets {
            // Until its buffer is full of answers that nobody reads.
            let _ = socket.write(&[*byte]);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends what is no message, too much of it, and descriptors with it.
#[test]
fn role_garbage() {
    if part().is_none() {
        return;
    }
    let null = std::fs::File::open("/dev/null").unwrap();
    let nested = format!("{}\0", "[".repeat(10_000));
    let number = number(CONNECTIONS);
    std::thread::scope(|scope| {
        for thread in 0..number {
            let (nested, null) = (&nested, &null);
            scope.spawn(move || {
                for round in thread.. {
                    let socket = socket();
                    socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
                    let _ = match round % 6 {
                        0 => send(&socket, b"\xff\xfe\0\x01\0", &[]),
                        1 => send(&socket, nested.as_bytes(), &[]),
                        2 => send(&socket, b"{\"method\":7}\0{}\0null\0", &[]),
                        3 => send(&socket, b"{", &[null.as_fd(); 250]),
                        4 => {
                            let call: &[u8] = b"{\"method\":\"io.stead.Service.CreateProcess\",\"parameters\":\
                                {\"token\":18446744073709551615,\"stdin\":99,\"arguments\":[\"\\u0000zz\"]}}\0";
                            send(&socket, call, &[])
                        }
                        _ => (&socket).write_all(&vec![b'x'; 3 << 20]).map_err(|_| rustix::io::Errno::IO),
                    };
                    let _ = socket.shutdown(std::net::Shutdown::Write);
                    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                    let _ = (&socket).read(&mut [0; 4096]);
                }
            });
        }
    });
}

fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), rustix::io::Errno> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(socket, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Creates processes that would stay, and is killed in the middle of it.
#[test]
fn role_killed() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    loop {
        let mut sleep = program(token, "/bin/sleep");
        sleep.arguments = vec![Text::from("600")];
        for suspended in [true, false] {
            sleep.suspended = suspended;
            if service.call(&sleep, &[]).is_err() {
                return;
            }
        }
    }
}
