//! On what was measured: without it figures say nothing.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

/// Programs that are measured beside ours, and the Debian package that each comes in.
pub(crate) const PEERS: [(&str, &str); 9] = [
    ("python3", "python3"),
    ("setpriv", "util-linux"),
    ("runuser", "util-linux"),
    ("su", "util-linux"),
    ("sudo", "sudo"),
    ("doas", "opendoas"),
    ("chpst", "runit"),
    ("s6-setuidgid", "s6"),
    ("gosu", "gosu"),
];

/// Kernel, processor, memory, load, date and the peers' versions.
pub(crate) fn facts() -> Value {
    let versions: Map<String, Value> =
        PEERS.iter().map(|(name, package)| ((*name).to_owned(), json!(version(name, package)))).collect();
    json!({
        "kernel": line("/proc/sys/kernel/osrelease"),
        "architecture": std::env::consts::ARCH,
        "system": field("/etc/os-release", "PRETTY_NAME=").map(|name| name.trim_matches('"').to_owned()),
        "processor": field("/proc/cpuinfo", "model name").map(|name| name.trim_matches([' ', '\t', ':']).to_owned()),
        "virtual": field("/proc/cpuinfo", "flags").is_some_and(|flags| flags.contains(" hypervisor")),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field("/proc/meminfo", "MemTotal:").map(|size| size.trim().to_owned()),
        "huge_pages": line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load": load(),
        "date": said(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])),
        "stead": env!("CARGO_PKG_VERSION"),
        "peers": versions,
    })
}

/// The load averages.
pub(crate) fn load() -> Option<String> {
    let text = line("/proc/loadavg")?;
    Some(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// Where a program is that is measured beside ours; the system's own rather than a user's.
pub(crate) fn find(name: &str) -> Option<std::path::PathBuf> {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/sbin"]
        .iter()
        .map(|folder| std::path::Path::new(folder).join(name))
        .find(|path| path.is_file())
}

/// The package's version, or what the program says; none where it is not installed.
fn version(name: &str, package: &str) -> Option<String> {
    let path = find(name)?;
    said(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", package]))
        .or_else(|| said(Command::new(path).arg("--version")))
        .or_else(|| Some("unknown".to_owned()))
}

/// The first line that a command prints, if it ends well.
fn said(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn field(path: &str, name: &str) -> Option<String> {
    fs::read_to_string(path).ok()?.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}
