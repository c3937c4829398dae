//! The limits of a process.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit};

macro_rules! limits {
    ($($(#[doc = $doc:literal])* $name:ident = $number:ident, $alias:literal, $resource:ident, $shown:literal;)*) => {
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

            /// Its name in `/proc/PID/limits`.
            fn shown(self) -> &'static str {
                match self { $(Self::$name => $shown,)* }
            }

            const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

limits! {
    /// Seconds of processor time.
    CpuTime = RLIMIT_CPU, "RLIMIT_CPU", Cpu, "Max cpu time";
    /// Bytes in a file that the process writes.
    FileSize = RLIMIT_FSIZE, "RLIMIT_FSIZE", Fsize, "Max file size";
    /// Bytes of the data segment.
    Data = RLIMIT_DATA, "RLIMIT_DATA", Data, "Max data size";
    /// Bytes of the main thread's stack; also bounds arguments and environment.
    Stack = RLIMIT_STACK, "RLIMIT_STACK", Stack, "Max stack size";
    /// Bytes in a core file.
    Core = RLIMIT_CORE, "RLIMIT_CORE", Core, "Max core file size";
    /// Bytes of resident memory; without effect on present kernels.
    ResidentSet = RLIMIT_RSS, "RLIMIT_RSS", Rss, "Max resident set";
    /// Processes and threads of the user, on the whole machine.
    Processes = RLIMIT_NPROC, "RLIMIT_NPROC", Nproc, "Max processes";
    /// One more than the highest descriptor.
    OpenFiles = RLIMIT_NOFILE, "RLIMIT_NOFILE", Nofile, "Max open files";
    /// Bytes locked in memory.
    LockedMemory = RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", Memlock, "Max locked memory";
    /// Bytes of address space.
    AddressSpace = RLIMIT_AS, "RLIMIT_AS", As, "Max address space";
    /// File locks; without effect on present kernels.
    Locks = RLIMIT_LOCKS, "RLIMIT_LOCKS", Locks, "Max file locks";
    /// Signals queued for the user.
    PendingSignals = RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING", Sigpending, "Max pending signals";
    /// Bytes in POSIX message queues of the user.
    MessageQueues = RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE", Msgqueue, "Max msgqueue size";
    /// 20 minus the lowest nice value that the process may give itself.
    Nice = RLIMIT_NICE, "RLIMIT_NICE", Nice, "Max nice priority";
    /// The highest realtime priority that the process may give itself.
    RealtimePriority = RLIMIT_RTPRIO, "RLIMIT_RTPRIO", Rtprio, "Max realtime priority";
    /// Microseconds of processor time under a realtime policy without a blocking call.
    RealtimeTime = RLIMIT_RTTIME, "RLIMIT_RTTIME", Rttime, "Max realtime timeout";
}

impl Limit {
    /// The value that stands for no limit at all (`RLIM_INFINITY`).
    #[doc(alias = "RLIM_INFINITY")]
    pub const UNLIMITED: u64 = u64::MAX;

    /// The server's own hard limit.
    pub(crate) fn own_hard(self) -> u64 {
        self.own().1
    }

    /// This process's own, soft and hard.
    fn own(self) -> (u64, u64) {
        let own = rustix::process::getrlimit(self.resource());
        (own.current.unwrap_or(Self::UNLIMITED), own.maximum.unwrap_or(Self::UNLIMITED))
    }
}

/// All limits of this process, soft and hard.
pub(crate) fn own_limits() -> Vec<(Limit, u64, u64)> {
    Limit::ALL.iter().map(|limit| (*limit, limit.own().0, limit.own().1)).collect()
}

/// Makes these the limits of this process again where others are lower now; gives what those are, as the kernel numbers
/// them.
///
/// What was raised stays: who lowers what it may not raise could not give it to its processes. So does what may not be
/// raised again, without CAP_SYS_RESOURCE.
pub(crate) fn take_back(before: &[(Limit, u64, u64)]) -> Vec<(u32, u64, u64)> {
    let mut others = Vec::new();
    for (limit, soft, hard) in before {
        let now = limit.own();
        let (soft, hard) = (*soft.max(&now.0), *hard.max(&now.1));
        if now == (soft, hard) {
            continue;
        }
        for (soft, hard) in [(soft, hard), (soft.min(now.1), now.1)] {
            let wanted = |value| (value != Limit::UNLIMITED).then_some(value);
            let limits = Rlimit { current: wanted(soft), maximum: wanted(hard) };
            if rustix::process::setrlimit(limit.resource(), limits).is_ok() {
                break;
            }
        }
        others.push((limit.number(), now.0, now.1));
    }
    others
}

/// The limits of the process that a token comes from, soft and hard, where they are not the server's own.
///
/// They are compared when they are read, not for each process that is created from the token: asking for the server's
/// sixteen takes as long as a tenth of a creation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Limits(Arc<[(Limit, u64, u64)]>);

impl Limits {
    /// From `/proc/PID/limits`; `None` where that is not what the kernel writes.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let read = |limit: &Limit| {
            let line = text.lines().find_map(|line| line.strip_prefix(limit.shown()))?;
            let mut words = line.split_ascii_whitespace();
            let mut number = || match words.next()? {
                "unlimited" => Some(Limit::UNLIMITED),
                digits => digits.parse().ok(),
            };
            Some((*limit, number()?, number()?))
        };
        let all = Limit::ALL.iter().map(read).collect::<Option<Vec<_>>>()?;
        Some(Self(all.into_iter().filter(|(limit, soft, hard)| limit.own() != (*soft, *hard)).collect()))
    }

    /// What is set for a process: what was asked for, and else these, none above the server's own. More than that is
    /// for the server to ask for.
    pub(crate) fn with(&self, asked: &[(Limit, u64, u64)]) -> Vec<(u32, u64, u64)> {
        let others = self.0.iter().filter(|(limit, ..)| !asked.iter().any(|(one, ..)| one == limit));
        let bounded = others.map(|(limit, soft, hard)| {
            let most = limit.own_hard();
            (*limit, *soft.min(&most), *hard.min(&most))
        });
        asked.iter().copied().chain(bounded).map(|(limit, soft, hard)| (limit.number(), soft, hard)).collect()
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AS_THE_KERNEL_WRITES: &str = "/proc/self/limits";

    #[test]
    fn the_servers_own_limits_are_none_to_be_set() {
        let own = Limits::parse(&std::fs::read(AS_THE_KERNEL_WRITES).unwrap()).unwrap();
        assert_eq!(own, Limits::default());
    }

    #[test]
    fn what_was_raised_stays_raised_and_what_was_lowered_is_taken_back() {
        let (core, stack) = (Limit::Core, Limit::Stack);
        let set = |limit: Limit, soft, hard| {
            let limits = Rlimit { current: Some(soft), maximum: Some(hard) };
            rustix::process::setrlimit(limit.resource(), limits).unwrap();
        };
        set(core, 4096, 8192);
        set(stack, 4 << 20, 8 << 20);
        let before = [(core, 4096, 8192), (stack, 4 << 20, 8 << 20)];
        set(core, 0, 8192);
        set(stack, 6 << 20, 8 << 20);
        assert_eq!(take_back(&before), [(core.number(), 0, 8192)]);
        assert_eq!(core.own(), (4096, 8192));
        assert_eq!(stack.own(), (6 << 20, 8 << 20));
    }

    #[test]
    fn what_the_kernel_does_not_write_is_no_table_of_limits() {
        let text = std::fs::read_to_string(AS_THE_KERNEL_WRITES).unwrap();
        assert!(Limits::parse(b"").is_none());
        assert!(Limits::parse(text.replace("Max open files", "Max open").as_bytes()).is_none());
        assert!(Limits::parse(text.replace("unlimited", "much").as_bytes()).is_none());
    }

    #[test]
    fn a_clients_limits_are_its_own_and_none_above_the_servers() {
        let text = std::fs::read_to_string(AS_THE_KERNEL_WRITES).unwrap();
        let with = |name: &str, values: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            Limits::parse(text.replace(line, &format!("{name}  {values} ")).as_bytes()).unwrap()
        };
        let files = Limit::OpenFiles;
        let most = files.own_hard();
        let less = with("Max open files", "16 32");
        assert_eq!(less.with(&[]), [(files.number(), 16, 32)]);
        let more = with("Max open files", "16 unlimited");
        assert_eq!(more.with(&[]), [(files.number(), 16, most)]);
        // What the server asks for is set in its place.
        assert_eq!(less.with(&[(files, 5, 6)]), [(files.number(), 5, 6)]);
    }
}
