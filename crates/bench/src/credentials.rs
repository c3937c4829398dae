//! Effective ids by the bare system calls, on one thread, and by libc's wrappers, on all: the floor of acting as a
//! client, and what is in use.
//!
//! The calls are made by the instruction itself, in place: libc's `syscall` would add to each.

use std::io;

use stead_trampoline::system_call;

/// Leaves an id as it is; setfsuid given it answers the present one.
const UNCHANGED: u32 = u32::MAX;

/// Whose files are opened.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

fn done(result: Result<usize, i32>) -> io::Result<()> {
    result.map(drop).map_err(io::Error::from_raw_os_error)
}

impl Credentials {
    fn set_groups(&self) -> io::Result<()> {
        // SAFETY: the pointer is to as many gids as the first argument says, which outlive the call.
        done(unsafe { system_call!(SETGROUPS, self.groups.len(), self.groups.as_ptr()) })
    }

    fn set_gid(&self) -> io::Result<()> {
        // SAFETY: the call takes numbers only.
        done(unsafe { system_call!(SETRESGID, UNCHANGED, self.gid, UNCHANGED) })
    }

    fn set_uid(&self) -> io::Result<()> {
        // SAFETY: the call takes numbers only.
        done(unsafe { system_call!(SETRESUID, UNCHANGED, self.uid, UNCHANGED) })
    }

    /// Root's thread becomes this user's in its effective ids.
    pub(crate) fn take_on(&self) -> io::Result<()> {
        self.set_groups()?;
        self.set_gid()?;
        self.set_uid()
    }

    /// The way back to these, root's.
    pub(crate) fn put_back(&self) -> io::Result<()> {
        self.set_uid()?;
        self.set_gid()?;
        self.set_groups()
    }
}

/// Reads, and does not even compare, what impersonation changes on a thread: it takes no fewer calls to know.
pub(crate) fn read_back() -> io::Result<()> {
    let mut ids = [0_u32; 3];
    let [real, effective, saved] = ids.each_mut().map(std::ptr::from_mut);
    // SAFETY: the pointers are to three different ids that outlive the call.
    done(unsafe { system_call!(GETRESUID, real, effective, saved) })?;
    // SAFETY: as above.
    done(unsafe { system_call!(GETRESGID, real, effective, saved) })?;
    // `_LINUX_CAPABILITY_VERSION_3` and the calling thread; three sets of 64 bits.
    let mut header = [0x2008_0522_u32, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: the pointers are to as much as this version of the call reads and writes.
    done(unsafe { system_call!(CAPGET, header.as_mut_ptr(), sets.as_mut_ptr()) })?;
    let mut groups = [0_u32; 1024];
    // SAFETY: the pointer is to as many gids as the first argument says.
    done(unsafe { system_call!(GETGROUPS, groups.len(), groups.as_mut_ptr()) })?;
    std::hint::black_box((ids, sets, groups[0]));
    Ok(())
}

/// What glibc and musl offer: a signal to every thread, and all of them change.
pub(crate) fn libc_wrappers(to: &Credentials) -> io::Result<()> {
    let done = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: the pointer is to as many gids as the first argument says.
    let set_groups = || done(unsafe { libc::setgroups(to.groups.len(), to.groups.as_ptr()) });
    // SAFETY: the calls take numbers only.
    let set_gid = || done(unsafe { libc::setresgid(UNCHANGED, to.gid, UNCHANGED) });
    // SAFETY: as above.
    let set_uid = || done(unsafe { libc::setresuid(UNCHANGED, to.uid, UNCHANGED) });
    if to.uid == 0 {
        set_uid()?;
        set_gid()?;
        return set_groups();
    }
    set_groups()?;
    set_gid()?;
    set_uid()
}

/// A process that ends when this is dropped.
pub(crate) struct Process(libc::pid_t);

impl Credentials {
    /// Runs `act` in a child that is this user in every respect. For a process with one thread.
    pub(crate) fn run(&self, act: impl FnOnce()) -> io::Result<Process> {
        // SAFETY: no other thread holds a lock that the child could wait for.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        if pid > 0 {
            return Ok(Process(pid));
        }
        // SAFETY: the pointer is to as many gids as the first argument says; the others take numbers.
        let became = unsafe {
            libc::setgroups(self.groups.len(), self.groups.as_ptr()) == 0
                && libc::setresgid(self.gid, self.gid, self.gid) == 0
                && libc::setresuid(self.uid, self.uid, self.uid) == 0
        };
        if became {
            act();
        }
        // SAFETY: ends this process, which is the child.
        unsafe { libc::_exit(1) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: the child is ours and not yet reaped, so that its number is no other's.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}
