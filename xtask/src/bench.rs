//! `cargo xtask bench [PART..] [--quick] [--json FILE]`: what stead costs, beside its floor and its peers, measured in the
//! testbed, among throw-away users; `bench plot FILE`: the same as a picture.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testbed::{EnterOptions, Entry};

use crate::build;

const JSON: &str = "--json";

/// Builds the benchmark with optimisation, enters the testbed, and runs it there.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    if let Some(bed) = testbed::Bed::current() {
        return status(Command::new(bed.bin("stead-bench")).args(arguments));
    }
    if let [what, file] = arguments
        && what == "plot"
    {
        return plot(Path::new(file));
    }
    install_peers();
    let packages = ["--package", "stead-bench", "--package", "stead-cli", "--package", "stead-session"];
    let built = build::build(&[&["build", "--release", "--bins"], &packages[..]].concat())?;
    let mut options = EnterOptions::default();
    options.programs = build::for_the_bed(&built);
    options.install = true;
    let folder = options.programs.first().and_then(|(_, path)| path.parent());
    let folder = folder.ok_or_else(|| io::Error::other("cargo did not say where it put stead-bench"))?;
    // Where the file is wanted may lie where the testbed has directories of its own.
    let results = Results::wanted(arguments, folder)?;
    let mut inside: Vec<OsString> = vec!["bench".into()];
    inside.extend(results.arguments.iter().cloned());
    options.arguments = Some(inside);
    match testbed::enter(&options)? {
        Entry::Inside(_) => Err(io::Error::other("the testbed was entered already")),
        Entry::Left { status, left_behind } => {
            for what in &left_behind {
                eprintln!("LEFT BEHIND ON THE HOST: {what}");
            }
            results.deliver()?;
            Ok(u8::try_from(status).unwrap_or(u8::MAX).max(u8::from(!left_behind.is_empty())))
        }
    }
}

/// Where README has the table.
const MARKS: (&str, &str) = ("<!-- cargo xtask bench plot -->\n", "<!-- end -->\n");

/// Draws the results in a file; those of the documentation also fill README's table.
fn plot(file: &Path) -> io::Result<u8> {
    let built = build::build(&["build", "--release", "--package", "stead-bench"])?;
    let program =
        built.first().ok_or_else(|| io::Error::other("cargo did not say where it put stead-bench"))?;
    let output = Command::new(&program.path).arg("plot").arg(file).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Ok(1);
    }
    let table = String::from_utf8(output.stdout).map_err(io::Error::other)?;
    print!("{table}");
    let documented = build::root().join("docs/bench.json");
    if fs::canonicalize(file)? == fs::canonicalize(documented).unwrap_or_default() {
        let readme = build::root().join("README.md");
        let text = fs::read_to_string(&readme)?;
        let (before, rest) =
            text.split_once(MARKS.0).ok_or_else(|| io::Error::other("README has no place for it"))?;
        let (_, after) =
            rest.split_once(MARKS.1).ok_or_else(|| io::Error::other("README has no place for it"))?;
        fs::write(&readme, format!("{before}{}{table}{}{after}", MARKS.0, MARKS.1))?;
    }
    Ok(0)
}

/// The commands that are measured beside ours, and the Debian packages that they come in.
const PEERS: [(&str, &str); 7] = [
    ("python3", "python3"),
    ("runuser", "util-linux"),
    ("sudo", "sudo"),
    ("doas", "opendoas"),
    ("chpst", "runit"),
    ("s6-setuidgid", "s6"),
    ("gosu", "gosu"),
];

/// Installs those that are not there, where this is root and there is apt; what stays away is named in the results.
fn install_peers() {
    let there = |name: &str| {
        ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|folder| Path::new(folder).join(name).exists())
    };
    let packages: Vec<&str> =
        PEERS.iter().filter(|(name, _)| !there(name)).map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return;
    }
    let list = packages.join(" ");
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !root || !there("apt-get") {
        eprintln!("bench: not installed, so not measured: {list}");
        return;
    }
    eprintln!("bench: installing {list}");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command.stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    // One by one: a distribution may have some of them only.
    for package in packages {
        let install = ["install", "-y", "--no-install-recommends", package];
        if !(apt(&install) || apt(&["update"]) && apt(&install)) {
            eprintln!("bench: could not install {package}; going on without");
        }
    }
}

fn status(command: &mut Command) -> io::Result<u8> {
    Ok(command.status()?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Where the results are written inside, and where they are wanted.
struct Results {
    arguments: Vec<OsString>,
    inside: PathBuf,
    wanted: Option<PathBuf>,
}

impl Results {
    fn wanted(arguments: &[String], folder: &Path) -> io::Result<Self> {
        let inside = folder.join(format!("bench-{}.json", std::process::id()));
        let mut wanted = None;
        let mut passed_on = Vec::new();
        let mut given = arguments.iter();
        while let Some(argument) = given.next() {
            passed_on.push(argument.into());
            if argument == JSON {
                let file = given.next().ok_or_else(|| io::Error::other("--json takes a file"))?;
                wanted = Some(PathBuf::from(file));
                passed_on.push(inside.clone().into());
            }
        }
        Ok(Self { arguments: passed_on, inside, wanted })
    }

    /// Puts the file where it is wanted.
    fn deliver(&self) -> io::Result<()> {
        let Some(wanted) = &self.wanted else { return Ok(()) };
        let text = fs::read(&self.inside)?;
        fs::write(wanted, text)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", wanted.display())))
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.inside);
    }
}
