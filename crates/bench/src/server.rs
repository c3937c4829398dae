//! What the measured server is like: whom it serves, its memory, its descriptors.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use stead::{Primary, Token};

/// The token of a user with `groups` supplementary groups, taken from a process of that user.
pub(crate) fn token_of_user(uid: u32, groups: u32) -> Result<Token<Primary>, Box<dyn std::error::Error>> {
    let list: Vec<String> = (0..groups).map(|index| (uid + index).to_string()).collect();
    let list = if groups == 0 { "--clear-groups".to_owned() } else { format!("--groups={}", list.join(",")) };
    let mut model = Command::new("setpriv")
        .args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), &list])
        .args(["sh", "-c", "echo ready && exec sleep 600"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ready = [0; 6];
    io::Read::read_exact(model.stdout.as_mut().ok_or("no standard output")?, &mut ready)?;
    // The model is ended whatever comes of it.
    let token = primary_of(model.id());
    model.kill()?;
    model.wait()?;
    token
}

fn primary_of(pid: u32) -> Result<Token<Primary>, Box<dyn std::error::Error>> {
    Ok(Token::of_process(pidfd_of(pid)?)?.to_primary()?)
}

fn pidfd_of(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes no pointers; a non-negative result is a descriptor that is ours alone.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Of what size the pages of a server's memory are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    Small,
    Huge,
}

impl Pages {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small pages",
            Self::Huge => "huge pages",
        }
    }
}

/// Memory that the server really has.
pub(crate) struct ResidentMemory {
    start: *mut libc::c_void,
    gib: usize,
}

impl ResidentMemory {
    /// So much of it; or why not, if the machine has not enough left.
    ///
    /// # Errors
    ///
    /// What mmap says.
    pub(crate) fn of_gib(gib: usize, pages: Pages) -> io::Result<Result<Self, String>> {
        let available = available_kib() >> 20;
        // What a fork copies of it, and what others on the machine do, must fit too.
        if available < gib + gib / 4 + 1 {
            return Ok(Err(format!("of this machine's memory only {available} GiB are available")));
        }
        // SAFETY: a new mapping, wherever there is room.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                gib << 30,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = Self { start, gib };
        let advice = match pages {
            Pages::Small => libc::MADV_NOHUGEPAGE,
            Pages::Huge => libc::MADV_HUGEPAGE,
        };
        // SAFETY: the mapping is ours, so long, writable, and nobody else knows it.
        unsafe {
            libc::madvise(start, gib << 30, advice);
            for offset in (0..gib << 30).step_by(4096) {
                start.cast::<u8>().add(offset).write_volatile(1);
            }
        }
        Ok(Ok(memory))
    }

    pub(crate) fn gib(&self) -> usize {
        self.gib
    }
}

impl Drop for ResidentMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers into it.
        unsafe { libc::munmap(self.start, self.gib << 30) };
    }
}

fn available_kib() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0)
}

/// Threads that the server has beside the one that creates processes; they wait.
pub(crate) struct IdleThreads {
    running: Vec<JoinHandle<()>>,
    ended: Option<Sender<()>>,
}

impl IdleThreads {
    /// # Errors
    ///
    /// When there cannot be so many.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let (ended, wait) = channel();
        let wait = Arc::new(Mutex::new(wait));
        let mut threads = Self { running: Vec::new(), ended: Some(ended) };
        for _ in 0..count {
            let wait = Arc::clone(&wait);
            // They hold on to the lock, or wait for it.
            let idle = move || _ = wait.lock().map(|wait| wait.recv());
            threads.running.push(thread::Builder::new().stack_size(64 * 1024).spawn(idle)?);
        }
        Ok(threads)
    }
}

impl Drop for IdleThreads {
    fn drop(&mut self) {
        drop(self.ended.take());
        for thread in self.running.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Descriptors that the server holds open, and that no child is to have.
pub(crate) struct OpenDescriptors(Vec<File>);

impl OpenDescriptors {
    /// `count`, or as many as the hard limit allows.
    pub(crate) fn up_to(count: u64) -> io::Result<Self> {
        let null = File::open("/dev/null")?;
        // So many are left for what the spawns need.
        let others = 64 + u64::try_from(null.as_raw_fd()).unwrap_or(0);
        let limit = allow_descriptors(count + others)?;
        let room = limit.saturating_sub(others).min(count);
        (0..room).map(|_| null.try_clone()).collect::<io::Result<Vec<_>>>().map(Self)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Allows this process so many descriptors, or as many as the hard limit does.
pub(crate) fn allow_descriptors(count: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max.min(count);
    // SAFETY: `limit` is initialised.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// The pids of the children of this process, zombies too.
pub(crate) fn children() -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let list = std::fs::read_to_string(task?.path().join("children"))?;
        for pid in list.split_ascii_whitespace() {
            found.push(pid.parse()?);
        }
    }
    Ok(found)
}
