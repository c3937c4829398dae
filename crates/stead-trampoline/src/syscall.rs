//! System calls without libc: raw calls act on one thread and touch no memory of the C library.
//!
//! Shared by the trampoline, which has no libc, and by the server's child, which shares the server's
//! memory until it executes the trampoline: there libc's wrappers would write the server's `errno` and,
//! for credentials, reach for the server's threads.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::inline_always,
    clippy::many_single_char_names
)] // registers are what they are

/// What a call returned, or its errno.
pub type Result<T = usize> = core::result::Result<T, i32>;

/// [`call`](crate::kernel::call) with as many arguments as there are, each converted to a register's width.
#[macro_export]
macro_rules! system_call {
    ($name:ident $(, $argument:expr)* $(,)?) => {
        $crate::kernel::call(
            $crate::syscall::number::$name,
            $crate::syscall::registers(&[$($argument as usize),*]),
        )
    };
}

/// Up to six arguments, the rest zero.
#[inline(always)]
pub fn registers(given: &[usize]) -> [usize; 6] {
    let mut all = [0; 6];
    for (register, value) in all.iter_mut().zip(given) {
        *register = *value;
    }
    all
}

macro_rules! numbers {
    ($($name:ident = $x86_64:literal, $aarch64:literal;)* @x86_64 { $($only:ident = $number:literal;)* }) => {
        /// Numbers of the calls (`asm/unistd_64.h`, `asm-generic/unistd.h`).
        #[allow(missing_docs)] // they are named as in their manual pages
        pub mod number {
            $(
                #[cfg(target_arch = "x86_64")]
                pub const $name: usize = $x86_64;
                #[cfg(target_arch = "aarch64")]
                pub const $name: usize = $aarch64;
            )*
            $(
                #[cfg(target_arch = "x86_64")]
                pub const $only: usize = $number;
            )*
        }
    };
}

numbers! {
    ADD_KEY = 248, 217;
    CAPGET = 125, 90;
    CAPSET = 126, 91;
    CHDIR = 80, 49;
    CLONE = 56, 220;
    CLONE3 = 435, 435;
    CLOSE = 3, 57;
    CLOSE_RANGE = 436, 436;
    DUP3 = 292, 24;
    EXECVE = 59, 221;
    EXECVEAT = 322, 281;
    EXIT = 60, 93;
    EXIT_GROUP = 231, 94;
    FACCESSAT2 = 439, 439;
    FCNTL = 72, 25;
    GETGROUPS = 115, 158;
    GETPID = 39, 172;
    GETPPID = 110, 173;
    GETRESGID = 120, 150;
    GETRESUID = 118, 148;
    GETSOCKNAME = 51, 204;
    GETSOCKOPT = 55, 209;
    GET_MEMPOLICY = 239, 236;
    IOCTL = 16, 29;
    KILL = 62, 129;
    MMAP = 9, 222;
    IOPRIO_GET = 252, 31;
    IOPRIO_SET = 251, 30;
    KEYCTL = 250, 219;
    OPENAT = 257, 56;
    PERSONALITY = 135, 92;
    PRCTL = 157, 167;
    PREAD64 = 17, 67;
    PWRITE64 = 18, 68;
    PRLIMIT64 = 302, 261;
    READ = 0, 63;
    RECVMSG = 47, 212;
    REQUEST_KEY = 249, 218;
    RT_SIGACTION = 13, 134;
    RT_SIGPROCMASK = 14, 135;
    RT_SIGTIMEDWAIT = 128, 137;
    SCHED_GETATTR = 315, 275;
    SCHED_SETAFFINITY = 203, 122;
    SCHED_SETATTR = 314, 274;
    SETFSGID = 123, 152;
    SETFSUID = 122, 151;
    SETGROUPS = 116, 159;
    SETPGID = 109, 154;
    SETRESGID = 119, 149;
    SETRESUID = 117, 147;
    SETSID = 112, 157;
    SET_MEMPOLICY = 238, 237;
    STATX = 332, 291;
    UMASK = 95, 166;
    WAIT4 = 61, 260;
    WRITE = 1, 64;
    @x86_64 {
        IOPERM = 173;
        IOPL = 172;
    }
}

/// Values of errno that decide something here (the same on both machines).
#[allow(missing_docs)] // they are named as in errno(3)
pub mod errno {
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const EINTR: i32 = 4;
    pub const EIO: i32 = 5;
    pub const E2BIG: i32 = 7;
    pub const ENOEXEC: i32 = 8;
    pub const EBADF: i32 = 9;
    pub const EAGAIN: i32 = 11;
    pub const EACCES: i32 = 13;
    pub const EBUSY: i32 = 16;
    pub const ENODEV: i32 = 19;
    pub const ENOTDIR: i32 = 20;
    pub const EISDIR: i32 = 21;
    pub const EINVAL: i32 = 22;
    pub const ETXTBSY: i32 = 26;
    pub const EPIPE: i32 = 32;
    pub const ENOSYS: i32 = 38;
    pub const EBADMSG: i32 = 74;
    pub const ELIBBAD: i32 = 80;
    pub const ETIMEDOUT: i32 = 110;
    pub const ESTALE: i32 = 116;
}

/// Numbers of `prctl` (`linux/prctl.h`).
#[allow(missing_docs)] // they are named as in prctl(2)
pub mod prctl {
    pub const SET_DUMPABLE: usize = 4;
    pub const SET_KEEPCAPS: usize = 8;
    pub const CAPBSET_READ: usize = 23;
    pub const CAPBSET_DROP: usize = 24;
    pub const GET_SECUREBITS: usize = 27;
    pub const SET_SECUREBITS: usize = 28;
    pub const SET_TIMERSLACK: usize = 29;
    pub const GET_TIMERSLACK: usize = 30;
    pub const SET_NO_NEW_PRIVS: usize = 38;
    pub const GET_NO_NEW_PRIVS: usize = 39;
    pub const MCE_KILL: usize = 33;
    pub const MCE_KILL_CLEAR: usize = 0;
    pub const MCE_KILL_GET: usize = 34;
    pub const MCE_KILL_DEFAULT: usize = 2;
    pub const SET_THP_DISABLE: usize = 41;
    pub const GET_THP_DISABLE: usize = 42;
    pub const CAP_AMBIENT: usize = 47;
    pub const CAP_AMBIENT_IS_SET: usize = 1;
    pub const CAP_AMBIENT_RAISE: usize = 2;
    pub const CAP_AMBIENT_CLEAR_ALL: usize = 4;
    pub const SET_IO_FLUSHER: usize = 57;
    pub const GET_IO_FLUSHER: usize = 58;
    pub const SCHED_CORE: usize = 62;
    pub const SCHED_CORE_GET: usize = 0;
    pub const SCHED_CORE_CREATE: usize = 1;
    pub const SET_MEMORY_MERGE: usize = 67;
    pub const GET_MEMORY_MERGE: usize = 68;
}

/// A thread's three settable capability sets, as `capget` and `capset` take them (version 3: two words).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Capabilities {
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION_3: u32 = 0x2008_0522;

/// The calling thread's capabilities.
///
/// # Errors
///
/// `capget`'s errno.
pub fn capabilities() -> Result<Capabilities> {
    let mut header = CapabilityHeader { version: VERSION_3, pid: 0 };
    let mut data = [0u32; 6];
    // SAFETY: the header and six words are what version 3 reads and writes (capget(2)).
    unsafe { system_call!(CAPGET, &raw mut header, &raw mut data) }?;
    let [e0, p0, i0, e1, p1, i1] = data;
    let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Capabilities { permitted: wide(p0, p1), effective: wide(e0, e1), inheritable: wide(i0, i1) })
}

/// Sets the calling thread's capabilities, and no other thread's.
///
/// # Errors
///
/// `capset`'s errno.
pub fn set_capabilities(to: Capabilities) -> Result<()> {
    let mut header = CapabilityHeader { version: VERSION_3, pid: 0 };
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data: [u32; 6] = [
        low(to.effective),
        low(to.permitted),
        low(to.inheritable),
        high(to.effective),
        high(to.permitted),
        high(to.inheritable),
    ];
    // SAFETY: the header and six words are what version 3 reads (capset(2)); no memory is affected.
    unsafe { system_call!(CAPSET, &raw mut header, &raw const data) }.map(drop)
}

/// `prctl` with plain numbers; not for operations that take addresses.
///
/// # Errors
///
/// `prctl`'s errno.
pub fn process_control(operation: usize, first: usize, second: usize) -> Result {
    // SAFETY: the operations of the module `prctl` take numbers only.
    unsafe { system_call!(PRCTL, operation, first, second, 0, 0) }
}
