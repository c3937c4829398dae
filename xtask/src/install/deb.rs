//! `cargo xtask deb`: a Debian package. Its files are laid out as `install` does it; cargo-deb packs them.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use super::files::Flavour;
use super::{Places, install, release_build};
use crate::build;

/// Runs the command: prints where the package is.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    if !arguments.is_empty() {
        return Err(io::Error::other("usage: cargo xtask deb"));
    }
    let programs = release_build()?;
    // The manifest of stead-cli names it.
    let stage = programs.join("stage");
    match fs::remove_dir_all(&stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (prefix, sysconfdir) = (PathBuf::from("/usr"), PathBuf::from("/etc"));
    let (destdir, programs) = (Some(stage), Some(programs));
    install(&Places { destdir, prefix, sysconfdir, programs, pam: Flavour::Common })?;
    let status = build::cargo()
        .args(["deb", "--quiet", "--no-build", "--package", "stead-cli"])
        .stdin(Stdio::null())
        .status()?;
    if status.success() {
        return Ok(0);
    }
    Err(io::Error::other("cargo deb failed; where there is none: cargo install cargo-deb --locked"))
}
