//! What is allowed here, what is missing, and how to get it.

use super::stage::{PLAN, STAGE};
use super::{EnterOptions, Entry, Plan, namespaces};
use crate::linux::bed::Mode;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// How the bed can be made.
pub(super) enum Choice {
    Here(Mode),
    /// By running the present program as root.
    Sudo,
}

/// A range of subordinate ids.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) count: u32,
}

/// What a user namespace must hold so that the bed's users and groups have ids, `nobody` included.
const NEEDED_IDS: u32 = 65536;

/// The first mode that is possible, after installing what is missing where that is allowed.
pub(super) fn choose(options: &EnterOptions) -> io::Result<Choice> {
    let root = rustix::process::geteuid().is_root();
    if options.install {
        install(root);
    }
    if let Some(mode) = options.mode {
        return match mode {
            Mode::Container => Ok(Choice::Here(mode)),
            _ => namespaces::possible(mode).map(|()| Choice::Here(mode)).map_err(io::Error::other),
        };
    }
    if root {
        return match namespaces::possible(Mode::Namespaces) {
            Ok(()) => Ok(Choice::Here(Mode::Namespaces)),
            Err(why) if is_throw_away() => {
                eprintln!("testbed: no namespaces here ({why}): using the container's own account files");
                Ok(Choice::Here(Mode::Container))
            }
            Err(why) => Err(io::Error::other(format!(
                "root can make no namespaces here ({why}), and nothing says that this is a container, whose own account \
                 files could be used, with users whose passwords everybody knows; if it is one, or a machine that only \
                 runs tests:\n\n    container=yes cargo xtask ..\n"
            ))),
        };
    }
    let why = match subordinate_ranges().map_err(|error| error.to_string()) {
        Ok(_) => match namespaces::possible(Mode::UserNamespace) {
            Ok(()) => return Ok(Choice::Here(Mode::UserNamespace)),
            Err(why) => why,
        },
        Err(why) => why,
    };
    if quiet("sudo", &["-n", "true"]) {
        eprintln!("testbed: no user namespace here ({why}): going through sudo");
        return Ok(Choice::Sudo);
    }
    Err(io::Error::other(format!(
        "the testbed needs root, sudo, or a user namespace with subordinate ids, and there is none of them: {why}\n\
         run it as root (sudo -E env PATH=\"$PATH\" cargo xtask ..), or allow user namespaces for this user:\n\
         \n    {}\n",
        missing_commands()
    )))
}

/// Whether nobody's real accounts are at stake: managers of containers leave such a mark, and so do those who run tests.
fn is_throw_away() -> bool {
    let named = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    ["container", "KUBERNETES_SERVICE_HOST", "CI"].iter().any(named)
        || ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"]
            .map(Path::new)
            .iter()
            .any(|mark| mark.exists())
}

/// The commands that make a user namespace possible, those that are needed here.
fn missing_commands() -> String {
    let mut commands = Vec::new();
    if !on_path("newuidmap") {
        commands.push("sudo apt-get install uidmap".to_owned());
    }
    if subordinate_range("/etc/subuid").is_none() || subordinate_range("/etc/subgid").is_none() {
        commands.push(format!(
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}",
            own_name().unwrap_or_else(|| "$USER".to_owned())
        ));
    }
    let restricted =
        |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if restricted("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        commands.push("sudo sysctl kernel.unprivileged_userns_clone=1".to_owned());
    }
    if restricted("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        commands.push("sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0".to_owned());
    }
    if commands.is_empty() {
        commands.push("sudo -E env PATH=\"$PATH\" cargo xtask ..".to_owned());
    }
    commands.join("\n    ")
}

/// The user's subordinate uids and gids.
pub(super) fn subordinate_ranges() -> io::Result<(Range, Range)> {
    if !on_path("newuidmap") || !on_path("newgidmap") {
        return Err(io::Error::other("newuidmap and newgidmap are not installed"));
    }
    match (subordinate_range("/etc/subuid"), subordinate_range("/etc/subgid")) {
        (Some(uids), Some(gids)) => Ok((uids, gids)),
        _ => Err(io::Error::other(format!(
            "this user has not {NEEDED_IDS} subordinate ids in /etc/subuid and /etc/subgid"
        ))),
    }
}

fn subordinate_range(file: &str) -> Option<Range> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let name = own_name();
    fs::read_to_string(file).ok()?.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [owner, first, count] = fields[..] else { return None };
        if owner != uid && Some(owner) != name.as_deref() {
            return None;
        }
        let range = Range { first: first.parse().ok()?, count: count.parse().ok()? };
        (range.count >= NEEDED_IDS).then_some(range)
    })
}

fn own_name() -> Option<String> {
    let uid = rustix::process::getuid().as_raw().to_string();
    fs::read_to_string("/etc/passwd").ok()?.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2) == Some(&uid.as_str())).then(|| fields[0].to_owned())
    })
}

pub(super) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(usual).any(|directory| directory.join(program).is_file())
}

fn quiet(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What goes on through sudo, which passes nothing by itself.
const PASSED_ON: &[&str] =
    &["PATH", "CARGO", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR", "RUST_BACKTRACE", "TERM"];

/// Runs the present program as root, in a bed that root makes. Nothing is built as root: the programs are ready.
pub(super) fn through_sudo(options: &EnterOptions, arguments: &[OsString]) -> io::Result<Entry> {
    let plan = Plan { mode: Mode::Namespaces, programs: options.programs.clone(), cgroup: None };
    let mut command = Command::new("sudo");
    command.args([
        "-n",
        "--",
        "env",
        &format!("{STAGE}=enter"),
        &format!("{PLAN}={}", serde_json::to_string(&plan)?),
    ]);
    for (name, value) in PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))) {
        let mut variable = OsString::from(format!("{name}="));
        variable.push(value);
        command.arg(variable);
    }
    let status = command.arg(own_path()?).args(arguments).status()?;
    Ok(Entry::Left { status: super::stage::status_number(status), left_behind: Vec::new() })
}

/// Where the present program lies; cargo may have put a new one in its place meanwhile.
fn own_path() -> io::Result<OsString> {
    let path = std::env::current_exe()?.into_os_string().into_string();
    Ok(path.map_or_else(|path| path, |path| path.trim_end_matches(" (deleted)").into()))
}

/// Whether a PAM module is installed.
fn has_pam_module(name: &str) -> bool {
    let fixed = ["/lib/security", "/lib64/security", "/usr/lib/security", "/usr/lib64/security"];
    let multiarch = fs::read_dir("/usr/lib").into_iter().flatten().filter_map(Result::ok);
    fixed
        .map(std::path::PathBuf::from)
        .into_iter()
        .chain(multiarch.map(|entry| entry.path().join("security")))
        .any(|directory| directory.join(name).is_file())
}

/// Installs packages that are missing, where apt and the right to use it are there; says so.
fn install(root: bool) {
    let mut packages = Vec::new();
    if !has_pam_module("pam_unix.so") || !has_pam_module("pam_debug.so") {
        packages.push("libpam-modules");
    }
    for (program, package) in [("setpriv", "util-linux"), ("runuser", "util-linux"), ("setfacl", "acl")] {
        if !on_path(program) {
            packages.push(package);
        }
    }
    if !root && !on_path("newuidmap") {
        packages.push("uidmap");
    }
    packages.dedup();
    if packages.is_empty() || !on_path("apt-get") {
        return;
    }
    let list = packages.join(" ");
    let (program, before): (&str, &[&str]) =
        if root { ("apt-get", &[]) } else { ("sudo", &["-n", "apt-get"]) };
    if !root && !quiet("sudo", &["-n", "true"]) {
        eprintln!("testbed: missing packages: sudo apt-get install {list}");
        return;
    }
    eprintln!("testbed: installing {list}");
    let run = |arguments: &[&str]| {
        Command::new(program)
            .args(before)
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let install: Vec<&str> =
        ["install", "-y", "--no-install-recommends"].into_iter().chain(packages.iter().copied()).collect();
    if !(run(&install) || run(&["update"]) && run(&install)) {
        eprintln!("testbed: could not install {list}; going on without");
    }
}
