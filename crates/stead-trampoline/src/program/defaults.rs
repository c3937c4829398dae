//! What of a process no token says. The client's process gets the kernel's defaults, or what was asked
//! for, never what the server happens to have: a server that protects itself from the out-of-memory
//! killer, is pinned to a processor or runs with real-time priority does not mean its clients.
//!
//! Reading is cheaper than writing for most of these, so what is right already is left alone.

use crate::report::{Step, default};
use crate::syscall::{Result, errno, prctl, process_control};
use crate::wire::{Header, flag};
use crate::{At, Failure, file, score};

/// The kernel's own, unless the administrator changed it at boot: anonymous memory, ELF headers, private
/// huge pages (core(5)).
const CORE_FILTER: &[u8] = b"00000033\n";
/// Fifty microseconds (`init/init_task.c`).
const TIMER_SLACK: usize = 50_000;

/// Sets all of them; says whether it was seen that no process of this server's can have an out-of-memory score below 0.
pub fn set(header: &Header) -> core::result::Result<bool, Failure> {
    let has = |bit: u32| header.flags & bit != 0;
    let fixed = has(flag::FIXED);

    if fixed || has(flag::UMASK) {
        // SAFETY: no memory involved; cannot fail.
        let _ = unsafe { system_call!(UMASK, if has(flag::UMASK) { header.umask & 0o777 } else { 0o022 }) };
    }
    if fixed || has(flag::NICE) {
        let nice = if has(flag::NICE) { header.nice.cast_signed() } else { 0 };
        let step = if has(flag::NICE) { (Step::Nice, 0) } else { (Step::Defaults, default::SCHEDULING) };
        scheduling(fixed, nice).at(step.0, step.1)?;
    }
    // The server has looked already, where it said so: opening a file of /proc is the dearest of all.
    let mut least_is_zero = false;
    if has(flag::OOM) || (fixed && !has(flag::OOM_IS_ZERO)) {
        let value = if has(flag::OOM) { header.oom_score_adj.cast_signed() } else { 0 };
        let step = if has(flag::OOM) { (Step::OomScore, 0) } else { (Step::Defaults, default::OOM_SCORE) };
        least_is_zero = score::bind(i64::from(value)).at(step.0, step.1)?;
    }
    if !fixed {
        return Ok(least_is_zero);
    }
    if !has(flag::CORE_FILTER_IS_DEFAULT) {
        file::set(c"/proc/self/coredump_filter", |text| text == CORE_FILTER, b"0x33")
            .at(Step::Defaults, default::CORE_FILTER)?;
    }
    affinity().at(Step::Defaults, default::AFFINITY)?;
    io_priority().at(Step::Defaults, default::IO_PRIORITY)?;
    timer_slack().at(Step::Defaults, default::TIMER_SLACK)?;
    // SAFETY: no memory involved.
    unsafe { system_call!(PERSONALITY, 0) }.at(Step::Defaults, default::PERSONALITY)?;
    huge_pages().at(Step::Defaults, default::HUGE_PAGES)?;
    memory_policy().at(Step::Defaults, default::MEMORY_POLICY)?;
    // These few are read, each in a third of a microsecond, in every process: a thread of the server may set them at any
    // moment, and each is the creating thread's own or shows nowhere else.
    merged_memory().at(Step::Defaults, default::MERGED_MEMORY)?;
    machine_checks().at(Step::Defaults, default::MACHINE_CHECKS)?;
    io_flusher().at(Step::Defaults, default::IO_FLUSHER)?;
    core_cookie().at(Step::Defaults, default::CORE_COOKIE)?;
    ports().at(Step::Defaults, default::PORTS)?;
    Ok(least_is_zero)
}

/// `struct sched_attr` in its first size, which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct Scheduling {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

impl Scheduling {
    const SIZE: usize = size_of::<Self>();

    /// That of a process; 0 is the calling one.
    fn of(pid: usize) -> Result<Self> {
        let mut found = Self::default();
        // SAFETY: room for `SIZE` bytes.
        unsafe { system_call!(SCHED_GETATTR, pid, &raw mut found, Self::SIZE, 0) }.map(|_| found)
    }
}

/// With fixed defaults an ordinary process; the nice value in any case. Lowering the nice value without
/// CAP_SYS_NICE fails, and is never passed over.
///
/// Since Linux 6.12 an ordinary process has a slice, too, which its children have from it. It shows as the runtime; none in
/// its place lets the kernel choose (`__setparam_fair` of kernel/sched/fair.c).
fn scheduling(fixed: bool, nice: i32) -> Result<()> {
    const RESET_ON_FORK: u64 = 1;
    let now = Scheduling::of(0)?;
    let ordinary = || now.policy == 0 && now.flags & RESET_ON_FORK == 0 && is_the_kernels_slice(now.runtime);
    if now.nice == nice && (!fixed || ordinary()) {
        return Ok(());
    }
    let policy = if fixed { 0 } else { now.policy };
    let priority = if fixed { 0 } else { now.priority };
    let new = Scheduling { size: Scheduling::SIZE as u32, policy, nice, priority, ..Scheduling::default() };
    // SAFETY: `size` bytes are readable.
    unsafe { system_call!(SCHED_SETATTR, 0, &raw const new, 0) }.map(drop)
}

/// Whether nobody chose the slice, which does not show in itself: whether it is that of the first process. To set it takes
/// several times as long as to ask. Where that process is the server, what it has says nothing.
fn is_the_kernels_slice(slice: u64) -> bool {
    const FIRST: usize = 1;
    // SAFETY: no memory involved.
    let server_is_another = || unsafe { system_call!(GETPPID) }.is_ok_and(|server| server != FIRST);
    let is_the_firsts =
        || Scheduling::of(FIRST).is_ok_and(|first| first.policy == 0 && first.runtime == slice);
    slice == 0 || (server_is_another() && is_the_firsts())
}

/// All processors: the kernel takes away those that the cpuset does not have. What the mask would be
/// without the server's choice cannot be read, so it is always written.
fn affinity() -> Result<()> {
    let all = [u64::MAX; 128]; // 8,192 processors, the largest NR_CPUS of both machines
    // SAFETY: readable for the size given.
    unsafe { system_call!(SCHED_SETAFFINITY, 0, size_of_val(&all), all.as_ptr()) }.map(drop)
}

/// None of its own, so that it follows the nice value.
fn io_priority() -> Result<()> {
    const WHO_PROCESS: usize = 1;
    // SAFETY: no memory involved.
    let now = unsafe { system_call!(IOPRIO_GET, WHO_PROCESS, 0) };
    match now {
        Ok(0) | Err(errno::ENOSYS) => Ok(()),
        // SAFETY: no memory involved.
        Ok(_) => unsafe { system_call!(IOPRIO_SET, WHO_PROCESS, 0, 0) }.map(drop),
        Err(other) => Err(other),
    }
}

fn timer_slack() -> Result<()> {
    if process_control(prctl::GET_TIMERSLACK, 0, 0)? == TIMER_SLACK {
        return Ok(());
    }
    process_control(prctl::SET_TIMERSLACK, TIMER_SLACK, 0).map(drop)
}

fn huge_pages() -> Result<()> {
    unset(prctl::GET_THP_DISABLE, prctl::SET_THP_DISABLE)
}

/// Pages shared with whoever has the same ones (KSM): how long writing to one takes tells another user what they hold.
/// A service manager turns it on for a whole server, and since Linux 6.7 it outlives execve.
fn merged_memory() -> Result<()> {
    unset(prctl::GET_MEMORY_MERGE, prctl::SET_MEMORY_MERGE)
}

/// Takes from the kernel's reserves of memory when it writes. Without CAP_SYS_RESOURCE it can be neither read nor set.
fn io_flusher() -> Result<()> {
    match unset(prctl::GET_IO_FLUSHER, prctl::SET_IO_FLUSHER) {
        Err(errno::EPERM) => Ok(()),
        other => other,
    }
}

/// Ends a setting that is on; a kernel that was built without it knows none.
fn unset(get: usize, set: usize) -> Result<()> {
    match process_control(get, 0, 0) {
        Ok(0) | Err(errno::EINVAL) => Ok(()),
        Ok(_) => process_control(set, 0, 0).map(drop),
        Err(other) => Err(other),
    }
}

/// Whether memory that fails ends the process before it is touched.
fn machine_checks() -> Result<()> {
    match process_control(prctl::MCE_KILL_GET, 0, 0) {
        Ok(prctl::MCE_KILL_DEFAULT) | Err(errno::EINVAL) => Ok(()),
        Ok(_) => process_control(prctl::MCE_KILL, prctl::MCE_KILL_CLEAR, 0).map(drop),
        Err(other) => Err(other),
    }
}

/// Who shares a processor's core at a time (core scheduling): a server that has chosen with whom, to be spied upon by
/// nobody else, has not chosen the client. That gets a choice of its own.
fn core_cookie() -> Result<()> {
    let mut cookie: u64 = 0;
    let this_thread = 0;
    // SAFETY: room for the cookie.
    let got = unsafe {
        system_call!(PRCTL, prctl::SCHED_CORE, prctl::SCHED_CORE_GET, this_thread, 0, &raw mut cookie)
    };
    match got {
        Ok(_) if cookie == 0 => Ok(()),
        Ok(_) => process_control(prctl::SCHED_CORE, prctl::SCHED_CORE_CREATE, this_thread).map(drop),
        // Not in this kernel, or no core of this machine has two threads.
        Err(errno::EINVAL | errno::ENODEV) => Ok(()),
        Err(other) => Err(other),
    }
}

/// The machine's input and output ports, which a process without any privilege reaches when its parent did (ioperm(2),
/// iopl(2)). What it may reach cannot be read; giving it up takes no privilege. Where it may not even do that (Docker's
/// profile), nor could its server have taken it.
#[cfg(target_arch = "x86_64")]
fn ports() -> Result<()> {
    const ALL: usize = 65_536;
    let tolerant = |outcome: Result| match outcome {
        Ok(_) | Err(errno::ENOSYS | errno::EPERM) => Ok(()),
        Err(other) => Err(other),
    };
    // SAFETY: no memory involved.
    tolerant(unsafe { system_call!(IOPERM, 0, ALL, 0) })?;
    // SAFETY: no memory involved.
    tolerant(unsafe { system_call!(IOPL, 0) })
}

/// Other machines have none.
#[cfg(not(target_arch = "x86_64"))]
#[expect(clippy::unnecessary_wraps, reason = "as on the other machine")]
fn ports() -> Result<()> {
    Ok(())
}

/// A container without CAP_SYS_NICE may not ask (Docker's profile); nor may its server have set one.
fn memory_policy() -> Result<()> {
    let mut mode: i32 = 0;
    // SAFETY: room for the mode; the mask is not asked for.
    match unsafe { system_call!(GET_MEMPOLICY, &raw mut mode, 0, 0, 0, 0) } {
        Ok(_) if mode == 0 => Ok(()),
        // SAFETY: the default policy takes no mask.
        Ok(_) => unsafe { system_call!(SET_MEMPOLICY, 0, 0, 0) }.map(drop),
        Err(errno::ENOSYS | errno::EPERM) => Ok(()),
        Err(other) => Err(other),
    }
}

/// A session keyring of the process's own. Where a container's seccomp filter denies keyrings altogether
/// there is none that could be shared; that alone is taken for success.
pub fn join_new_keyring() -> Result<()> {
    const JOIN_SESSION_KEYRING: usize = 1;
    // SAFETY: without a name an anonymous keyring is made.
    let denied = match unsafe { system_call!(KEYCTL, JOIN_SESSION_KEYRING, 0) } {
        Ok(_) => return Ok(()),
        Err(errno @ (errno::EPERM | errno::ENOSYS)) => errno,
        Err(other) => return Err(other),
    };
    if keyrings_are_denied() { Ok(()) } else { Err(denied) }
}

/// Whether every way to a key fails as a seccomp filter makes it fail. Where the calls are there, these
/// succeed or fail otherwise: for the arguments, or for want of a keyring.
fn keyrings_are_denied() -> bool {
    const GET_KEYRING_ID: usize = 0;
    const DESCRIBE: usize = 6;
    const SEARCH: usize = 10;
    const READ: usize = 11;
    const SESSION_KEYRING: usize = -3_isize as usize;
    let denied = |outcome: Result| matches!(outcome, Err(errno::EPERM | errno::ENOSYS));
    // SAFETY: null pointers are refused, never followed; nothing is asked to be written.
    unsafe {
        denied(system_call!(KEYCTL, GET_KEYRING_ID, SESSION_KEYRING, 0))
            && denied(system_call!(KEYCTL, DESCRIBE, SESSION_KEYRING, 0, 0))
            && denied(system_call!(KEYCTL, SEARCH, SESSION_KEYRING, 0, 0, 0))
            && denied(system_call!(KEYCTL, READ, SESSION_KEYRING, 0, 0))
            && denied(system_call!(ADD_KEY, 0, 0, 0, 0, SESSION_KEYRING))
            && denied(system_call!(REQUEST_KEY, 0, 0, 0, SESSION_KEYRING))
    }
}
