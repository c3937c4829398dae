//! What is installed, and what the units in it say.

#![allow(clippy::unwrap_used, reason = "a test's way to fail")]
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What confines a unit is inherited by every process of every client.
const CONFINING: &[&str] = &[
    "AmbientCapabilities",
    "AppArmorProfile",
    "BindPaths",
    "BindReadOnlyPaths",
    "CapabilityBoundingSet",
    "DynamicUser",
    "Environment",
    "InaccessiblePaths",
    "IPAddress",
    "Limit",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "MemoryMax",
    "NoExecPaths",
    "NoNewPrivileges",
    "Private",
    "ProcSubset",
    "Protect",
    "ReadOnlyPaths",
    "Restrict",
    "RootDirectory",
    "RootImage",
    "SELinuxContext",
    "SecureBits",
    "SystemCall",
    "TemporaryFileSystem",
    "UMask",
    "User",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// `xtask install` with the programs of the bed.
fn install(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let programs = Path::new(testbed::ROOT).join("bin");
    command.arg("install").arg("--programs").arg(programs).args(arguments).output().unwrap()
}

fn succeeded(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The documents that what is installed sends its readers to.
fn documents_that_sources_name() -> Vec<String> {
    let folders =
        ["crates/stead-cli/src", "crates/stead-broker/src", "crates/stead/src/sys/linux", "packaging"];
    let mut command = Command::new("grep");
    command.current_dir(root()).args(["-rhoE", r"docs/[a-z-]+\.md"]).args(folders);
    let found = succeeded(&command.output().unwrap());
    let names: Vec<String> = found.lines().map(|line| line.replace("docs/", "")).collect();
    assert!(names.len() > 5, "{found}");
    names
}

#[test]
fn everything_is_installed_below_the_prefix_and_nothing_elsewhere() {
    let bed = testbed::require!();
    let prefix = bed.scratch("prefix");
    let said = succeeded(&install(&["--prefix", prefix.to_str().unwrap(), "--pam", "common"]));
    // Neither PAM nor systemd looks there.
    for told in ["/etc/pam.d/", "systemctl link '"] {
        assert!(said.contains(told), "{said}");
    }
    for (path, mode) in [
        ("bin/stead", 0o755),
        ("libexec/stead/stead-session", 0o755),
        ("lib/systemd/system/stead.service", 0o644),
        ("lib/systemd/system/stead.socket", 0o644),
        ("lib/sysusers.d/stead.conf", 0o644),
        ("lib/tmpfiles.d/stead.conf", 0o644),
        ("share/man/man1/stead.1", 0o644),
        ("share/man/man1/stead-run.1", 0o644),
        ("share/bash-completion/completions/stead", 0o644),
        ("share/zsh/site-functions/_stead", 0o644),
        ("share/fish/vendor_completions.d/stead.fish", 0o644),
        ("etc/stead/policy.toml", 0o644),
        ("etc/logrotate.d/stead", 0o644),
        ("etc/pam.d/stead-interactive", 0o644),
        ("etc/pam.d/stead-network", 0o644),
        ("etc/pam.d/stead-batch", 0o644),
        ("etc/pam.d/stead-service", 0o644),
    ] {
        let found = fs::metadata(prefix.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(found.len() > 0, "{path} is empty");
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{path}");
    }
    assert!(prefix.join("etc/stead/policy.d").is_dir());
    let unit = fs::read_to_string(prefix.join("lib/systemd/system/stead.service")).unwrap();
    let (bin, etc) = (prefix.join("bin"), prefix.join("etc"));
    let serve = format!("ExecStart={}/stead serve --policy {}/stead\n", bin.display(), etc.display());
    assert!(unit.contains(&serve), "{unit}");
    for name in documents_that_sources_name() {
        assert!(prefix.join("share/doc/stead").join(&name).is_file(), "{name}");
    }
    let version = Command::new(prefix.join("bin/stead")).arg("--version").output().unwrap();
    assert!(succeeded(&version).starts_with("stead "));
}

#[test]
fn what_root_installs_is_for_everybody_whatever_roots_own_files_are() {
    let bed = testbed::require!();
    let prefix = bed.scratch("prefix").join("with \"spaces\" and 100%");
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let installed = install(&["--prefix", prefix.to_str().unwrap(), "--pam", "common"]);
    rustix::process::umask(before);
    succeeded(&installed);
    for path in
        ["", "bin", "lib/systemd/system", "share/man/man1", "etc/stead", "etc/stead/policy.d", "etc/pam.d"]
    {
        let found = fs::metadata(prefix.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(found.permissions().mode() & 0o7777, 0o755, "{path}");
    }
    let page = fs::metadata(prefix.join("share/man/man1/stead-run.1")).unwrap();
    assert_eq!(page.permissions().mode() & 0o7777, 0o644);
    let unit = fs::read_to_string(prefix.join("lib/systemd/system/stead.service")).unwrap();
    assert!(unit.contains(r#"/with \"spaces\" and 100%%/bin/stead" serve --policy ""#), "{unit}");
}

#[test]
fn an_administrators_own_configuration_is_kept() {
    let bed = testbed::require!();
    let prefix = bed.scratch("prefix");
    let arguments = ["--prefix", prefix.to_str().unwrap(), "--pam", "system-auth"];
    assert!(!succeeded(&install(&arguments)).contains("kept"));
    let policy = prefix.join("etc/stead/policy.toml");
    fs::write(&policy, "# mine\n").unwrap();
    let said = succeeded(&install(&arguments));
    assert!(said.contains(&format!("kept {}", policy.display())), "{said}");
    assert_eq!(fs::read_to_string(&policy).unwrap(), "# mine\n");
    assert_eq!(said.matches("kept").count(), 1, "{said}");
}

#[test]
fn for_a_package_everything_goes_below_another_folder() {
    let bed = testbed::require!();
    let stage = bed.scratch("stage");
    let arguments = ["--prefix=/usr", &format!("--destdir={}", stage.display()), "--pam=none"];
    let said = succeeded(&install(&arguments));
    assert!(!said.contains("systemctl"), "{said}");
    let unit = fs::read_to_string(stage.join("usr/lib/systemd/system/stead.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/stead serve"), "{unit}");
    assert!(stage.join("etc/stead/policy.toml").exists() && !stage.join("etc/pam.d").exists());
}

#[test]
fn systemd_understands_the_units() {
    let bed = testbed::require!();
    let Ok(found) = Command::new("systemd-analyze").arg("--version").output() else {
        testbed::skip!("systemd-analyze is not installed (apt-get install systemd)");
    };
    let version = String::from_utf8_lossy(&found.stdout);
    let version: u32 = version.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let prefix = bed.scratch("prefix");
    succeeded(&install(&["--prefix", prefix.to_str().unwrap(), "--pam", "none"]));
    let units = prefix.join("lib/systemd/system");
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]).env("SYSTEMD_LOG_LEVEL", "warning");
    let output = command.args([units.join("stead.service"), units.join("stead.socket")]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // DelegateSubgroup= is known since 254; an older systemd passes it over.
    let of_ours =
        |line: &&str| line.contains("stead.") && (version >= 254 || !line.contains("DelegateSubgroup"));
    let complaints: Vec<&str> = said.lines().filter(of_ours).collect();
    assert!(output.status.success() && complaints.is_empty(), "{said}");
}

#[test]
fn the_packages_newest_entry_is_of_the_crates_version() {
    let changelog = fs::read_to_string(root().join("packaging/changelog")).unwrap();
    let expected = format!("stead ({}-", env!("CARGO_PKG_VERSION"));
    let newest = changelog.lines().next().unwrap_or_default();
    assert!(newest.starts_with(&expected), "{newest:?} is not of this version: {expected}..");
}

#[test]
fn the_socket_goes_with_its_unit() {
    let unit = fs::read_to_string(root().join("packaging/systemd/stead.socket")).unwrap();
    assert!(unit.lines().any(|line| line == "RemoveOnStop=yes"));
}

#[test]
fn the_unit_hands_no_confinement_down() {
    let unit = fs::read_to_string(root().join("packaging/systemd/stead.service")).unwrap();
    let settings =
        || unit.lines().filter(|line| !line.starts_with(['#', '['])).filter_map(|line| line.split_once('='));
    for (key, value) in settings() {
        let confines = CONFINING.iter().any(|name| key.starts_with(name));
        assert!(!confines, "{key}={value} would be inherited by every process of every client");
    }
    for expected in
        [("KillMode", "process"), ("Delegate", "yes"), ("Type", "notify"), ("OOMPolicy", "continue")]
    {
        assert!(settings().any(|setting| setting == expected), "{expected:?}");
    }
}

#[test]
fn sysusers_and_tmpfiles_are_understood() {
    let folder = root().join("packaging");
    let Ok(output) =
        Command::new("systemd-sysusers").arg("--dry-run").arg(folder.join("sysusers.d/stead.conf")).output()
    else {
        testbed::skip!("systemd-sysusers is not installed (apt-get install systemd)");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tmpfiles = fs::read_to_string(folder.join("tmpfiles.d/stead.conf")).unwrap();
    for line in tmpfiles.lines().filter(|line| !line.starts_with('#')) {
        assert_eq!(line.split_whitespace().count(), 6, "{line}");
    }
}
