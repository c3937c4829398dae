//! What is executed, and whether it became whom it should.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use testbed::{Bed, User};

use crate::Outcome;
use crate::floor::{self, Switch};

/// The argument that makes this program say who it is: into the file that is the next one.
pub(crate) const IDENTITY: &str = "--identity";

/// A program and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

impl Target {
    /// The smallest program there is: it only ends.
    pub(crate) fn tiny(bed: &Bed) -> io::Result<Self> {
        let path = bed.scratch("programs").join("tiny");
        floor::write_tiny(&path)?;
        Ok(Self { path, arguments: Vec::new() })
    }

    /// The smallest program that is not made for a benchmark: it has libc, and so a dynamic linker.
    pub(crate) fn ordinary() -> Self {
        Self { path: "/bin/true".into(), arguments: Vec::new() }
    }

    /// The words of its command line.
    pub(crate) fn words(&self) -> impl Iterator<Item = OsString> + '_ {
        [self.path.clone().into_os_string()].into_iter().chain(self.arguments.iter().cloned())
    }
}

/// Whom a process should become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// The server itself.
    Server,
    /// The user, with all groups.
    User,
    /// The user, without the supplementary groups.
    UserWithoutGroups,
}

/// Has processes say who they are.
pub(crate) struct Identities {
    folder: PathBuf,
    user: User,
    program: PathBuf,
}

impl Identities {
    pub(crate) fn new(bed: &Bed, user: &User) -> io::Result<Self> {
        let folder = bed.scratch("identities");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777))?;
        Ok(Self { folder, user: user.clone(), program: bed.this_program() })
    }

    /// Runs, by `act`, the program that says who it is, and compares.
    ///
    /// # Errors
    ///
    /// What `act` says, and a process that became somebody else.
    pub(crate) fn verify(&self, becomes: Becomes, act: impl FnOnce(&Target) -> Outcome) -> Outcome {
        let file = self.folder.join("identity");
        let _ = fs::remove_file(&file);
        let arguments = vec![IDENTITY.into(), file.clone().into_os_string()];
        act(&Target { path: self.program.clone(), arguments })?;
        let said = fs::read_to_string(&file).map_err(|error| format!("it did not say who it is: {error}"))?;
        let (uid, mut groups) = match becomes {
            Becomes::Server => (0, None),
            Becomes::User => (self.user.uid, Some(self.user.all_groups())),
            Becomes::UserWithoutGroups => (self.user.uid, Some(vec![self.user.gid])),
        };
        let gid = if becomes == Becomes::Server { 0 } else { self.user.gid };
        let seen = Seen::parse(&said).ok_or("what it said of itself cannot be read")?;
        if becomes == Becomes::Server {
            groups = Some(seen.groups.clone());
        }
        if seen.uids == [uid; 4] && seen.gids == [gid; 4] && Some(&seen.groups) == groups.as_ref() {
            return Ok(());
        }
        Err(format!("the process became another than it should: {seen:?}").into())
    }
}

/// The ids of a process; the groups with the primary one.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    uids: [u32; 4],
    gids: [u32; 4],
    groups: Vec<u32>,
}

impl Seen {
    fn parse(status: &str) -> Option<Self> {
        let numbers = |name: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().map(|number| number.parse().ok()).collect()
        };
        let gids: [u32; 4] = numbers("Gid:")?.try_into().ok()?;
        let mut groups = numbers("Groups:")?;
        groups.push(gids[1]);
        groups.sort_unstable();
        groups.dedup();
        Some(Self { uids: numbers("Uid:")?.try_into().ok()?, gids, groups })
    }
}

/// Says who this process is.
///
/// # Errors
///
/// When that cannot be read or written.
pub(crate) fn say_identity(file: &Path) -> Outcome {
    fs::write(file, fs::read_to_string("/proc/self/status")?)?;
    Ok(())
}

/// As whom the bare calls act.
pub(crate) fn switch_to(user: &User) -> Switch {
    Switch { uid: user.uid, gid: user.gid, groups: user.all_groups() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_a_process_are_read_from_its_status() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t7\t7\t7\t7\nFDSize:\t64\nGroups:\t9 7 8 \n";
        let seen = Seen { uids: [1, 2, 3, 4], gids: [7; 4], groups: vec![7, 8, 9] };
        assert_eq!(Seen::parse(status), Some(seen));
        assert_eq!(Seen::parse("Uid:\t1\t2\n"), None);
    }
}
