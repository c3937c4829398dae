//! A real logind for tests: systemd as the first process of namespaces of its own, with a bus and logind, and nothing
//! else.
//!
//! It has the few units that are written here and no others: a whole boot would empty /tmp, mount what fstab says and set
//! the kernel's variables, all of it the host's. And it could not: what is not the machine's own is read-only in it.

use crate::linux::bed::{Bed, ROOT};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(90);
const SYSTEMD: &str = "/lib/systemd/systemd";

/// Run by a shell in namespaces of their own, as their first process. An empty /run in which the bed lies too, empty
/// directories for temporary files, everything else read-only; a cgroup file system that shows our own group as its root.
const BOOT: &str = r#"
set -e
mount -n --make-rprivate /
mount -n -t tmpfs -o mode=755 tmpfs /mnt
mkdir -p "/mnt${0#/run}" /mnt/lock /mnt/stead-units
mount -n --rbind "$0" "/mnt${0#/run}"
mount -n --move /mnt /run
mount -n -o remount,bind,ro /
mount -n -t tmpfs -o mode=1777 tmpfs /tmp
mount -n -t tmpfs -o mode=1777 tmpfs /var/tmp
mount -n -t proc proc /proc
mount -n --bind /proc/sys /proc/sys
mount -n -o remount,bind,ro /proc/sys
umount -n -R -l /sys/fs/cgroup 2>/dev/null || true
mount -n -o remount,bind,ro /sys
mount -n -t cgroup2 cgroup2 /sys/fs/cgroup
if touch /stead-testbed-must-not-be-able-to 2>/dev/null; then exit 1; fi
unit() { { echo '[Unit]'; echo 'DefaultDependencies=no'; cat; } > "/run/stead-units/$1"; }
unit stead-logind.target <<UNIT
Requires=dbus.socket dbus.service systemd-logind.service
UNIT
unit dbus.socket <<UNIT
[Socket]
ListenStream=/run/dbus/system_bus_socket
UNIT
unit dbus.service <<UNIT
Requires=dbus.socket
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only
UNIT
unit systemd-logind.service <<UNIT
Requires=dbus.socket
After=dbus.service
[Service]
BusName=org.freedesktop.login1
ExecStart=/lib/systemd/systemd-logind
RuntimeDirectory=systemd/sessions systemd/seats systemd/users systemd/inhibit systemd/shutdown
RuntimeDirectoryPreserve=yes
UNIT
unit user-runtime-dir@.service <<UNIT
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/lib/systemd/systemd-user-runtime-dir start %i
ExecStop=/lib/systemd/systemd-user-runtime-dir stop %i
UNIT
unit user@.service <<UNIT
Requires=user-runtime-dir@%i.service
After=user-runtime-dir@%i.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
UNIT
export SYSTEMD_UNIT_PATH=/run/stead-units SYSTEMD_GENERATOR_PATH=/run/none container=stead
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec /lib/systemd/systemd --system --unit=stead-logind.target --log-target=console --log-level=notice --show-status=0
"#;

/// Systemd, a bus and logind, until it is dropped.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    /// Systemd, as this PID namespace knows it.
    first: i32,
    cgroup: PathBuf,
}

impl Machine {
    /// Starts it, and waits until logind has looked at its seats; or says what keeps it from being started here.
    ///
    /// # Errors
    ///
    /// The reason for a skipped test.
    pub fn start(bed: &Bed) -> Result<Self, String> {
        for (path, package) in [
            (SYSTEMD, "systemd"),
            ("/lib/systemd/systemd-logind", "systemd"),
            ("/usr/bin/dbus-daemon", "dbus"),
        ] {
            if !Path::new(path).exists() {
                return Err(format!("needs {path} (apt-get install {package})"));
            }
        }
        let (cgroup, _) = bed.cgroup("logind").ok_or("needs a cgroup (version 2) that it may write")?;
        let log = Path::new(ROOT).join("log").join(format!("logind-{}.log", std::process::id()));
        Self::boot(cgroup, &log).map_err(|error| error.to_string())
    }

    fn boot(cgroup: PathBuf, log: &Path) -> io::Result<Self> {
        let output = fs::File::create(log)?;
        let child = Command::new("sh")
            .args([
                "-c",
                "echo $$ > \"$1/cgroup.procs\" && exec unshare -mpfCui --kill-child sh -c \"$2\" \"$3\"",
                "sh",
            ])
            .arg(&cgroup)
            .args([BOOT, ROOT])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let mut machine = Self { child, first: 0, cgroup };
        let end = Instant::now() + PATIENCE;
        loop {
            let children = format!("/proc/{0}/task/{0}/children", machine.child.id());
            let children = fs::read_to_string(children).unwrap_or_default();
            machine.first =
                children.split_ascii_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
            let there = |path: &str| Path::new(&format!("/proc/{}/root{path}", machine.first)).exists();
            if machine.first != 0 && there("/run/systemd/seats/seat0") && there("/run/dbus/system_bus_socket")
            {
                return Ok(machine);
            }
            if machine.child.try_wait()?.is_some() || Instant::now() > end {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(io::Error::other(format!(
                    "systemd and logind do not start here: {}",
                    said.trim()
                )));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// A command that runs inside, as root, in a cgroup of its own.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "mkdir -p \"$1/stead-test\" && echo $$ > \"$1/stead-test/cgroup.procs\" && first=$2 && shift 2 && \
                 exec nsenter -t \"$first\" -m -p -C -u -i -- \"$@\"",
                "sh",
            ])
            .arg(&self.cgroup)
            .arg(self.first.to_string())
            .arg(program);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        end_cgroup(&self.cgroup, &mut self.child);
    }
}

/// Ends a machine that was made to be thrown away: its first process, and all that its cgroup holds, which is removed.
pub fn end_cgroup(cgroup: &Path, child: &mut Child) {
    // All at once, whatever has left the namespaces' first process.
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    let _ = child.kill();
    let _ = child.wait();
    let end = Instant::now() + Duration::from_secs(10);
    while remove(cgroup).is_err() && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
}

/// Removes a cgroup and all below it.
fn remove(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
