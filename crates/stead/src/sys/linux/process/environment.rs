//! The environment of a new process: the account's and PAM's, then what the server adds; never the server's
//! own.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};

use crate::process::EnvironmentChanges;
use crate::sys::account::AccountEntry;
use crate::sys::token::Uid;

/// Where programs are searched for users; nothing of it is writable for any of them.
const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The same for root.
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What leads a program to a desktop: only the one that was granted is there.
const TO_A_DESKTOP: &[&str] = &[
    "DISPLAY",
    "XAUTHORITY",
    "WAYLAND_DISPLAY",
    "WAYLAND_SOCKET",
    "XDG_SEAT",
    "XDG_SESSION_TYPE",
    "XDG_RUNTIME_DIR",
    "XDG_VTNR",
];
/// What else belongs to a session before a screen or a terminal, as PAM set it.
const OF_A_PERSON: &[&str] = &["DBUS_SESSION_BUS_ADDRESS", "TERM"];

/// A block of variables, each name once, in a fixed order.
#[derive(Debug)]
pub(crate) struct Environment {
    variables: BTreeMap<OsString, OsString>,
    default_path: &'static str,
}

impl Environment {
    /// What login(1) gives: the account's variables, then PAM's (`NAME=value`), which win.
    ///
    /// A uid without an entry has no name, so it gets no `USER`; none is invented.
    pub(crate) fn of(uid: Uid, account: Option<&AccountEntry>, pam: &[CString]) -> Self {
        let default_path = if uid == Uid::ROOT { ROOT_PATH } else { USER_PATH };
        let mut variables = BTreeMap::new();
        let mut set = |name: &str, value: &[u8]| {
            variables.insert(OsString::from(name), OsString::from_vec(value.to_vec()));
        };
        set("PATH", default_path.as_bytes());
        set("HOME", home(account));
        if let Some(account) = account {
            set("USER", account.name.as_bytes());
            set("LOGNAME", account.name.as_bytes());
            // passwd(5): an empty shell field stands for /bin/sh.
            let shell = account.shell.as_bytes();
            set("SHELL", if shell.is_empty() { b"/bin/sh" } else { shell });
        }
        for entry in pam {
            let mut parts = entry.as_bytes().splitn(2, |byte| *byte == b'=');
            if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                variables.insert(OsStr::from_bytes(name).into(), OsStr::from_bytes(value).into());
            }
        }
        Self { variables, default_path }
    }

    /// Leaves nothing that leads to a desktop: PAM modules set some of it for whoever logs on.
    pub(crate) fn non_interactive(&mut self) {
        for name in TO_A_DESKTOP.iter().chain(OF_A_PERSON) {
            self.variables.remove(OsStr::new(name));
        }
    }

    /// Leads to this desktop and to no other.
    pub(crate) fn interactive<'a>(
        &mut self,
        uid: Uid,
        variables: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>,
    ) {
        for name in TO_A_DESKTOP {
            self.variables.remove(OsStr::new(name));
        }
        if let Some(directory) = runtime_directory(uid) {
            self.variables.insert("XDG_RUNTIME_DIR".into(), directory.into());
        }
        let variables = variables.into_iter();
        self.variables.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// Applies what the server asked for.
    pub(crate) fn change(&mut self, changes: &EnvironmentChanges) {
        if changes.clear {
            self.variables.clear();
        }
        for (name, value) in &changes.variables {
            match value {
                Some(value) => self.variables.insert(name.clone(), value.clone()),
                None => self.variables.remove(name),
            };
        }
    }

    /// The paths under which a program is looked for, in order, by the new process.
    ///
    /// A name with a slash is itself. Else each absolute element of the *new* environment's PATH is
    /// tried; empty and relative elements would mean the client's directory, and are left out.
    pub(crate) fn candidates(&self, program: &OsStr) -> Vec<Vec<u8>> {
        if program.as_bytes().contains(&b'/') {
            return vec![program.as_bytes().to_vec()];
        }
        let path =
            self.variables.get(OsStr::new("PATH")).map_or(self.default_path.as_bytes(), |p| p.as_bytes());
        path.split(|byte| *byte == b':')
            .filter(|directory| directory.starts_with(b"/"))
            .map(|directory| [directory, b"/", program.as_bytes()].concat())
            .collect()
    }

    /// The block as `NAME=value` strings. The caller has checked what the server added for NUL.
    pub(crate) fn into_block(self) -> Vec<CString> {
        self.variables
            .into_iter()
            .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
            .collect()
    }
}

/// The user's own directory for sockets, where there is one: made by whoever manages sessions, and closed to others.
fn runtime_directory(uid: Uid) -> Option<String> {
    let path = format!("/run/user/{uid}");
    // The user can mount a file system of his own over it: it is not asked.
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let known =
        rustix::fs::statx(CWD, &path, flags, StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::UID).ok()?;
    let mode = known.stx_mode.into();
    let own = FileType::from_raw_mode(mode) == FileType::Directory && mode & 0o7777 == 0o700;
    (own && known.stx_uid == uid.as_raw()).then_some(path)
}

/// The account's home; the root directory for a uid without an entry, or whose entry names none.
pub(crate) fn home(account: Option<&AccountEntry>) -> &[u8] {
    match account.map(|account| account.home.as_bytes()) {
        Some(home) if !home.is_empty() => home,
        _ => b"/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::token::Gid;

    fn alice() -> AccountEntry {
        AccountEntry {
            name: c"alice".into(),
            uid: Uid::new(70001).unwrap(),
            gid: Gid::new(70001).unwrap(),
            home: c"/home/alice".into(),
            shell: c"".into(),
        }
    }

    fn block(environment: Environment) -> Vec<String> {
        environment.into_block().into_iter().map(|entry| entry.into_string().unwrap()).collect()
    }

    #[test]
    fn the_account_and_pam_make_the_environment_and_nothing_of_the_server() {
        let alice = alice();
        let pam = [c"LANG=de_DE.UTF-8".into(), c"PATH=/opt/bin".into(), c"broken".into()];
        assert_eq!(
            block(Environment::of(alice.uid, Some(&alice), &pam)),
            [
                "HOME=/home/alice",
                "LANG=de_DE.UTF-8",
                "LOGNAME=alice",
                "PATH=/opt/bin",
                "SHELL=/bin/sh",
                "USER=alice"
            ]
        );
    }

    #[test]
    fn a_uid_without_an_account_has_no_name_and_the_root_directory_as_home() {
        let environment = Environment::of(Uid::new(4_000_000_000).unwrap(), None, &[]);
        assert_eq!(block(environment), ["HOME=/", "PATH=/usr/local/bin:/usr/bin:/bin"]);
    }

    #[test]
    fn the_servers_changes_come_last_and_may_clear_everything() {
        let alice = alice();
        let mut changes = EnvironmentChanges::default();
        changes.set("USER".into(), "someone".into());
        changes.remove("SHELL");
        let mut environment = Environment::of(alice.uid, Some(&alice), &[]);
        environment.change(&changes);
        assert_eq!(
            block(environment),
            ["HOME=/home/alice", "LOGNAME=alice", "PATH=/usr/local/bin:/usr/bin:/bin", "USER=someone"]
        );

        changes.clear();
        changes.set("ONLY".into(), "this".into());
        let mut environment = Environment::of(alice.uid, Some(&alice), &[]);
        environment.change(&changes);
        assert_eq!(block(environment), ["ONLY=this"]);
    }

    #[test]
    fn without_a_desktop_nothing_leads_to_one_and_with_one_nothing_leads_to_another() {
        let alice = alice();
        let pam: Vec<CString> = TO_A_DESKTOP
            .iter()
            .chain(OF_A_PERSON)
            .map(|name| CString::new(format!("{name}=from PAM")).unwrap())
            .collect();
        let mut environment = Environment::of(alice.uid, Some(&alice), &pam);
        environment.non_interactive();
        assert!(block(environment).iter().all(|entry| !entry.contains("from PAM")));

        let mut environment = Environment::of(alice.uid, Some(&alice), &pam);
        environment.interactive(alice.uid, [(OsStr::new("DISPLAY"), OsStr::new(":7"))]);
        let block = block(environment);
        let theirs: Vec<&String> = block.iter().filter(|entry| entry.contains("from PAM")).collect();
        assert_eq!(theirs, ["DBUS_SESSION_BUS_ADDRESS=from PAM", "TERM=from PAM"]);
        assert!(block.contains(&"DISPLAY=:7".to_owned()), "{block:?}");
    }

    #[test]
    fn the_search_goes_through_the_new_path_and_never_the_current_directory() {
        let pam = [c"PATH=/a::bin:.:/b".into()];
        let environment = Environment::of(Uid::ROOT, None, &pam);
        assert_eq!(environment.candidates(OsStr::new("tool")), [b"/a/tool".to_vec(), b"/b/tool".to_vec()]);
        assert_eq!(environment.candidates(OsStr::new("./tool")), [b"./tool".to_vec()]);
    }
}
