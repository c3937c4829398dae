//! The limits of a process.
#![forbid(unsafe_code)]

use std::fmt;

use rustix::process::Resource;

macro_rules! limits {
    ($($(#[doc = $doc:literal])* $name:ident = $number:ident, $alias:literal, $resource:ident;)*) => {
        /// A limit of a process (`RLIMIT_*`).
        ///
        /// Reference: [getrlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html).
        #[doc(alias = "setrlimit")]
        #[doc(alias = "JOBOBJECT_BASIC_LIMIT_INFORMATION")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Limit {
            $($(#[doc = $doc])* #[doc(alias = $alias)] $name,)*
        }

        impl Limit {
            /// The kernel's number of it.
            pub(crate) fn number(self) -> u32 {
                match self { $(Self::$name => libc::$number,)* }
            }

            /// Its name in the manual page.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $alias,)* }
            }

            fn resource(self) -> Resource {
                match self { $(Self::$name => Resource::$resource,)* }
            }
        }
    };
}

limits! {
    /// Seconds of processor time.
    CpuTime = RLIMIT_CPU, "RLIMIT_CPU", Cpu;
    /// Bytes in a file that the process writes.
    FileSize = RLIMIT_FSIZE, "RLIMIT_FSIZE", Fsize;
    /// Bytes of the data segment.
    Data = RLIMIT_DATA, "RLIMIT_DATA", Data;
    /// Bytes of the main thread's stack; also bounds arguments and environment.
    Stack = RLIMIT_STACK, "RLIMIT_STACK", Stack;
    /// Bytes in a core file.
    Core = RLIMIT_CORE, "RLIMIT_CORE", Core;
    /// Bytes of resident memory; without effect on present kernels.
    ResidentSet = RLIMIT_RSS, "RLIMIT_RSS", Rss;
    /// Processes and threads of the user, on the whole machine.
    Processes = RLIMIT_NPROC, "RLIMIT_NPROC", Nproc;
    /// One more than the highest descriptor.
    OpenFiles = RLIMIT_NOFILE, "RLIMIT_NOFILE", Nofile;
    /// Bytes locked in memory.
    LockedMemory = RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", Memlock;
    /// Bytes of address space.
    AddressSpace = RLIMIT_AS, "RLIMIT_AS", As;
    /// File locks; without effect on present kernels.
    Locks = RLIMIT_LOCKS, "RLIMIT_LOCKS", Locks;
    /// Signals queued for the user.
    PendingSignals = RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING", Sigpending;
    /// Bytes in POSIX message queues of the user.
    MessageQueues = RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE", Msgqueue;
    /// 20 minus the lowest nice value that the process may give itself.
    Nice = RLIMIT_NICE, "RLIMIT_NICE", Nice;
    /// The highest realtime priority that the process may give itself.
    RealtimePriority = RLIMIT_RTPRIO, "RLIMIT_RTPRIO", Rtprio;
    /// Microseconds of processor time under a realtime policy without a blocking call.
    RealtimeTime = RLIMIT_RTTIME, "RLIMIT_RTTIME", Rttime;
}

impl Limit {
    /// The value that stands for no limit at all (`RLIM_INFINITY`).
    #[doc(alias = "RLIM_INFINITY")]
    pub const UNLIMITED: u64 = u64::MAX;

    /// The server's own hard limit.
    pub(crate) fn own_hard(self) -> u64 {
        rustix::process::getrlimit(self.resource()).maximum.unwrap_or(Self::UNLIMITED)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
