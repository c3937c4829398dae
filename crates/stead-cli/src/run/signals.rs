//! The signals that the command gets and the program should have.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGTERM, SIGTSTP, SIGURG, SIGUSR1, SIGUSR2,
    SIGVTALRM, SIGWINCH, SIGXCPU, SIGXFSZ,
};
use signal_hook::flag;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use stead::os::linux::{ChildExt, Signal};
use stead::{Child, ErrorKind};

use crate::ending::Ending;
use crate::output::complain;

/// All that are passed on.
const ALL: [i32; 15] = [
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT, SIGWINCH, SIGALRM, SIGPROF, SIGURG,
    SIGVTALRM, SIGXCPU, SIGXFSZ,
];

/// Those that a terminal sends to a whole group of processes.
const OF_A_TERMINAL: [i32; 5] = [SIGHUP, SIGINT, SIGQUIT, SIGCONT, SIGWINCH];

/// Whether it is one that ends a program which has said nothing else.
pub fn ends(signal: i32) -> bool {
    !matches!(signal, SIGTSTP | SIGCONT | SIGWINCH | SIGURG)
}

/// Signals, as something that can be waited for with everything else.
///
/// Until they are [held](Self::hold) they do what they do to any program.
#[derive(Clone)]
pub struct Signals {
    delivery: Arc<Mutex<SignalDelivery<UnixStream, SignalOnly>>>,
    ready: Arc<OwnedFd>,
    by_default: Arc<AtomicBool>,
}

impl Signals {
    /// Registers them. One that was ignored when the command started stays ignored, as under `nohup`.
    pub fn new() -> io::Result<Self> {
        let ignored = ignored();
        let wanted: Vec<i32> = ALL.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0).collect();
        let by_default = Arc::new(AtomicBool::new(true));
        for signal in wanted.iter().filter(|signal| !matches!(**signal, SIGCONT | SIGWINCH)) {
            flag::register_conditional_default(*signal, Arc::clone(&by_default))?;
        }
        let (read, write) = UnixStream::pair()?;
        let ready = Arc::new(read.as_fd().try_clone_to_owned()?);
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, wanted)?;
        Ok(Self { delivery: Arc::new(Mutex::new(delivery)), ready, by_default })
    }

    /// Keeps them from now on, to be asked for.
    pub fn hold(&self) {
        self.by_default.store(false, Ordering::Relaxed);
    }

    /// Lets them do again what they do to any program.
    pub fn release(&self) {
        self.by_default.store(true, Ordering::Relaxed);
    }

    /// Readable when there is one.
    pub fn ready(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }

    /// Those that came since.
    pub fn pending(&self) -> Vec<i32> {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner).pending().collect()
    }
}

/// Gives the program a signal that the command got: what a terminal would have sent to the group, to the group.
pub fn pass_on(child: &Child, number: i32) -> stead::Result<()> {
    let Some(signal) = Signal::from_raw(number) else { return Ok(()) };
    let of_a_terminal = OF_A_TERMINAL.contains(&number);
    let given = if of_a_terminal { child.signal_group(signal) } else { child.signal(signal) };
    unless_refused(given, number)
}

/// A program that has taken another identity on (sudo, pkexec) is out of our reach, and still to be waited for. Of a signal
/// that only informs it, not a word.
pub fn unless_refused(given: stead::Result<()>, number: i32) -> stead::Result<()> {
    match given {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PrivilegeMissing { .. } | ErrorKind::AccessDenied { .. }
            ) =>
        {
            if !matches!(number, SIGCONT | SIGWINCH | SIGURG) {
                let name = signal_hook::low_level::signal_name(number).unwrap_or("a signal");
                complain(&format!(
                    "{name} cannot be passed on to the program, which is another user's by now"
                ));
            }
            Ok(())
        }
        given => given,
    }
}

/// Stops the command itself, as Ctrl-Z does, and comes back when it is continued; with `all`, its whole group, of which the
/// command then still has the signal before it: true. Where nobody would continue it, it does not stop: the kernel, too,
/// ignores Ctrl-Z in a group of processes without a parent in its session.
pub fn stop_here(all: bool) -> bool {
    if is_orphaned() {
        return false;
    }
    let told = all && rustix::process::kill_current_process_group(rustix::process::Signal::TSTP).is_ok();
    let _ = signal_hook::low_level::emulate_default_handler(SIGTSTP);
    told
}

/// The end by a signal that came while there is no program to pass it on to.
pub fn end_by(signal: i32) -> ! {
    let _ = Ending::Signal(signal).leave();
    std::process::exit(128 + signal)
}

/// The signals that were ignored when the command started.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Whether no process of our session, outside our group, is the parent of one in it (setpgid(2), "orphaned").
fn is_orphaned() -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let Some((mut parent, group, session)) = relations(own) else { return false };
    while let Some((grandparent, its_group, its_session)) = relations(parent) {
        if its_session != session {
            return true;
        }
        if its_group != group {
            return false;
        }
        parent = grandparent;
    }
    true
}

/// A process's parent, group and session. Its name may contain anything, so they are counted from its end.
fn relations(pid: i32) -> Option<(i32, i32, i32)> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let text = std::str::from_utf8(stat.get(after..)?).ok()?;
    let mut fields = text.split_ascii_whitespace().skip(1).map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?))
}
