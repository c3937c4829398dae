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

use super::succeed;
use crate::machine::{Machine, Release};

const RELEASE: &str = "bookworm";
/// What a Debian has that people log on to; what the package depends on is among it.
const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,libpam-systemd,libpam-modules,libpam-runtime,procps,logrotate";
/// How long systemd may take to start.
const PATIENCE: Duration = Duration::from_secs(180);
const BOOT: &str = include_str!("boot.sh");
/// What the scripts use. (`! command` ends no script.)
const WORDS: &str = r#"
fails() { if "$@"; then return 1; fi; }
until_gone() { for i in $(seq 300); do kill -0 $1 2>/dev/null || return 0; sleep 0.1; done; return 1; }
"#;

/// After so many steps the package is installed and tried, and nothing else was done to it.
const INSTALLED: usize = 6;
/// Where the kernel has cgroup controllers: what all clients together may use, and the service not with them. A systemd that
/// does not know `DelegateSubgroup=` (before 254) starts the service in the unit's own group, where no process may be once
/// controllers are turned on for what is below it.
const CONTROLLERS: &[(&str, &str)] = &[
    (
        "a limit of the unit's bounds the clients and the service together",
        r#"systemctl set-property --runtime stead.service MemoryMax=400M
           test "$(cat /sys/fs/cgroup/system.slice/stead.service/memory.max)" = 419430400
           fails stead run --as alice --s4u --logon batch -- sh -c 'head -c 800M /dev/zero | tail > /dev/null; test $? = 0'
           systemctl is-active stead.service
           stead run --as alice --s4u --logon batch -- true
           systemctl set-property --runtime stead.service MemoryMax=infinity"#,
    ),
    (
        "from systemd 254 on, controllers for the clients alone can be turned on, and a restart is none the worse",
        r#"test "$(systemctl --version | sed -n '1s/systemd \([0-9]*\).*//p')" -ge 254 || exit 0
           group=/sys/fs/cgroup/system.slice/stead.service
           echo '+memory +pids' > $group/cgroup.subtree_control
           echo 100M > $group/clients/memory.max
           echo 20 > $group/clients/pids.max
           fails stead run --as alice --s4u --logon batch -- sh -c 'head -c 300M /dev/zero | tail > /dev/null; test $? = 0'
           fails stead run --as alice --s4u --logon batch -- sh -c 'for i in $(seq 40); do sleep 30 & done'
           runuser -u alice -- stead run -- sleep 4321 > /dev/null &
           until process=$(pgrep -f '^sleep 4321'); do sleep 0.1; done
           systemctl restart stead
           grep -x 0::/system.slice/stead.service/service /proc/$(systemctl show -p MainPID --value stead)/cgroup
           test "$(cat $group/clients/memory.max)" = 104857600
           stead kill $process
           stead run --as alice --s4u --logon batch -- true
           echo '-memory -pids' > $group/cgroup.subtree_control"#,
    ),
];

/// What is done in it, one after the other: what is shown, and a script that fails where it does not hold.
const STEPS: &[(&str, &str)] = &[
    ("the package is installed", "useradd -m alice; dpkg -i /stead.deb"),
    (
        "users, folders and PAM services are there",
        r#"getent group stead-audit
           test "$(stat -c '%a %U %G' /run/stead)" = '755 root root'
           test "$(stat -c '%a %U %G' /var/log/stead)" = '2750 root stead-audit'
           for service in interactive network batch service; do test -s /etc/pam.d/stead-$service; done
           stead policy check
           systemctl is-enabled stead.socket stead.service
           systemctl is-active stead.socket stead.service"#,
    ),
    (
        "the service is started by a connection, and says when it is ready",
        r#"systemctl stop stead.service
           test "$(runuser -u alice -- stead run -- id -un)" = alice
           systemctl is-active stead.service
           test "$(systemctl show -p Type --value stead)" = notify
           test "$(systemctl show -p WatchdogUSec --value stead)" = 1min"#,
    ),
    (
        "a process is in a group of its own below the unit's",
        r#"stead run --as alice --s4u --logon batch -- cat /proc/self/cgroup | grep -x '0::/system.slice/stead.service/clients/[0-9a-f]*'
           runuser -u alice -- stead run -- cat /proc/self/cgroup | grep -x '0::/system.slice/stead.service/clients/[0-9a-f]*'
           grep -x 0::/system.slice/stead.service/service /proc/$(systemctl show -p MainPID --value stead)/cgroup
           test -z "$(ls -d /sys/fs/cgroup/system.slice/stead.service/clients/*/ 2>/dev/null)""#,
    ),
    (
        "a logon at a terminal is a session of logind, in a scope of its own",
        "stead run --as alice --s4u --logon interactive -- cat /proc/self/cgroup | grep -x '0::/user.slice/user-[0-9]*.slice/session-.*.scope'",
    ),
    ("nothing is missing", "stead doctor"),
    (
        "processes live on over a restart, and are known, daemons and all",
        r#"runuser -u alice -- stead run -- sh -c 'setsid -f sleep 1234; exec sleep 4321' > /dev/null &
           until daemon=$(pgrep -f '^sleep 1234'); do sleep 0.1; done
           process=$(pgrep -f '^sleep 4321')
           before=$(systemctl show -p MainPID --value stead)
           systemctl restart stead
           test "$before" != "$(systemctl show -p MainPID --value stead)"
           kill -0 $daemon $process
           stead ps | grep "$process "
           stead kill --tree $process
           until_gone $daemon
           until_gone $process"#,
    ),
    (
        "a reload takes a new policy",
        r#"printf '[[deny]]\nclients = { users = ["alice"] }\nprivileges = ["tcb"]\n' > /etc/stead/policy.d/try.toml
           systemctl reload stead
           fails stead run --as alice --s4u --logon batch -- true
           rm /etc/stead/policy.d/try.toml
           systemctl reload stead
           stead run --as alice --s4u --logon batch -- true"#,
    ),
    (
        "a service that hangs is started anew by the watchdog",
        r"mkdir -p /run/systemd/system/stead.service.d
           printf '[Service]\nWatchdogSec=5\n' > /run/systemd/system/stead.service.d/try.conf
           systemctl daemon-reload
           systemctl restart stead
           before=$(systemctl show -p MainPID --value stead)
           kill -STOP $before
           until after=$(systemctl show -p MainPID --value stead); test $after != $before -a $after != 0; do sleep 0.2; done
           stead run --as alice --s4u --logon batch -- true
           rm -r /run/systemd/system/stead.service.d
           systemctl daemon-reload
           systemctl restart stead",
    ),
    (
        "the log is rotated",
        r#"test "$(stat -c '%a %U %G' /var/log/stead/audit.jsonl)" = '640 root stead-audit'
           logrotate --force /etc/logrotate.d/stead
           stead run --as alice --s4u --logon batch -- true
           until grep -q process-end /var/log/stead/audit.jsonl; do sleep 0.1; done"#,
    ),
    (
        "an upgrade leaves processes and what was configured alone",
        r#"echo '# mine' >> /etc/stead/policy.toml
           runuser -u alice -- stead run -- sleep 4321 > /dev/null &
           until process=$(pgrep -f '^sleep 4321'); do sleep 0.1; done
           before=$(systemctl show -p MainPID --value stead)
           dpkg --force-confold -i /stead.deb
           tail -n 1 /etc/stead/policy.toml | grep '# mine'
           test "$before" != "$(systemctl show -p MainPID --value stead)"
           stead ps | grep "$process "
           stead kill $process"#,
    ),
    (
        "a removed package leaves its configuration and its counter of logon gids",
        r"stead run --as alice --s4u --logon batch -- true
           dpkg -r stead
           fails systemctl is-active stead.socket
           fails systemctl is-active stead.service
           test -e /etc/stead/policy.toml -a -d /var/lib/stead -a ! -e /usr/bin/stead",
    ),
    (
        "a purged one leaves the counter and the audit log, and can be installed again",
        r"dpkg --purge stead
           test ! -e /etc/stead/policy.toml -a ! -e /etc/pam.d/stead-batch -a -d /var/lib/stead -a -d /var/log/stead
           dpkg -i /stead.deb
           stead run --as alice --s4u --logon batch -- true
           dpkg --purge stead",
    ),
];

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
            // Of the policy of limits for all clients together, which takes controllers.
            try_all(&mut machine, STEPS.iter().take(INSTALLED).chain(CONTROLLERS).chain(&STEPS[INSTALLED..]))
        }
    }
}

impl Debian for Machine {
    fn script(&mut self, script: &str) -> io::Result<(bool, Vec<u8>)> {
        let mut said = Vec::new();
        let properties = IN_A_SERVICE.join(" ");
        // Every instruction is translated, and takes ten times as long.
        let script = format!(
            "cat > /run/step <<'END OF THE STEP'\n{WORDS}{script}\nEND OF THE STEP\n\
             exec {properties} --property=RuntimeMaxSec={} bash -xe /run/step\n",
            AT_MOST * 10
        );
        let status = self.run(&script, &mut said)?;
        Ok((status == 0, said))
    }
}

fn in_namespaces(package: &Path) -> io::Result<u8> {
    let folder = Folder(std::env::temp_dir().join(format!("stead-try-{}", std::process::id())));
    fs::create_dir(&folder.0)?;
    let root = folder.0.join("root");
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
        let (well, said) = debian.script(script)?;
        println!("{:>6}  {holds}", if well { "ok" } else { "FAILED" });
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

/// Removed with all in it, once nothing is mounted there any more.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
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
        let child = Command::new("sh")
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
