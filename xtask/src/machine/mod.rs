//! A machine with a kernel of its own: a Debian in QEMU, with a live systemd, cgroup controllers and AppArmor, which the
//! machine that this runs on need not have. For `cargo xtask test --in machine` and `cargo xtask deb --try --in machine`.
//!
//! Its disk is made once for each release, by mmdebstrap, and stays in the target directory; a machine changes a copy of it
//! that goes away with the machine. Scripts go into it and their output comes out by a folder that both have.

mod image;

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::scratch::{Folder, ends_with_us};

pub use image::Release;

const MEMORY_MIB: u32 = 4096;

/// What executes the machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU, which translates them.
    Tcg,
}

impl Accelerator {
    /// Those to be tried, the fastest first.
    fn all() -> Vec<Self> {
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        // Where the processor does not do it a /dev/kvm says little: a KVM for virtual machines of virtual machines
        // emulates the kernel of a guest that was not made for it, which takes many times as long as translating.
        let by_hardware = flags.split_ascii_whitespace().any(|flag| matches!(flag, "vmx" | "svm"));
        if by_hardware && fs::File::options().read(true).write(true).open("/dev/kvm").is_ok() {
            return vec![Self::Kvm, Self::Tcg];
        }
        vec![Self::Tcg]
    }

    fn options(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    /// How long it may take until the machine runs its first script.
    fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Kvm => 180,
            Self::Tcg => 1200,
        })
    }
}

/// A machine that runs, until it is dropped.
pub struct Machine {
    emulator: Child,
    accelerator: Accelerator,
    exchange: Folder,
    scripts: u32,
}

impl Machine {
    /// Starts one in which these folders are, read-only and at the same paths.
    pub fn start(release: Release, folders: &[&Path]) -> io::Result<Self> {
        if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
            let needed = "needs QEMU (apt-get install --no-install-recommends qemu-system-x86)";
            return Err(io::Error::other(needed));
        }
        let image = image::made(release)?;
        let mut failed = None;
        for accelerator in Accelerator::all() {
            if let Some(error) = failed.take() {
                eprintln!("with KVM, {error}");
            }
            let with = match accelerator {
                Accelerator::Kvm => "with KVM",
                Accelerator::Tcg => "without KVM, which takes a minute or some",
            };
            eprintln!("starting a {release} in QEMU, {with}");
            match Self::start_with(accelerator, &image, folders) {
                Ok(machine) => return Ok(machine),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::other("nothing runs a machine here")))
    }

    fn start_with(accelerator: Accelerator, image: &Path, folders: &[&Path]) -> io::Result<Self> {
        let exchange = Folder::new("machine", 0o700)?;
        let mut shared = Vec::new();
        let mut command = ends_with_us("qemu-system-x86_64");
        command.args(["-nodefaults", "-display", "none", "-no-reboot", "-machine", "q35"]);
        command.args(accelerator.options()).args(["-smp", "2", "-m", &MEMORY_MIB.to_string()]);
        command.arg("-kernel").arg(image.join("vmlinuz")).arg("-initrd").arg(image.join("initrd.img"));
        command.args(["-append", "root=/dev/vda rw console=ttyS0 panic=-1 apparmor=1 security=apparmor"]);
        let disk = format!("file={},if=virtio,format=raw,snapshot=on", image.join("disk").display());
        command
            .args(["-drive", &disk, "-serial"])
            .arg(format!("file:{}", exchange.path().join("console").display()));
        let exchanged = format!(
            "local,path={},mount_tag=exchange,security_model=none,id=exchange",
            exchange.path().display()
        );
        command.args(["-virtfs", &exchanged]);
        for (number, folder) in folders.iter().enumerate() {
            let (tag, folder) = (format!("folder{number}"), folder.display());
            let share = format!(
                "local,path={folder},mount_tag={tag},security_model=none,id={tag},readonly=on,multidevs=remap"
            );
            command.args(["-virtfs", &share]);
            shared.push(format!("{tag} {folder}\n"));
        }
        fs::write(exchange.path().join("folders"), shared.concat())?;
        let emulator = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut machine = Self { emulator, accelerator, exchange, scripts: 0 };
        let begun = Instant::now();
        machine.run_within(
            "systemctl is-system-running --wait || systemctl --failed --no-pager",
            accelerator.patience(),
            &mut io::sink(),
        )?;
        eprintln!("it runs, after {} s", begun.elapsed().as_secs());
        Ok(machine)
    }

    /// How much longer everything may take in it than usually.
    pub fn slowness(&self) -> u32 {
        match self.accelerator {
            Accelerator::Kvm => 2,
            Accelerator::Tcg => 10,
        }
    }

    /// Runs a script in it as root, and gives its exit status; what it prints goes to `out` as it comes.
    pub fn run(&mut self, script: &str, out: &mut dyn Write) -> io::Result<i32> {
        self.run_within(script, Duration::MAX, out)
    }

    fn run_within(&mut self, script: &str, at_most: Duration, out: &mut dyn Write) -> io::Result<i32> {
        self.scripts += 1;
        let file = |kind: &str| self.exchange.path().join(format!("{}.{kind}", self.scripts));
        fs::write(file("sh"), script)?;
        fs::write(file("ready"), "")?;
        let begun = Instant::now();
        let mut shown = 0;
        loop {
            // In this order: what is printed before the end is read after it was seen.
            let ended = fs::read_to_string(file("status")).ok();
            shown += copy_from(&file("out"), shown, out)?;
            if let Some(status) = ended {
                return status
                    .trim()
                    .parse()
                    .map_err(|_| io::Error::other(format!("an exit status {status:?}")));
            }
            if self.emulator.try_wait()?.is_some() || begun.elapsed() > at_most {
                let console = fs::read(self.exchange.path().join("console")).unwrap_or_default();
                let end =
                    String::from_utf8_lossy(&console[console.len().saturating_sub(4000)..]).into_owned();
                return Err(io::Error::other(format!(
                    "the machine does not run; its console ends so:\n{end}"
                )));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

/// Copies what is in a file from there on; gives how much that was.
fn copy_from(path: &Path, from: u64, out: &mut dyn Write) -> io::Result<u64> {
    let mut file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    file.seek(io::SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    out.write_all(&bytes)?;
    Ok(bytes.len() as u64)
}
