//! The policy's files: whose they must be, and what happens to those that are not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;

use crate::policy::{NameTable, Policy, PolicyErrors, files};

const RULE: &str =
    "[[allow]]\ncallers = { users = [\"portal\"] }\nclients = \"everyone\"\nprivileges = [\"impersonate\"]\n";

/// A policy folder of the test's own.
struct Etc(PathBuf);

impl Etc {
    /// `None` where the test is not root, to whom the files must belong.
    fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("\nskipped: only root can own policy files");
            return None;
        }
        let path = std::env::temp_dir().join(format!("stead-policy-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("policy.d")).unwrap();
        for folder in [path.clone(), path.join("policy.d")] {
            fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Some(Self(path))
    }

    fn write(&self, file: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(file);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        path
    }

    fn load(&self) -> Result<Policy, PolicyErrors> {
        files::load(&self.0, &NameTable::new().user("portal", 990))
    }

    fn error(&self) -> String {
        let errors = self.load().expect_err("the policy is refused").to_string();
        errors.replace(&self.0.display().to_string(), "ETC")
    }
}

impl Drop for Etc {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn without_files_there_is_the_policy_without_rules() {
    let Some(etc) = Etc::new("none") else { return };
    assert_eq!(etc.load().unwrap().rule_counts(), (0, 0));
    fs::remove_dir(etc.0.join("policy.d")).unwrap();
    assert_eq!(etc.load().unwrap().rule_counts(), (0, 0));
    let missing = files::load(&etc.0.join("missing/deeper"), &NameTable::new()).unwrap();
    assert_eq!(missing.rule_counts(), (0, 0));
}

#[test]
fn the_file_and_the_drop_ins_are_read_in_their_order() {
    let Some(etc) = Etc::new("order") else { return };
    etc.write("policy.d/20-b.toml", RULE);
    etc.write("policy.d/10-a.toml", RULE);
    etc.write("policy.d/readme.txt", "not a policy");
    etc.write("policy.d/.hidden.toml", "not a policy");
    etc.write("policy.d/old.toml~", "not a policy");
    etc.write("policy.toml", RULE);
    let policy = etc.load().unwrap();
    let files: Vec<_> = policy.files().iter().map(|file| file.rsplit('/').next().unwrap()).collect();
    assert_eq!(files, ["policy.toml", "10-a.toml", "20-b.toml"]);
    assert_eq!(policy.rule_counts(), (3, 0));
}

#[test]
fn one_mistake_in_one_file_refuses_all_of_them() {
    let Some(etc) = Etc::new("all") else { return };
    etc.write("policy.toml", RULE);
    etc.write("policy.d/portal.toml", "[[alow]]\n");
    assert_eq!(
        etc.error(),
        "ETC/policy.d/portal.toml:1:3: a policy has no key \"alow\"; did you mean `allow`?"
    );
}

#[test]
fn settings_stand_once_in_all_files_together() {
    let Some(etc) = Etc::new("once") else { return };
    etc.write("policy.toml", "[quotas]\nsessions = 1\n");
    etc.write("policy.d/portal.toml", "\n[quotas]\nsessions = 2\n");
    assert_eq!(
        etc.error(),
        "ETC/policy.d/portal.toml:2:2: [quotas] may stand once only; it stands at ETC/policy.toml:1:2 already"
    );
}

#[test]
fn a_file_that_others_may_write_is_not_believed() {
    let Some(etc) = Etc::new("mode") else { return };
    let path = etc.write("policy.toml", RULE);
    for mode in [0o664, 0o646, 0o666] {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(etc.error(), "ETC/policy.toml: others than root may write it: chmod go-w");
    }
}

#[test]
fn a_file_or_folder_that_is_not_roots_is_not_believed() {
    let Some(etc) = Etc::new("owner") else { return };
    let path = etc.write("policy.toml", RULE);
    chown(&path, Some(1000), None).unwrap();
    assert_eq!(etc.error(), "ETC/policy.toml: belongs to uid 1000 and not to root: chown root");
    chown(&path, Some(0), None).unwrap();
    chown(etc.0.join("policy.d"), Some(1000), None).unwrap();
    assert_eq!(etc.error(), "ETC/policy.d: belongs to uid 1000 and not to root: chown root");
    chown(&etc.0, Some(1000), None).unwrap();
    assert_eq!(etc.error(), "ETC: belongs to uid 1000 and not to root: chown root");
}

#[test]
fn a_folder_that_others_may_write_is_not_believed() {
    let Some(etc) = Etc::new("folder") else { return };
    etc.write("policy.toml", RULE);
    fs::set_permissions(etc.0.join("policy.d"), PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(etc.error(), "ETC/policy.d: others than root may write it: chmod go-w");
    // What is enough for a folder above is not enough for the policy's own.
    fs::set_permissions(etc.0.join("policy.d"), PermissionsExt::from_mode(0o1777)).unwrap();
    assert_eq!(etc.error(), "ETC/policy.d: others than root may write it: chmod go-w");
}

#[test]
fn what_is_no_regular_file_is_refused_and_holds_nobody() {
    let Some(etc) = Etc::new("kind") else { return };
    let elsewhere = etc.write("elsewhere", RULE);
    symlink(elsewhere, etc.0.join("policy.toml")).unwrap();
    assert_eq!(
        etc.error(),
        "ETC/policy.toml: is a symbolic link, which is not followed: put the file itself here"
    );
    fs::remove_file(etc.0.join("policy.toml")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, etc.0.join("policy.d/pipe.toml"), rustix::fs::Mode::RUSR).unwrap();
    fs::create_dir(etc.0.join("policy.toml")).unwrap();
    let error = etc.error();
    assert_eq!(error, "ETC/policy.toml: is no regular file\nETC/policy.d/pipe.toml: is no regular file");
}

#[test]
fn bytes_that_are_no_text_and_files_without_end_are_refused() {
    let Some(etc) = Etc::new("bytes") else { return };
    etc.write("policy.toml", b"# fine\nname = \"\xff\"\n");
    assert_eq!(etc.error(), "ETC/policy.toml:2:9: is not UTF-8 from here on");
    etc.write("policy.toml", vec![b'#'; (1 << 20) + 1]);
    assert_eq!(etc.error(), "ETC/policy.toml: is larger than 1048576 bytes");
}
