//! The calling thread's credentials: read, and set, by raw system calls.
//!
//! Raw, because glibc's and musl's wrappers of these calls send a signal to every thread and make it take the
//! same ids (nptl(7), "NPTL and the POSIX threads standard"); the system calls themselves act on one thread.
//! Only 64-bit kernels are served, so the calls have no older forms with ids of 16 bits.

use rustix::io::Errno;

use crate::sys::token::Gid;

/// Set\*id calls leave an id that is this as it is; setfsuid given it answers the present one.
const UNCHANGED: u32 = u32::MAX;

/// One system call that answers -1 on failure.
macro_rules! raw {
    ($name:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: every pointer among the arguments, where there is one, comes from a live reference that is
        // large enough for what the call reads or writes; none is kept by the kernel after the call.
        let result = unsafe { libc::syscall(libc::$name, $($argument),*) };
        if result == -1 { Err($crate::sys::impersonate::thread::last_errno()) } else { Ok(result) }
    }};
}
pub(crate) use raw;

/// The errno of the call that failed just now.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Real, effective and saved id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Triple {
    pub(super) real: u32,
    pub(super) effective: u32,
    pub(super) saved: u32,
}

/// The capability sets that capset sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
}

/// Everything of the calling thread that impersonation changes, but for the groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: Triple,
    pub(super) gid: Triple,
    pub(super) fsuid: u32,
    pub(super) fsgid: u32,
    pub(super) capabilities: Capabilities,
}

impl Ids {
    pub(super) fn read() -> Result<Self, Fault> {
        Self::read_beside(Capabilities::read()?)
    }

    /// The ids, with capabilities that were read a moment ago.
    pub(super) fn read_beside(capabilities: Capabilities) -> Result<Self, Fault> {
        let mut uid = Triple { real: 0, effective: 0, saved: 0 };
        let mut gid = uid;
        raw!(SYS_getresuid(&raw mut uid.real, &raw mut uid.effective, &raw mut uid.saved))
            .map_err(Fault::in_call("getresuid"))?;
        raw!(SYS_getresgid(&raw mut gid.real, &raw mut gid.effective, &raw mut gid.saved))
            .map_err(Fault::in_call("getresgid"))?;
        Ok(Self { uid, gid, fsuid: set_fsuid(UNCHANGED), fsgid: set_fsgid(UNCHANGED), capabilities })
    }
}

impl Capabilities {
    pub(crate) fn read() -> Result<Self, Fault> {
        let mut header = Header::this_thread();
        let mut data = [Data::default(); 2];
        raw!(SYS_capget(&raw mut header, data.as_mut_ptr())).map_err(Fault::in_call("capget"))?;
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        Ok(Self {
            effective: join(data[0].effective, data[1].effective),
            permitted: join(data[0].permitted, data[1].permitted),
            inheritable: join(data[0].inheritable, data[1].inheritable),
        })
    }

    pub(crate) fn set(self) -> Result<(), Fault> {
        let mut header = Header::this_thread();
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        let half = |shift: u32| Data {
            effective: (self.effective >> shift) as u32,
            permitted: (self.permitted >> shift) as u32,
            inheritable: (self.inheritable >> shift) as u32,
        };
        let data = [half(0), half(32)];
        raw!(SYS_capset(&raw mut header, data.as_ptr())).map_err(Fault::in_call("capset"))?;
        Ok(())
    }
}

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

impl Header {
    /// `_LINUX_CAPABILITY_VERSION_3`, 64 bits a set; pid 0 is the calling thread.
    fn this_thread() -> Self {
        Self { version: 0x2008_0522, pid: 0 }
    }
}

/// `struct __user_cap_data_struct` of linux/capability.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Why the thread's credentials are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A call failed.
    Call { call: &'static str, errno: Errno },
    /// A call succeeded, and reading back shows something else.
    Differs(&'static str),
}

impl Fault {
    pub(super) fn in_call(call: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Call { call, errno }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call { call, errno } => write!(f, "{call}: {errno}"),
            Self::Differs(what) => write!(f, "{what} read back is not what was set"),
        }
    }
}

/// The numbers of `gids`, where they are.
pub(super) fn raw_gids(gids: &[Gid]) -> &[u32] {
    // SAFETY: `Gid` is `repr(transparent)` over `u32`, so both slices have the same layout; the lifetime is
    // the argument's, and nothing is written through the result.
    unsafe { std::slice::from_raw_parts(gids.as_ptr().cast::<u32>(), gids.len()) }
}

pub(super) fn set_groups(groups: &[u32]) -> Result<(), Fault> {
    raw!(SYS_setgroups(groups.len(), groups.as_ptr())).map_err(Fault::in_call("setgroups"))?;
    Ok(())
}

/// Reads the supplementary groups into `buffer`, which grows when it must.
pub(super) fn read_groups(buffer: &mut Vec<u32>) -> Result<(), Fault> {
    loop {
        // A size of 0 asks for the number and writes nothing, so the buffer must hold at least one.
        buffer.resize(buffer.capacity().max(32), 0);
        match raw!(SYS_getgroups(buffer.len(), buffer.as_mut_ptr())) {
            Ok(count) => {
                buffer.truncate(usize::try_from(count).unwrap_or(0));
                return Ok(());
            }
            // More groups than the buffer holds: room for just those, as all of it is cleared each time.
            Err(Errno::INVAL) if buffer.len() < 65_536 => {
                let none = std::ptr::null_mut::<u32>();
                let count = raw!(SYS_getgroups(0_usize, none)).map_err(Fault::in_call("getgroups"))?;
                let count = usize::try_from(count).unwrap_or(0).max(buffer.len() + 1);
                buffer.reserve_exact(count - buffer.len());
            }
            Err(errno) => return Err(Fault::in_call("getgroups")(errno)),
        }
    }
}

pub(super) fn set_effective_gid(gid: u32) -> Result<(), Fault> {
    raw!(SYS_setresgid(UNCHANGED, gid, UNCHANGED)).map_err(Fault::in_call("setresgid"))?;
    Ok(())
}

pub(super) fn set_effective_uid(uid: u32) -> Result<(), Fault> {
    raw!(SYS_setresuid(UNCHANGED, uid, UNCHANGED)).map_err(Fault::in_call("setresuid"))?;
    Ok(())
}

pub(super) fn set_gids(ids: Triple) -> Result<(), Fault> {
    raw!(SYS_setresgid(ids.real, ids.effective, ids.saved)).map_err(Fault::in_call("setresgid"))?;
    Ok(())
}

pub(super) fn set_uids(ids: Triple) -> Result<(), Fault> {
    raw!(SYS_setresuid(ids.real, ids.effective, ids.saved)).map_err(Fault::in_call("setresuid"))?;
    Ok(())
}

/// setfsuid(2): answers the uid before the call, and tells no failure.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the call answers a uid")]
pub(super) fn set_fsuid(uid: u32) -> u32 {
    // SAFETY: the call takes a number and touches no memory.
    unsafe { libc::syscall(libc::SYS_setfsuid, uid) as u32 }
}

/// setfsgid(2): answers the gid before the call, and tells no failure.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the call answers a gid")]
pub(super) fn set_fsgid(gid: u32) -> u32 {
    // SAFETY: the call takes a number and touches no memory.
    unsafe { libc::syscall(libc::SYS_setfsgid, gid) as u32 }
}

/// A prctl(2) that takes one number and answers one.
pub(super) fn control(option: i32, argument: u64, call: &'static str) -> Result<i64, Fault> {
    raw!(SYS_prctl(option, argument, 0_u64, 0_u64, 0_u64)).map_err(Fault::in_call(call))
}

/// The signal that this thread gets when the one that created its process ends (`PR_GET_PDEATHSIG`).
pub(super) fn parent_death_signal() -> Result<i32, Fault> {
    let mut signal = 0_i32;
    raw!(SYS_prctl(libc::PR_GET_PDEATHSIG, &raw mut signal, 0_u64, 0_u64, 0_u64))
        .map_err(Fault::in_call("prctl(PR_GET_PDEATHSIG)"))?;
    Ok(signal)
}
