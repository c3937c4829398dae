//! What of a process no token says. The client's process gets the kernel's defaults, or what was asked
//! for, never what the server happens to have: a server that protects itself from the out-of-memory
//! killer, is pinned to a processor or runs with real-time priority does not mean its clients.
//!
//! Reading is cheaper than writing for most of these, so what is right already is left alone.

use crate::report::{Step, default};
use crate::syscall::{Result, errno, prctl, process_control};
use crate::wire::{Header, flag};
use crate::{At, Failure, file};

/// The kernel's own, unless the administrator changed it at boot: anonymous memory, ELF headers, private
/// huge pages (core(5)).
const CORE_FILTER: &[u8] = b"00000033\n";
/// Fifty microseconds (`init/init_task.c`).
const TIMER_SLACK: usize = 50_000;

/// Sets all of them.
pub fn set(header: &Header) -> core::result::Result<(), Failure> {
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
    if fixed || has(flag::OOM) {
        let value = if has(flag::OOM) { header.oom_score_adj.cast_signed() } else { 0 };
        let step = if has(flag::OOM) { (Step::OomScore, 0) } else { (Step::Defaults, default::OOM_SCORE) };
        // The server has looked already, where it said so: opening a file of /proc is the dearest of all.
        if has(flag::OOM) || !has(flag::OOM_IS_ZERO) {
            file::set_number(c"/proc/self/oom_score_adj", i64::from(value)).at(step.0, step.1)?;
        }
    }
    if !fixed {
        return Ok(());
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
    memory_policy().at(Step::Defaults, default::MEMORY_POLICY)
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
    match process_control(prctl::GET_THP_DISABLE, 0, 0) {
        // A kernel without huge pages knows no such setting.
        Ok(0) | Err(errno::EINVAL) => Ok(()),
        Ok(_) => process_control(prctl::SET_THP_DISABLE, 0, 0).map(drop),
        Err(other) => Err(other),
    }
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
