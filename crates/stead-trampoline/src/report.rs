//! What the trampoline says on its report pipe: one record at most for each of "ready", "now" and "failed".
//!
//! The pipe is close-on-exec. End of file after [`Step::Executing`] means that the program runs; end of
//! file without it means that the process was ended on the way.

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// One step of the child or of the trampoline, in the order in which they happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Step {
            $($(#[$doc])* $name = $number,)*
        }

        impl Step {
            /// Every step, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The step with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

steps! {
    /// The child: leaving the server's descriptor table, and placing what it is given.
    Place = 1,
    /// The child of a server that is not uid 0: handing its capabilities to the trampoline.
    Raise = 2,
    /// The child: executing the trampoline.
    Trampoline = 3,
    /// Reading the spec.
    Arguments = 10,
    /// Closing everything that is not kept.
    Descriptors = 11,
    /// A session of its own.
    Session = 12,
    /// The controlling terminal.
    Terminal = 13,
    /// The fixed process defaults; `detail` is a [`Default`](crate::report::default).
    Defaults = 14,
    /// The nice value.
    Nice = 15,
    /// The out-of-memory score adjustment.
    OomScore = 16,
    /// A limit; `detail` is its number.
    Limits = 17,
    /// The session keyring.
    Keyring = 18,
    /// The login uid.
    LoginUid = 19,
    /// Keeping the client's processes out of this one.
    Shield = 37,
    /// The bounding set; `detail` is the capability.
    BoundingSet = 20,
    /// The securebits.
    SecureBits = 21,
    /// The supplementary groups.
    Groups = 22,
    /// The gid.
    GroupId = 23,
    /// The uid.
    UserId = 24,
    /// The capability sets.
    Capabilities = 25,
    /// The ambient set; `detail` is the capability.
    Ambient = 26,
    /// no_new_privs.
    NoNewPrivileges = 27,
    /// Reading everything back; `detail` is a [`part`].
    ReadBack = 28,
    /// Trying to regain what was given up: it must fail; `detail` is a [`part`].
    Regain = 29,
    /// The label of the program to come.
    ExecLabel = 30,
    /// Entering the directory.
    Directory = 31,
    /// Signal dispositions and mask.
    Signals = 32,
    /// Not a failure: suspended and waiting at the gate.
    Ready = 33,
    /// The gate was closed without a byte.
    Gate = 34,
    /// Giving the program a parent in its session.
    Supervise = 38,
    /// Not a failure: the program is executed now.
    Executing = 35,
    /// Executing the program; `detail` is a [`why`].
    Execute = 36,
}

/// Details of [`Step::ReadBack`] and [`Step::Regain`].
pub mod part {
    /// The uids.
    pub const USER_ID: u32 = 1;
    /// The gids.
    pub const GROUP_ID: u32 = 2;
    /// The supplementary groups.
    pub const GROUPS: u32 = 3;
    /// The permitted, effective or inheritable capabilities.
    pub const CAPABILITIES: u32 = 4;
    /// The ambient set.
    pub const AMBIENT: u32 = 5;
    /// The bounding set.
    pub const BOUNDING_SET: u32 = 6;
    /// The securebits.
    pub const SECUREBITS: u32 = 7;
    /// no_new_privs.
    pub const NO_NEW_PRIVS: u32 = 8;
}

/// Details of [`Step::Defaults`].
pub mod default {
    /// Scheduling policy and nice value.
    pub const SCHEDULING: u32 = 1;
    /// The processors.
    pub const AFFINITY: u32 = 2;
    /// The priority of input and output.
    pub const IO_PRIORITY: u32 = 3;
    /// The out-of-memory score adjustment.
    pub const OOM_SCORE: u32 = 4;
    /// What a core dump holds.
    pub const CORE_FILTER: u32 = 5;
    /// The timer slack.
    pub const TIMER_SLACK: u32 = 6;
    /// The execution domain.
    pub const PERSONALITY: u32 = 7;
    /// Transparent huge pages.
    pub const HUGE_PAGES: u32 = 8;
    /// The NUMA memory policy.
    pub const MEMORY_POLICY: u32 = 9;
    /// Memory shared with whoever has the same (KSM).
    pub const MERGED_MEMORY: u32 = 10;
    /// What memory that fails does to the process.
    pub const MACHINE_CHECKS: u32 = 11;
    /// Reserves of memory for who writes.
    pub const IO_FLUSHER: u32 = 12;
    /// With whom it shares a core.
    pub const CORE_COOKIE: u32 = 13;
    /// Input and output ports.
    pub const PORTS: u32 = 14;
}

/// Details of [`Step::Executing`].
pub mod executing {
    /// It was seen that no process of this server's can have an out-of-memory score below 0.
    pub const LEAST_SCORE_IS_ZERO: u32 = 1;
}

/// Details of [`Step::Execute`]: why the program could not be executed, found out as the client.
pub mod why {
    /// Nothing more is known than errno.
    pub const UNKNOWN: u32 = 0;
    /// It is nowhere.
    pub const NOT_FOUND: u32 = 1;
    /// It is a directory.
    pub const DIRECTORY: u32 = 2;
    /// It is no regular file.
    pub const NOT_REGULAR: u32 = 3;
    /// It may not be executed, or a directory on the way may not be searched.
    pub const NOT_PERMITTED: u32 = 4;
    /// The interpreter that it names is missing.
    pub const INTERPRETER_MISSING: u32 = 5;
    /// The interpreter that it names cannot be executed.
    pub const INTERPRETER_DENIED: u32 = 6;
    /// The kernel does not know its format.
    pub const BAD_FORMAT: u32 = 7;
    /// It is open for writing.
    pub const BUSY: u32 = 8;
    /// Arguments and environment are too large.
    pub const TOO_LONG: u32 = 9;
    /// The user has as many processes as RLIMIT_NPROC allows.
    pub const PROCESS_LIMIT: u32 = 10;
    /// A script cannot be pinned.
    pub const PINNED_SCRIPT: u32 = 11;
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The step.
    pub step: Step,
    /// What the system said; 0 where it said nothing.
    pub errno: i32,
    /// What more is known; its meaning depends on the step.
    pub detail: u32,
}

impl Report {
    /// Bytes of a record, far below what a pipe writes in one piece (`PIPE_BUF`).
    pub const SIZE: usize = 12;

    /// The record as it travels.
    pub fn encode(self) -> [u8; Self::SIZE] {
        let [e0, e1, e2, e3] = self.errno.to_ne_bytes();
        let [d0, d1, d2, d3] = self.detail.to_ne_bytes();
        [self.step as u8, 0, 0, 0, e0, e1, e2, e3, d0, d1, d2, d3]
    }

    /// Reads a record; `None` for anything that [`encode`](Self::encode) does not write.
    pub fn decode(bytes: [u8; Self::SIZE]) -> Option<Self> {
        let [step, 0, 0, 0, e0, e1, e2, e3, d0, d1, d2, d3] = bytes else { return None };
        Some(Self {
            step: Step::from_number(step)?,
            errno: i32::from_ne_bytes([e0, e1, e2, e3]),
            detail: u32::from_ne_bytes([d0, d1, d2, d3]),
        })
    }
}
