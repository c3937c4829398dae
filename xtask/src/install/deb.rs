//! `cargo xtask deb`: a Debian package. Its files are laid out as `install` does it; cargo-deb packs them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::files::Flavour;
use super::{Places, install, release_build, succeed, trial};
use crate::build;
use crate::machine::Release;

const USAGE: &str =
    "usage: cargo xtask deb [--programs DIR] [--try [--in machine] [--release bookworm|trixie]]";

/// Runs the command: prints where the package is.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    let (mut programs, mut tried, mut machine) = (None, false, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--try" => tried = true,
            "--in" if rest.next().is_some_and(|place| place == "machine") => {
                machine = machine.or(Some(Release::Bookworm));
            }
            "--release" => machine = Some(rest.next().ok_or_else(|| io::Error::other(USAGE))?.parse()?),
            "--programs" => programs = Some(rest.next().ok_or_else(|| io::Error::other(USAGE))?),
            _ => return Err(io::Error::other(USAGE)),
        }
    }
    let programs = programs.map(std::path::absolute).transpose()?;
    let programs = programs.map_or_else(release_build, Ok)?;
    let package = pack(programs)?;
    println!("{}", package.display());
    if tried { trial::run(&package, machine) } else { Ok(0) }
}

fn pack(programs: PathBuf) -> io::Result<PathBuf> {
    // The manifest of stead-cli names it.
    let stage = build::target()?.join("release/stage");
    match fs::remove_dir_all(&stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (prefix, sysconfdir) = (PathBuf::from("/usr"), PathBuf::from("/etc"));
    let (destdir, programs) = (Some(stage.clone()), Some(programs));
    install(&Places { destdir, prefix, sysconfdir, programs, pam: Flavour::Common })?;
    compress(&stage.join("usr/share/man/man1"))?;
    let output = build::cargo()
        .args(["deb", "--quiet", "--no-build", "--package", "stead-cli"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    match printed.lines().last() {
        Some(path) if output.status.success() => Ok(path.into()),
        _ => Err(io::Error::other("cargo deb failed; where there is none: cargo install cargo-deb --locked")),
    }
}

/// Compresses the manual pages as Debian has them; what was built cargo-deb leaves as it is.
fn compress(folder: &Path) -> io::Result<()> {
    let mut gzip = Command::new("gzip");
    gzip.args(["-9", "-n"]);
    for page in fs::read_dir(folder)? {
        gzip.arg(page?.path());
    }
    succeed(&mut gzip).map(drop)
}
