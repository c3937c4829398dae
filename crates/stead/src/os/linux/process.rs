//! What only Linux has of commands and processes.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::num::NonZeroI32;
use std::os::fd::OwnedFd;

use crate::process::{Child, Command, Program};
use crate::sys::process::Running;
use crate::sys::token::CapabilitySet;

pub use crate::sys::process::{Cgroup, Limit};

/// What only Linux has of a [`Command`].
///
/// ```no_run
/// # fn example(token: stead::Token<stead::Primary>) -> stead::Result<()> {
/// use stead::Command;
/// use stead::os::linux::{CommandExt, Limit};
/// let child = Command::new("render")
///     .nice(10)
///     .limit(Limit::OpenFiles, 256, 256)
///     .no_new_privs(true)
///     .spawn_as(&token)?;
/// # Ok(()) }
/// ```
pub trait CommandExt: sealed::Sealed {
    /// A command whose program is this open file, whatever its name leads to by then.
    ///
    /// The client must be able to execute it, not to reach it. A script is refused: its interpreter would
    /// open a file by name again. See
    /// [`execveat(2)`](https://man7.org/linux/man-pages/man2/execveat.2.html).
    #[doc(alias = "execveat")]
    #[doc(alias = "fexecve")]
    fn pinned(program: OwnedFd) -> Command;

    /// What the program finds as its own name, if not that under which it was started.
    fn arg0(&mut self, arg0: impl AsRef<OsStr>) -> &mut Command;

    /// Gives the process one more descriptor, under this number; at most one for each.
    #[doc(alias = "PROC_THREAD_ATTRIBUTE_HANDLE_LIST")]
    fn fd(&mut self, descriptor: OwnedFd, number: u32) -> &mut Command;

    /// The permissions that new files do not get, in place of the logon session's (or 022).
    fn umask(&mut self, mask: u32) -> &mut Command;

    /// The nice value, from -20 (first) to 19 (last).
    #[doc(alias = "SetPriorityClass")]
    fn nice(&mut self, nice: i32) -> &mut Command;

    /// How readily the process is ended when memory runs out, from -1000 (never) to 1000.
    ///
    /// It may lower its own as far as 0; no further than this where the server has
    /// [`Privilege::IncreaseQuota`](crate::Privilege::IncreaseQuota). Where it could go below both, because the
    /// server's unit protects the server, and that privilege is missing, nothing is created.
    fn oom_score_adj(&mut self, score: i32) -> &mut Command;

    /// Sets one limit; [`Limit::UNLIMITED`] for none. At most one value for each.
    ///
    /// Above the server's own hard limit it takes
    /// [`Privilege::IncreaseQuota`](crate::Privilege::IncreaseQuota).
    #[doc(alias = "setrlimit")]
    #[doc(alias = "SE_INCREASE_QUOTA_NAME")]
    #[doc(alias = "SetInformationJobObject")]
    fn limit(&mut self, limit: Limit, soft: u64, hard: u64) -> &mut Command;

    /// Creates the process in a new group below this one; the whole tree can then be ended and is limited
    /// together.
    #[doc(alias = "AssignProcessToJobObject")]
    #[doc(alias = "PROC_THREAD_ATTRIBUTE_JOB_LIST")]
    fn cgroup(&mut self, cgroup: Cgroup) -> &mut Command;

    /// Keeps the process and its descendants from gaining privileges by executing anything (`sudo` does not
    /// work in it).
    #[doc(alias = "PR_SET_NO_NEW_PRIVS")]
    fn no_new_privs(&mut self, no_new_privs: bool) -> &mut Command;

    /// Grants capabilities that the token does not have, out of the server's own, as ambient ones.
    ///
    /// They reach every program that the process executes, but for set-user-id ones.
    #[doc(alias = "AdjustTokenPrivileges")]
    fn ambient_capabilities(&mut self, capabilities: CapabilitySet) -> &mut Command;

    /// Lets a program on a [terminal](Command::pty) be stopped from it (Ctrl-Z), and continued.
    ///
    /// The kernel ignores Ctrl-Z in a process whose parent is in another session, as the server is (setpgid(2),
    /// "orphaned"). With this the process of the [`Child`] is the program's parent, a tiny program of this library with
    /// the token's context: it passes signals on to the program's group, and ends as the program ends. While the
    /// program is stopped its process group is the one in front of the terminal (`tcgetpgrp` of the
    /// [`Pty`](crate::Pty) is [`Child::id`]), and it is stopped itself; [`Signal::CONT`] lets both go on.
    ///
    /// A program of which a standard stream leads elsewhere begins behind its terminal, as one of a shell's pipeline that
    /// leaves the keys to the others: it is put in front when it first reads the terminal, or sets its modes. Until then,
    /// too, the group in front is [`Child::id`].
    ///
    /// Without a terminal it says nothing.
    #[doc(alias = "SIGTSTP")]
    fn job_control(&mut self, job_control: bool) -> &mut Command;

    /// The security label under which the program runs, in place of the logon session's.
    #[doc(alias = "setexeccon")]
    #[doc(alias = "aa_change_onexec")]
    fn exec_label(&mut self, label: impl AsRef<[u8]>) -> &mut Command;
}

impl CommandExt for Command {
    fn pinned(program: OwnedFd) -> Command {
        Command::with(Program::Pinned(program))
    }

    fn arg0(&mut self, arg0: impl AsRef<OsStr>) -> &mut Command {
        self.native.arg0 = Some(arg0.as_ref().to_owned());
        self
    }

    fn fd(&mut self, descriptor: OwnedFd, number: u32) -> &mut Command {
        self.native.descriptors.push((descriptor, number));
        self
    }

    fn umask(&mut self, mask: u32) -> &mut Command {
        self.native.umask = Some(mask);
        self
    }

    fn nice(&mut self, nice: i32) -> &mut Command {
        self.native.nice = Some(nice);
        self
    }

    fn oom_score_adj(&mut self, score: i32) -> &mut Command {
        self.native.oom_score_adj = Some(score);
        self
    }

    fn limit(&mut self, limit: Limit, soft: u64, hard: u64) -> &mut Command {
        self.native.limits.push((limit, soft, hard));
        self
    }

    fn cgroup(&mut self, cgroup: Cgroup) -> &mut Command {
        self.native.cgroup = Some(cgroup);
        self
    }

    fn no_new_privs(&mut self, no_new_privs: bool) -> &mut Command {
        self.native.no_new_privs = no_new_privs;
        self
    }

    fn ambient_capabilities(&mut self, capabilities: CapabilitySet) -> &mut Command {
        self.native.ambient = capabilities;
        self
    }

    fn job_control(&mut self, job_control: bool) -> &mut Command {
        self.native.job_control = job_control;
        self
    }

    fn exec_label(&mut self, label: impl AsRef<[u8]>) -> &mut Command {
        self.native.exec_label = Some(label.as_ref().to_owned());
        self
    }
}

/// What only Linux has of a [`Child`].
///
/// The process's pidfd is the child itself, by [`AsFd`](std::os::fd::AsFd).
///
/// ```no_run
/// # fn example(token: stead::Token<stead::Primary>) -> stead::Result<()> {
/// use std::time::Duration;
/// use stead::os::linux::{ChildExt, Signal};
/// let mut child = stead::Command::new("notebook").spawn_as(&token)?;
/// child.signal(Signal::TERM)?;
/// if child.wait_timeout(Duration::from_secs(10))?.is_none() {
///     child.kill_tree()?;
/// }
/// # Ok(()) }
/// ```
pub trait ChildExt: sealed::Sealed {
    /// Sends a signal to the process, by its pidfd: never to another that got its number.
    ///
    /// Nothing happens when it has ended.
    ///
    /// # Errors
    /// `PrivilegeMissing` when the server may not signal a process of the client: that takes CAP_KILL.
    #[doc(alias = "kill")]
    #[doc(alias = "pidfd_send_signal")]
    #[doc(alias = "GenerateConsoleCtrlEvent")]
    fn signal(&self, signal: Signal) -> crate::Result<()>;

    /// Sends a signal to the process and its process group, as a terminal does: the process leads a group of its
    /// own, in which what it starts is too, unless it is a shell that makes groups.
    ///
    /// A group that lies alone in its session ignores SIGTSTP, SIGTTIN and SIGTTOU: to stop it, send
    /// [`Signal::STOP`].
    ///
    /// # Errors
    /// `PrivilegeMissing` when the server may not signal a process of the client: that takes CAP_KILL.
    #[doc(alias = "killpg")]
    #[doc(alias = "GenerateConsoleCtrlEvent")]
    fn signal_group(&self, signal: Signal) -> crate::Result<()>;

    /// Whether the process has ended; for who polls its pidfd. It neither waits nor takes the status.
    ///
    /// By ptrace a client can see to it that the pidfd stays silent after the end, and that the status cannot be had: while
    /// a thread that has ended is traced, and its tracer has not waited for it.
    fn has_ended(&self) -> bool;
}

impl ChildExt for Child {
    fn signal(&self, signal: Signal) -> crate::Result<()> {
        crate::sys::process::send_signal(&self.running, signal.as_raw())
    }

    fn signal_group(&self, signal: Signal) -> crate::Result<()> {
        crate::sys::process::send_signal_to_group(&self.running, signal.as_raw())
    }

    fn has_ended(&self) -> bool {
        self.running.has_ended()
    }
}

impl Child {
    /// A process that an earlier run of the server created, and that lives on: pinned by its pidfd.
    ///
    /// It is no child of this run, so its exit status is the kernel's to tell
    /// ([`ErrorKind::StatusLost`](crate::ErrorKind::StatusLost) before Linux 6.15), and its tree is the POSIX session
    /// that it began.
    ///
    /// # Errors
    /// `ClientChanged` when it has ended; `System` when the descriptor is no pidfd.
    ///
    /// ```no_run
    /// # fn example(pidfd: std::os::fd::OwnedFd) -> stead::Result<()> {
    /// let mut earlier = stead::Child::adopt(pidfd)?;
    /// earlier.kill_tree()?;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "OpenProcess")]
    pub fn adopt(pidfd: OwnedFd) -> crate::Result<Self> {
        Ok(Self { stdin: None, stdout: None, stderr: None, pty: None, running: Running::adopt(pidfd)? })
    }
}

/// The number of a signal.
///
/// Reference: [signal(7)](https://man7.org/linux/man-pages/man7/signal.7.html).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(NonZeroI32);

macro_rules! signals {
    ($($(#[doc = $doc:literal])* $name:ident = $number:ident;)*) => {
        impl Signal {
            $($(#[doc = $doc])* pub const $name: Self = Self(NonZeroI32::new(libc::$number).unwrap());)*
        }
    };
}

signals! {
    /// The terminal was hung up.
    HUP = SIGHUP;
    /// Interrupted from the keyboard.
    INT = SIGINT;
    /// Quit from the keyboard.
    QUIT = SIGQUIT;
    /// End at once; cannot be caught.
    KILL = SIGKILL;
    /// For the program's own use.
    USR1 = SIGUSR1;
    /// For the program's own use.
    USR2 = SIGUSR2;
    /// Please end.
    TERM = SIGTERM;
    /// Go on after a stop.
    CONT = SIGCONT;
    /// Stop; cannot be caught.
    STOP = SIGSTOP;
    /// Stop from the keyboard.
    TSTP = SIGTSTP;
    /// The terminal has another size.
    WINCH = SIGWINCH;
}

impl Signal {
    /// The signal with this number, from 1 to 64; realtime signals have no names of their own.
    pub const fn from_raw(raw: i32) -> Option<Self> {
        match NonZeroI32::new(raw) {
            Some(number) if 0 < raw && raw <= 64 => Some(Self(number)),
            _ => None,
        }
    }

    /// The number.
    pub const fn as_raw(self) -> i32 {
        self.0.get()
    }
}

/// Keeps the low numbers of the process's descriptor table (below 64) for itself: for a server that takes descriptors from
/// its clients, called before it does.
///
/// The child that becomes a client's process starts with a copy of the low end of the table, because copying is cheapest
/// there, and closes what it does not need when it executes. Closing can be made to wait for ever by who made the file: a
/// file system of a client's own (FUSE) that never answers. A descriptor of one client's at a low number would then hold up
/// every process that the server creates, for whomever, until the deadline. After this call none can be there: numbers that
/// are free are taken by the null device, for good, and descriptors that come later are above them.
///
/// Closing such a descriptor in the server itself can still hold the thread that does it: close what clients pass on threads
/// of which there are enough, as few for each client.
///
/// # Errors
///
/// [`ErrorKind::SpawnFailed`](crate::ErrorKind::SpawnFailed) where the trampoline cannot be prepared or descriptors are used
/// up.
///
/// # Examples
///
/// ```no_run
/// stead::init();
/// stead::os::linux::occupy_low_descriptors()?;
/// // .. then listen, and take what clients pass.
/// # Ok::<(), stead::Error>(())
/// ```
///
/// Reference: [`close_range(2)`](https://man7.org/linux/man-pages/man2/close_range.2.html), `CLOSE_RANGE_UNSHARE`.
pub fn occupy_low_descriptors() -> crate::Result<()> {
    crate::sys::process::occupy_low_descriptors()
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::process::Command {}
    impl Sealed for crate::process::Child {}
}
