//! The program's parent in its own session: without one the kernel lets no program of it stop (setpgid(2), "orphaned").
//!
//! It is the client, and the leader of the session; the program is its child, in a group of its own, in front of the
//! terminal. When the program stops, it steps in front and stops itself: that can be seen from the other end of the
//! terminal. Continued, it puts the program in front again and continues it. All other signals that it gets it passes
//! on to the program's group, and it ends as the program ends.
//!
//! A program that begins behind the terminal, as one of a shell's pipeline would that shares it with others, it puts in
//! front when the kernel stops the program for want of that: it wants to read, or to set the modes.

use crate::runtime;
use crate::syscall::{Result, errno};

const SIG_SETMASK: usize = 2;
const ALL_SIGNALS: u64 = u64::MAX;

const SIGCHLD: usize = 17;
const SIGCONT: usize = 18;
const SIGSTOP: usize = 19;
const SIGTTIN: usize = 21;
const SIGTTOU: usize = 22;

const TIOCGPGRP: usize = 0x540f;
const TIOCSPGRP: usize = 0x5410;

/// Divides the process in two: comes back as the program to be; the other one supervises it.
pub fn divide(terminal: usize, behind: bool) -> Result<()> {
    // None may be lost, and none may end or stop us but the program's own end and stop.
    set_mask(ALL_SIGNALS)?;
    // SAFETY: a copy of this process, as fork(2) makes it: no memory is shared.
    match unsafe { system_call!(CLONE, SIGCHLD, 0, 0, 0, 0) }? {
        0 => {
            set_group(0)?;
            if !behind {
                put_in_front(terminal, own_number())?;
            }
            set_mask(0)
        }
        program => {
            let in_front = if behind { own_number() } else { program };
            Supervisor { program, terminal, behind, in_front }.run()
        }
    }
}

struct Supervisor {
    program: usize,
    terminal: usize,
    /// The program has not asked for the terminal yet.
    behind: bool,
    /// The group that is in front of it while the program runs.
    in_front: usize,
}

impl Supervisor {
    fn run(mut self) -> ! {
        // Both set it, so that neither has to wait for the other; it fails once the program is executed.
        let _ = set_group(self.program);
        // The terminal is all that is still needed: a pipe of the program's would not end with it, and the report would
        // not.
        let _ = close_below(self.terminal);
        // SAFETY: nothing here owns a descriptor.
        let _ = unsafe { system_call!(CLOSE_RANGE, self.terminal + 1, u32::MAX, 0) };
        // SAFETY: NUL-terminated.
        let _ = unsafe { system_call!(CHDIR, c"/".as_ptr()) };
        let all = ALL_SIGNALS;
        loop {
            // SAFETY: eight bytes are the kernel's signal set; neither information nor a time is asked for.
            match unsafe { system_call!(RT_SIGTIMEDWAIT, &raw const all, 0, 0, 8) } {
                Ok(SIGCHLD) => self.look_after(),
                Ok(SIGCONT) => {
                    let _ = put_in_front(self.terminal, self.in_front);
                    self.signal_group(SIGCONT);
                }
                Ok(signal) => self.signal_group(signal),
                Err(_) => {}
            }
        }
    }

    /// What has become of the program.
    fn look_after(&mut self) {
        const WNOHANG: usize = 1;
        const WUNTRACED: usize = 2;
        let mut status: u32 = 0;
        loop {
            // SAFETY: room for the status; usage is not asked for.
            let found = unsafe { system_call!(WAIT4, self.program, &raw mut status, WNOHANG | WUNTRACED, 0) };
            if matches!(found, Ok(0) | Err(_)) {
                return;
            }
            let number = (status >> 8 & 0xff) as usize;
            match status & 0x7f {
                0 => leave_with(number),
                0x7f if self.behind && matches!(number, SIGTTIN | SIGTTOU) => self.come_forward(),
                0x7f => self.stop(),
                signal => die_of(signal as usize),
            }
        }
    }

    /// Gives the program what it was stopped for want of. The signal went to all of its group.
    fn come_forward(&mut self) {
        self.behind = false;
        self.in_front = self.program;
        let _ = put_in_front(self.terminal, self.program);
        self.signal_group(SIGCONT);
    }

    /// Stops as the program did. Whoever is in front now shall be so again.
    fn stop(&mut self) {
        let mut group: i32 = 0;
        // SAFETY: room for the one number.
        if unsafe { system_call!(IOCTL, self.terminal, TIOCGPGRP, &raw mut group) }.is_ok() && group > 0 {
            self.in_front = group as usize;
        }
        let _ = put_in_front(self.terminal, own_number());
        // SAFETY: no memory involved.
        let _ = unsafe { system_call!(KILL, own_number(), SIGSTOP) };
    }

    fn signal_group(&self, signal: usize) {
        let group = (self.program as isize).wrapping_neg() as usize;
        // SAFETY: no memory involved.
        let _ = unsafe { system_call!(KILL, group, signal) };
    }
}

/// Closes the descriptors below this one.
fn close_below(number: usize) -> Result<()> {
    let Some(last) = number.checked_sub(1) else { return Ok(()) };
    // SAFETY: nothing here owns a descriptor.
    unsafe { system_call!(CLOSE_RANGE, 0, last, 0) }.map(drop)
}

fn die_of(signal: usize) -> ! {
    // Its core file, if any, is written: the kernel writes none of ours, for we are not dumpable since the switch.
    let _ = set_mask(0);
    // SAFETY: no memory involved; every action is the default one.
    let _ = unsafe { system_call!(KILL, own_number(), signal) };
    leave_with(128 + signal)
}

fn leave_with(code: usize) -> ! {
    // SAFETY: does not return.
    let _ = unsafe { system_call!(EXIT_GROUP, code) };
    runtime::exit()
}

fn own_number() -> usize {
    // SAFETY: no memory involved; cannot fail.
    unsafe { system_call!(GETPID) }.unwrap_or(0)
}

fn set_mask(mask: u64) -> Result<()> {
    // SAFETY: eight bytes are the kernel's signal set.
    unsafe { system_call!(RT_SIGPROCMASK, SIG_SETMASK, &raw const mask, 0, 8) }.map(drop)
}

/// Makes a process the leader of a group of its own.
fn set_group(process: usize) -> Result<()> {
    // SAFETY: no memory involved.
    unsafe { system_call!(SETPGID, process, process) }.map(drop)
}

/// From behind it is allowed as SIGTTOU is blocked.
fn put_in_front(terminal: usize, group: usize) -> Result<()> {
    let group = group as i32;
    // SAFETY: the one number is readable.
    match unsafe { system_call!(IOCTL, terminal, TIOCSPGRP, &raw const group) } {
        // Hung up: then there is no front to be put in.
        Err(errno::EIO) | Ok(_) => Ok(()),
        Err(errno) => Err(errno),
    }
}
