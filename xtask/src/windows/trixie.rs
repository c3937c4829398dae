//! A Debian 13 with Wine 10, in a directory below the target directory. Nothing of it is mounted or running when
//! no test is.

use super::toolchain::{is_root, on_path};
use super::{directory, say};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn root() -> PathBuf {
    directory().join("trixie")
}

/// Written last, so that half a system is never used.
const COMPLETE: &str = "stead-complete";

/// Where it lies, if it has been made.
pub fn made() -> Option<PathBuf> {
    (may_mount() && root().join(COMPLETE).exists()).then(root)
}

/// Root of an ordinary container may not.
fn may_mount() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--mount", "true"]).stdin(Stdio::null()).stderr(Stdio::null());
    is_root() && command.status().is_ok_and(|status| status.success())
}

/// Makes it, unless it is there; `None`, having said why, where it cannot be made.
pub fn make() -> io::Result<Option<PathBuf>> {
    if let Some(root) = made() {
        return Ok(Some(root));
    }
    if !may_mount() || !on_path("mmdebstrap") {
        say(
            "tests that need a second user are skipped: Wine 10 beside this one takes mmdebstrap, and root that may mount",
        );
        return Ok(None);
    }
    say("making a Debian with Wine 10 below the target directory");
    let root = root();
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::create_dir_all(directory())?;
    let output = Command::new("mmdebstrap")
        .args(["--quiet", "--mode=root", "--variant=apt", "--include=wine,wine64"])
        .args(["--aptopt=Acquire::Languages \"none\""])
        .args(
            ["doc", "man", "locale", "icons"]
                .map(|part| format!("--dpkgopt=path-exclude=/usr/share/{part}/*")),
        )
        .args(["--skip=cleanup/reproducible", "trixie"])
        .arg(&root)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let _ = fs::remove_dir_all(&root);
        say(format_args!(
            "tests that need a second user are skipped: Wine 10 cannot be had: mmdebstrap: {said}"
        ));
        return Ok(None);
    }
    fs::write(root.join(COMPLETE), "")?;
    Ok(Some(root))
}
