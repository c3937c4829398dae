//! Every step from the server's rights to the client's program, in order.

use crate::report::{Report, Step, executing};
use crate::syscall::errno;
use crate::wire::{self, Arguments, View, flag};
use crate::{defaults, execute, file, runtime, supervise, switch};

/// The program's argument vector, the kernel's own array.
#[derive(Clone, Copy)]
pub struct Vector {
    pub pointers: *const *const u8,
    pub count: usize,
}

impl Vector {
    /// The NUL-terminated argument at `index`, or the final null pointer.
    pub fn pointer(self, index: usize) -> *const u8 {
        if index >= self.count {
            return core::ptr::null();
        }
        // SAFETY: `runtime::start` got `count` valid pointers from the kernel.
        unsafe { *self.pointers.add(index) }
    }

    /// The rest of the vector, beginning at `index`: it still ends with a null pointer.
    pub fn from(self, index: usize) -> *const *const u8 {
        // SAFETY: at most the place of the final null pointer.
        unsafe { self.pointers.add(if index > self.count { self.count } else { index }) }
    }
}

impl Arguments<'static> for Vector {
    fn get(self, index: usize) -> Option<&'static [u8]> {
        let pointer = self.pointer(index);
        if pointer.is_null() {
            return None;
        }
        // SAFETY: the kernel put a NUL-terminated string there, and nothing changes it.
        Some(unsafe { core::slice::from_raw_parts(pointer, runtime::strlen(pointer)) })
    }

    fn count(self) -> usize {
        self.count
    }
}

/// The spec, where it lies in the arguments.
pub type Spec = View<'static, Vector>;

/// A step that failed.
pub type Failure = Report;

/// Names the step of an errno.
pub trait At<T> {
    fn at(self, step: Step, detail: u32) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, i32> {
    fn at(self, step: Step, detail: u32) -> Result<T, Failure> {
        self.map_err(|errno| Report { step, errno, detail })
    }
}

/// Called by [`runtime::start`].
pub fn main(argv: Vector, environment: *const *const u8) -> ! {
    // Somebody who runs this by hand learns nothing and does nothing.
    let Some(spec) = View::decode(argv) else { runtime::exit() };
    match run(argv, environment, &spec) {
        Err(failure) => fail(spec.header.report, failure),
    }
}

/// Everything, in order. Returns only what went wrong.
fn run(
    argv: Vector,
    environment: *const *const u8,
    spec: &Spec,
) -> Result<core::convert::Infallible, Failure> {
    let header = &spec.header;
    let has = |bit: u32| header.flags & bit != 0;

    // --- As the server. ---

    // Nothing of the server's may be open when the client's processes could first look (CVE-2016-9962),
    // nor be there for `chdir` to enter (CVE-2024-21626): first of all.
    close_all_but(spec).at(Step::Descriptors, 0)?;
    // Read now: the client may be allowed to execute it and not to read it.
    if has(flag::DESCRIPTOR) {
        execute::refuse_script(header.descriptor)?;
    }
    // Out of the server's session before anything else, so that no signal meant for it arrives here
    // and its terminal is out of reach (CVE-2017-5226, CVE-2016-2779).
    if has(flag::SETSID) {
        // SAFETY: no memory involved.
        unsafe { system_call!(SETSID) }.at(Step::Session, 0)?;
    }
    let terminal = if has(flag::ON_ERROR) { 2 } else { usize::from(has(flag::ON_OUTPUT)) };
    if has(flag::TERMINAL) {
        const TIOCSCTTY: usize = 0x540e;
        // SAFETY: no memory involved; 0 means: do not steal it from another session.
        unsafe { system_call!(IOCTL, terminal, TIOCSCTTY, 0) }.at(Step::Terminal, 0)?;
    }
    // What no token says: while lowering it may still take the server's privileges.
    let least_is_zero = defaults::set(header)?;
    // The login uid before the limits, which may leave no room for another descriptor; as the server,
    // because an unset one can be set by everybody and a set one only with CAP_AUDIT_CONTROL.
    if has(flag::LOGIN_UID) {
        file::set_number(c"/proc/self/loginuid", i64::from(header.login_uid)).at(Step::LoginUid, 0)?;
    }
    // Opened now for the same reason, written after the switch.
    let label = match spec.label {
        Some(text) => {
            Some((text, file::open(c"/proc/thread-self/attr/exec", file::WRITE).at(Step::ExecLabel, 0)?))
        }
        None => None,
    };
    // The keyring as the server: as the client it counts against the client's quota, and fails with
    // EDQUOT under load.
    if has(flag::KEYRING) {
        defaults::join_new_keyring().at(Step::Keyring, 0)?;
    }
    // Raising a hard limit takes CAP_SYS_RESOURCE, so before the switch.
    spec.limits
        .each(wire::LIMIT, |numbers| {
            let (limit, soft, hard) = (numbers.u32()?, numbers.u64()?, numbers.u64()?);
            let pair = [soft, hard];
            // SAFETY: a `struct rlimit64` is two u64; the old one is not asked for.
            if let Err(errno) = unsafe { system_call!(PRLIMIT64, 0, limit, &raw const pair, 0) } {
                fail(header.report, Report { step: Step::Limits, errno, detail: limit });
            }
            Some(())
        })
        .ok_or(errno::EBADMSG)
        .at(Step::Arguments, 0)?;

    // --- The switch. ---

    if has(flag::CREDENTIALS) {
        switch::take_on(spec)?;
    }

    // --- As the client. ---

    if let Some((text, descriptor)) = label {
        // After the switch, because it is the client who must be allowed to take that label on.
        // SAFETY: `text` is readable for its length.
        unsafe { system_call!(WRITE, descriptor, text.as_ptr(), text.len()) }.at(Step::ExecLabel, 0)?;
        file::close(descriptor);
    }
    // SAFETY: the slice is NUL-terminated in the argument vector.
    unsafe { system_call!(CHDIR, spec.directory.as_ptr()) }.at(Step::Directory, 0)?;
    // Late, so that no signal interrupts the above; an ignored signal would stay ignored over execve.
    reset_signals(header.perhaps_ignored).at(Step::Signals, 0)?;

    if has(flag::GATE) {
        tell(header.report, Report { step: Step::Ready, errno: 0, detail: 0 });
        wait_at(header.gate).at(Step::Gate, 0)?;
    }
    if has(flag::SUPERVISED) {
        supervise::divide(terminal, has(flag::BEHIND)).at(Step::Supervise, 0)?;
    }
    // From here on end of file means that the program runs; without this, that we were ended before.
    let detail = if least_is_zero { executing::LEAST_SCORE_IS_ZERO } else { 0 };
    tell(header.report, Report { step: Step::Executing, errno: 0, detail });
    Err(execute::execute(argv, spec, environment))
}

/// Closes every descriptor but 0, 1, 2 and those that the spec keeps; our own shall end with us.
fn close_all_but(spec: &Spec) -> Result<(), i32> {
    const F_SETFD: usize = 2;
    const FD_CLOEXEC: usize = 1;
    let header = &spec.header;
    let absent = u32::MAX; // sorts last and is no descriptor
    let mut ours = [header.report, absent, absent];
    if header.flags & flag::GATE != 0 {
        ours[1] = header.gate;
    }
    if header.flags & flag::DESCRIPTOR != 0 {
        ours[2] = header.descriptor;
    }
    for (left, right) in [(0, 1), (1, 2), (0, 1)] {
        if ours[left] > ours[right] {
            ours.swap(left, right);
        }
    }
    let mut kept = [false; 3];
    let mut next: u32 = 3;
    let mut outcome = Ok(());
    let mut keep = |number: u32| {
        if number < next {
            return; // one of the standard three, or seen already
        }
        if number > next && outcome.is_ok() {
            outcome = close_range(next, number - 1);
        }
        next = number.saturating_add(1);
    };
    let mut turn = 0;
    spec.keep
        .each(wire::SHORT, |numbers| {
            let number = numbers.u32()?;
            while let Some(own) = ours.get(turn).copied().filter(|own| *own <= number) {
                if own == number {
                    *kept.get_mut(turn)? = true;
                }
                keep(own);
                turn += 1;
            }
            keep(number);
            Some(())
        })
        .ok_or(errno::EBADMSG)?;
    while let Some(own) = ours.get(turn).copied().filter(|own| *own != absent) {
        keep(own);
        turn += 1;
    }
    outcome?;
    close_range(next, u32::MAX)?;
    for (own, kept) in ours.into_iter().zip(kept) {
        if own != absent && !kept {
            // SAFETY: sets a flag on a descriptor of our own table.
            unsafe { system_call!(FCNTL, own, F_SETFD, FD_CLOEXEC) }?;
        }
    }
    Ok(())
}

fn close_range(first: u32, last: u32) -> Result<(), i32> {
    // SAFETY: nothing here owns a descriptor in that range.
    unsafe { system_call!(CLOSE_RANGE, first, last, 0) }.map(drop)
}

/// Every disposition to its default, also of those that the server ignores; then an empty mask. What was handled is at its
/// default since this program was executed.
fn reset_signals(perhaps_ignored: u64) -> Result<(), i32> {
    const SIG_SETMASK: usize = 2;
    const SIGKILL: usize = 9;
    const SIGSTOP: usize = 19;
    let default = [0u64; 4]; // struct sigaction: SIG_DFL, no flags, no restorer, empty mask
    let none = 0u64;
    for signal in 1..=64 {
        let ignored = perhaps_ignored >> (signal - 1) & 1 != 0;
        if ignored && signal != SIGKILL && signal != SIGSTOP {
            // SAFETY: a full kernel `struct sigaction`; the default action runs no code of ours.
            unsafe { system_call!(RT_SIGACTION, signal, &raw const default, 0, 8) }?;
        }
    }
    // SAFETY: eight bytes are the kernel's signal set.
    unsafe { system_call!(RT_SIGPROCMASK, SIG_SETMASK, &raw const none, 0, 8) }.map(drop)
}

/// Waits for one byte; end of file means that the server has given the process up or is gone.
fn wait_at(gate: u32) -> Result<(), i32> {
    let mut byte = 0u8;
    loop {
        // SAFETY: room for the one byte.
        match unsafe { system_call!(READ, gate, &raw mut byte, 1) } {
            Ok(1) => return Ok(()),
            Ok(_) => return Err(errno::EPIPE),
            Err(errno::EINTR) => {}
            Err(other) => return Err(other),
        }
    }
}

fn tell(descriptor: u32, report: Report) {
    let record = report.encode();
    // A server that does not listen any more needs no report; nothing else depends on it.
    // SAFETY: the record is readable for its length.
    let _ = unsafe { system_call!(WRITE, descriptor, record.as_ptr(), record.len()) };
}

/// Tells what failed, and ends.
fn fail(descriptor: u32, report: Report) -> ! {
    tell(descriptor, report);
    runtime::exit()
}
