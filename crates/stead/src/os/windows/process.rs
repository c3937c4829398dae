//! What only Windows has of commands and processes.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::windows::io::OwnedHandle;
use std::process::ExitStatus;

use windows_sys::Win32::System::Threading::{
    ABOVE_NORMAL_PRIORITY_CLASS, BELOW_NORMAL_PRIORITY_CLASS, HIGH_PRIORITY_CLASS, IDLE_PRIORITY_CLASS,
    NORMAL_PRIORITY_CLASS,
};

use crate::process::{Child, Command};
use crate::sys::process::{Console, JobLimits, PriorityClass};

/// How often a process gets its turn; [`Normal`](Self::Normal) unless said otherwise, whatever the server has.
///
/// Reference: [Scheduling Priorities](https://learn.microsoft.com/windows/win32/procthread/scheduling-priorities).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "SetPriorityClass")]
#[non_exhaustive]
pub enum Priority {
    /// When nothing else runs.
    Idle,
    /// Below normal.
    BelowNormal,
    /// As most.
    Normal,
    /// Above normal.
    AboveNormal,
    /// Before nearly all others.
    High,
}

/// What only Windows has of a [`Command`].
///
/// ```no_run
/// # fn example(token: stead::Token<stead::Primary>) -> stead::Result<()> {
/// use stead::Command;
/// use stead::os::windows::{CommandExt, Priority};
/// let child = Command::new("render").priority(Priority::BelowNormal).kill_on_close(true).spawn_as(&token)?;
/// # Ok(()) }
/// ```
pub trait CommandExt: sealed::Sealed {
    /// What stands at the end of the command line, as it is, after the arguments.
    ///
    /// For programs that do not read their command line as others do, `cmd.exe` among them. Nothing in it may
    /// come from a client: no quoting is done.
    fn raw_tail(&mut self, tail: impl AsRef<OsStr>) -> &mut Command;

    /// The priority class.
    #[doc(alias = "SetPriorityClass")]
    fn priority(&mut self, priority: Priority) -> &mut Command;

    /// What the process and its descendants may use.
    #[doc(alias = "SetInformationJobObject")]
    fn job_limits(&mut self, limits: JobLimits) -> &mut Command;

    /// Ends the whole tree when the [`Child`] is dropped, and when the server ends.
    #[doc(alias = "JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE")]
    fn kill_on_close(&mut self, kill: bool) -> &mut Command;

    /// Which console the process has: one without a window unless said otherwise, and never the server's.
    #[doc(alias = "CREATE_NEW_CONSOLE")]
    #[doc(alias = "CREATE_NO_WINDOW")]
    fn console(&mut self, console: Console) -> &mut Command;

    /// Loads the profile of the token's user before the process's environment is made, and unloads it when the last
    /// process of its tree has ended.
    ///
    /// It takes SeBackupPrivilege and SeRestorePrivilege. Without it a user who is not logged on has a part of the
    /// registry that is not there, and an environment without what that says.
    #[doc(alias = "LoadUserProfile")]
    #[doc(alias = "LOGON_WITH_PROFILE")]
    fn load_profile(&mut self, load: bool) -> &mut Command;

    /// Lets the program be a batch file, which cmd.exe then runs.
    ///
    /// No argument can be quoted for one ([CVE-2024-24576](https://nvd.nist.gov/vuln/detail/CVE-2024-24576)): what
    /// comes after its name is the [raw tail](Self::raw_tail), as it is, and [`arg`](Command::arg) is refused.
    fn allow_batch_file(&mut self, allow: bool) -> &mut Command;

    /// Gives the process one more handle. Its value there is not its value here: say it to the program by
    /// other means.
    #[doc(alias = "PROC_THREAD_ATTRIBUTE_HANDLE_LIST")]
    fn handle(&mut self, handle: OwnedHandle) -> &mut Command;
}

impl CommandExt for Command {
    fn raw_tail(&mut self, tail: impl AsRef<OsStr>) -> &mut Command {
        self.native.raw_tail = Some(tail.as_ref().to_owned());
        self
    }

    fn priority(&mut self, priority: Priority) -> &mut Command {
        self.native.priority = PriorityClass(match priority {
            Priority::Idle => IDLE_PRIORITY_CLASS,
            Priority::BelowNormal => BELOW_NORMAL_PRIORITY_CLASS,
            Priority::Normal => NORMAL_PRIORITY_CLASS,
            Priority::AboveNormal => ABOVE_NORMAL_PRIORITY_CLASS,
            Priority::High => HIGH_PRIORITY_CLASS,
        });
        self
    }

    fn job_limits(&mut self, limits: JobLimits) -> &mut Command {
        self.native.limits = limits;
        self
    }

    fn kill_on_close(&mut self, kill: bool) -> &mut Command {
        self.native.kill_on_close = kill;
        self
    }

    fn console(&mut self, console: Console) -> &mut Command {
        self.native.console = console;
        self
    }

    fn load_profile(&mut self, load: bool) -> &mut Command {
        self.native.profile = load;
        self
    }

    fn allow_batch_file(&mut self, allow: bool) -> &mut Command {
        self.native.batch = allow;
        self
    }

    fn handle(&mut self, handle: OwnedHandle) -> &mut Command {
        self.native.handles.push(handle);
        self
    }
}

/// What only Windows has of a [`Child`].
///
/// The process's handle is the child itself, by [`AsHandle`](std::os::windows::io::AsHandle).
pub trait ChildExt: sealed::Sealed {
    /// How many processes of its tree there are now.
    ///
    /// # Errors
    ///
    /// `System` where the job does not tell.
    #[doc(alias = "JOBOBJECT_BASIC_ACCOUNTING_INFORMATION")]
    fn processes(&self) -> crate::Result<u32>;

    /// Why a program ended so early, where its exit code says it: 0xC0000142 above all, of a process that may not
    /// use its window station or desktop.
    #[doc(alias = "STATUS_DLL_INIT_FAILED")]
    fn explain(status: ExitStatus) -> Option<&'static str>;
}

impl ChildExt for Child {
    fn processes(&self) -> crate::Result<u32> {
        self.running.processes()
    }

    fn explain(status: ExitStatus) -> Option<&'static str> {
        crate::sys::process::explain(status)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::process::Command {}
    impl Sealed for crate::process::Child {}
}
