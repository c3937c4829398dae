//! What can be found wrong with a command before anything is done.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet as ThreadCapabilities;

use super::kept::KeptFile;
use crate::error::{Error, ErrorKind, Result};
use crate::privilege::Privilege;
use crate::process::{Command, Program};
use crate::sys::privilege::{counting, missing_name};
use crate::sys::proc::{malformed, parse_number};
use crate::sys::token::{Capability, CapabilitySet, Gid, GroupSet, LoginUid, SecurityContext, own_label};

/// What checking a command yields.
pub(super) struct Checked {
    pub(super) argv: Vec<CString>,
    pub(super) directory: Option<CString>,
    pub(super) login_uid: Option<u32>,
    pub(super) label: Option<Vec<u8>>,
}

/// The login uid's number for "nobody logged on".
const UNSET: u32 = u32::MAX;

/// Checks everything in the command, and what the server may do.
pub(super) fn check(
    command: &Command,
    context: &SecurityContext,
    in_session: bool,
    doing: &str,
) -> Result<Checked> {
    let checker = Checker { doing };
    let (argv, directory) = check_command(command, doing)?;
    let held = Capabilities::read(doing)?;
    checker.limits(command, &held, in_session)?;
    checker.capabilities(command, context, &held)?;
    checker.switching(context, &held)?;
    let (login_uid, label) =
        if in_session { (None, None) } else { (checker.login_uid(context, &held)?, checker.label(context)?) };
    Ok(Checked { argv, directory, login_uid, label })
}

/// Checks what does not depend on who does it.
pub(super) fn check_command(command: &Command, doing: &str) -> Result<(Vec<CString>, Option<CString>)> {
    let checker = Checker { doing };
    let argv = checker.argv(command)?;
    checker.environment(command)?;
    let directory = match &command.directory {
        Some(directory) if directory.as_os_str().is_empty() => {
            return Err(checker.invalid("the directory is empty".to_owned()));
        }
        Some(directory) => Some(checker.string(directory.as_os_str(), || "the directory".to_owned())?),
        None => None,
    };
    if command.pty.is_some()
        && [&command.stdin, &command.stdout, &command.stderr].iter().all(|one| one.is_some())
    {
        return Err(checker.invalid("with a terminal one of the standard streams is the terminal".to_owned()));
    }
    checker.descriptors(command)?;
    checker.numbers(command)?;
    Ok((argv, directory))
}

/// Whether the ids and groups are the server's own already: then there is nothing to take on.
fn is_own(context: &SecurityContext) -> bool {
    use rustix::process::{getegid, geteuid, getgid, getgroups, getuid};
    let (uid, gid) = (context.uid.as_raw(), context.gid.as_raw());
    let ids = getuid().as_raw() == uid
        && geteuid().as_raw() == uid
        && [getgid().as_raw(), getegid().as_raw()] == [gid; 2];
    let groups =
        || getgroups().ok()?.into_iter().map(|gid| Gid::new(gid.as_raw())).collect::<Option<GroupSet>>();
    ids && groups().is_some_and(|groups| groups == context.groups)
}

/// What the calling thread may do.
struct Capabilities {
    permitted: ThreadCapabilities,
    effective: ThreadCapabilities,
}

impl Capabilities {
    fn read(doing: &str) -> Result<Self> {
        let sets = rustix::thread::capabilities(None)
            .map_err(|errno| Error::system(doing.to_owned(), "capget", errno))?;
        Ok(Self { permitted: sets.permitted, effective: sets.effective })
    }
}

struct Checker<'a> {
    doing: &'a str,
}

impl Checker<'_> {
    fn invalid(&self, what: String) -> Error {
        Error::new(self.doing.to_owned(), ErrorKind::InvalidInput { what: what.into() })
    }

    fn string(&self, value: &OsStr, what: impl Fn() -> String) -> Result<CString> {
        CString::new(value.as_bytes()).map_err(|_| self.invalid(format!("{} has a NUL in it", what())))
    }

    fn argv(&self, command: &Command) -> Result<Vec<CString>> {
        let program = match &command.program {
            Program::Named(name) if name.is_empty() => {
                return Err(self.invalid("the program's name is empty".to_owned()));
            }
            Program::Named(name) => self.string(name, || "the program's name".to_owned())?,
            Program::Pinned(descriptor) => pinned_name(descriptor),
        };
        let arg0 = match &command.native.arg0 {
            Some(arg0) => self.string(arg0, || "argument 0".to_owned())?,
            None => program,
        };
        let mut argv = vec![arg0];
        for (number, argument) in (1..).zip(&command.arguments) {
            argv.push(self.string(argument, || format!("argument {number}"))?);
        }
        Ok(argv)
    }

    fn environment(&self, command: &Command) -> Result<()> {
        for (name, value) in &command.environment.variables {
            let bytes = name.as_bytes();
            if bytes.is_empty() {
                return Err(self.invalid("a variable's name is empty".to_owned()));
            }
            let name = name.to_string_lossy();
            if bytes.contains(&b'=') || bytes.contains(&0) {
                return Err(self.invalid(format!("the variable name {name:?} has = or NUL in it")));
            }
            if let Some(value) = value {
                // The value may be a secret, the name is none.
                self.string(value, || format!("the value of the variable {name:?}"))?;
            }
        }
        Ok(())
    }

    fn descriptors(&self, command: &Command) -> Result<()> {
        if command.native.descriptors.is_empty() {
            return Ok(());
        }
        let mut seen = HashSet::new();
        // The trampoline needs a few numbers of its own below the limit.
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        for (_, number) in &command.native.descriptors {
            if *number < 3 {
                return Err(self.invalid(format!(
                    "descriptor {number} is a standard stream; set it with stdin, stdout or stderr"
                )));
            }
            if u64::from(*number) >= limit || i32::try_from(*number).is_err() {
                return Err(self.invalid(format!(
                    "descriptor {number} is not below the server's limit of open files ({limit})"
                )));
            }
            if !seen.insert(*number) {
                return Err(self.invalid(format!("descriptor {number} is given twice")));
            }
        }
        Ok(())
    }

    fn numbers(&self, command: &Command) -> Result<()> {
        let options = &command.native;
        if let Some(umask) = options.umask.filter(|umask| umask & !0o777 != 0) {
            return Err(self.invalid(format!("the umask {umask:#o} has bits beside the nine of permissions")));
        }
        if let Some(nice) = options.nice.filter(|nice| !(-20..=19).contains(nice)) {
            return Err(self.invalid(format!("the nice value {nice} is not from -20 to 19")));
        }
        if let Some(score) = options.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            return Err(self.invalid(format!("the out-of-memory score {score} is not from -1000 to 1000")));
        }
        if options.exec_label.as_ref().is_some_and(|label| label.is_empty() || label.contains(&0)) {
            return Err(self.invalid("the security label is empty or has a NUL in it".to_owned()));
        }
        let mut seen = HashSet::new();
        for (limit, soft, hard) in &options.limits {
            if soft > hard {
                return Err(
                    self.invalid(format!("the soft limit {soft} of {limit} is above the hard limit {hard}"))
                );
            }
            if !seen.insert(*limit) {
                return Err(self.invalid(format!("the limit {limit} is given twice")));
            }
        }
        Ok(())
    }

    fn limits(&self, command: &Command, held: &Capabilities, in_session: bool) -> Result<()> {
        for (limit, _, hard) in &command.native.limits {
            // In a logon session PAM has set the limits from which the process starts; the trampoline will
            // find out.
            if !in_session && *hard > limit.own_hard() {
                self.require(Privilege::IncreaseQuota, Capability::SysResource, held)?;
            }
        }
        Ok(())
    }

    /// Ambient capabilities are given only out of what the server has and the token may ever have.
    fn capabilities(&self, command: &Command, context: &SecurityContext, held: &Capabilities) -> Result<()> {
        let granted = command.native.ambient;
        if !context.capabilities.bounding.contains_all(granted) {
            let rest = CapabilitySet::from_bits(granted.bits() & !context.capabilities.bounding.bits());
            return Err(self.invalid(format!("the token's bounding set does not allow {rest}")));
        }
        let missing = granted.bits() & !held.permitted.bits();
        if missing != 0 {
            let missing = CapabilitySet::from_bits(missing).to_string();
            return Err(self.missing(Privilege::AssignPrimaryToken, &[&missing], false));
        }
        Ok(())
    }

    /// Whether the server may take on the token's ids, and end the process afterwards.
    fn switching(&self, context: &SecurityContext, held: &Capabilities) -> Result<()> {
        let own_uid = rustix::process::geteuid().as_raw();
        if is_own(context) {
            return Ok(());
        }
        let mut needed = vec![("CAP_SETGID", ThreadCapabilities::SETGID)];
        if context.uid.as_raw() != own_uid {
            needed.push(("CAP_SETUID", ThreadCapabilities::SETUID));
            needed.push(("CAP_KILL", ThreadCapabilities::KILL));
        }
        let missing: Vec<_> = needed.into_iter().filter(|(_, one)| !held.effective.contains(*one)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let all_permitted = missing.iter().all(|(_, one)| held.permitted.contains(*one));
        let missing: Vec<&str> = missing.into_iter().map(|(name, _)| name).collect();
        Err(self.missing(Privilege::AssignPrimaryToken, &missing, all_permitted))
    }

    /// The login uid that has to be written, which is strict: an audit trail that names another user is
    /// worse than none.
    fn login_uid(&self, context: &SecurityContext, held: &Capabilities) -> Result<Option<u32>> {
        let own = own_login_uid().map_err(|source| {
            Error::system(self.doing.to_owned(), "read /proc/thread-self/loginuid", source)
        })?;
        let Some(own) = own else { return Ok(None) };
        let wanted = match context.login_uid {
            // Where the kernel keeps one and the client's could not be read, the server's names another user.
            LoginUid::Unsupported | LoginUid::Unset => UNSET,
            LoginUid::Set(uid) => uid.as_raw(),
        };
        if own == wanted {
            return Ok(None);
        }
        // Linux lets a process without a login uid set one; changing it takes the capability.
        if own != UNSET {
            self.require(Privilege::Logon, Capability::AuditControl, held)?;
        }
        Ok(Some(wanted))
    }

    /// The token's label, where it is another than the server's: the program then has to be executed into it.
    fn label(&self, context: &SecurityContext) -> Result<Option<Vec<u8>>> {
        let Some(label) = &context.label else { return Ok(None) };
        let own = own_label().map_err(|source| {
            Error::system(self.doing.to_owned(), "read /proc/thread-self/attr/current", source)
        })?;
        Ok((own.as_ref() != Some(label)).then(|| label.as_bytes().to_vec()))
    }

    /// A capability that counts here and now, or the error that names it.
    fn require(&self, privilege: Privilege, capability: Capability, held: &Capabilities) -> Result<()> {
        let counts =
            |set: ThreadCapabilities| counting(CapabilitySet::from_bits(set.bits())).contains(capability);
        if counts(held.effective) {
            return Ok(());
        }
        Err(self.missing(privilege, &[&missing_name(capability)], counts(held.permitted)))
    }

    fn missing(&self, privilege: Privilege, missing: &[&str], held: bool) -> Error {
        let missing = missing.join(", ").into();
        Error::new(
            self.doing.to_owned(),
            ErrorKind::PrivilegeMissing { privilege, missing, held, enabled: false },
        )
    }
}

/// The last part of the name under which the file was opened: programs of many names look at their argument
/// 0.
fn pinned_name(descriptor: &OwnedFd) -> CString {
    std::fs::read_link(format!("/proc/thread-self/fd/{}", descriptor.as_raw_fd()))
        .ok()
        .and_then(|path| CString::new(path.file_name()?.as_bytes()).ok())
        .unwrap_or_else(|| c"program".into())
}

/// The calling thread's, which the process inherits; `None` where the kernel keeps none.
fn own_login_uid() -> io::Result<Option<u32>> {
    thread_local! {
        /// It speaks of the thread that opened it.
        static FILE: RefCell<Option<KeptFile>> = const { RefCell::new(None) };
    }
    let read = |file: &File| {
        let mut text = [0; 16];
        let length = file.read_at(&mut text, 0)?;
        parse_number(&text[..length]).ok_or_else(|| malformed("loginuid"))
    };
    FILE.with_borrow_mut(|kept| {
        if let Some(own) = kept.as_ref().and_then(KeptFile::get).and_then(|file| read(file).ok()) {
            return Ok(Some(own));
        }
        let opened = match KeptFile::open("/proc/thread-self/loginuid") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let own = read(opened.get().ok_or(Errno::BADF)?)?;
        *kept = Some(opened);
        Ok(Some(own))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::token::{Label, own_context};

    /// On a thread of its own no file can be opened, as in a server whose descriptors a client has used up.
    fn checked_without_a_descriptor(context: SecurityContext) -> Result<Checked> {
        let thread = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            testbed::confine::Filter::new()
                .deny(libc::SYS_openat, libc::EMFILE)
                .install_on_this_thread()
                .unwrap();
            check(&Command::new("true"), &context, false, "testing")
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_login_uid_or_a_label_that_cannot_be_read_is_not_taken_for_none() {
        let own = own_context().unwrap();
        let plain = SecurityContext { label: None, login_uid: LoginUid::Unset, ..own };
        let labelled = SecurityContext { label: Some(Label(b"another"[..].into())), ..plain.clone() };
        for context in [plain, labelled] {
            check(&Command::new("true"), &context, false, "testing").unwrap();
            let Err(error) = checked_without_a_descriptor(context) else { panic!("it was taken for none") };
            assert_eq!(error.os_error().and_then(io::Error::raw_os_error), Some(libc::EMFILE), "{error}");
        }
    }

    #[test]
    fn whose_login_uid_is_not_known_gets_none_and_never_the_servers() {
        let own = own_context().unwrap();
        let unknown = SecurityContext { login_uid: LoginUid::Unsupported, ..own.clone() };
        let checked = check(&Command::new("true"), &unknown, false, "testing");
        match own.login_uid {
            LoginUid::Set(_) if testbed::confine::may("audit_control") => {
                assert_eq!(checked.unwrap().login_uid, Some(UNSET));
            }
            LoginUid::Set(_) => drop(checked.err().expect("it takes the capability")),
            LoginUid::Unset | LoginUid::Unsupported => assert_eq!(checked.unwrap().login_uid, None),
        }
    }
}
