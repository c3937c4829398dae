//! A Rust that builds for Windows: the one in use where it has Windows' std, else Debian's, which builds std itself.

use super::{Wine, directory, say};
use crate::build::{self, Program};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "x86_64-pc-windows-gnu";

/// What tests are built of; examples are linted besides, and built as programs.
const TARGETS: [&str; 3] = ["--lib", "--bins", "--tests"];

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toolchain {
    /// The one that built this program.
    Own,
    /// Debian's packages for building browsers, which come with the sources of std that match.
    Debian,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "the toolchain in use",
            Self::Debian => "Debian's toolchain, with a std of its own making",
        })
    }
}

impl Toolchain {
    /// The first that is here with all it needs.
    pub fn find() -> Option<Self> {
        if !on_path("x86_64-w64-mingw32-gcc") {
            return None;
        }
        if own_has_windows() {
            return Some(Self::Own);
        }
        DEBIAN.iter().all(|(file, _)| Path::new(file).exists()).then_some(Self::Debian)
    }

    /// Its cargo, in the checkout, building into a target directory of its own.
    fn cargo(self) -> Command {
        let mut command = match self {
            Self::Own => build::cargo(),
            Self::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                let path = std::env::var_os("PATH").unwrap_or_default();
                let first = std::iter::once("/usr/bin".into()).chain(std::env::split_paths(&path));
                if let Ok(path) = std::env::join_paths(first) {
                    command.env("PATH", path);
                }
                // rustup and the cargo that runs this program set these for their own compiler.
                for name in ["RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "CARGO", "RUSTC", "RUSTC_WRAPPER"] {
                    command.env_remove(name);
                }
                // A stable compiler may build std with this only.
                command.env("RUSTC_BOOTSTRAP", "1").current_dir(build::root());
                command
            }
        };
        command.env("CARGO_TARGET_DIR", self.target());
        command
    }

    fn target(self) -> PathBuf {
        directory().join(match self {
            Self::Own => "own",
            Self::Debian => "debian",
        })
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Own => &["--all-features", "--target", TARGET],
            Self::Debian => &["--all-features", "--target", TARGET, "-Zbuild-std"],
        }
    }

    /// clippy on these packages.
    pub fn lint(self, packages: &[&str]) -> io::Result<()> {
        let mut command = self.cargo();
        command.arg("clippy").args(self.arguments()).args(packages).args(TARGETS).args([
            "--examples",
            "--",
            "-D",
            "warnings",
        ]);
        let status = command.stdin(Stdio::null()).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other("clippy for Windows failed")) }
    }

    /// The command that runs the examples in the documentation of these packages, by this Wine.
    pub fn doc_tests(self, packages: &[&str], wine: &Wine) -> Command {
        let mut command = self.cargo();
        command.args(["test", "--doc"]).args(self.arguments()).args(packages);
        command.args(["--", "--format", "pretty"]).envs(wine.variables());
        command.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", "wine").env_remove("DISPLAY");
        command
    }

    /// Builds the test programs of these packages, and the programs that they start.
    pub fn tests(self, packages: &[&str]) -> io::Result<Vec<Program>> {
        let mut examples = self.cargo();
        examples.arg("build").args(self.arguments()).args(packages).arg("--examples");
        if !examples.stdin(Stdio::null()).status()?.success() {
            return Err(io::Error::other("the examples for Windows were not built"));
        }
        self.compile_c_program()?;
        let mut command = self.cargo();
        command.args(["test", "--no-run"]).args(self.arguments()).args(packages).args(TARGETS);
        build::programs_of(command)
    }

    /// The program whose `wmain` shows what the C runtime makes of a command line, beside the others.
    fn compile_c_program(self) -> io::Result<()> {
        let directory = self.target().join(TARGET).join("debug");
        std::fs::create_dir_all(&directory)?;
        let source = directory.join("crtmain.c");
        std::fs::write(&source, C_PROGRAM)?;
        let mut compiler = Command::new("x86_64-w64-mingw32-gcc");
        compiler.args(["-municode", "-O1", "-o"]).arg(directory.join("crtmain.exe")).arg(&source);
        if compiler.status()?.success() {
            Ok(())
        } else {
            Err(io::Error::other("crtmain.c was not compiled"))
        }
    }
}

/// Each argument on a line, each unit of it in four hexadecimal digits.
const C_PROGRAM: &str = r#"
#include <stdio.h>
#include <wchar.h>
int wmain(int count, wchar_t **list) {
    for (int at = 1; at < count; at++) {
        for (const wchar_t *unit = list[at]; *unit; unit++) printf("%04x", *unit);
        printf("\n");
    }
    return 0;
}
"#;

/// What of Debian's is needed, by a file of each package.
const DEBIAN: [(&str, &str); 4] = [
    ("/usr/bin/rustc", "rustc-web"),
    ("/usr/bin/cargo", "cargo-web"),
    ("/usr/bin/cargo-clippy", "rust-web-clippy"),
    ("/usr/lib/rustlib/src/rust/library/std/Cargo.toml", "rust-web-src"),
];

fn own_has_windows() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    output.is_ok_and(|output| {
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&path).is_dir()
    })
}

/// Whether a program is there to be run.
pub fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).exists())
}

fn missing() -> Vec<&'static str> {
    let mut missing = Vec::new();
    if !on_path("x86_64-w64-mingw32-gcc") {
        missing.push("gcc-mingw-w64-x86-64");
    }
    if !own_has_windows() {
        missing
            .extend(DEBIAN.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| package));
    }
    if !Wine::is_here() {
        missing.extend(["wine", "wine64"]);
    }
    if !on_path("mmdebstrap") && is_root() {
        missing.push("mmdebstrap");
    }
    missing
}

/// The command that installs what is missing.
pub fn advice() -> String {
    format!("apt-get install --no-install-recommends {}", missing().join(" "))
}

/// Whether this is root.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Installs what is missing, where apt is and may.
pub fn install() -> io::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    if !on_path("apt-get") {
        return Err(io::Error::other("needs Wine, mingw-w64 and a Rust with x86_64-pc-windows-gnu"));
    }
    let apt = |arguments: &[&str]| {
        let mut command = if is_root() {
            Command::new("apt-get")
        } else {
            let mut command = Command::new("sudo");
            command.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            command
        };
        command.args(["-qq", "-y", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    say(format_args!("installing {}", missing.join(" ")));
    apt(&["update"]);
    let arguments: Vec<&str> = ["install", "--no-install-recommends"].into_iter().chain(missing).collect();
    if apt(&arguments) {
        return Ok(());
    }
    Err(io::Error::other(format!("could not be installed; as root: {}", advice())))
}
