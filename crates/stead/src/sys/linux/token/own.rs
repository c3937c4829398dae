//! The server's own context.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags};
use stead_trampoline::syscall::{prctl, process_control};

use super::{
    CapabilitySet, CapabilitySets, Gid, GroupSet, Label, LoginUid, SecureBits, SecurityContext, Uid,
};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::proc::{self, Status};

/// The server's own context, as `/proc` has it; its impersonating threads do not count.
pub(crate) fn own_context() -> Result<SecurityContext> {
    const DOING: &str = "reading the server's own token";
    let thread = open_directory("/proc/thread-self")
        .map_err(|source| Error::system(DOING, "open /proc/thread-self", source))?;
    let status = proc::read_at(&thread, "status")
        .and_then(|text| proc::parse_status(&text).ok_or_else(|| proc::malformed("/proc/thread-self/status")))
        .map_err(|source| Error::system(DOING, "read /proc/thread-self/status", source))?;
    let securebits = rustix::thread::capabilities_secure_bits()
        .map_err(|source| Error::system(DOING, "prctl(PR_GET_SECUREBITS)", source))?;
    let label = label(&thread)
        .map_err(|source| Error::system(DOING, "read /proc/thread-self/attr/current", source))?;
    let login_uid = login_uid(&thread)
        .map_err(|source| Error::system(DOING, "read /proc/thread-self/loginuid", source))?;
    from_status(&status)
        .map(|context| SecurityContext {
            securebits: SecureBits(securebits.bits()),
            label,
            login_uid,
            ..context
        })
        .ok_or_else(|| {
            let what = format!("the server's own ids are {:?} and {:?}", status.uids, status.gids).into();
            Error::new(DOING, ErrorKind::NoIdentity { what })
        })
}

/// The context of a thread whose ids are all the same; without securebits, label and login uid.
pub(crate) fn from_status(status: &Status) -> Option<SecurityContext> {
    let one = |ids: [u32; 4]| ids.iter().all(|id| *id == ids[0]).then_some(ids[0]);
    Some(SecurityContext {
        uid: Uid::new(one(status.uids)?)?,
        gid: Gid::new(one(status.gids)?)?,
        groups: status.groups.iter().map(|gid| Gid::new(*gid)).collect::<Option<GroupSet>>()?,
        capabilities: CapabilitySets {
            permitted: CapabilitySet::from_bits(status.permitted),
            effective: CapabilitySet::from_bits(status.effective),
            inheritable: CapabilitySet::from_bits(status.inheritable),
            ambient: CapabilitySet::from_bits(status.ambient),
            bounding: CapabilitySet::from_bits(status.bounding),
        },
        securebits: SecureBits::default(),
        no_new_privs: status.no_new_privs,
        label: None,
        login_uid: LoginUid::Unsupported,
    })
}

pub(crate) fn open_directory(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// The login uid of the process whose directory in `/proc` this is.
///
/// That there is no such file says that the kernel keeps none, or that the process has ended. Whatever else keeps it
/// from being read (a client can have the server's descriptors used up) says nothing of it.
pub(crate) fn login_uid(process: &OwnedFd) -> io::Result<LoginUid> {
    let raw = match proc::read_at(process, "loginuid") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LoginUid::Unsupported),
        found => proc::parse_number(&found?).ok_or_else(|| proc::malformed("loginuid"))?,
    };
    Ok(Uid::new(raw).map_or(LoginUid::Unset, LoginUid::Set))
}

/// The label of the process whose directory in `/proc` this is; `None` where no module keeps labels.
pub(crate) fn label(process: &OwnedFd) -> io::Result<Option<Label>> {
    if !labels_are_kept()? {
        return Ok(None);
    }
    match proc::read_at(process, "attr/current") {
        Err(error) if keeps_none(&error) => Ok(None),
        found => Ok(label_of(found?)),
    }
}

/// The calling thread's label, which a process that it creates inherits.
pub(crate) fn own_label() -> io::Result<Option<Label>> {
    match proc::read_at(CWD, "/proc/thread-self/attr/current") {
        Err(error) if keeps_none(&error) || error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => Ok(label_of(found?)),
    }
}

fn label_of(mut text: Vec<u8>) -> Option<Label> {
    while text.last().is_some_and(|byte| matches!(byte, 0 | b'\n')) {
        text.pop();
    }
    (!text.is_empty()).then(|| Label(text.into()))
}

/// Whether a security module keeps labels: which modules there are is decided when the system starts.
fn labels_are_kept() -> io::Result<bool> {
    static KEPT: OnceLock<bool> = OnceLock::new();
    // This thread's own: what another process's says is true of that one.
    remembered(&KEPT, || match proc::read_at(CWD, "/proc/thread-self/attr/current") {
        // No module keeps labels, or the kernel has none at all.
        Err(error) if keeps_none(&error) || error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => found.map(|_| true),
    })
}

/// What was found out once. A failure is not remembered.
fn remembered(known: &OnceLock<bool>, find: impl FnOnce() -> io::Result<bool>) -> io::Result<bool> {
    if let Some(known) = known.get() {
        return Ok(*known);
    }
    let found = find()?;
    Ok(*known.get_or_init(|| found))
}

fn keeps_none(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// What has to be written to `attr/exec` for a label, as `label` reads it or somebody else writes it.
///
/// AppArmor shows a profile with its mode, `name (enforce)`, and takes `exec name` (`aa_change_onexec`); SELinux and Smack
/// take a label as they show it.
pub(crate) fn label_as_written(label: &[u8]) -> io::Result<Vec<u8>> {
    Ok(if is_apparmor()? { profile_as_written(label) } else { label.to_vec() })
}

/// What a process whose label is `own` has to write to `attr/exec` to take back what it chose for the next program.
pub(crate) fn none_as_written(own: &[u8]) -> io::Result<Vec<u8>> {
    Ok(none_as_taken_by(is_apparmor()?, own))
}

/// SELinux takes an empty label for none (`selinux_lsm_setattr` of security/selinux/hooks.c). AppArmor takes `exec` and `stack`
/// with a profile, and nothing else (`do_setattr` of security/apparmor/lsm.c); what was chosen is forgotten only when a
/// program is executed (`aa_clear_task_ctx_trans`), so that the process's own takes its place.
fn none_as_taken_by(apparmor: bool, own: &[u8]) -> Vec<u8> {
    if apparmor { profile_as_written(own) } else { b"\0".to_vec() }
}

fn is_apparmor() -> io::Result<bool> {
    static APPARMOR: OnceLock<bool> = OnceLock::new();
    remembered(&APPARMOR, || match std::fs::read("/sys/module/apparmor/parameters/enabled") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => found.map(|text| text.starts_with(b"Y")),
    })
}

fn profile_as_written(label: &[u8]) -> Vec<u8> {
    const MODES: [&[u8]; 6] =
        [b" (enforce)", b" (complain)", b" (kill)", b" (unconfined)", b" (user)", b" (mixed)"];
    if [&b"exec "[..], b"stack "].iter().any(|command| label.starts_with(command)) {
        return label.to_vec();
    }
    let name = MODES.iter().find_map(|mode| label.strip_suffix(*mode)).unwrap_or(label);
    [b"exec ", name].concat()
}

/// The highest capability that the kernel knows, as all of them answer; where none does, one that it knows not.
pub(crate) fn last_capability() -> u32 {
    static LAST: OnceLock<u32> = OnceLock::new();
    let known = |capability: &u32| process_control(prctl::CAPBSET_READ, *capability as usize, 0).is_ok();
    *LAST.get_or_init(|| (0..u64::BITS).rev().find(known).unwrap_or(u64::BITS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_for_the_next_program_is_taken_back_as_the_module_takes_it() {
        assert_eq!(none_as_taken_by(false, b"system_u:system_r:init_t:s0"), b"\0");
        assert_eq!(none_as_taken_by(true, b"unconfined"), b"exec unconfined");
        assert_eq!(none_as_taken_by(true, b"/usr/sbin/portal (enforce)"), b"exec /usr/sbin/portal");
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_what_is_not_there() {
        let thread = std::thread::spawn(|| {
            let own = open_directory("/proc/thread-self").unwrap();
            assert!(login_uid(&own).is_ok() && own_label().is_ok() && own_context().is_ok());
            // As in a server whose descriptors a client has used up; the directory is open already.
            rustix::thread::set_no_new_privs(true).unwrap();
            testbed::confine::Filter::new()
                .deny(libc::SYS_openat, libc::EMFILE)
                .install_on_this_thread()
                .unwrap();
            let failed = |error: io::Error| error.raw_os_error() == Some(libc::EMFILE);
            assert!(login_uid(&own).is_err_and(failed));
            assert!(own_label().is_err_and(failed));
            assert!(own_context().is_err());
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_failure_is_not_remembered() {
        let known = OnceLock::new();
        assert!(remembered(&known, || Err(io::Error::from_raw_os_error(libc::EMFILE))).is_err());
        assert!(remembered(&known, || Ok(true)).unwrap());
        assert!(remembered(&known, || Ok(false)).unwrap());
    }

    #[test]
    fn a_profile_is_written_as_a_command_without_its_mode() {
        for (read, written) in [
            ("unconfined", "exec unconfined"),
            ("/usr/bin/man (enforce)", "exec /usr/bin/man"),
            ("a profile (complain)", "exec a profile"),
            ("a//&:ns:b (mixed)", "exec a//&:ns:b"),
            ("exec already", "exec already"),
            ("stack already", "stack already"),
        ] {
            assert_eq!(profile_as_written(read.as_bytes()), written.as_bytes());
        }
    }
}
