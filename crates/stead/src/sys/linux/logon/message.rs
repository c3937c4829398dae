//! What the server and a session worker say to each other.
#![forbid(unsafe_code)]

use std::ffi::CString;

use zeroize::Zeroizing;

use super::wire::{Reader, Writer};
use crate::sys::account::AccountEntry;
use crate::sys::token::{
    CapabilitySet, CapabilitySets, Gid, GroupSet, Label, LoginUid, SecureBits, SecurityContext, Uid,
};

/// Bytes that are wiped.
pub(super) type SecretBytes = Zeroizing<Vec<u8>>;

/// From the server.
pub(super) enum Request {
    /// Log on; with the server's pidfd.
    Open(Box<Open>),
    /// The answer to a prompt; none refuses it.
    Answer(Option<SecretBytes>),
    /// Create a process; with its descriptors, then its cgroup, then who watches its tree.
    Launch(LaunchRequest),
    /// Whether the process has ended, and how.
    ExitStatus(u32),
    /// Kill the process and what descends from it.
    KillTree(u32),
    /// Nobody will ask for the process's status.
    Forget(u32),
    /// Which processes the session has.
    Processes,
    /// Kill every process of the session.
    Terminate,
    /// The last token, child and session handle are gone.
    Release,
    /// A new server takes over a detached session.
    Attach,
    /// Start PAM with this service; somebody will log on by it.
    Prepare(CString),
    /// Whether what was prepared is what would be found now; nothing is said of who logs on before that.
    Check,
}

/// How an account is to be logged on.
// Not Debug: it holds the secret, and the tests alone compare it.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(super) struct Open {
    pub(super) id: u64,
    pub(super) service: CString,
    pub(super) user: CString,
    /// Whether NSS must know the account under exactly this name.
    pub(super) exact_name: bool,
    pub(super) authenticate: bool,
    /// Whether an account may log on whose password is empty.
    pub(super) empty_password: bool,
    /// Answers the first prompt without echo.
    pub(super) secret: Option<SecretBytes>,
    /// Whether somebody answers what the secret does not.
    pub(super) conversation: bool,
    pub(super) tty: Option<CString>,
    pub(super) remote_host: Option<CString>,
    pub(super) remote_user: Option<CString>,
    /// `NAME=value`, given to PAM.
    pub(super) environment: Vec<CString>,
    pub(super) logon_gid: Option<LogonGidRequest>,
    /// Where a detached session listens; none is tied to its server.
    pub(super) socket: Option<CString>,
}

/// Where a logon gid comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogonGidRequest {
    pub(super) directory: CString,
    pub(super) first: u32,
    pub(super) last: u32,
}

/// A process to be created, as the trampoline and the program will see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LaunchRequest {
    pub(super) spec: Vec<CString>,
    pub(super) argv: Vec<CString>,
    pub(super) envp: Vec<CString>,
    /// The number of each descriptor in the process.
    pub(super) targets: Vec<u32>,
    pub(super) cgroup: bool,
    /// Whether a descriptor comes with it that is closed when the process's tree has ended.
    pub(super) watched: bool,
}

/// From the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// A module asks.
    Prompt { echo: bool, text: Vec<u8> },
    /// A module tells.
    Inform { error: bool, text: Vec<u8> },
    /// Logged on; or attached.
    Opened(Box<Snapshot>),
    /// Not logged on; the worker is gone after this.
    Failed(Failure),
    /// What was prepared is not what would be found now. The worker is gone after this.
    Stale,
    /// The process was created; with its pidfd.
    Launched { id: u32, pid: i32 },
    /// The process was not created.
    NotLaunched { step: u8, errno: i32, detail: u32 },
    /// The process's wait status, if it has ended.
    Status(Option<i32>),
    /// No such process in this session.
    Unknown,
    /// It is done.
    Done,
    /// The session's processes.
    Processes(Vec<i32>),
    /// The session has ended: what `close_session` and `setcred(DELETE)` returned.
    Ended { close: i32, delete: i32, text: String },
}

/// What a session is, once it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) id: u64,
    pub(crate) account: AccountEntry,
    pub(crate) context: SecurityContext,
    pub(crate) environment: Vec<CString>,
    pub(crate) umask: u32,
    pub(crate) exec_label: Option<Vec<u8>>,
    pub(crate) logon_gid: Option<u32>,
    pub(crate) audit_session: Option<u32>,
    /// Processes launched earlier, for who attaches.
    pub(crate) processes: Vec<(u32, i32)>,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) phase: Phase,
    pub(super) why: Why,
    /// PAM's result, or errno.
    pub(super) code: i32,
    /// PAM's text, the call, the prompt.
    pub(super) text: String,
}

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub(super) enum $name { $($(#[$variant_doc])* $variant = $number,)* }

        impl $name {
            fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

numbered! {
    /// How far a logon went.
    Phase {
        Start = 0,
        Authenticate = 1,
        Account = 2,
        ChangePassword = 3,
        Groups = 4,
        Establish = 5,
        OpenSession = 6,
        LogonGid = 7,
        Snapshot = 8,
        Listen = 9,
    }
}

numbered! {
    /// What kind of failure it is.
    Why {
        /// `code` is PAM's.
        Pam = 0,
        /// libpam cannot be loaded.
        Library = 1,
        /// NSS does not know the account.
        AccountUnknown = 2,
        /// PAM_USER became somebody else.
        OtherUser = 3,
        /// The uid or gid is none that may be taken on.
        NoIdentity = 4,
        /// A prompt that nobody could answer.
        Unanswered = 5,
        /// `code` is errno, `text` the call.
        System = 6,
        /// `text` says it.
        Stated = 7,
    }
}

impl Request {
    pub(super) fn encode(&self) -> (u8, SecretBytes) {
        let mut out = Writer::default();
        let kind = match self {
            Self::Open(open) => {
                open.write(&mut out);
                1
            }
            Self::Answer(answer) => {
                out.option(answer.as_ref(), |out, answer| out.bytes(answer));
                2
            }
            Self::Launch(launch) => {
                for strings in [&launch.spec, &launch.argv, &launch.envp] {
                    write_strings(&mut out, strings);
                }
                out.list(launch.targets.iter(), |out, target| out.u32(*target));
                out.flag(launch.cgroup);
                out.flag(launch.watched);
                3
            }
            Self::ExitStatus(id) => {
                out.u32(*id);
                4
            }
            Self::KillTree(id) => {
                out.u32(*id);
                5
            }
            Self::Forget(id) => {
                out.u32(*id);
                6
            }
            Self::Processes => 7,
            Self::Terminate => 8,
            Self::Release => 9,
            Self::Attach => 10,
            Self::Prepare(service) => {
                out.string(service);
                11
            }
            Self::Check => 12,
        };
        (kind, out.finish())
    }

    pub(super) fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        let mut from = Reader::new(body);
        let request = match kind {
            1 => Self::Open(Box::new(Open::read(&mut from)?)),
            2 => Self::Answer(from.option(|from| from.bytes().map(|bytes| Zeroizing::new(bytes.to_vec())))?),
            3 => Self::Launch(LaunchRequest {
                spec: from.list(Reader::string)?,
                argv: from.list(Reader::string)?,
                envp: from.list(Reader::string)?,
                targets: from.list(Reader::u32)?,
                cgroup: from.flag()?,
                watched: from.flag()?,
            }),
            4 => Self::ExitStatus(from.u32()?),
            5 => Self::KillTree(from.u32()?),
            6 => Self::Forget(from.u32()?),
            7 => Self::Processes,
            8 => Self::Terminate,
            9 => Self::Release,
            10 => Self::Attach,
            11 => Self::Prepare(from.string()?),
            12 => Self::Check,
            _ => return None,
        };
        from.end()?;
        Some(request)
    }
}

impl Open {
    fn write(&self, out: &mut Writer) {
        out.u64(self.id);
        out.string(&self.service);
        out.string(&self.user);
        out.flag(self.exact_name);
        out.flag(self.authenticate);
        out.flag(self.empty_password);
        out.option(self.secret.as_ref(), |out, secret| out.bytes(secret));
        out.flag(self.conversation);
        for item in [&self.tty, &self.remote_host, &self.remote_user] {
            out.option(item.as_ref(), |out, item| out.string(item));
        }
        write_strings(out, &self.environment);
        out.option(self.logon_gid.as_ref(), |out, gid| {
            out.string(&gid.directory);
            out.u32(gid.first);
            out.u32(gid.last);
        });
        out.option(self.socket.as_ref(), |out, socket| out.string(socket));
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            id: from.u64()?,
            service: from.string()?,
            user: from.string()?,
            exact_name: from.flag()?,
            authenticate: from.flag()?,
            empty_password: from.flag()?,
            secret: from.option(|from| from.bytes().map(|bytes| Zeroizing::new(bytes.to_vec())))?,
            conversation: from.flag()?,
            tty: from.option(Reader::string)?,
            remote_host: from.option(Reader::string)?,
            remote_user: from.option(Reader::string)?,
            environment: from.list(Reader::string)?,
            logon_gid: from.option(|from| {
                Some(LogonGidRequest { directory: from.string()?, first: from.u32()?, last: from.u32()? })
            })?,
            socket: from.option(Reader::string)?,
        })
    }
}

impl Reply {
    pub(super) fn encode(&self) -> (u8, SecretBytes) {
        let mut out = Writer::default();
        let kind = match self {
            Self::Prompt { echo, text } => {
                out.flag(*echo);
                out.bytes(text);
                1
            }
            Self::Inform { error, text } => {
                out.flag(*error);
                out.bytes(text);
                2
            }
            Self::Opened(snapshot) => {
                snapshot.write(&mut out);
                3
            }
            Self::Failed(failure) => {
                out.byte(failure.phase as u8);
                out.byte(failure.why as u8);
                out.i32(failure.code);
                out.bytes(failure.text.as_bytes());
                4
            }
            Self::Launched { id, pid } => {
                out.u32(*id);
                out.i32(*pid);
                5
            }
            Self::NotLaunched { step, errno, detail } => {
                out.byte(*step);
                out.i32(*errno);
                out.u32(*detail);
                6
            }
            Self::Status(status) => {
                out.option(*status, Writer::i32);
                7
            }
            Self::Unknown => 8,
            Self::Done => 9,
            Self::Processes(pids) => {
                out.list(pids.iter(), |out, pid| out.i32(*pid));
                10
            }
            Self::Ended { close, delete, text } => {
                out.i32(*close);
                out.i32(*delete);
                out.bytes(text.as_bytes());
                11
            }
            Self::Stale => 12,
        };
        (kind, out.finish())
    }

    pub(super) fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        let mut from = Reader::new(body);
        let reply = match kind {
            1 => Self::Prompt { echo: from.flag()?, text: from.bytes()?.to_vec() },
            2 => Self::Inform { error: from.flag()?, text: from.bytes()?.to_vec() },
            3 => Self::Opened(Box::new(Snapshot::read(&mut from)?)),
            4 => Self::Failed(Failure {
                phase: Phase::from_number(from.byte()?)?,
                why: Why::from_number(from.byte()?)?,
                code: from.i32()?,
                text: text(from.bytes()?),
            }),
            5 => Self::Launched { id: from.u32()?, pid: from.i32()? },
            6 => Self::NotLaunched { step: from.byte()?, errno: from.i32()?, detail: from.u32()? },
            7 => Self::Status(from.option(Reader::i32)?),
            8 => Self::Unknown,
            9 => Self::Done,
            10 => Self::Processes(from.list(Reader::i32)?),
            11 => Self::Ended { close: from.i32()?, delete: from.i32()?, text: text(from.bytes()?) },
            12 => Self::Stale,
            _ => return None,
        };
        from.end()?;
        Some(reply)
    }
}

impl Snapshot {
    fn write(&self, out: &mut Writer) {
        out.u64(self.id);
        let account = &self.account;
        out.string(&account.name);
        out.u32(account.uid.as_raw());
        out.u32(account.gid.as_raw());
        out.string(&account.home);
        out.string(&account.shell);
        write_context(out, &self.context);
        write_strings(out, &self.environment);
        out.u32(self.umask);
        out.option(self.exec_label.as_ref(), |out, label| out.bytes(label));
        out.option(self.logon_gid, Writer::u32);
        out.option(self.audit_session, Writer::u32);
        out.list(self.processes.iter(), |out, (id, pid)| {
            out.u32(*id);
            out.i32(*pid);
        });
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            id: from.u64()?,
            account: AccountEntry {
                name: from.string()?,
                uid: Uid::new(from.u32()?)?,
                gid: Gid::new(from.u32()?)?,
                home: from.string()?,
                shell: from.string()?,
            },
            context: read_context(from)?,
            environment: from.list(Reader::string)?,
            umask: from.u32()?,
            exec_label: from.option(|from| from.bytes().map(<[u8]>::to_vec))?,
            logon_gid: from.option(Reader::u32)?,
            audit_session: from.option(Reader::u32)?,
            processes: from.list(|from| Some((from.u32()?, from.i32()?)))?,
        })
    }
}

fn write_context(out: &mut Writer, context: &SecurityContext) {
    out.u32(context.uid.as_raw());
    out.u32(context.gid.as_raw());
    out.list(context.groups.as_slice().iter(), |out, gid| out.u32(gid.as_raw()));
    let sets = &context.capabilities;
    for set in [sets.permitted, sets.effective, sets.inheritable, sets.ambient, sets.bounding] {
        out.u64(set.bits());
    }
    out.u32(context.securebits.0);
    out.flag(context.no_new_privs);
    out.option(context.label.as_ref(), |out, label| out.bytes(label.as_bytes()));
    match context.login_uid {
        LoginUid::Unsupported => out.byte(0),
        LoginUid::Unset => out.byte(1),
        LoginUid::Set(uid) => {
            out.byte(2);
            out.u32(uid.as_raw());
        }
    }
}

fn read_context(from: &mut Reader<'_>) -> Option<SecurityContext> {
    let set = |from: &mut Reader<'_>| from.u64().map(CapabilitySet::from_bits);
    Some(SecurityContext {
        uid: Uid::new(from.u32()?)?,
        gid: Gid::new(from.u32()?)?,
        groups: from.list(|from| Gid::new(from.u32()?))?.into_iter().collect::<GroupSet>(),
        capabilities: CapabilitySets {
            permitted: set(from)?,
            effective: set(from)?,
            inheritable: set(from)?,
            ambient: set(from)?,
            bounding: set(from)?,
        },
        securebits: SecureBits(from.u32()?),
        no_new_privs: from.flag()?,
        label: from.option(|from| from.bytes().map(|bytes| Label(bytes.into())))?,
        login_uid: match from.byte()? {
            0 => LoginUid::Unsupported,
            1 => LoginUid::Unset,
            2 => LoginUid::Set(Uid::new(from.u32()?)?),
            _ => return None,
        },
    })
}

fn write_strings(out: &mut Writer, strings: &[CString]) {
    out.list(strings.iter(), |out, string| out.string(string));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
