//! A model of the kernel, as far as the trampoline speaks to it: one process, and a plan of what goes wrong.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;

use super::Run;
use super::credentials::{AUDIT_CONTROL, Credentials, LAST, SYS_RESOURCE};
use crate::syscall::{Capabilities, Result, errno, number, prctl};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails.
    Fails(i32),
    /// It says that it succeeded, and has done nothing. What is only read, and what brings nothing, is done.
    Lies,
}

/// What a process has that a program inherits, beyond its credentials: the server's, or its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a state of its own")]
pub struct Surroundings {
    /// Descriptors that stay open over execve.
    pub descriptors: BTreeSet<u32>,
    pub session: bool,
    pub keyring: bool,
    pub directory: Vec<u8>,
    pub umask: u32,
    pub limits: BTreeMap<u32, [u64; 2]>,
    pub files: BTreeMap<&'static str, Vec<u8>>,
    pub policy: u32,
    pub nice: i32,
    pub slice: u64,
    /// The server's number.
    pub server: usize,
    pub all_processors: bool,
    pub io_priority: usize,
    pub timer_slack: usize,
    pub personality: usize,
    pub huge_pages_disabled: bool,
    pub memory_merged: bool,
    pub machine_checks: usize,
    pub io_flusher: bool,
    /// With whom it shares a core; 0 is everybody.
    pub core_cookie: u64,
    /// Whether it reaches input and output ports: by number, and by level.
    pub ports: [bool; 2],
    /// The lowest out-of-memory score that it may have without a privilege.
    pub least_score: i64,
    pub memory_policy: i32,
    pub ignored_signals: BTreeSet<usize>,
    pub mask: u64,
}

/// The process, and what shall go wrong.
pub struct Model {
    pub credentials: Credentials,
    pub surroundings: Surroundings,
    pub faults: BTreeMap<usize, Fault>,
    /// How many calls were made.
    pub calls: usize,
    /// Descriptors that execve closes, and the file behind them.
    closing: BTreeMap<u32, Option<&'static str>>,
    dumpable: bool,
}

thread_local! {
    static MODEL: RefCell<Option<Model>> = const { RefCell::new(None) };
}

impl Model {
    pub fn new(credentials: Credentials, surroundings: Surroundings, faults: BTreeMap<usize, Fault>) -> Self {
        Self { credentials, surroundings, faults, calls: 0, closing: BTreeMap::new(), dumpable: true }
    }

    /// Runs `steps` in this process; gives back what became of it.
    pub fn run(self, steps: impl FnOnce()) -> Self {
        MODEL.with_borrow_mut(|model| *model = Some(self));
        steps();
        MODEL.with_borrow_mut(|model| model.take().expect("it was put there"))
    }
}

/// One system call.
///
/// # Safety
///
/// What is a pointer to the kernel must be one here.
pub unsafe fn call(number: usize, arguments: [usize; 6]) -> Result {
    let outcome = MODEL.with_borrow_mut(|model| {
        let model = model.as_mut().expect("within a run");
        let turn = model.calls;
        model.calls += 1;
        match model.faults.get(&turn) {
            Some(Fault::Fails(errno)) => Some(Err(*errno)),
            Some(Fault::Lies) if changes_something(number, arguments[0]) => Some(Ok(0)),
            // SAFETY: the caller's promise.
            _ => unsafe { model.serve(number, arguments) },
        }
    });
    outcome.unwrap_or_else(|| std::panic::resume_unwind(Box::new(Run::Executed)))
}

/// Whether success without effect is something that a caller could be told.
fn changes_something(number: usize, operation: usize) -> bool {
    match number {
        number::PRCTL => !matches!(
            operation,
            prctl::CAPBSET_READ
                | prctl::GET_SECUREBITS
                | prctl::GET_NO_NEW_PRIVS
                | prctl::GET_TIMERSLACK
                | prctl::GET_THP_DISABLE
                | prctl::GET_MEMORY_MERGE
                | prctl::GET_IO_FLUSHER
                | prctl::MCE_KILL_GET
                | prctl::SCHED_CORE
        ),
        number::CAPSET | number::SETRESUID | number::SETRESGID | number::SETGROUPS => true,
        number::CLOSE_RANGE | number::FCNTL | number::SETSID | number::KEYCTL | number::PRLIMIT64 => true,
        number::CHDIR | number::RT_SIGACTION | number::RT_SIGPROCMASK | number::SET_MEMPOLICY => true,
        number::SCHED_SETATTR | number::SCHED_SETAFFINITY | number::IOPRIO_SET | number::UMASK => true,
        #[cfg(target_arch = "x86_64")]
        number::IOPERM | number::IOPL => true,
        _ => false,
    }
}

fn id(register: usize) -> u32 {
    u32::try_from(register & 0xffff_ffff).expect("32 bits")
}

/// # Safety
///
/// `address` is that of a NUL-terminated string.
unsafe fn text(address: usize) -> Vec<u8> {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(address as *const _) }.to_bytes().to_vec()
}

/// # Safety
///
/// As many values are at `address`, or there is room for them.
unsafe fn values<'a, T>(address: usize, count: usize) -> &'a mut [T] {
    if count == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise; the trampoline holds nothing that aliases it during the call.
    unsafe { std::slice::from_raw_parts_mut(address as *mut T, count) }
}

impl Model {
    /// `None`: the program was executed.
    ///
    /// # Safety
    ///
    /// What is a pointer to the kernel must be one here.
    unsafe fn serve(&mut self, call: usize, [a, b, c, d, e, _]: [usize; 6]) -> Option<Result> {
        let around = &mut self.surroundings;
        // SAFETY: in all of these the caller's promise, for what the call's manual page says is there.
        Some(unsafe {
            match call {
                number::EXECVE => return None,
                number::SETRESUID => self.credentials.set_uids([id(a), id(b), id(c)]),
                number::SETRESGID => self.credentials.set_gids([id(a), id(b), id(c)]),
                number::SETGROUPS => self.credentials.set_groups(values(b, a)),
                number::GETRESUID | number::GETRESGID => {
                    let ids =
                        if call == number::GETRESUID { self.credentials.uids } else { self.credentials.gids };
                    for (address, id) in [a, b, c].into_iter().zip(ids) {
                        values(address, 1)[0] = id;
                    }
                    Ok(0)
                }
                number::GETGROUPS => {
                    let groups = &self.credentials.groups;
                    if groups.len() > a {
                        return Some(Err(errno::EINVAL));
                    }
                    values(b, groups.len()).copy_from_slice(groups);
                    Ok(groups.len())
                }
                number::CAPGET => {
                    let now = self.credentials.capabilities;
                    let sets = [now.effective, now.permitted, now.inheritable];
                    for (place, set) in sets.into_iter().enumerate() {
                        let words = values::<u32>(b, 6);
                        words[place] = u32::try_from(set & 0xffff_ffff).expect("32 bits");
                        words[place + 3] = u32::try_from(set >> 32).expect("32 bits");
                    }
                    Ok(0)
                }
                number::CAPSET => {
                    let words: &[u32] = values(b, 6);
                    let wide = |place: usize| u64::from(words[place]) | u64::from(words[place + 3]) << 32;
                    let wanted =
                        Capabilities { effective: wide(0), permitted: wide(1), inheritable: wide(2) };
                    self.credentials.set_capabilities(wanted)
                }
                number::PRCTL if a == prctl::SCHED_CORE && b == prctl::SCHED_CORE_GET => {
                    values(e, 1)[0] = around.core_cookie;
                    Ok(0)
                }
                number::PRCTL => self.control(a, b, c),
                #[cfg(target_arch = "x86_64")]
                number::IOPERM => {
                    around.ports[0] &= c != 0 || (a, b) != (0, 65_536);
                    Ok(0)
                }
                #[cfg(target_arch = "x86_64")]
                number::IOPL => {
                    around.ports[1] &= a != 0;
                    Ok(0)
                }
                number::CLOSE_RANGE => {
                    let closed = id(a)..=id(b);
                    around.descriptors.retain(|descriptor| !closed.contains(descriptor));
                    self.closing.retain(|descriptor, _| !closed.contains(descriptor));
                    Ok(0)
                }
                number::FCNTL => match around.descriptors.take(&id(a)) {
                    Some(descriptor) => {
                        self.closing.insert(descriptor, None);
                        Ok(0)
                    }
                    None => Err(errno::EBADF),
                },
                number::SETSID => {
                    around.session = true;
                    Ok(0)
                }
                number::KEYCTL => {
                    around.keyring |= a == 1;
                    Ok(1)
                }
                number::UMASK => Ok(std::mem::replace(&mut around.umask, id(a)) as usize),
                number::CHDIR => {
                    around.directory = text(a);
                    Ok(0)
                }
                number::PRLIMIT64 => {
                    let wanted: [u64; 2] = [values(c, 2)[0], values(c, 2)[1]];
                    let now = around.limits.get(&id(b)).copied().unwrap_or([u64::MAX; 2]);
                    if wanted[1] > now[1] && !self.credentials.has(SYS_RESOURCE) {
                        return Some(Err(errno::EPERM));
                    }
                    around.limits.insert(id(b), wanted);
                    Ok(0)
                }
                number::OPENAT => {
                    let path = text(b);
                    let known = around.files.keys().find(|name| name.as_bytes() == path);
                    let Some(name) = known.copied() else { return Some(Err(errno::ENOENT)) };
                    let taken = |at: &u32| around.descriptors.contains(at) || self.closing.contains_key(at);
                    let descriptor = (3..1024).find(|at| !taken(at)).expect("a free one");
                    self.closing.insert(descriptor, Some(name));
                    Ok(descriptor as usize)
                }
                number::CLOSE => {
                    self.closing.remove(&id(a));
                    Ok(0)
                }
                number::READ => {
                    let Some(Some(name)) = self.closing.get(&id(a)) else { return Some(Err(errno::EBADF)) };
                    let content = &around.files[name];
                    let length = content.len().min(c);
                    values(b, length).copy_from_slice(&content[..length]);
                    Ok(length)
                }
                number::WRITE | number::PWRITE64 => {
                    // The report's end is a pipe.
                    let Some(Some(name)) = self.closing.get(&id(a)) else { return Some(Ok(c)) };
                    if *name == LOGIN_UID && !self.credentials.has(AUDIT_CONTROL) {
                        return Some(Err(errno::EPERM));
                    }
                    let text = values::<u8>(b, c).to_vec();
                    if *name == SCORE {
                        let score = std::str::from_utf8(&text).expect("a number").parse().expect("a number");
                        match self.credentials.has(SYS_RESOURCE) {
                            true => around.least_score = score,
                            false if score < around.least_score => return Some(Err(errno::EACCES)),
                            false => {}
                        }
                    }
                    around.files.insert(name, text);
                    Ok(c)
                }
                number::RT_SIGACTION => {
                    around.ignored_signals.remove(&a);
                    Ok(0)
                }
                number::RT_SIGPROCMASK => {
                    around.mask = values(b, 1)[0];
                    Ok(0)
                }
                number::GETPPID => Ok(around.server),
                number::SCHED_GETATTR => {
                    // Of the caller, which is the server's child; else of the first process.
                    let of_the_servers = a == 0 || around.server == a;
                    let (policy, nice, slice) = if of_the_servers {
                        (around.policy, around.nice, around.slice)
                    } else {
                        (0, 0, SLICE)
                    };
                    values::<u32>(b, 2)[1] = policy;
                    values::<i32>(b, 5)[4] = nice;
                    values::<u64>(b, 4)[3] = slice;
                    Ok(0)
                }
                number::SCHED_SETATTR => {
                    around.policy = values::<u32>(b, 2)[1];
                    around.nice = values::<i32>(b, 5)[4];
                    around.slice = match values::<u64>(b, 4)[3] {
                        0 => SLICE,
                        slice => slice,
                    };
                    Ok(0)
                }
                number::SCHED_SETAFFINITY => {
                    around.all_processors = values::<u64>(c, b / 8).iter().all(|word| *word == u64::MAX);
                    Ok(0)
                }
                number::IOPRIO_GET => Ok(around.io_priority),
                number::IOPRIO_SET => {
                    around.io_priority = c;
                    Ok(0)
                }
                number::PERSONALITY => Ok(std::mem::replace(&mut around.personality, a)),
                number::GET_MEMPOLICY => {
                    values(a, 1)[0] = around.memory_policy;
                    Ok(0)
                }
                number::SET_MEMPOLICY => {
                    around.memory_policy = i32::try_from(a).expect("a mode");
                    Ok(0)
                }
                // Asked after execve has failed, or for a keyring.
                number::STATX | number::FACCESSAT2 | number::ADD_KEY | number::REQUEST_KEY => {
                    Err(errno::ENOENT)
                }
                other => panic!("the model does not know call {other} ({d}, {e})"),
            }
        })
    }

    fn control(&mut self, operation: usize, first: usize, second: usize) -> Result {
        let credentials = &mut self.credentials;
        let around = &mut self.surroundings;
        let flag = |value: &mut bool| {
            *value = first != 0;
            Ok(0)
        };
        match operation {
            prctl::SET_DUMPABLE => flag(&mut self.dumpable),
            prctl::SET_KEEPCAPS => credentials.keep_capabilities(first != 0),
            prctl::CAPBSET_READ if first > LAST as usize => Err(errno::EINVAL),
            prctl::CAPBSET_READ => Ok(usize::from(credentials.bounding >> first & 1 != 0)),
            prctl::CAPBSET_DROP => credentials.drop_from_bounding(first),
            prctl::GET_SECUREBITS => Ok(credentials.securebits as usize),
            prctl::SET_SECUREBITS => credentials.set_securebits(id(first)),
            prctl::SET_NO_NEW_PRIVS => flag(&mut credentials.no_new_privs),
            prctl::GET_NO_NEW_PRIVS => Ok(usize::from(credentials.no_new_privs)),
            prctl::CAP_AMBIENT => match first {
                prctl::CAP_AMBIENT_CLEAR_ALL => {
                    credentials.ambient = 0;
                    Ok(0)
                }
                prctl::CAP_AMBIENT_RAISE => credentials.raise_ambient(second),
                prctl::CAP_AMBIENT_IS_SET => Ok(usize::from(credentials.ambient >> second & 1 != 0)),
                other => panic!("the model does not know this of the ambient set: {other}"),
            },
            prctl::GET_TIMERSLACK => Ok(around.timer_slack),
            prctl::SET_TIMERSLACK => {
                around.timer_slack = first;
                Ok(0)
            }
            prctl::GET_THP_DISABLE => Ok(usize::from(around.huge_pages_disabled)),
            prctl::SET_THP_DISABLE => flag(&mut around.huge_pages_disabled),
            prctl::GET_MEMORY_MERGE => Ok(usize::from(around.memory_merged)),
            prctl::SET_MEMORY_MERGE => flag(&mut around.memory_merged),
            prctl::GET_IO_FLUSHER | prctl::SET_IO_FLUSHER if !credentials.has(SYS_RESOURCE) => {
                Err(errno::EPERM)
            }
            prctl::GET_IO_FLUSHER => Ok(usize::from(around.io_flusher)),
            prctl::SET_IO_FLUSHER => flag(&mut around.io_flusher),
            prctl::MCE_KILL_GET => Ok(around.machine_checks),
            prctl::MCE_KILL if first == prctl::MCE_KILL_CLEAR => {
                around.machine_checks = prctl::MCE_KILL_DEFAULT;
                Ok(0)
            }
            prctl::SCHED_CORE if first == prctl::SCHED_CORE_CREATE => {
                around.core_cookie = OWN_COOKIE;
                Ok(0)
            }
            other => panic!("the model does not know prctl {other}"),
        }
    }
}

/// What the kernel gives of a processor at a time to who has not chosen.
pub const SLICE: u64 = 2_800_000;

/// What the kernel gives to who shares a core with nobody.
pub const OWN_COOKIE: u64 = 77;

/// The out-of-memory score's file.
pub const SCORE: &str = "/proc/self/oom_score_adj";

/// The audit system's file.
pub const LOGIN_UID: &str = "/proc/self/loginuid";
