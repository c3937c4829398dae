//! What the trampoline shall do, as the server writes it.

use std::ffi::{CStr, CString};

use crate::wire::{self, Arguments, Header, View, flag};

/// What the trampoline shall do before it executes the client's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The report pipe's number in the child; at least 3.
    pub report: u32,
    /// Suspended start: after the switch `Ready` is reported, and one byte is awaited here before the
    /// program is executed; end of file ends the process.
    pub gate: Option<u32>,
    /// Descriptors that reach the program besides 0, 1 and 2; all others are closed before the ids change.
    pub keep: Vec<u32>,
    /// The session that the process gets.
    pub session: NewSession,
    /// What of the process the token does not say.
    pub defaults: ProcessDefaults,
    /// The file mode mask; without it 022 with fixed defaults, else left as it is.
    pub umask: Option<u32>,
    /// The nice value; without it 0 with fixed defaults, else left as it is.
    pub nice: Option<i32>,
    /// The out-of-memory score adjustment; without it 0 with fixed defaults, else left as it is.
    pub oom_score_adj: Option<i32>,
    /// Limits (`RLIMIT_*`, soft, hard), set before the switch.
    pub limits: Vec<(u32, u64, u64)>,
    /// The session keyring.
    pub keyring: Keyring,
    /// The audit system's login uid, written where it differs from what the process has.
    pub login_uid: Option<u32>,
    /// What the process becomes; without it the server's own identity (only to start a session worker).
    pub credentials: Option<Credentials>,
    /// Written to `/proc/thread-self/attr/exec` after the switch.
    pub exec_label: Option<Vec<u8>>,
    /// The directory, entered after the switch.
    pub directory: CString,
    /// The program, searched for after the switch.
    pub program: ProgramSearch,
}

/// The session that the process gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewSession {
    /// The server's: never for a client's process (CVE-2017-5226).
    None,
    /// A session of its own without a terminal.
    Setsid,
    /// A session of its own with a controlling terminal.
    SetsidWithTerminal(On),
    /// The same, with a parent in that session: the program can be stopped from the terminal, and what it stops
    /// with and ends with, the parent stops and ends with.
    SetsidSupervised {
        /// Where the terminal is.
        terminal: On,
        /// The program begins behind the terminal, and is put in front of it when it asks for it.
        behind: bool,
    },
}

/// Which standard stream a terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Descriptor 0.
    Input,
    /// Descriptor 1.
    Output,
    /// Descriptor 2.
    Error,
}

/// What of a process no token says: scheduling, processors, out-of-memory score, core filter and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessDefaults {
    /// The kernel's own defaults, whatever the server has.
    Fixed,
    /// What the session worker has, because PAM modules set it.
    Session,
}

/// The session keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyring {
    /// A new one, joined before the switch (after it the user's quota can refuse).
    JoinNew,
    /// The one of the logon session.
    Inherit,
}

/// What the process becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective and saved uid.
    pub uid: u32,
    /// Real, effective and saved gid.
    pub gid: u32,
    /// The supplementary groups; sorted, each once, when encoded.
    pub groups: Vec<u32>,
    /// Permitted capabilities.
    pub permitted: u64,
    /// Effective capabilities.
    pub effective: u64,
    /// Inheritable capabilities.
    pub inheritable: u64,
    /// Ambient capabilities.
    pub ambient: u64,
    /// The bounding set.
    pub bounding: u64,
    /// The highest capability of this kernel: that there are no more must not rest on one answer of its own.
    pub last_capability: u32,
    /// The securebits flags.
    pub securebits: u32,
    /// Whether no_new_privs is set.
    pub no_new_privs: bool,
}

/// What the server knows already of what its child inherits: each saves the trampoline the opening of a
/// file of `/proc`, the dearest of all that it does, or sixty calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The out-of-memory score adjustment is 0, and no child of the server's can have a lower one.
    pub oom_score_adj_is_zero: bool,
    /// The core filter is the kernel's default.
    pub core_filter_is_default: bool,
    /// The only signals that can be ignored, the first in the lowest bit.
    pub ignored_signals: Option<u64>,
}

/// Where the program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramSearch {
    /// Paths, absolute or relative to the directory, tried in turn as `execvpe` does.
    Candidates(Vec<CString>),
    /// A pinned descriptor; scripts are refused.
    Descriptor(u32),
}

impl Spec {
    /// The beginning of the trampoline's argument vector; the program's own arguments follow it.
    ///
    /// `keep` and the groups are written sorted, each once; a label's bytes end at the first NUL.
    pub fn encode(&self) -> Vec<CString> {
        self.encode_knowing(Known::default())
    }

    /// The same, with what is known of the child already. It is not part of the spec: it is true now.
    pub fn encode_knowing(&self, known: Known) -> Vec<CString> {
        let sorted = |numbers: &[u32]| {
            let mut numbers = numbers.to_vec();
            numbers.sort_unstable();
            numbers.dedup();
            numbers
        };
        let keep = sorted(&self.keep);
        let groups = self.credentials.as_ref().map_or_else(Vec::new, |one| sorted(&one.groups));
        let mut header = self.header(&keep, &groups);
        header.flags |= if known.oom_score_adj_is_zero { flag::OOM_IS_ZERO } else { 0 };
        header.flags |= if known.core_filter_is_default { flag::CORE_FILTER_IS_DEFAULT } else { 0 };
        header.perhaps_ignored = known.ignored_signals.unwrap_or(u64::MAX);

        let mut out = vec![wire::NAME.to_owned(), string(&header.encode()), self.directory.clone()];
        out.extend(self.exec_label.as_deref().map(string));
        let mut pieces = |numbers: &[u8], size: usize| {
            out.extend(numbers.chunks(wire::per_piece(size) * size).map(string));
        };
        pieces(&keep.iter().flat_map(|one| wire::short(*one)).collect::<Vec<u8>>(), wire::SHORT);
        pieces(&groups.iter().flat_map(|one| wire::short(*one)).collect::<Vec<u8>>(), wire::SHORT);
        let mut limits = Vec::with_capacity(self.limits.len() * wire::LIMIT);
        for (limit, soft, hard) in &self.limits {
            limits.extend_from_slice(&wire::short(*limit));
            limits.extend_from_slice(&wire::long(*soft));
            limits.extend_from_slice(&wire::long(*hard));
        }
        pieces(&limits, wire::LIMIT);
        if let ProgramSearch::Candidates(candidates) = &self.program {
            out.extend_from_slice(candidates);
        }
        out
    }

    fn header(&self, keep: &[u32], groups: &[u32]) -> Header {
        let mut flags = 0;
        let mut set = |bit: u32, on: bool| flags |= if on { bit } else { 0 };
        set(flag::GATE, self.gate.is_some());
        set(flag::SETSID, self.session != NewSession::None);
        let (terminal, supervised, behind) = match self.session {
            NewSession::None | NewSession::Setsid => (None, false, false),
            NewSession::SetsidWithTerminal(terminal) => (Some(terminal), false, false),
            NewSession::SetsidSupervised { terminal, behind } => (Some(terminal), true, behind),
        };
        set(flag::TERMINAL, terminal.is_some());
        set(flag::ON_OUTPUT, terminal == Some(On::Output));
        set(flag::ON_ERROR, terminal == Some(On::Error));
        set(flag::SUPERVISED, supervised);
        set(flag::BEHIND, behind);
        set(flag::FIXED, self.defaults == ProcessDefaults::Fixed);
        set(flag::UMASK, self.umask.is_some());
        set(flag::NICE, self.nice.is_some());
        set(flag::OOM, self.oom_score_adj.is_some());
        set(flag::KEYRING, self.keyring == Keyring::JoinNew);
        set(flag::LOGIN_UID, self.login_uid.is_some());
        set(flag::CREDENTIALS, self.credentials.is_some());
        set(flag::NO_NEW_PRIVS, self.credentials.as_ref().is_some_and(|one| one.no_new_privs));
        set(flag::LABEL, self.exec_label.is_some());
        set(flag::DESCRIPTOR, matches!(self.program, ProgramSearch::Descriptor(_)));
        let mut header = Header {
            version: wire::VERSION,
            flags,
            report: self.report,
            gate: self.gate.unwrap_or(0),
            umask: self.umask.unwrap_or(0),
            nice: self.nice.unwrap_or(0).cast_unsigned(),
            oom_score_adj: self.oom_score_adj.unwrap_or(0).cast_unsigned(),
            login_uid: self.login_uid.unwrap_or(0),
            keep: count(keep.len()),
            groups: count(groups.len()),
            limits: count(self.limits.len()),
            ..Header::default()
        };
        match &self.program {
            ProgramSearch::Candidates(candidates) => header.candidates = count(candidates.len()),
            ProgramSearch::Descriptor(descriptor) => header.descriptor = *descriptor,
        }
        if let Some(credentials) = &self.credentials {
            header.uid = credentials.uid;
            header.gid = credentials.gid;
            header.last_capability = credentials.last_capability;
            header.securebits = credentials.securebits;
            header.permitted = credentials.permitted;
            header.effective = credentials.effective;
            header.inheritable = credentials.inheritable;
            header.ambient = credentials.ambient;
            header.bounding = credentials.bounding;
        }
        header
    }

    /// Reads a spec back from an argument vector, and says where the program's own arguments begin.
    ///
    /// `None` for anything that [`encode`](Self::encode) does not write.
    pub fn decode(arguments: &[CString]) -> Option<(Self, usize)> {
        let view = View::decode(Slices(arguments))?;
        let header = view.header;
        let has = |bit: u32| header.flags & bit != 0;
        let mut keep = Vec::new();
        view.keep.each(wire::SHORT, |numbers| numbers.u32().map(|one| keep.push(one)))?;
        let mut groups = Vec::new();
        view.groups.each(wire::SHORT, |numbers| numbers.u32().map(|one| groups.push(one)))?;
        if !(keep.is_sorted_by(|one, next| one < next) && groups.is_sorted_by(|one, next| one < next)) {
            return None;
        }
        let mut limits = Vec::new();
        view.limits.each(wire::LIMIT, |numbers| {
            limits.push((numbers.u32()?, numbers.u64()?, numbers.u64()?));
            Some(())
        })?;
        let program = if has(flag::DESCRIPTOR) {
            ProgramSearch::Descriptor(header.descriptor)
        } else {
            ProgramSearch::Candidates(arguments.get(view.candidates..view.program)?.to_vec())
        };
        let terminal = match (has(flag::ON_OUTPUT), has(flag::ON_ERROR)) {
            (_, true) => On::Error,
            (true, false) => On::Output,
            (false, false) => On::Input,
        };
        let spec = Self {
            report: header.report,
            gate: has(flag::GATE).then_some(header.gate),
            keep,
            session: match (has(flag::SETSID), has(flag::TERMINAL), has(flag::SUPERVISED)) {
                (false, ..) => NewSession::None,
                (true, false, _) => NewSession::Setsid,
                (true, true, false) => NewSession::SetsidWithTerminal(terminal),
                (true, true, true) => NewSession::SetsidSupervised { terminal, behind: has(flag::BEHIND) },
            },
            defaults: if has(flag::FIXED) { ProcessDefaults::Fixed } else { ProcessDefaults::Session },
            umask: has(flag::UMASK).then_some(header.umask),
            nice: has(flag::NICE).then_some(header.nice.cast_signed()),
            oom_score_adj: has(flag::OOM).then_some(header.oom_score_adj.cast_signed()),
            limits,
            keyring: if has(flag::KEYRING) { Keyring::JoinNew } else { Keyring::Inherit },
            login_uid: has(flag::LOGIN_UID).then_some(header.login_uid),
            credentials: has(flag::CREDENTIALS).then_some(Credentials {
                uid: header.uid,
                gid: header.gid,
                groups,
                permitted: header.permitted,
                effective: header.effective,
                inheritable: header.inheritable,
                ambient: header.ambient,
                bounding: header.bounding,
                last_capability: header.last_capability,
                securebits: header.securebits,
                no_new_privs: has(flag::NO_NEW_PRIVS),
            }),
            exec_label: view.label.map(<[u8]>::to_vec),
            directory: string(view.directory),
            program,
        };
        Some((spec, view.program))
    }
}

/// Owned arguments, as the decoder reads them.
#[derive(Clone, Copy)]
struct Slices<'a>(&'a [CString]);

impl<'a> Arguments<'a> for Slices<'a> {
    fn get(self, index: usize) -> Option<&'a [u8]> {
        self.0.get(index).map(CString::as_bytes)
    }

    fn count(self) -> usize {
        self.0.len()
    }
}

/// Up to the first NUL, which only a label could hold.
fn string(bytes: &[u8]) -> CString {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let mut terminated = bytes[..end].to_vec();
    terminated.push(0);
    CStr::from_bytes_with_nul(&terminated).expect("one NUL, at the end").to_owned()
}

/// More than four thousand million entries fit in no argument vector.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
