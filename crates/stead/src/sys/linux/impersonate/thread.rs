//! The calling thread's credentials: read, and set, by raw system calls.
//!
//! Raw, because glibc's and musl's wrappers of these calls send a signal to every thread and make it take the
//! same ids (nptl(7), "NPTL and the POSIX threads standard"); the system calls themselves act on one thread.
//! Only 64-bit kernels are served, so the calls have no older forms with ids of 16 bits.
//!
//! By the instruction itself where it is called, and not through libc's `syscall`: what the kernel does leaves no
//! prediction of where a function returns to, so that every return after a call costs as much as a small call.

use rustix::io::Errno;

use crate::sys::token::Gid;

/// Set\*id calls leave an id that is this as it is; setfsuid given it answers the present one.
const UNCHANGED: u32 = u32::MAX;

/// One system call.
macro_rules! raw {
    ($name:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: every pointer among the arguments, where there is one, comes from a live reference that is
        // large enough for what the call reads or writes; none is kept by the kernel after the call.
        let result = unsafe { stead_trampoline::system_call!($name, $($argument),*) };
        result.map_err(rustix::io::Errno::from_raw_os_error)
    }};
}
pub(crate) use raw;

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
    #[inline]
    pub(super) fn read() -> Result<Self, Fault> {
        let (uid, gid) = Triple::read_both()?;
        let (fsuid, fsgid) = (set_fsuid(UNCHANGED), set_fsgid(UNCHANGED));
        Ok(Self { uid, gid, fsuid, fsgid, capabilities: Capabilities::read()? })
    }

    /// The same after setresuid and setresgid were to change the effective ids, which were `uid` and `gid`.
    ///
    /// The file system ids are asked for only where the effective ones are what they were. An effective id that
    /// is found changed says it of both: no call changes the one without giving the other the same value
    /// (`__sys_setresuid`, `__sys_setresgid` and their like in kernel/sys.c).
    #[inline]
    pub(super) fn read_after(uid: u32, gid: u32, capabilities: Capabilities) -> Result<Self, Fault> {
        let (now, group) = Triple::read_both()?;
        let fsuid = if now.effective == uid { set_fsuid(UNCHANGED) } else { now.effective };
        let fsgid = if group.effective == gid { set_fsgid(UNCHANGED) } else { group.effective };
        Ok(Self { uid: now, gid: group, fsuid, fsgid, capabilities })
    }
}

impl Triple {
    /// The uids, and the gids.
    #[inline]
    fn read_both() -> Result<(Self, Self), Fault> {
        let mut uid = Self { real: 0, effective: 0, saved: 0 };
        let mut gid = uid;
        raw!(GETRESUID(&raw mut uid.real, &raw mut uid.effective, &raw mut uid.saved))
            .map_err(Fault::in_call("getresuid"))?;
        raw!(GETRESGID(&raw mut gid.real, &raw mut gid.effective, &raw mut gid.saved))
            .map_err(Fault::in_call("getresgid"))?;
        Ok((uid, gid))
    }
}

impl Capabilities {
    #[inline]
    pub(crate) fn read() -> Result<Self, Fault> {
        let mut header = Header::this_thread();
        let mut data = [Data::default(); 2];
        raw!(CAPGET(&raw mut header, data.as_mut_ptr())).map_err(Fault::in_call("capget"))?;
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
        raw!(CAPSET(&raw mut header, data.as_ptr())).map_err(Fault::in_call("capset"))?;
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

#[inline]
pub(super) fn set_groups(groups: &[u32]) -> Result<(), Fault> {
    raw!(SETGROUPS(groups.len(), groups.as_ptr())).map_err(Fault::in_call("setgroups"))?;
    Ok(())
}

/// Reads the supplementary groups into `buffer`, which grows when it must.
#[inline]
pub(super) fn read_groups(buffer: &mut Vec<u32>) -> Result<(), Fault> {
    loop {
        // A size of 0 asks for the number and writes nothing, so the buffer must hold at least one.
        buffer.resize(buffer.capacity().max(32), 0);
        match raw!(GETGROUPS(buffer.len(), buffer.as_mut_ptr())) {
            Ok(count) => {
                buffer.truncate(count);
                return Ok(());
            }
            // More groups than the buffer holds: room for just those, as all of it is cleared each time.
            Err(Errno::INVAL) if buffer.len() < 65_536 => {
                let none = std::ptr::null_mut::<u32>();
                let count = raw!(GETGROUPS(0_usize, none)).map_err(Fault::in_call("getgroups"))?;
                let count = count.max(buffer.len() + 1);
                buffer.reserve_exact(count - buffer.len());
            }
            Err(errno) => return Err(Fault::in_call("getgroups")(errno)),
        }
    }
}

#[inline]
pub(super) fn set_effective_gid(gid: u32) -> Result<(), Fault> {
    raw!(SETRESGID(UNCHANGED, gid, UNCHANGED)).map_err(Fault::in_call("setresgid"))?;
    Ok(())
}

#[inline]
pub(super) fn set_effective_uid(uid: u32) -> Result<(), Fault> {
    raw!(SETRESUID(UNCHANGED, uid, UNCHANGED)).map_err(Fault::in_call("setresuid"))?;
    Ok(())
}

#[inline]
pub(super) fn set_gids(ids: Triple) -> Result<(), Fault> {
    raw!(SETRESGID(ids.real, ids.effective, ids.saved)).map_err(Fault::in_call("setresgid"))?;
    Ok(())
}

#[inline]
pub(super) fn set_uids(ids: Triple) -> Result<(), Fault> {
    raw!(SETRESUID(ids.real, ids.effective, ids.saved)).map_err(Fault::in_call("setresuid"))?;
    Ok(())
}

/// setfsuid(2): answers the uid before the call, and tells no failure of its own; where a filter refuses the call,
/// the answer is nobody's uid.
#[inline]
pub(super) fn set_fsuid(uid: u32) -> u32 {
    raw!(SETFSUID(uid)).ok().and_then(|before| u32::try_from(before).ok()).unwrap_or(u32::MAX)
}

/// setfsgid(2): the same for gids.
#[inline]
pub(super) fn set_fsgid(gid: u32) -> u32 {
    raw!(SETFSGID(gid)).ok().and_then(|before| u32::try_from(before).ok()).unwrap_or(u32::MAX)
}

/// A prctl(2) that takes one number and answers one.
#[inline]
pub(super) fn control(option: i32, argument: u64, call: &'static str) -> Result<usize, Fault> {
    raw!(PRCTL(option, argument, 0_u64, 0_u64, 0_u64)).map_err(Fault::in_call(call))
}

/// The signal that this thread gets when the one that created its process ends (`PR_GET_PDEATHSIG`).
#[inline]
pub(super) fn parent_death_signal() -> Result<i32, Fault> {
    let mut signal = 0_i32;
    raw!(PRCTL(libc::PR_GET_PDEATHSIG, &raw mut signal, 0_u64, 0_u64, 0_u64))
        .map_err(Fault::in_call("prctl(PR_GET_PDEATHSIG)"))?;
    Ok(signal)
}
