//! Wine, with a prefix of our own that is thrown away.

use super::{directory, toolchain};
use crate::build;
use crate::runner::Place;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What Rust's std takes random numbers from, and Wine 8 lacks.
const BCRYPTPRIMITIVES: &str = r"
__declspec(dllimport) unsigned char __stdcall SystemFunction036(void *, unsigned long);
__declspec(dllexport) int __stdcall ProcessPrng(unsigned char *to, unsigned long long length) {
    return SystemFunction036(to, (unsigned long)length);
}
";

/// A Wine that is ready.
pub struct Wine {
    name: String,
    prefix: PathBuf,
    /// Where its Debian lies, when it is not this machine's.
    root: Option<PathBuf>,
}

impl Wine {
    /// Whether this machine has one.
    pub fn is_here() -> bool {
        toolchain::on_path("wine")
    }

    /// Whether this machine's is new enough to have more users than one (NtCreateToken).
    pub fn has_second_users() -> io::Result<bool> {
        Ok(major(&version(Command::new("wine"))?) >= 10)
    }

    /// This machine's, with a fresh prefix.
    pub fn of_this_machine() -> io::Result<Self> {
        Self::ready(None)
    }

    /// That of the Debian in this directory, with a fresh prefix.
    pub fn in_a_root_of_its_own(root: &Path) -> io::Result<Self> {
        Self::ready(Some(root.to_owned()))
    }

    fn ready(root: Option<PathBuf>) -> io::Result<Self> {
        let place = if root.is_some() { "wine-trixie" } else { "wine" };
        let prefix = directory().join(place).join("prefix");
        let mut wine = Self { name: String::new(), prefix, root };
        wine.name = version(wine.command("wine"))?;
        // An earlier run may have been killed.
        wine.stop();
        let _ = fs::remove_dir_all(directory().join(place));
        fs::create_dir_all(wine.scratch())?;
        // Nothing of ours to write to: the services that it starts stay, and would keep a pipe open.
        let mut boot = wine.command("wine");
        boot.args(["wineboot", "-i"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        let system = wine.prefix.join("drive_c/windows/system32");
        if !system.is_dir() {
            return Err(io::Error::other(format!("{} makes no prefix", wine.name)));
        }
        let library = system.join("bcryptprimitives.dll");
        if !library.exists() {
            let source = wine.scratch().join("bcryptprimitives.c");
            fs::write(&source, BCRYPTPRIMITIVES)?;
            let mut compiler = Command::new("x86_64-w64-mingw32-gcc");
            compiler.args(["-shared", "-O1", "-o"]).arg(&library).arg(&source).arg("-ladvapi32");
            if !compiler.status()?.success() {
                return Err(io::Error::other("bcryptprimitives.dll could not be built"));
            }
        }
        // The server stays between tests: starting it anew takes longer than most of them. A minute after the last
        // one it ends by itself, should nobody be left to end it.
        wine.command("wineserver").arg("-p60").stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        Ok(wine)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = match &self.root {
            None => Command::new(program),
            Some(root) => {
                // Mounts that only this command and its children see, and that end with them.
                let script = "root=$1 checkout=$2 files=$3 directory=$PWD; shift 3
                    mount -t proc proc \"$root/proc\" && mount --rbind /dev \"$root/dev\" &&
                    mkdir -p \"$root$checkout\" && mount --rbind \"$checkout\" \"$root$checkout\" &&
                    mkdir -p \"$root$files\" && mount --rbind \"$files\" \"$root$files\" &&
                    exec chroot \"$root\" env -C \"$directory\" \"$@\"";
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "--", "sh", "-c", script, "sh"]);
                command.arg(root).arg(build::root()).arg(directory()).arg(program);
                command
            }
        };
        command
            .current_dir(build::root())
            .envs(self.variables())
            .env("HOME", self.scratch())
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .stdin(Stdio::null());
        command
    }

    /// Where it lives, and what it is not to do.
    pub fn variables(&self) -> [(&'static str, OsString); 3] {
        // No debugger, no .NET, no HTML, and no entries in anybody's menus.
        let overrides = "winedbg.exe=d;mscoree=d;mshtml=d;winemenubuilder.exe=d";
        [
            ("WINEPREFIX", self.prefix.clone().into()),
            ("WINEDEBUG", "-all".into()),
            ("WINEDLLOVERRIDES", overrides.into()),
        ]
    }

    /// Ends the server of this prefix, and with it everything that runs there.
    fn stop(&self) {
        if self.prefix.is_dir() {
            let _ = self.command("wineserver").arg("-k").stderr(Stdio::null()).status();
            let _ = self.command("wineserver").arg("-w").stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Wine {
    fn drop(&mut self) {
        self.stop();
        if let Some(directory) = self.prefix.parent() {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

impl Place for Wine {
    fn start(&self, program: &Path) -> Command {
        let mut command = self.command("wine");
        command.arg(program);
        command
    }

    fn scratch(&self) -> PathBuf {
        self.prefix.with_file_name("scratch")
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// `Wine 8.0`, of `wine-8.0 (Debian 8.0~repack-4)`.
fn version(mut wine: Command) -> io::Result<String> {
    let output = wine.arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.trim().strip_prefix("wine-").and_then(|text| text.split_whitespace().next());
    version.map(|version| format!("Wine {version}")).ok_or_else(|| io::Error::other("wine does not run"))
}

fn major(version: &str) -> u32 {
    let digits = version.trim_start_matches("Wine ").split('.').next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn wine_tells_its_age() {
        assert_eq!((major("Wine 8.0"), major("Wine 10.0~rc1"), major("Wine 11")), (8, 10, 11));
    }
}
