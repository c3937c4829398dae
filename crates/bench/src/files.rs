//! `bench files`: one file after the other opened as 64 clients in turn, as a file server does.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use stead::{Primary, Token};

use crate::Outcome;
use crate::credentials::Credentials;
use crate::measure::Method;
use crate::report::{Bench, Scenario};
use crate::server;

/// The first client's uid.
const FIRST: u32 = 64_000;
const CLIENTS: u32 = 64;
const GROUPS: u32 = 16;

/// So many clients are one measurement; the next round goes on with the next ones.
const TURN: usize = 4;

/// So many files of one client are opened in a batch.
const BATCH: usize = 32;

/// A client, and a file that only it may read.
struct Client {
    token: Token<Primary>,
    credentials: Credentials,
    file: PathBuf,
}

impl Client {
    fn new(uid: u32, folder: &Path) -> Outcome<Self> {
        let file = folder.join(uid.to_string());
        fs::write(&file, "only for its owner\n")?;
        chown(&file, Some(uid), Some(uid))?;
        fs::set_permissions(&file, Permissions::from_mode(0o400))?;
        let token = server::token_of_user(uid, GROUPS)?;
        let groups = (0..GROUPS).map(|index| uid + index).collect();
        Ok(Self { token, credentials: Credentials { uid, gid: uid, groups }, file })
    }

    /// Through the library, with all that it asks about what it opens.
    fn open(&self, times: usize) -> io::Result<()> {
        let opened = self.token.impersonate(|me| (0..times).try_for_each(|_| me.open(&self.file).map(drop)));
        opened.and_then(|opened| opened).map_err(io::Error::other)
    }

    /// By a plain open inside the library's impersonation.
    fn open_plainly(&self, times: usize) -> io::Result<()> {
        let act = || (0..times).try_for_each(|_| File::open(&self.file).map(drop));
        self.token.impersonate(|_| act()).map_err(io::Error::other)?
    }

    fn open_by_bare_calls(&self, own: &Credentials, times: usize) -> io::Result<()> {
        self.credentials.take_on()?;
        let opened = (0..times).try_for_each(|_| File::open(&self.file).map(drop));
        own.put_back()?;
        opened
    }
}

/// One at a time, and in batches of one client.
pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let folder = bench.bed.scratch("files");
    fs::set_permissions(&folder, Permissions::from_mode(0o711))?;
    let clients: Vec<Client> =
        (FIRST..FIRST + CLIENTS).map(|uid| Client::new(uid, &folder)).collect::<Outcome<_>>()?;
    let own = Credentials { uid: 0, gid: 0, groups: Vec::new() };
    let threads: Vec<KeptThread> = clients.iter().map(KeptThread::start).collect();

    for (name, times) in [("one at a time".to_owned(), 1), (format!("in batches of {BATCH}"), BATCH)] {
        let scenario = Scenario {
            part: "files",
            name: format!("opening a file as {CLIENTS} clients in turn, {name}"),
            rounds: 1000,
            time: Duration::from_secs(40),
        };
        let own = &own;
        bench.measure(
            &scenario,
            vec![
                for_each(&clients, "plain open, as nobody else", times, move |client| {
                    (0..times).try_for_each(|_| File::open(&client.file).map(drop))
                }),
                for_each(&clients, "bare calls, unchecked", times, move |client| {
                    client.open_by_bare_calls(own, times)
                }),
                for_each(&clients, "stead, std::fs in the closure", times, move |client| {
                    client.open_plainly(times)
                }),
                for_each(&clients, "stead, me.open", times, move |client| client.open(times)),
                for_each(&threads, "a thread kept for each client", times, move |thread| thread.open(times)),
                for_each(&clients, "a fork for each turn", times, move |client| fork_to_open(client, times))
                    .note("the files stay in the child"),
            ],
        )?;
    }
    Ok(())
}

/// Each of them in turn; the figure is that of one file.
fn for_each<'a, T>(
    all: &'a [T],
    name: &str,
    times: usize,
    mut act: impl FnMut(&T) -> io::Result<()> + 'a,
) -> Method<'a> {
    let mut turn = all.iter().cycle();
    let files = u32::try_from(TURN * times).unwrap_or(u32::MAX);
    Method::timed(name, move || {
        let start = Instant::now();
        turn.by_ref().take(TURN).try_for_each(&mut act)?;
        Ok(start.elapsed() / files)
    })
}

/// A thread that has become its client for good, and is told what to open.
struct KeptThread {
    /// How many; the thread ends with this.
    wanted: SyncSender<usize>,
    opened: Receiver<io::Result<Vec<File>>>,
}

impl KeptThread {
    fn start(client: &Client) -> Self {
        let (wanted, asked) = sync_channel::<usize>(0);
        let (give, opened) = sync_channel(0);
        let (credentials, path) = (client.credentials.clone(), client.file.clone());
        std::thread::spawn(move || {
            let became = credentials.take_on();
            while let Ok(times) = asked.recv() {
                let files = match &became {
                    Ok(()) => (0..times).map(|_| File::open(&path)).collect(),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                };
                if give.send(files).is_err() {
                    break;
                }
            }
        });
        Self { wanted, opened }
    }

    fn open(&self, times: usize) -> io::Result<()> {
        let ended = || io::Error::other("the client's thread has ended");
        self.wanted.send(times).map_err(|_| ended())?;
        self.opened.recv().map_err(|_| ended())?.map(drop)
    }
}

/// As servers do that were written for processes: a child becomes the client, and opens.
fn fork_to_open(client: &Client, times: usize) -> io::Result<()> {
    let path = std::ffi::CString::new(client.file.as_os_str().as_encoded_bytes())?;
    // SAFETY: the child makes system calls only, of what was made before; it never returns.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        let mut opened = client.credentials.take_on().is_ok();
        for _ in 0..times {
            // SAFETY: the path is NUL-terminated and outlives the call.
            opened &= unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) } >= 0;
        }
        // SAFETY: ends this process, which is the child.
        unsafe { libc::_exit(i32::from(!opened)) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result; the child is ours and not yet reaped.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if status == 0 { Ok(()) } else { Err(io::Error::other("the child could not open the file")) }
}
