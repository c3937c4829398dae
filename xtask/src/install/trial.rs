//! `cargo xtask deb --try`: the package installed in a Debian of its own, with a live systemd as its first process.
//!
//! The Debian is made by mmdebstrap in a folder, and runs in namespaces of its own; nothing of it stays behind. With
//! `--in machine` it has a kernel of its own, too: [`crate::machine`].

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::steps::{IN_A_MACHINE, INSTALLED, STEPS, WORDS};
use super::succeed;
use crate::machine::{Machine, Release};
use crate::scratch::{Folder, ends_with_us};

const RELEASE: &str = "bookworm";
/// What a Debian has that people log on to; what the package depends on is among it.
const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,libpam-systemd,libpam-modules,libpam-runtime,procps,logrotate";
/// How long systemd may take to start.
const PATIENCE: Duration = Duration::from_secs(180);
const BOOT: &str = include_str!("boot.sh");
/// What runs each script, in a service's cgroup of its own; what does not end by itself is a failure.
const IN_A_SERVICE: &[&str] = &[
    "systemd-run",
    "--quiet",
    "--collect",
    "--wait",
    "--pipe",
    "--working-directory=/",
    "--property=KillMode=control-group",
    "--property=TimeoutStopSec=5",
];
const AT_MOST: u32 = 120;

/// A Debian to try it in.
trait Debian {
    /// Runs a script in it, as root; whether it ended well, and what it said.
    fn script(&mut self, script: &str) -> io::Result<(bool, Vec<u8>)>;
}

/// Installs the package and goes through all of it, here or in a machine of this release.
pub(super) fn run(package: &Path, machine: Option<Release>) -> io::Result<u8> {
    match machine {
        None => in_namespaces(package),
        Some(release) => {
            let folder = package.parent().unwrap_or(Path::new("/"));
            let mut machine = Machine::start(release, &[folder])?;
            let copied = machine
                .script(&format!("cp '{}' /stead.deb; uname -sr; systemctl --version", package.display()))?;
            io::stdout().write_all(&copied.1)?;
            let steps = STEPS[..INSTALLED].iter().chain(IN_A_MACHINE).chain(&STEPS[INSTALLED..]);
            try_all(&mut machine, steps)
        }
    }
}

impl Debian for Machine {
    fn script(&mut self, script: &str) -> io::Result<(bool, Vec<u8>)> {
        let mut said = Vec::new();
        let properties = IN_A_SERVICE.join(" ");
        let script = format!(
            "cat > /run/step <<'END OF THE STEP'\n{WORDS}{script}\nEND OF THE STEP\n\
             exec {properties} --property=RuntimeMaxSec={} bash -xe /run/step\n",
            AT_MOST * self.slowness()
        );
        let status = self.run(&script, &mut said)?;
        Ok((status == 0, said))
    }
}

fn in_namespaces(package: &Path) -> io::Result<u8> {
    let folder = Folder::new("try", 0o755)?;
    let root = folder.path().join("root");
    println!("making a Debian {RELEASE} in {}", root.display());
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=minbase", &format!("--include={PACKAGES}"), RELEASE]).arg(&root);
    match succeed(&mut make) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(io::Error::other("needs mmdebstrap (apt-get install mmdebstrap)"));
        }
        made => made?,
    };
    fs::copy(package, root.join("stead.deb"))?;
    try_all(&mut Namespaces::boot(&root)?, STEPS.iter())
}

fn try_all<'a>(
    debian: &mut dyn Debian,
    steps: impl Iterator<Item = &'a (&'static str, &'static str)>,
) -> io::Result<u8> {
    let (mut failed, mut tried) = (0, 0);
    for (holds, script) in steps {
        tried += 1;
        let begun = Instant::now();
        let (well, said) = debian.script(script)?;
        if let Some(why) = skipped(&said).filter(|_| well) {
            println!("skipped  {holds}: {why}");
        } else {
            let ended = if well { "ok" } else { "FAILED" };
            println!("{ended:>7}  {holds} ({} s)", begun.elapsed().as_secs());
        }
        if !well {
            failed += 1;
            io::stdout().write_all(&said)?;
        }
    }
    if failed == 0 {
        return Ok(0);
    }
    let (_, journal) = debian.script("journalctl --no-pager -u stead.service -n 100")?;
    io::stdout().write_all(&journal)?;
    println!("{failed} of {tried} failed");
    Ok(1)
}

/// Why a script that ended well did nothing, by its line `skipped: ..`.
fn skipped(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    said.lines().find_map(|line| line.strip_prefix("skipped: ")).map(str::to_owned)
}

/// Namespaces whose first process is systemd, until they are dropped.
struct Namespaces {
    child: Child,
    first: String,
    cgroup: PathBuf,
}

impl Namespaces {
    fn boot(root: &Path) -> io::Result<Self> {
        let hierarchy = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .into_iter()
            .map(Path::new)
            .find(|path| path.join("cgroup.controllers").exists())
            .ok_or_else(|| io::Error::other("needs cgroup version 2"))?;
        let cgroup = hierarchy.join(format!("stead-try-{}", std::process::id()));
        fs::create_dir(&cgroup)?;
        let log = root.with_file_name("boot.log");
        let output = fs::File::create(&log)?;
        // A cgroup namespace has its root where the process is that makes it.
        let child = ends_with_us("sh")
            .args([
                "-c",
                r#"echo 0 > "$0/cgroup.procs" && exec unshare -mpfCuin --kill-child sh -c "$1" sh "$2""#,
            ])
            .arg(&cgroup)
            .arg(BOOT)
            .arg(root)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let mut machine = Self { child, first: String::new(), cgroup };
        let end = Instant::now() + PATIENCE;
        loop {
            let children = format!("/proc/{0}/task/{0}/children", machine.child.id());
            fs::read_to_string(children).unwrap_or_default().trim().clone_into(&mut machine.first);
            let up = "test \"$(systemctl is-system-running)\" = running";
            if !machine.first.is_empty() && machine.command(up).output()?.status.success() {
                return Ok(machine);
            }
            if machine.child.try_wait()?.is_some() || Instant::now() > end {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(io::Error::other(format!("systemd does not start here: {}", said.trim())));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// A script that runs inside, as root, in a service's cgroup of its own.
    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.first, "-m", "-p", "-C", "-u", "-i", "-n", "--"]);
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"]);
        command.args(IN_A_SERVICE).arg(format!("--property=RuntimeMaxSec={AT_MOST}"));
        command.args(["bash", "-xec", &format!("{WORDS}{script}")]).stdin(Stdio::null());
        command
    }
}

impl Debian for Namespaces {
    fn script(&mut self, script: &str) -> io::Result<(bool, Vec<u8>)> {
        let output = self.command(script).output()?;
        Ok((output.status.success(), [output.stdout, output.stderr].concat()))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        testbed::logind::end_cgroup(&self.cgroup, &mut self.child);
    }
}
