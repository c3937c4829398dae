//! What the kernel gives, and what confines the one who creates processes.

use std::fs;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use rustix::process::PidfdFlags;

use super::service::Seen;
use super::{Area, Finding};

/// docs/linux.md has the whole table.
const FLOOR: (u32, u32) = (5, 9);
const PEER_PIDFD: (u32, u32) = (6, 5);
const EXIT_INFO: (u32, u32) = (6, 15);

const TRAMPOLINES: [&str; 2] = ["/usr/libexec/stead/stead-trampoline", "/usr/lib/stead/stead-trampoline"];

pub fn area(service: &Seen) -> Area {
    let (whose, pid) = match service.pid() {
        Some(pid) => ("the service", pid.to_string()),
        None => ("this process", "self".to_owned()),
    };
    let mut findings = vec![version(), pidfd(), user_namespace(), process_table(), trampoline()];
    findings.extend(confinement(whose, &pid));
    findings.push(cgroup(whose, &pid));
    Area { name: "Kernel", findings }
}

fn version() -> Finding {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|one: char| !one.is_ascii_digit()).map(|text| text.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let what = "kernel";
    if version < FLOOR {
        return Finding::missing(what, format!("{release} is too old")).mend("it takes Linux 5.9 or newer");
    }
    if version < PEER_PIDFD {
        let found = format!("{release}: how a client is confined cannot be known (SO_PEERPIDFD, Linux 6.5)");
        let how =
            "Linux 6.5; until then the service serves only whom a rule names, and takes no clients' sockets";
        return Finding::note(what, found).mend(how);
    }
    if version < EXIT_INFO {
        let found = format!("{release}: the exit status of what others reaped is lost (Linux 6.15 keeps it)");
        return Finding::note(what, found);
    }
    Finding::good(what, release)
}

fn pidfd() -> Finding {
    match rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()) {
        Ok(_) => Finding::good("pidfds", "there are"),
        Err(Errno::NOSYS | Errno::PERM) => Finding::missing("pidfds", "a filter denies pidfd_open")
            .mend("allow the system calls of docs/linux.md"),
        Err(errno) => Finding::missing("pidfds", errno.to_string()),
    }
}

fn user_namespace() -> Finding {
    // `PROC_USER_INIT_INO` (include/linux/proc_ns.h).
    let initial =
        fs::read_link("/proc/self/ns/user").is_ok_and(|link| link.as_os_str() == "user:[4026531837]");
    if initial {
        return Finding::good("user namespace", "the initial one");
    }
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let ids: u64 = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    if ids < 2 {
        return Finding::missing("user namespace", "it has no other user")
            .mend("give the user subordinate ids (/etc/subuid), or run it outside");
    }
    Finding::note(
        "user namespace",
        format!("not the initial one: {ids} ids, and no limits above the present ones"),
    )
}

/// `hidepid=` keeps one user's processes from another, and from a server that has not CAP_SYS_PTRACE.
fn process_table() -> Finding {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let proc = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some("/proc"));
    let hidden = proc.and_then(|line| line.split(' ').nth(3)).and_then(|options| {
        options.split(',').find_map(|option| option.strip_prefix("hidepid=")).map(str::to_owned)
    });
    match (proc, hidden.as_deref()) {
        (None, _) => Finding::missing("/proc", "it is not mounted").mend("mount -t proc proc /proc"),
        (_, None | Some("0" | "off")) => Finding::good("/proc", "shows all processes"),
        (_, Some(how)) => {
            Finding::note("/proc", format!("hidepid={how}: clients are seen with CAP_SYS_PTRACE only"))
        }
    }
}

fn trampoline() -> Finding {
    if let Some(path) = TRAMPOLINES.iter().find(|path| fs::metadata(path).is_ok()) {
        return Finding::good("trampoline", (*path).to_owned());
    }
    let denied = fs::read_to_string("/proc/sys/vm/memfd_noexec").is_ok_and(|text| text.trim() == "2");
    if denied {
        return Finding::missing("trampoline", "vm.memfd_noexec=2 keeps it from being executed from memory")
            .mend(
                "install stead-trampoline in /usr/libexec/stead, owned by root, or set vm.memfd_noexec to 1",
            );
    }
    Finding::good("trampoline", "from memory")
}

/// What every process of every client would inherit.
fn confinement(whose: &str, pid: &str) -> Vec<Finding> {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return vec![Finding::note("confinement", format!("that of {whose} cannot be read"))];
    };
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    let mut findings = Vec::new();
    if value("NoNewPrivs") == "1" {
        let found = format!("{whose} has it: in every process that it creates sudo and ping would not work");
        let how = "take NoNewPrivileges= and what implies it (docs/linux.md) out of the unit";
        findings.push(Finding::missing("no_new_privs", found).mend(how));
    }
    if value("Seccomp") != "0" {
        let found = format!("a filter confines {whose}, and every process that it creates");
        findings
            .push(Finding::note("seccomp", found).mend("outside of a container: take it out of the unit"));
    }
    let bounding = u64::from_str_radix(&value("CapBnd"), 16).unwrap_or(u64::MAX);
    let lacking: Vec<String> = lacking(bounding);
    if !lacking.is_empty() {
        let found = format!("that of {whose} lacks {}: so will every process's", lacking.join(", "));
        findings
            .push(Finding::note("bounding set", found).mend("take CapabilityBoundingSet= out of the unit"));
    }
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap_or_default();
    let effective = u64::from_str_radix(&value("CapEff"), 16).unwrap_or(u64::MAX);
    findings.extend(protection(whose, score.trim().parse().unwrap_or(0), effective));
    let mount = |of: &str| fs::read_link(format!("/proc/{of}/ns/mnt")).ok();
    if let (Some(own), Some(first)) = (mount(pid), mount("1"))
        && own != first
    {
        let found = format!("{whose} is in a mount namespace of its own: so will every process be");
        let how = "take Private*=, Protect*= and the like out of the unit, unless this is a container";
        findings.push(Finding::note("mount namespace", found).mend(how));
    }
    if findings.is_empty() {
        findings.push(Finding::good("confinement", format!("nothing confines {whose}")));
    }
    findings
}

/// Who protects itself when memory runs out, and cannot keep its processes from doing the same, creates none.
fn protection(whose: &str, score: i32, effective: u64) -> Option<Finding> {
    let may_bind = effective >> (stead::os::linux::Capability::SysResource as u32) & 1 != 0;
    if score >= 0 || may_bind {
        return None;
    }
    let found = format!(
        "that of {whose} is {score}, and without CAP_SYS_RESOURCE its processes could choose it, too: it can create none"
    );
    let how = "take OOMScoreAdjust= out of the unit, or allow it CAP_SYS_RESOURCE";
    Some(Finding::missing("out-of-memory score", found).mend(how))
}

fn lacking(bounding: u64) -> Vec<String> {
    let last =
        fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|text| text.trim().parse().ok());
    let known = stead::os::linux::Capability::ALL;
    (0..=last.unwrap_or(40_u32))
        .filter(|number| bounding & (1 << number) == 0)
        .map(|number| {
            let name = known.iter().find(|one| **one as u32 == number).map(|one| one.name());
            name.map_or_else(|| format!("capability {number}"), str::to_owned)
        })
        .collect()
}

fn cgroup(whose: &str, pid: &str) -> Finding {
    let what = "control group";
    let unlimited = "trees are held together by the session worker, or by POSIX sessions";
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Finding::note(what, format!("there are none of version 2: {unlimited}"));
    };
    // With DelegateSubgroup= the delegated one is the parent of that in which the service is.
    let own = format!("/sys/fs/cgroup{path}");
    let delegated = [own.as_str(), own.rsplit_once('/').map_or("", |(parent, _)| parent)]
        .into_iter()
        .find(|path| path.len() > "/sys/fs/cgroup".len() && is_delegated(path))
        .map(str::to_owned);
    match delegated {
        Some(path) => Finding::good(what, format!("{path} can be given to processes")),
        None => Finding::note(what, format!("none is delegated to {whose}: {unlimited}"))
            .mend("Delegate=yes and DelegateSubgroup= in the unit"),
    }
}

/// systemd marks what it has delegated; what else can be written is as good.
fn is_delegated(path: &str) -> bool {
    let may_write =
        |file: &str| accessat(CWD, format!("{path}/{file}"), Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    let root = rustix::process::geteuid().is_root();
    let mut value = [0u8; 8];
    let marked = ["trusted.delegate", "user.delegate"]
        .into_iter()
        .any(|name| matches!(rustix::fs::getxattr(path, name, &mut value[..]), Ok(1) if value[0] == b'1'));
    marked || (!root && may_write("cgroup.procs") && may_write("cgroup.subtree_control"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_protects_itself_and_cannot_bind_others_is_told() {
        const SYS_RESOURCE: u64 = 1 << 24;
        assert!(protection("the service", 0, 0).is_none());
        assert!(protection("the service", 500, 0).is_none());
        assert!(protection("the service", -900, SYS_RESOURCE).is_none());
        let told = protection("the service", -900, !SYS_RESOURCE).unwrap();
        assert!(told.found.starts_with("that of the service is -900"), "{}", told.found);
    }
}
