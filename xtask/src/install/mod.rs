//! `cargo xtask install --prefix DIR` and `cargo xtask deb`: the command, the session worker, and what a machine needs to
//! run the service.

mod deb;
mod files;
mod steps;
mod trial;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build;
use files::{CONFIGURATION, DATA, Flavour};

pub use deb::run as deb;

const USAGE: &str = "usage: cargo xtask install [--prefix DIR] [--sysconfdir DIR] [--destdir DIR] [--programs DIR] \
                     [--pam common|system-auth|none]";
const PROGRAMS: [&str; 2] = ["stead", "stead-session"];

/// Where everything goes.
struct Places {
    /// What stands before every path, for a package.
    destdir: Option<PathBuf>,
    prefix: PathBuf,
    sysconfdir: PathBuf,
    /// Programs that are built already; else they are built.
    programs: Option<PathBuf>,
    pam: Flavour,
}

/// Runs the command.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    let places = places(arguments)?;
    // What is installed is for everybody, whatever root's own files are.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let kept = install(&places)?;
    for path in &kept {
        println!("kept {}, which was changed here", path.display());
    }
    if places.pam == Flavour::None {
        println!("no PAM services were installed: docs/linux.md says what they may look like");
    }
    if places.destdir.is_none() {
        println!(
            "installed below {}. As root, to run the service:{}",
            places.prefix.display(),
            how_to_run(&places)
        );
    }
    Ok(0)
}

/// The commands; PAM, systemd and logrotate look nowhere but in the machine's own folders.
fn how_to_run(places: &Places) -> String {
    let (prefix, sysconfdir) = (places.prefix.display(), places.sysconfdir.display());
    let mut commands = Vec::new();
    if places.sysconfdir != Path::new("/etc") {
        commands.push(format!("ln -s '{sysconfdir}'/pam.d/stead-* /etc/pam.d/"));
        commands.push(format!("cp '{sysconfdir}'/logrotate.d/stead /etc/logrotate.d/"));
    }
    let of_machine = is_of_machine(&places.prefix);
    let own = |file: &str| if of_machine { String::new() } else { format!(" '{prefix}/lib/{file}'") };
    commands.push(format!("systemd-sysusers{}", own("sysusers.d/stead.conf")));
    commands.push(format!("systemd-tmpfiles --create{}", own("tmpfiles.d/stead.conf")));
    if !of_machine {
        commands.push(format!("systemctl link '{prefix}'/lib/systemd/system/stead.service"));
        commands.push(format!("systemctl link '{prefix}'/lib/systemd/system/stead.socket"));
    }
    commands.push("systemctl daemon-reload".to_owned());
    commands.push("systemctl enable --now stead.socket stead.service".to_owned());
    commands.iter().fold(String::new(), |text, command| text + "\n  " + command)
}

fn is_of_machine(prefix: &Path) -> bool {
    [Path::new("/usr"), Path::new("/usr/local")].contains(&prefix)
}

/// A word of `ExecStart=` (systemd.service(5), "Command lines").
fn unit_word(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%").replace('$', "$$");
    if text.contains(|c: char| c.is_whitespace() || "\"'\\;".contains(c)) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text
    }
}

fn places(arguments: &[String]) -> io::Result<Places> {
    let (mut prefix, mut sysconfdir, mut destdir, mut programs, mut pam) = (None, None, None, None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (argument.as_str(), rest.next().cloned()),
        };
        let place = match option {
            "--prefix" => &mut prefix,
            "--sysconfdir" => &mut sysconfdir,
            "--destdir" => &mut destdir,
            "--programs" => &mut programs,
            "--pam" => &mut pam,
            _ => return Err(io::Error::other(USAGE)),
        };
        *place = Some(value.ok_or_else(|| io::Error::other(USAGE))?);
    }
    let absolute = |path: Option<String>| path.map(std::path::absolute).transpose();
    let prefix = absolute(prefix)?.unwrap_or_else(|| "/usr/local".into());
    // As everywhere: what is installed for the whole machine is configured in its /etc.
    let default = if is_of_machine(&prefix) { PathBuf::from("/etc") } else { prefix.join("etc") };
    let pam = match pam.as_deref() {
        None => Flavour::of_this_machine(),
        Some("common") => Flavour::Common,
        Some("system-auth") => Flavour::SystemAuth,
        Some("none") => Flavour::None,
        Some(_) => return Err(io::Error::other(USAGE)),
    };
    let sysconfdir = absolute(sysconfdir)?.unwrap_or(default);
    Ok(Places { destdir: absolute(destdir)?, prefix, sysconfdir, programs: absolute(programs)?, pam })
}

/// Puts everything in its place; gives the configuration files that stay as they were.
fn install(places: &Places) -> io::Result<Vec<PathBuf>> {
    let programs = match &places.programs {
        Some(folder) => folder.clone(),
        None => release_build()?,
    };
    let bin = places.prefix.join("bin");
    let stead = places.put(&bin.join("stead"), &fs::read(programs.join("stead"))?, 0o755)?;
    let worker = fs::read(programs.join("stead-session"))?;
    places.put(&places.prefix.join("libexec/stead/stead-session"), &worker, 0o755)?;

    let mut serve = vec![unit_word(&bin.join("stead")), "serve".to_owned()];
    if places.sysconfdir != Path::new("/etc") {
        serve.extend(["--policy".to_owned(), unit_word(&places.sysconfdir.join("stead"))]);
    }
    let serve = serve.join(" ");
    for (path, text) in DATA {
        let text = text.replace("@serve@", &serve);
        places.put(&places.prefix.join(path), text.as_bytes(), 0o644)?;
    }
    let man = places.at(&places.prefix.join("share/man/man1"));
    make_folder(&man)?;
    succeed(Command::new(&stead).arg("man").arg(&man))?;
    for (shell, path) in [
        ("bash", "share/bash-completion/completions/stead"),
        ("zsh", "share/zsh/site-functions/_stead"),
        ("fish", "share/fish/vendor_completions.d/stead.fish"),
    ] {
        let text = succeed(Command::new(&stead).args(["completions", shell]))?;
        places.put(&places.prefix.join(path), &text, 0o644)?;
    }

    make_folder(&places.at(&places.sysconfdir.join("stead/policy.d")))?;
    let mut kept = Vec::new();
    for (path, text) in CONFIGURATION.iter().chain(places.pam.files()) {
        let path = places.sysconfdir.join(path);
        match fs::read(places.at(&path)) {
            Ok(there) if there == text.as_bytes() => {}
            Ok(_) => kept.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                places.put(&path, text.as_bytes(), 0o644)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(kept)
}

/// Builds what is installed, and gives the folder that it is in.
fn release_build() -> io::Result<PathBuf> {
    let built = build::build(&["build", "--release", "-p", "stead-cli", "-p", "stead-session", "--bins"])?;
    let folders: Vec<_> = PROGRAMS
        .iter()
        .filter_map(|name| built.iter().find(|program| program.name == *name))
        .filter_map(|program| program.path.parent())
        .collect();
    match folders[..] {
        [folder, other] if folder == other => Ok(folder.to_owned()),
        _ => Err(io::Error::other("cargo did not build both programs")),
    }
}

impl Places {
    /// Where a path really is.
    fn at(&self, path: &Path) -> PathBuf {
        match &self.destdir {
            Some(destdir) => destdir.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// Writes a file, whole or not at all: also over a program that runs.
    fn put(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
        let path = self.at(path);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::other(format!("{} is no file's path", path.display())));
        };
        make_folder(folder)?;
        let unfinished = folder.join(format!(".{}.{}", name.display(), std::process::id()));
        fs::write(&unfinished, bytes)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(mode))?;
        fs::rename(&unfinished, &path)?;
        Ok(path)
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)
}

/// Runs a command that must succeed, and gives what it printed.
fn succeed(command: &mut Command) -> io::Result<Vec<u8>> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}\n{said}", output.status)))
}
