//! What the measured server is like: whom it serves, its memory, its descriptors.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};

use stead::{Primary, Token};

/// The token of a user with `groups` supplementary groups, taken from a process of that user.
pub(crate) fn token_of_user(uid: u32, groups: u32) -> Result<Token<Primary>, Box<dyn std::error::Error>> {
    let list: Vec<String> = (0..groups).map(|index| (uid + index).to_string()).collect();
    let mut model = Command::new("setpriv")
        .args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--groups", &list.join(",")])
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

/// Memory that the server really has.
pub(crate) struct ResidentMemory(Vec<u8>);

impl ResidentMemory {
    /// `gib`, or as many as half of what is available holds.
    pub(crate) fn up_to_gib(gib: usize) -> io::Result<Self> {
        let available = std::fs::read_to_string("/proc/meminfo")?
            .lines()
            .find_map(|line| {
                line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<usize>().ok()
            })
            .unwrap_or(0);
        let mut memory = vec![0; gib.min(available / 2 / 1024 / 1024) << 30];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        Ok(Self(memory))
    }

    pub(crate) fn gib(&self) -> usize {
        self.0.len() >> 30
    }
}

/// Descriptors that the server holds open, and that no child is to have.
pub(crate) struct OpenDescriptors(Vec<File>);

impl OpenDescriptors {
    /// `count`, or as many as the hard limit allows.
    pub(crate) fn up_to(count: u64) -> io::Result<Self> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a valid place for the result.
        if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max.min(count + 64);
        // SAFETY: `limit` is initialised.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let null = File::open("/dev/null")?;
        let room =
            limit.rlim_cur.saturating_sub(64 + u64::try_from(null.as_raw_fd()).unwrap_or(0)).min(count);
        (0..room).map(|_| null.try_clone()).collect::<io::Result<Vec<_>>>().map(Self)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
