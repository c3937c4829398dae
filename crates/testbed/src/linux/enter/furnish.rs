//! What is in the bed: directories, homes, programs, account files, PAM services.

use crate::linux::accounts::{self, User};
use crate::linux::bed::{Description, ROOT};
use crate::linux::pam;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

/// An I/O error that names what was being done.
pub(crate) fn context<T>(result: io::Result<T>, what: impl FnOnce() -> String) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", what())))
}

pub(crate) fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    context(fs::write(path, text), || path.display().to_string())?;
    context(fs::set_permissions(path, fs::Permissions::from_mode(mode)), || path.display().to_string())
}

pub(crate) fn directory(path: &Path, mode: u32) -> io::Result<()> {
    context(fs::create_dir_all(path), || path.display().to_string())?;
    context(fs::set_permissions(path, fs::Permissions::from_mode(mode)), || path.display().to_string())
}

/// The bed's own directories and programs. Everything is root's, and nothing but `tmp` can be written by others.
pub(crate) fn rooms(programs: &[(String, PathBuf)]) -> io::Result<()> {
    let root = Path::new(ROOT);
    for name in ["", "bin", "home", "scratch", "log"] {
        directory(&root.join(name), 0o755)?;
    }
    directory(&root.join("tmp"), 0o1777)?;
    // Tests share the bed by a lock on this file.
    write(&root.join("lock"), "", 0o644)?;
    for (name, text) in pam::scripts(root) {
        write(&root.join("bin").join(name), &text, 0o755)?;
    }
    for (name, from) in programs {
        let to = root.join("bin").join(name);
        context(fs::copy(from, &to), || format!("{} -> {}", from.display(), to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    let client = root.join("bin/testbed-client");
    if client.exists() {
        let setuid = root.join("bin/testbed-setuid");
        fs::copy(client, &setuid)?;
        fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755))?;
    }
    Ok(())
}

/// Homes, with a file that only its owner may read, and things that must never configure privileged code.
pub(crate) fn homes(users: &[User]) -> io::Result<()> {
    for user in users.iter().filter(|user| accounts::has_home(&user.name)) {
        directory(&user.home, 0o700)?;
        let notes = user.home.join("notes.txt");
        write(&notes, &format!("the notes of {}\n", user.name), 0o600)?;
        // CVE-2024-6126: read by pam_env with user_readenv=1, on behalf of root.
        let environment = user.home.join(".pam_environment");
        write(&environment, "LD_PRELOAD=/nonexistent/evil.so\nSTEAD_EVIL=1\n", 0o644)?;
        for path in [&notes, &environment, &user.home] {
            context(chown(path, Some(user.uid), Some(user.gid)), || path.display().to_string())?;
        }
    }
    Ok(())
}

/// The account and PAM files of a private /etc that lies at `etc`.
pub(crate) fn private_etc(etc: &Path, users: &[User], login_uid: bool) -> io::Result<()> {
    let lines = accounts::lines(users);
    let host = |name: &str| fs::read_to_string(etc.join(name)).unwrap_or_default();
    // The host's system accounts stay, without passwords; its people are not here.
    let system = |text: &str| -> Vec<Vec<String>> {
        text.lines()
            .map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>())
            .filter(|fields| {
                let id = fields.get(2).and_then(|id| id.parse::<u32>().ok());
                id.is_some_and(|id| id < 1000 || id == 65534)
                    && !users.iter().any(|user| user.name == fields[0])
            })
            .collect()
    };
    let (mut passwd, mut shadow, mut group, mut gshadow) = Default::default();
    for fields in system(&host("passwd")) {
        passwd = format!("{passwd}{}\n", fields.join(":"));
        shadow = format!("{shadow}{}:*:19000:0:99999:7:::\n", fields[0]);
    }
    for fields in system(&host("group")) {
        group = format!("{group}{}:x:{}:\n", fields[0], fields[2]);
        gshadow = format!("{gshadow}{}:*::\n", fields[0]);
    }
    for (name, base, ours, mode) in [
        ("passwd", &passwd, &lines.passwd, 0o644),
        ("shadow", &shadow, &lines.shadow, 0o640),
        ("group", &group, &lines.group, 0o644),
        ("gshadow", &gshadow, &lines.gshadow, 0o640),
        ("subuid", &String::new(), &lines.subordinate, 0o644),
        ("subgid", &String::new(), &lines.subordinate, 0o644),
    ] {
        write(&etc.join(name), &format!("{base}{ours}"), mode)?;
        // The backups name the host's people.
        let _ = fs::remove_file(etc.join(format!("{name}-")));
    }
    write(
        &etc.join("nsswitch.conf"),
        "passwd: files\ngroup: files\nshadow: files\ngshadow: files\nhosts: files dns\nnetworks: files\n\
         protocols: files\nservices: files\n",
        0o644,
    )?;
    write(&etc.join("environment"), "", 0o644)?;
    directory(&etc.join("pam.d"), 0o755)?;
    directory(&etc.join("security"), 0o755)?;
    for file in pam::files(Path::new(ROOT), login_uid) {
        write(&etc.join(&file.path), &file.text, 0o644)?;
    }
    write(&etc.join("security/group.conf"), &pam::group_conf_line(), 0o644)
}

/// Writes down what the bed is, which is also what makes it one.
pub(crate) fn describe(description: &Description) -> io::Result<()> {
    let path = Path::new(ROOT).join("bed.json");
    let partial = Path::new(ROOT).join("bed.json.partial");
    write(&partial, &serde_json::to_string(description)?, 0o644)?;
    fs::rename(partial, path)
}

/// Copies a tree of directories, files and symbolic links. What may not be read is left out (in a user namespace
/// that is the host's shadow file), what is neither is too.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let Ok(meta) = entry.metadata() else { continue };
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if meta.is_dir() {
            fs::create_dir(&target)?;
            copy_tree(&source, &target)?;
        } else if meta.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if !meta.is_file() || fs::copy(&source, &target).is_err() {
            continue;
        }
        // Ids outside the map of a user namespace cannot be given; then it is root's.
        let _ = lchown(&target, Some(meta.uid()), Some(meta.gid()));
        if !meta.is_symlink() {
            fs::set_permissions(&target, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
        }
    }
    Ok(())
}

/// Whether a process here may set its login uid, tried by a process of its own, as it can be set once only.
pub(crate) fn login_uid_works() -> bool {
    std::process::Command::new("/bin/sh")
        .args(["-c", "echo 47001 >/proc/self/loginuid"])
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
